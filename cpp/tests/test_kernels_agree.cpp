// Every kernel against scalar: same words, same counts, same flush, for every class of entry, every
// plan that a profile can compile, every alignment and length, page facts of every kind, and with
// whatever is known of a table from the last time.
#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "ptwalk/kernels.hpp"
#include "ptwalk/userfaultfd.hpp"
#include "walk_space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 SAVED_DIRTY = 1ull << 58, DEVMAP_BIT = 1ull << 57;
constexpr Pfn FACTS = 0x40000;  ///< first pfn of the pages with facts

using Random = std::mt19937_64;

bool equal(const SpanCounts& a, const SpanCounts& b) {
  return a.pages == b.pages && a.present == b.present && a.swap == b.swap &&
         a.none_to_marker == b.none_to_marker && a.marker_to_none == b.marker_to_none &&
         a.none_skipped == b.none_skipped && a.bad_page_map == b.bad_page_map &&
         a.flush_first == b.flush_first && a.flush_last == b.flush_last;
}

/// Applies a kernel and scalar to copies of `words` and compares all that can be seen. `facts`: of
/// a whole table, as LeafKernel has them.
bool agrees(const KernelInfo& kernel, const LeafPlan& plan, std::span<const u64> words,
            const PagePool& pages, LeafFacts* facts = nullptr) {
  constexpr u64 CANARY = 0x5a5a5a5a5a5a5a5a;
  std::vector<u64> want(words.begin(), words.end()), got = want;
  got.push_back(CANARY);
  const SpanCounts wanted = apply_scalar(plan, want, pages);
  const SpanCounts counted = kernel.apply(plan, std::span(got).first(words.size()), pages, facts);
  const auto differs = std::mismatch(want.begin(), want.end(), got.begin());
  if (facts && !facts_hold(*facts, want, plan.lanes.marker, pages)) {
    MESSAGE("facts: " << facts->present << " present " << facts->none << " none " << facts->marker
                      << " marker " << facts->armed << " armed, blocks " << int(facts->blocks)
                      << " from " << facts->first_frame());
    return false;
  }
  if (differs.first == want.end() && got.back() == CANARY && equal(wanted, counted)) return true;
  const auto at = std::size_t(differs.first - want.begin());
  if (at < words.size())
    MESSAGE("entry " << at << ": " << words[at] << " became " << *differs.second << ", scalar says "
                     << *differs.first);
  MESSAGE("pages " << counted.pages << "/" << wanted.pages << " swap " << counted.swap << "/"
                   << wanted.swap << " present " << counted.present << "/" << wanted.present
                   << " first " << counted.flush_first << "/" << wanted.flush_first << " last "
                   << counted.flush_last << "/" << wanted.flush_last);
  return false;
}

/// Pages in runs: exclusive, shared by fork, cache, without facts, and by turns.
void make_pages(PagePool& pages, u64 from, u64 nr, int pattern) {
  for (u64 i = 0; i < nr; ++i) {
    const bool anon = pattern < 2 || (pattern == 3 && i % 3 != 0);
    if (pattern == 4) return;
    pages.at(from + i).flags |= anon ? PG_anon : PG_dirty;
    pages.at(from + i).mapcount = 1 + u32(i % 2);
    if (anon) pages.set_anon_exclusive(from + i, pattern == 0 || (pattern == 3 && i % 3 == 1));
  }
}

PagePool some_pages() {
  PagePool pages;
  for (int run = 0; run < 10; ++run) make_pages(pages, FACTS + 512u * u64(run), 512, run % 5);
  make_pages(pages, 0, 64, 0);
  return pages;
}

/// A present entry; its pfn may run with the position.
u64 present_word(Random& random, u64 position) {
  constexpr u64 BITS[] = {_PAGE_RW,   _PAGE_DIRTY, SAVED_DIRTY,    _PAGE_UFFD_WP, _PAGE_SOFT_DIRTY,
                          _PAGE_USER, _PAGE_NX,    _PAGE_ACCESSED, _PAGE_RW,      _PAGE_DIRTY};
  constexpr u64 ODD[] = {_PAGE_SPECIAL, _PAGE_PAT, _PAGE_GLOBAL, DEVMAP_BIT, 5ull << 59, _PAGE_PCD};
  u64 flags = _PAGE_PRESENT;
  for (u64 bit : BITS) flags |= random() % 2 ? bit : 0;
  if (random() % 16 == 0) flags |= ODD[random() % std::size(ODD)];
  if (random() % 32 == 0) flags = (flags & ~_PAGE_PRESENT) | _PAGE_PROTNONE;
  const u64 choice = random() % 8;
  Pfn pfn = FACTS + position;
  if (choice == 0) pfn = FACTS + random() % 5200;
  if (choice == 1 && random() % 4 == 0) pfn = random() % 64;
  if (choice == 2 && random() % 4 == 0) pfn = ZERO_PFN;
  if (choice == 3 && random() % 8 == 0) pfn = random() >> 24;
  return pfn_pte(pfn, flags);
}

