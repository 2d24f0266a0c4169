// The scalar kernel against named single steps: the ids are those of the v2 series' vectors
// (A present, B mprotect, N NUMA, S swap, M none and marker).
#include <doctest/doctest.h>

#include <array>

#include "ptwalk/kernels.hpp"
#include "ptwalk/userfaultfd.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RO_NX = 0x8000000000000025, RW_NX = 0x8000000000000027;
constexpr u32 WP = MM_CP_UFFD_WP, RESOLVE = MM_CP_UFFD_WP_RESOLVE;
constexpr u64 RW_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_SOFTDIRTY;

struct Step {
  const char* id;
  VmaKind kind;
  u64 old;
  u32 cp_flags;
  u64 newprot;
  u64 now;
  u32 pages;
};

struct Done {
  u64 now;
  SpanCounts counts;
};

Done apply(std::string_view profile, const Vma& vma, u64 old, u32 cp_flags, u64 newprot,
           const PagePool& pages = {}, u64 features = 0) {
  const LeafPlan plan = compile_plan(*find_profile(profile), vma, newprot, cp_flags, features, 2);
  Done done{old, {}};
  done.counts = apply_scalar(plan, std::span(&done.now, 1), pages);
  return done;
}

Vma make_vma(VmaKind kind, u64 flags = RW_FLAGS) {
  Vma vma;
  vma.kind = kind;
  vma.flags = flags | (kind == VmaKind::anon ? 0 : VM_SHARED);
  return vma;
}

}  // namespace

TEST_CASE("named steps of the v2 series") {
  constexpr VmaKind anon = VmaKind::anon, shmem = VmaKind::shmem;
  constexpr u32 NUMA = MM_CP_PROT_NUMA, ACCT = MM_CP_DIRTY_ACCT;
  const Step steps[] = {
      {"A01", anon, 0x8000000012345867, WP, RO_NX, 0x8000000012345c65, 1},
      {"A04", shmem, 0x8000000012345425, WP, RO_NX, 0x8000000012345425, 1},
      {"A05", anon, 0x8000000012345c65, RESOLVE, RO_NX, 0x8000000012345865, 1},
      {"A06", shmem, 0x8000000012345425, RESOLVE, RW_NX, 0x8000000012345027, 1},
      {"A10", shmem, 0x8000000012345867, WP, 0x120, 0x000fffffedcbad60, 1},
      {"A11", shmem, 0x8000000012345867, WP, 0xa800000000000025, 0xa800000012345c65, 1},
      {"A13", shmem, 0x80000000123458f7, WP, RO_NX, 0x8000000012345c75, 1},
      {"A14", VmaKind::dax, 0x8400000012345a67, WP, RO_NX, 0x8400000012345e65, 1},
      {"A16", anon, 0x8210000012345867, WP, RO_NX, 0x8000000012345c65, 1},
      {"B01", anon, 0x8000000012345867, 0, 0x120, 0x000fffffedcba960, 1},
      {"B02", anon, 0x000fffffedcba960, 0, RO_NX, 0x8000000012345865, 1},
      {"B04", anon, 0x000fffffedcba960, 0, 0x1800000000000120, 0x180fffffedcba960, 1},
      {"B05", shmem, 0x8000000012345c65, 0, RW_NX, 0x8000000012345c67, 1},
      {"B06", shmem, 0x8000000012345025, ACCT, RO_NX, 0x8000000012345025, 1},
      {"B07", shmem, 0x8000000012345865, ACCT, RO_NX, 0x8000000012345867, 1},
      {"B08", shmem, 0x8000000012345065, ACCT, RO_NX, 0x8000000012345065, 1},
      {"B10", shmem, 0x8000000012345c65, ACCT, RO_NX, 0x8000000012345c67, 1},
      {"B12", shmem, 0x4, 0, RW_NX, 0x4, 0},
      {"N01", anon, 0x8000000012345867, NUMA, 0x120, 0x000fffffedcba962, 1},
      {"N02", anon, 0x000fffffedcba960, NUMA, 0x120, 0x000fffffedcba960, 0},
      {"N03", shmem, 0x8000000012345425, NUMA, 0x120, 0x000fffffedcba520, 1},
      {"S01", anon, 0x1fffffffffdb9600, WP, RO_NX, 0x1fffffffffdb9604, 1},
      {"S02", anon, 0x1fffffffffdb9604, WP, RO_NX, 0x1fffffffffdb9604, 0},
      {"S03", anon, 0x1fffffffffdb9606, RESOLVE, RO_NX, 0x1fffffffffdb9602, 1},
      {"S05", anon, 0x1fffffffffdb9600, 0, RO_NX, 0x1fffffffffdb9600, 0},
      {"S06", anon, 0xeffffffffdb97402, 0, RO_NX, 0xe7fffffffdb97402, 1},
      {"S07", shmem, 0xeffffffffdb97404, WP, RO_NX, 0xe7fffffffdb97404, 1},
      {"S10", anon, 0xf7fffffffefffe02, WP, RO_NX, 0xfffffffffefffe04, 1},
      {"S12", anon, 0xdffffffffff11000, WP, RO_NX, 0xdffffffffff11004, 1},
      {"M01", shmem, 0x0, WP, RO_NX, 0x4, 1},
      {"M03", anon, 0x0, WP, RO_NX, 0x0, 0},
      {"M04", shmem, 0x0, RESOLVE, RW_NX, 0x0, 0},
      {"M05", shmem, 0x4, RESOLVE, RW_NX, 0x0, 1},
      {"M06", shmem, 0x4, WP, RO_NX, 0x4, 0},
      {"M07", anon, 0x4, RESOLVE, RO_NX, 0x4, 0},
      {"M09", shmem, 0x60, WP, RO_NX, 0x4, 1},
      {"M10", anon, 0x60, WP, RO_NX, 0x60, 0},
      {"M11", shmem, 0x24, RESOLVE, RW_NX, 0x20, 1},
      {"M12", shmem, 0x6, WP, RO_NX, 0x6, 0},
  };
  for (const Step& step : steps) {
    CAPTURE(step.id);
    const Done done =
        apply("uffd-wp-v2", make_vma(step.kind), step.old, step.cp_flags, step.newprot);
    CHECK(done.now == step.now);
    CHECK(done.counts.pages == step.pages);
  }
}

