// compile_plan(): that the data says what the profile's functions compute, and who gets markers.
#include "ptwalk/plan.hpp"

#include <doctest/doctest.h>

#include <random>

#include "ptwalk/kernels.hpp"
#include "ptwalk/userfaultfd.hpp"

using namespace ptwalk;

namespace {

Vma make_vma(VmaKind kind, u64 flags) {
  Vma vma;
  vma.kind = kind;
  vma.flags = flags;
  return vma;
}

LeafPlan plan_of(std::string_view profile, const Vma& vma, u32 cp_flags, u64 features = 0) {
  return compile_plan(*find_profile(profile), vma, 0x8000000000000025, cp_flags, features, 2);
}

}  // namespace

TEST_CASE("the masks of a plan are the profile's modify, at every level") {
  std::mt19937_64 random(1);
  const Vma vma = make_vma(VmaKind::anon, VM_READ);
  for (const Profile& profile : profiles()) {
    for (u64 newprot : {0x120ull, 0x25ull, 0x8000000000000027ull, 0xa800000000000025ull}) {
      const LeafPlan plan = compile_plan(profile, vma, newprot, 0, 0, 2);
      for (Level level = PTE_LEVEL; level <= PUD_LEVEL; ++level) {
        for (int i = 0; i < 500; ++i) {
          const u64 word = random();
          CAPTURE(profile.name);
          CAPTURE(word);
          REQUIRE(change_present(plan, word, level) == profile.leaf_modify(word, newprot, level));
        }
      }
    }
  }
}

TEST_CASE("wr-protect and resolve are the profile's mkuffd_wp and a cleared bit") {
  std::mt19937_64 random(2);
  const Vma vma = make_vma(VmaKind::shmem, VM_READ | VM_SHARED | VM_UFFD_WP);
  for (const Profile& profile : profiles()) {
    const u64 newprot = 0x8000000000000027;
    const LeafPlan arm = compile_plan(profile, vma, newprot, MM_CP_UFFD_WP, 0, 2);
    const LeafPlan resolve = compile_plan(profile, vma, newprot, MM_CP_UFFD_WP_RESOLVE, 0, 2);
    for (int i = 0; i < 500; ++i) {
      const u64 word = random() | _PAGE_PRESENT;
      const u64 modified = profile.leaf_modify(word, newprot, PTE_LEVEL);
      CAPTURE(profile.name);
      CAPTURE(word);
      REQUIRE(change_present(arm, word, PTE_LEVEL) == profile.pte_mkuffd_wp(modified));
      REQUIRE(change_present(resolve, word, PTE_LEVEL) == (modified & ~_PAGE_UFFD_WP));
    }
  }
}

TEST_CASE("which none entries take a marker, by kernel, VMA and userfaultfd features") {
  const Vma anon = make_vma(VmaKind::anon, VM_READ);
  const Vma anon_wp = make_vma(VmaKind::anon, VM_READ | VM_UFFD_WP);
  const Vma file = make_vma(VmaKind::shmem, VM_READ | VM_SHARED);
  const Vma file_wp = make_vma(VmaKind::shmem, VM_READ | VM_SHARED | VM_UFFD_WP);
  constexpr u64 UNPOPULATED = UFFD_FEATURE_WP_UNPOPULATED;
  struct Row {
    const char* profile;
    bool anon, anon_wp, anon_unpopulated, file, file_wp;
  };
  const Row rows[] = {
      {"5.12", false, false, false, false, false},
      {"uffd-wp-v2-11", false, false, false, true, true},
      {"uffd-wp-v2", false, false, false, true, true},
      {"6.1", false, false, false, true, true},
      {"6.12", false, false, true, false, true},
      {"6.18", false, false, true, false, true},
  };
  for (const Row& row : rows) {
    CAPTURE(row.profile);
    const Profile& profile = *find_profile(row.profile);
    CHECK(wp_use_markers(profile, anon, UNPOPULATED) == row.anon);
    CHECK(wp_use_markers(profile, anon_wp, 0) == row.anon_wp);
    CHECK(wp_use_markers(profile, anon_wp, UNPOPULATED) == row.anon_unpopulated);
    CHECK(wp_use_markers(profile, file, 0) == row.file);
    CHECK(wp_use_markers(profile, file_wp, 0) == row.file_wp);
  }
}

