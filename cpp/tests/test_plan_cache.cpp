// The plan cache: a request that was made before gets the plan that compiling it again would give.
#include "ptwalk/plan_cache.hpp"

#include <doctest/doctest.h>

#include <random>

#include "ptwalk/userfaultfd.hpp"

using namespace ptwalk;

TEST_CASE("a cached plan is the compiled one, whatever was asked for before") {
  constexpr u64 FLAGS[] = {VM_READ, VM_WRITE, VM_SHARED, VM_SOFTDIRTY, VM_UFFD_WP, VM_MIXEDMAP};
  constexpr u64 WORDS[] = {0x120, 0x25, 0x8000000000000025, 0x8000000000000027};
  constexpr u32 REQUESTS[] = {0, MM_CP_TRY_CHANGE_WRITABLE, MM_CP_PROT_NUMA, MM_CP_UFFD_WP,
                              MM_CP_UFFD_WP_RESOLVE};
  constexpr u64 FEATURES[] = {0, UFFD_FEATURE_WP_UNPOPULATED};
  std::mt19937_64 random(1);
  for (const Profile& profile : profiles()) {
    PlanCache cache(profile);
    for (int i = 0; i < 20000; ++i) {
      // From few requests, so that many are there already, and more than there is room for.
      Vma vma;
      vma.start = random() << PAGE_SHIFT;  // where a VMA lies, and its file, decide nothing
      vma.file = FileId(random() % 4);
      vma.kind = VmaKind(random() % 3);
      for (const u64 flag : FLAGS) vma.flags |= random() % 2 ? flag : 0;
      const u64 newprot = WORDS[random() % 4], features = FEATURES[random() % 2];
      const u32 cp_flags = REQUESTS[random() % 5], users = 1 + u32(random() % 2);
      for (int times = 0; times < 2; ++times) {
        CAPTURE(profile.name);
        REQUIRE(cache.get(vma, newprot, cp_flags, features, users) ==
                compile_plan(profile, vma, newprot, cp_flags, features, users));
      }
    }
  }
}

TEST_CASE("requests that differ in one thing have plans of their own") {
  const Profile& profile = *find_profile("6.18");
  PlanCache cache(profile);
  Vma vma;
  vma.flags = VM_READ | VM_WRITE;
  CHECK_FALSE(cache.get(vma, 0x25, MM_CP_PROT_NUMA, 0, 2).numa.on_target);
  CHECK(cache.get(vma, 0x25, MM_CP_PROT_NUMA, 0, 1).numa.on_target);
  vma.flags |= VM_UFFD_WP;
  CHECK(cache.get(vma, 0x25, MM_CP_UFFD_WP, 0, 1).none_becomes == 0);
  CHECK(cache.get(vma, 0x25, MM_CP_UFFD_WP, UFFD_FEATURE_WP_UNPOPULATED, 1).none_becomes != 0);
}