TEST_CASE("B09: the soft-dirty test of v5.12 is inverted") {
  const Vma untracked = make_vma(VmaKind::shmem, RW_FLAGS & ~VM_SOFTDIRTY);
  const Done done = apply("uffd-wp-v2", untracked, 0x8000000012345065, MM_CP_DIRTY_ACCT, RO_NX);
  CHECK(done.now == 0x8000000012345067);
}

TEST_CASE("before the series 0x4 is a swap word like any other") {
  const Done resolved = apply("5.12", make_vma(VmaKind::anon), 0x4, RESOLVE, RO_NX);
  CHECK(resolved.now == 0);
  CHECK(resolved.counts.swap == 1);
  const Done armed = apply("5.12", make_vma(VmaKind::shmem), 0x0, WP, RO_NX);
  CHECK(armed.now == 0);
  CHECK(armed.counts.none_skipped == 1);
}

TEST_CASE("markers of swap type: resolve drops uffd-wp, not poison and not guards") {
  const Vma vma = make_vma(VmaKind::shmem, RW_FLAGS | VM_UFFD_WP);
  CHECK(apply("6.18", vma, 0, WP, RO_NX).now == 0xfffffffffffffc00);
  CHECK(apply("6.1", vma, 0, WP, RO_NX).now == 0xf7fffffffffffc00);
  CHECK(apply("6.18", vma, 0xfffffffffffffc00, RESOLVE, RO_NX).now == 0);
  CHECK(apply("6.18", vma, 0xfffffffffffffa00, RESOLVE, RO_NX).now == 0xfffffffffffffa00);
  CHECK(apply("6.18", vma, 0xfffffffffffff604, RESOLVE, RO_NX).now == 0xfffffffffffff604);
  // Flag bits do not hide a marker, and a second wr-protect changes nothing.
  CHECK(apply("6.18", vma, 0xfffffffffffffc02, RESOLVE, RO_NX).counts.marker_to_none == 1);
  CHECK(apply("6.18", vma, 0xfffffffffffffc00, WP, RO_NX).counts.pages == 0);
  const Vma anon = make_vma(VmaKind::anon, RW_FLAGS | VM_UFFD_WP);
  CHECK(apply("6.18", anon, 0, WP, RO_NX).counts.none_skipped == 1);
  CHECK(apply("6.18", anon, 0, WP, RO_NX, {}, UFFD_FEATURE_WP_UNPOPULATED).now ==
        0xfffffffffffffc00);
}

TEST_CASE("6.18: D hides in SAVED_DIRTY while RW is off, and an exclusive page gets RW back") {
  const Vma vma = make_vma(VmaKind::anon);
  const u64 read_only = apply("6.18", vma, 0x8000000012345067, 0, RO_NX).now;
  CHECK(read_only == 0x8400000012345025);
  constexpr u32 TRY = MM_CP_TRY_CHANGE_WRITABLE;
  PagePool pages;
  CHECK(apply("6.18", vma, read_only, TRY, RO_NX, pages).now == read_only);  // no facts
  pages.at(0x12345).flags |= PG_anon;
  CHECK(apply("6.18", vma, read_only, TRY, RO_NX, pages).now == read_only);  // shared by fork
  pages.set_anon_exclusive(0x12345, true);
  CHECK(apply("6.18", vma, read_only, TRY, RO_NX, pages).now == 0x8000000012345067);
  CHECK(apply("6.18", vma, 0x8000000012345025, TRY, RO_NX, pages).now == 0x8000000012345027);
  // 6.1 has no SAVED_DIRTY, and leaves a clean page to the fault handler.
  CHECK(apply("6.1", vma, 0x8000000012345865, TRY, RO_NX, pages).now == 0x8000000012345867);
  CHECK(apply("6.1", vma, 0x8000000012345825, TRY, RO_NX, pages).now == 0x8000000012345825);
  // An armed entry of a registered VMA stays closed.
  const Vma armed = make_vma(VmaKind::anon, RW_FLAGS | VM_UFFD_WP);
  CHECK(apply("6.18", armed, 0x8000000012345425, TRY, RO_NX, pages).now == 0x8000000012345425);
}