TEST_CASE("only a wr-protect that uses markers populates tables") {
  const Vma anon = make_vma(VmaKind::anon, VM_READ | VM_UFFD_WP);
  const Vma file = make_vma(VmaKind::shmem, VM_READ | VM_SHARED | VM_UFFD_WP);
  CHECK(plan_of("uffd-wp-v2", file, MM_CP_UFFD_WP).populate == Populate::pmd_only);
  CHECK(plan_of("6.18", file, MM_CP_UFFD_WP).populate == Populate::every_level);
  CHECK(plan_of("6.18", anon, MM_CP_UFFD_WP).populate == Populate::never);
  for (u32 cp : {0u, MM_CP_PROT_NUMA, MM_CP_UFFD_WP_RESOLVE, MM_CP_TRY_CHANGE_WRITABLE}) {
    CAPTURE(cp);
    CHECK(plan_of("6.18", file, cp).populate == Populate::never);
    CHECK(plan_of("6.18", file, cp).none_becomes == 0);
  }
}

TEST_CASE("writable swap types become readable ones, and say what they carry over") {
  const Vma vma = make_vma(VmaKind::anon, VM_READ);
  const LeafPlan v2 = plan_of("uffd-wp-v2", vma, 0);
  CHECK(v2.swap[29].step == SwapStep::downgrade);  // migration write
  CHECK(v2.swap[29].type == 28);
  CHECK(v2.swap[29].type_anon == 28);  // no read-exclusive type yet
  CHECK(v2.swap[29].kept == (_PAGE_SWP_SOFT_DIRTY | _PAGE_SWP_UFFD_WP));
  CHECK(v2.swap[30].type == 31);  // device private: write is below read
  CHECK(v2.swap[30].kept == _PAGE_SWP_UFFD_WP);
  CHECK(v2.swap[27].step == SwapStep::keep);  // hwpoison

  Profile profile = *find_profile("6.12");
  set_config(profile, "DEVICE_PRIVATE", true);
  const LeafPlan v6_12 = compile_plan(profile, vma, 0x25, 0, 0, 2);
  CHECK(v6_12.swap[26].type == 24);  // migration write
  CHECK(v6_12.swap[26].type_anon == 25);
  CHECK(v6_12.swap[26].kept == _PAGE_SWP_SOFT_DIRTY);
  CHECK(v6_12.swap[29].type == 30);  // device exclusive write
  CHECK(v6_12.swap[29].kept == (_PAGE_SWP_SOFT_DIRTY | _PAGE_SWP_UFFD_WP));
  CHECK(v6_12.swap[31].step == SwapStep::marker);
}

TEST_CASE("who may upgrade: the write right is asked for from 6.1 on") {
  const Vma read_only = make_vma(VmaKind::anon, VM_READ);
  CHECK(plan_of("uffd-wp-v2", read_only, MM_CP_DIRTY_ACCT).upgrade.possible);
  CHECK_FALSE(plan_of("6.1", read_only, MM_CP_TRY_CHANGE_WRITABLE).upgrade.possible);
  const Vma writable = make_vma(VmaKind::anon, VM_READ | VM_WRITE);
  const Upgrade rule = plan_of("6.18", writable, MM_CP_TRY_CHANGE_WRITABLE).upgrade;
  CHECK(rule.possible);
  CHECK(rule.huge);
  CHECK(rule.needs_exclusive);
  CHECK(rule.dirty == 0);  // a clean exclusive page may be written at once
  CHECK(plan_of("6.1", writable, MM_CP_TRY_CHANGE_WRITABLE).upgrade.dirty == _PAGE_DIRTY);
  CHECK_FALSE(plan_of("6.1", writable, MM_CP_TRY_CHANGE_WRITABLE).upgrade.huge);
}