u64 swap_word(Random& random, unsigned type) {
  constexpr u64 OFFSETS[] = {0, 1, 2, 3, 4, 5, 0x1234, FACTS, FACTS + 600, SWP_OFFSET_MASK};
  const u64 flags = random() % 3 ? 0 : random() & SWP_FLAG_BITS;
  return make_swp_pte(type, OFFSETS[random() % std::size(OFFSETS)]) | flags;
}

/// A word of one of the classes; the common ones come first.
u64 any_word(Random& random, u64 position, unsigned classes) {
  constexpr u64 ODD[] = {0x4,
                         0x6,
                         0x20,
                         0x24,
                         0x40,
                         0x60,
                         0x64,
                         0xffffffffffffffff,
                         0x8,
                         0x10,
                         0x80,
                         0x100,
                         0x8000000000000000,
                         0xf7fffffffffffc00};
  switch (random() % classes) {
    case 0: return present_word(random, position);
    case 1: return 0;
    case 2: return random() % 2 ? 0xfffffffffffffc00 : 0x4;
    case 3: return swap_word(random, 0);
    case 4: return swap_word(random, unsigned(random() % 32));
    case 5: return ODD[random() % std::size(ODD)];
    default: return random();
  }
}

/// Every request that means something to a profile, and some that do not.
std::vector<LeafPlan> plans_of(const Profile& profile) {
  constexpr u64 WRITE = VM_WRITE | VM_MAYWRITE, SHARED = VM_SHARED | VM_MAYSHARE;
  constexpr u64 MORE[] = {0, VM_UFFD_WP, VM_SOFTDIRTY, VM_UFFD_WP | VM_SOFTDIRTY,
                          VM_UFFD_WP | VM_PFNMAP};
  constexpr u32 TRY = MM_CP_TRY_CHANGE_WRITABLE, WP = MM_CP_UFFD_WP, OFF = MM_CP_UFFD_WP_RESOLVE;
  std::vector<LeafPlan> plans;
  for (VmaKind kind : {VmaKind::anon, VmaKind::shmem, VmaKind::regular, VmaKind::dax})
    for (u64 access : {u64(VM_READ), VM_READ | WRITE, VM_READ | SHARED, VM_READ | WRITE | SHARED})
      for (u64 more : MORE)
        for (u32 cp : {0u, TRY, WP, WP | TRY, OFF, OFF | TRY, u32(MM_CP_PROT_NUMA)})
          for (u64 prot : {u64(PAGE_NONE), RO_NX, RW_NX, u64(0x2800000000000025), u64(0)}) {
            Vma vma;
            vma.kind = kind;
            vma.flags = access | more;
            const u64 features = prot == RO_NX ? UFFD_FEATURE_WP_UNPOPULATED : 0;
            plans.push_back(compile_plan(profile, vma, prot, cp, features, 2));
          }
  return plans;
}

/// All profiles, and each with every option of its configuration turned on.
std::vector<Profile> configured_profiles() {
  std::vector<Profile> all(profiles().begin(), profiles().end());
  for (Profile profile : profiles()) {
    for (std::string_view option : config_options()) set_config(profile, option, true);
    all.push_back(profile);
  }
  return all;
}

/// Calls `check` with each kernel but scalar.
template <class Check>
void with_each_kernel(Check check) {
  for (const KernelInfo& kernel : supported_kernels().subspan(1)) {
    CAPTURE(kernel.name);
    check(kernel);
  }
}

}  // namespace

TEST_CASE("every class of entry, alone and among others, under every plan of every profile") {
  const PagePool pages = some_pages();
  Random random(1);
  std::vector<u64> kinds{0, 0x4, 0x20, 0x60, 0xfffffffffffffc00, 0xf7fffffffffffc00};
  for (unsigned type = 0; type < 32; ++type) kinds.push_back(make_swp_pte(type, FACTS));
  for (u64 flags = 0; flags < 64; ++flags) {
    constexpr u64 BITS[] = {_PAGE_RW, _PAGE_DIRTY, SAVED_DIRTY, _PAGE_UFFD_WP, _PAGE_SPECIAL};
    u64 word = flags & 1 ? _PAGE_PRESENT : _PAGE_PROTNONE;
    for (unsigned i = 0; i < std::size(BITS); ++i) word |= flags >> (i + 1) & 1 ? BITS[i] : 0;
    kinds.push_back(pfn_pte(FACTS + flags % 3 * 512, word));
  }
  with_each_kernel([&](const KernelInfo& kernel) {
    std::vector<u64> words(16 * 3);
    for (const Profile& profile : configured_profiles()) {
      CAPTURE(profile.name);
      for (const LeafPlan& plan : plans_of(profile)) {
        for (u64 kind : kinds) {
          CAPTURE(kind);
          std::fill(words.begin(), words.end(), kind);
          words[16 + random() % 16] = any_word(random, 3, 6);
          words[32 + random() % 16] = kinds[random() % kinds.size()];
          REQUIRE(agrees(kernel, plan, words, pages));
        }
      }
    }
  });
}