TEST_CASE("a writable migration entry becomes read-exclusive when its page is anonymous") {
  const Profile& profile = *find_profile("6.18");
  const u64 writable =
      make_swp_pte(unsigned(profile.swp_type_of(SwpKind::migration_write)), 0x12345);
  const auto kind_after = [&](VmaKind kind, const PagePool& pages) {
    return profile.swp_kind(apply("6.18", make_vma(kind), writable, 0, RO_NX, pages).now);
  };
  PagePool pages;
  CHECK(kind_after(VmaKind::anon, pages) == SwpKind::migration_read_exclusive);
  CHECK(kind_after(VmaKind::shmem, pages) == SwpKind::migration_read);
  pages.at(0x12345).flags |= PG_anon;  // a private copy in a file mapping
  CHECK(kind_after(VmaKind::shmem, pages) == SwpKind::migration_read_exclusive);
}

TEST_CASE("what NUMA hinting leaves alone") {
  constexpr u32 NUMA = MM_CP_PROT_NUMA;
  constexpr u64 word = 0x8000000012345867;
  const auto skipped = [&](const Vma& vma, u16 flags, u32 mapcount) {
    PagePool pages;
    Page& page = pages.at(0x12345);
    page.flags |= flags;
    page.mapcount = mapcount;
    const Done done = apply("uffd-wp-v2", vma, word, NUMA, PAGE_NONE, pages);
    CHECK((done.now == word) == (done.counts.pages == 0));
    return done.counts.pages == 0;
  };
  const Vma anon = make_vma(VmaKind::anon);
  CHECK_FALSE(skipped(anon, PG_anon, 1));
  CHECK(skipped(anon, PG_anon, 2));  // shared copy-on-write page
  CHECK_FALSE(skipped(make_vma(VmaKind::shmem), 0, 2));
  CHECK(skipped(anon, PG_anon | PG_ksm, 1));
  CHECK(skipped(make_vma(VmaKind::regular), PG_dirty, 1));
  CHECK_FALSE(skipped(make_vma(VmaKind::shmem), PG_dirty, 1));  // not on the file LRU
  CHECK(skipped(anon, PG_anon | PG_lazyfree | PG_dirty, 1));

  const Done zero = apply("uffd-wp-v2", anon, (ZERO_PFN << 12) | 0x225, NUMA, PAGE_NONE);
  CHECK(zero.counts.bad_page_map == 0);
  const Done special = apply("uffd-wp-v2", anon, 0x12345225, NUMA, PAGE_NONE);
  CHECK(special.counts.pages == 0);
  CHECK(special.counts.bad_page_map == 1);
}

TEST_CASE("which changes the TLB must hear of") {
  constexpr u64 rw = 0x8000000012345067, ro = 0x8000000012345025;
  CHECK(needs_flush(rw, ro));
  CHECK(needs_flush(ro, ro | _PAGE_RW));                  // both directions
  CHECK_FALSE(needs_flush(ro, ro & ~_PAGE_ACCESSED));     // A is ignored
  CHECK_FALSE(needs_flush(ro, ro | _PAGE_DIRTY));         // D only when it goes
  CHECK_FALSE(needs_flush(ro, ro | _PAGE_UFFD_WP));       // software bits
  CHECK_FALSE(needs_flush(ro, ro | (1ull << 58)));        // SAVED_DIRTY
  CHECK(needs_flush(ro, ro + PAGE_SIZE));                 // another frame
  CHECK_FALSE(needs_flush(0xfffffffffffffc00, 0));        // never was in the TLB
  CHECK(needs_flush(0x40200ae7, 0x40201ae7, PMD_LEVEL));  // PAT of a huge leaf
}

TEST_CASE("a span counts each kind and knows the first and last entry to flush") {
  std::array<u64, 6> ptes{0,
                          0x8000000012345025,
                          0x8000000012346067,
                          0xfffffffffffffc00,
                          0x8000000012347067,
                          0x1fffffffffdb9600};
  const Vma vma = make_vma(VmaKind::shmem, RW_FLAGS | VM_UFFD_WP);
  const LeafPlan plan = compile_plan(*find_profile("6.18"), vma, RO_NX, WP, 0, 2);
  const SpanCounts counts = apply_scalar(plan, ptes, {});
  CHECK(counts.pages == 5);
  CHECK(counts.present == 3);
  CHECK(counts.swap == 1);
  CHECK(counts.none_to_marker == 1);
  CHECK(counts.flush_first == 2);  // entry 1 only got a software bit
  CHECK(counts.flush_last == 4);
  CHECK(ptes == std::array<u64, 6>{0xfffffffffffffc00, 0x8000000012345425, 0x8400000012346425,
                                   0xfffffffffffffc00, 0x8400000012347425, 0x1fffffffffdb9604});
}

TEST_CASE("scalar is the first kernel of the list") {
  REQUIRE_FALSE(kernels().empty());
  CHECK(kernels().front().name == "scalar");
}
