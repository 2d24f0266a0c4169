// Many ranges in one call: the same as a call for each, also where one of them fails.
#include <random>

#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 PAGES = 1500;

/// Shared shmem, a third of it present, registered for wr-protection, and memory beside it.
struct Twin : Space {
  explicit Twin(std::string_view profile) : Space(profile) {
    start = shmem(PAGES);
    for (u64 page = 0; page < PAGES; page += 3) write(start + pages(page));
    id = watch(start, PAGES, MODE_WP);
  }
  u64 start = 0;
  UffdId id = NO_UFFD;
};

std::vector<u64> random_ranges(u64 start, u64 nr, std::mt19937_64& random) {
  std::vector<u64> ranges;
  for (u64 i = 0; i < nr; ++i) {
    ranges.push_back(start + pages(random() % PAGES));
    ranges.push_back(pages(1 + random() % 20));  // some reach beyond the mapping
  }
  return ranges;
}

/// Applies `call` to one range after another, as a caller without batches would.
template <class Call>
Result<RangesResult> one_by_one(std::span<const u64> ranges, Call call) {
  Result<RangesResult> out;
  for (std::size_t i = 0; i < ranges.size() && out.ok(); i += 2) {
    auto one = call(ranges[i], ranges[i + 1]);
    out.value.result.add(one.value);
    out.error = one.error;
    if (out.ok()) ++out.value.done;
  }
  return out;
}

void check_equal(const Result<RangesResult>& many, const Result<RangesResult>& singles,
                 const Twin& a, const Twin& b) {
  CHECK(many.error.cause == singles.error.cause);
  CHECK(many.error.a == singles.error.a);
  CHECK(many.value.done == singles.value.done);
  const ProtectResult &x = many.value.result, &y = singles.value.result;
  CHECK(x.pages == y.pages);
  CHECK(x.none_to_marker == y.none_to_marker);
  CHECK(x.marker_to_none == y.marker_to_none);
  CHECK(x.present == y.present);
  CHECK(x.tables_allocated == y.tables_allocated);
  CHECK(x.flush.start == y.flush.start);
  CHECK(x.flush.end == y.flush.end);
  CHECK(x.notifier.size() == y.notifier.size());
  CHECK(a.nr_vmas() == b.nr_vmas());
  for (u64 page = 0; page < PAGES; ++page)
    REQUIRE(a.pte(a.start + pages(page)) == b.pte(b.start + pages(page)));
}

}  // namespace

TEST_CASE("wr-protecting many ranges is wr-protecting one after another") {
  std::mt19937_64 random(1);
  for (const std::string_view profile : {"uffd-wp-v2", "6.1", "6.18"}) {
    Twin a(profile), b(profile);
    for (int round = 0; round < 30; ++round) {
      const std::vector<u64> ranges = random_ranges(a.start, random() % 200, random);
      const u64 mode = random() % 4;  // both bits together are refused
      CAPTURE(profile);
      CAPTURE(round);
      check_equal(a.mm->uffd_writeprotect_many(a.id, ranges, mode),
                  one_by_one(ranges,
                             [&](u64 start, u64 length) {
                               return b.mm->uffd_writeprotect(b.id, start, length, mode);
                             }),
                  a, b);
    }
  }
}

TEST_CASE("protecting many ranges is protecting one after another") {
  std::mt19937_64 random(2);
  Twin a("6.18"), b("6.18");
  for (int round = 0; round < 50; ++round) {
    const std::vector<u64> ranges = random_ranges(a.start, random() % 50, random);
    const int prot = random() % 2 ? PROT_RW : PROT_READ_;
    CAPTURE(round);
    check_equal(a.mm->mprotect_many(ranges, prot),
                one_by_one(ranges, [&](u64 start,
                                       u64 length) { return b.mm->mprotect(start, length, prot); }),
                a, b);
  }
}

TEST_CASE("the first range that fails ends it, and is told by its number") {
  Twin s("6.18");
  const u64 ranges[] = {s.start, pages(3), s.start + 1, pages(1), s.start + pages(9), pages(3)};
  const auto done = s.mm->uffd_writeprotect_many(s.id, ranges, UFFDIO_WRITEPROTECT_MODE_WP);
  CHECK(done.error.cause == Cause::start_unaligned);
  CHECK(done.value.done == 1);
  CHECK(done.value.result.pages == 3);
  CHECK(has(s.flags_of(s.start), _PAGE_UFFD_WP));
  CHECK_FALSE(has(s.flags_of(s.start + pages(9)), _PAGE_UFFD_WP));
  CHECK(s.mm->mprotect_many({}, PROT_READ_).value.done == 0);
}