TEST_CASE("random spans: every start, every length, textures from one class to noise") {
  const PagePool pages = some_pages();
  const std::vector<Profile> all = configured_profiles();
  with_each_kernel([&](const KernelInfo& kernel) {
    Random random(2);
    std::vector<u64> words(PTRS_PER_TABLE);
    for (const Profile& profile : all) {
      CAPTURE(profile.name);
      const std::vector<LeafPlan> plans = plans_of(profile);
      for (int round = 0; round < 2000; ++round) {
        const unsigned classes = 1 + unsigned(random() % 7);
        const u64 base = random() % 4096, step = random() % 3;
        for (u64 i = 0; i < words.size(); ++i)
          words[i] = any_word(random, (base + step * i) % 5200, classes);
        if (random() % 2) std::fill_n(words.begin() + i64(random() % 400), 100, words[0]);
        const std::size_t start = random() % 8 ? random() % 512 : 0;
        const std::size_t length = random() % 8 ? random() % (513 - start) : 512 - start;
        CAPTURE(start);
        CAPTURE(length);
        const LeafPlan& plan = plans[random() % plans.size()];
        REQUIRE(agrees(kernel, plan, std::span(words).subspan(start, length), pages));
      }
    }
  });
}

namespace {

/// A word of the classes that LeafFacts count. `place` gives the frame of one with P.
template <class Place>
u64 plain_word(Random& random, u64 marker, unsigned classes, Place place) {
  constexpr u64 BITS[] = {_PAGE_RW, _PAGE_DIRTY, SAVED_DIRTY, _PAGE_UFFD_WP, _PAGE_SOFT_DIRTY};
  u64 flags = _PAGE_PRESENT | _PAGE_USER | (random() % 2 ? _PAGE_NX : 0);
  for (u64 bit : BITS) flags |= random() % 2 ? bit : 0;
  switch (random() % classes) {
    case 0: return pfn_pte(place(), flags);
    case 1: return 0;
    case 2: return marker;
    default: return make_swp_pte(unsigned(random() % 4), random() % 4096) | (random() & 0xe);
  }
}

/// Makes all words the same but for their frames, with or without gaps between these.
void make_alike(Random& random, std::vector<u64>& words) {
  const u64 flags = (words[0] & ~PTE_PFN_MASK) | _PAGE_PRESENT;
  const u64 step = 1 + random() % 2, start = FACTS + random() % 4000;
  for (u64 i = 0; i < words.size(); ++i) words[i] = pfn_pte(start + i * step, flags);
}

/// A table of plain words whose frames ascend, descend, repeat, lie anywhere, or are exclusive with
/// others between them.
std::vector<u64> plain_table(Random& random, u64 marker) {
  std::vector<u64> words(PTRS_PER_TABLE);
  const unsigned classes = 1 + unsigned(random() % 4);
  const u64 order = random() % 6, start = random() % 4600;
  u64 next = 0;
  for (u64& word : words)
    word = plain_word(random, marker, classes, [&]() -> Pfn {
      ++next;
      if (order == 3) return FACTS + random() % 5200;
      if (order == 4) return random() % (1ull << 40);
      if (order == 5) return FACTS + 3 * 512 + 3 * (next % 170) + 1;
      return FACTS + (order == 0 ? start + next : order == 1 ? start + 512 - next : start);
    });
  if (random() % 4 == 0) std::fill_n(words.begin(), 512 - random() % 500, words[random() % 512]);
  if (random() % 4 == 0) make_alike(random, words);
  if (random() % 8 == 0) words[random() % 512] |= _PAGE_SPECIAL;
  return words;
}

}  // namespace

TEST_CASE("what is known of a table from the last time: requests in turns, stores between them") {
  with_each_kernel([](const KernelInfo& kernel) {
    Random random(5);
    u64 known = 0, with_frames = 0, alike = 0, exclusive = 0;
    for (const Profile& profile : configured_profiles()) {
      CAPTURE(profile.name);
      const std::vector<LeafPlan> plans = plans_of(profile);
      std::vector<LeafPlan> by_page;
      std::copy_if(plans.begin(), plans.end(), std::back_inserter(by_page),
                   [](const LeafPlan& plan) { return plan.lanes.upgrade != LaneUpgrade::never; });
      PagePool pages = some_pages();
      for (int table = 0; table < 150; ++table) {
        std::vector<u64> words = plain_table(random, plans.front().lanes.marker);
        LeafFacts facts;
        for (int turn = 0; turn < 12; ++turn) {
          const auto& some = turn % 2 && !by_page.empty() ? by_page : plans;
          const LeafPlan& plan = some[random() % some.size()];
          CAPTURE(table);
          CAPTURE(turn);
          REQUIRE(agrees(kernel, plan, words, pages, &facts));
          apply_scalar(plan, words, pages);
          known += facts.known;
          with_frames += facts.blocks != 0;
          alike += facts.known && facts.alike;
          exclusive += facts.blocks && facts.all_exclusive(pages);
          if (random() % 4 == 0) {
            words[random() % words.size()] = any_word(random, random() % 5200, 7);
            facts.known = false;
          }
          const Pfn pfn = FACTS + random() % 512;  // asked anew each time
          if (random() % 2) pages.set_anon_exclusive(pfn, !pages.anon_exclusive(pfn));
        }
      }
    }
    CHECK(known > 1000);
    CHECK(with_frames > 100);
    CHECK(alike > 100);
    CHECK(exclusive > 40);
  });
}

TEST_CASE("each length at each start of a mixed table") {
  const PagePool pages = some_pages();
  Random random(3);
  std::vector<u64> words(PTRS_PER_TABLE);
  for (u64 i = 0; i < words.size(); ++i) words[i] = any_word(random, i, 4);
  Vma vma;
  vma.flags = VM_READ | VM_WRITE | VM_UFFD_WP | VM_SOFTDIRTY;
  with_each_kernel([&](const KernelInfo& kernel) {
    for (u32 cp : {MM_CP_UFFD_WP, MM_CP_UFFD_WP_RESOLVE | MM_CP_TRY_CHANGE_WRITABLE}) {
      const LeafPlan plan = compile_plan(*find_profile("6.18"), vma, RO_NX, cp, 0, 2);
      for (std::size_t start = 0; start < 20; ++start)
        for (std::size_t length = 0; start + length <= words.size(); ++length)
          REQUIRE(agrees(kernel, plan, std::span(words).subspan(start, length), pages));
    }
  });
}

TEST_CASE("change_protection applies the active kernel to each part of its range") {
  for (const Profile& profile : profiles()) {
    CAPTURE(profile.name);
    Random random(4);
    WalkSpace space(profile.name, VmaKind::anon);
    make_pages(space.machine->pages, FACTS, 512, 0);
    std::vector<u64> words(3 * PTRS_PER_TABLE);
    for (u32 cp : {0u, MM_CP_UFFD_WP, MM_CP_UFFD_WP_RESOLVE | MM_CP_TRY_CHANGE_WRITABLE}) {
      for (u64 i = 0; i < words.size(); ++i) {
        words[i] = any_word(random, i, 4);
        space.put(BASE + i * PAGE_SIZE, PTE_LEVEL, words[i]);
      }
      const LeafPlan plan = compile_plan(profile, space.vma, RO_NX, cp, 0, space.mm.users);
      const u64 first = 37, end = 3 * PTRS_PER_TABLE - 5;
      const ProtectResult done =
          space.change(BASE + first * PAGE_SIZE, BASE + end * PAGE_SIZE, RO_NX, cp).value;
      u64 pages = 0;
      for (u64 at = first, next; at < end; at = next) {
        next = std::min(align_down(at, PTRS_PER_TABLE) + PTRS_PER_TABLE, end);
        pages +=
            apply_scalar(plan, std::span(words).subspan(at, next - at), space.machine->pages).pages;
      }
      CHECK(done.pages == pages);
      for (u64 i = 0; i < words.size(); ++i) REQUIRE(space.get(BASE + i * PAGE_SIZE) == words[i]);
    }
  }
}

TEST_CASE("kernels are pinned by name, and a wrong name is answered with the right ones") {
  CHECK(kernels_up_to("").size() == supported_kernels().size());
  for (const KernelInfo& kernel : supported_kernels())
    CHECK(kernels_up_to(kernel.name).back().name == kernel.name);
  CHECK(active_kernel().name == kernels().back().name);
  std::string message;
  try {
    (void)kernels_up_to("avx3");
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  CHECK(message.find("PTWALK_KERNEL=avx3") == 0);
  for (const KernelInfo& kernel : supported_kernels())
    CHECK(message.find(kernel.name) != std::string::npos);
}
