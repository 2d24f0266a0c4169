// UFFDIO_MOVE: which pages may go, what arrives, and what is refused.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);
constexpr u64 HOLES = 2;

/// A destination of four pages that is registered for MISSING and WP, and a source of four.
struct Areas : Space {
  explicit Areas(std::string_view profile = "6.18") : Space(profile) {
    src = anon(4);
    dst = anon(4);
    id = watch(dst, 4, MODE_MISSING | MODE_WP, UFFD_FEATURE_WP_UNPOPULATED);
  }
  Cause move(u64 page, u64 mode = 0) {
    return mm->uffd_move(id, dst + pages(page), src + pages(page), PAGE_SIZE, mode).error.cause;
  }
  u64 src = 0, dst = 0;
  UffdId id = NO_UFFD;
};

}  // namespace

TEST_CASE("an exclusive page moves: writable, dirty as it was, no longer armed") {
  Areas s;
  const UffdId source = s.watch(s.src, 4, MODE_WP);
  s.write(s.src);
  s.protect(source, s.src, 1);
  const Pfn pfn = pte_pfn(s.pte(s.src));
  CHECK(s.move(0) == Cause::none);
  CHECK(s.pte(s.src) == 0);
  CHECK(pte_pfn(s.pte(s.dst)) == pfn);
  CHECK(s.flags_of(s.dst) == RW_DIRTY);
  // The reverse map follows: it is swapped out and in at its new place.
  s.reclaim(s.dst);
  CHECK(is_swap_pte(s.pte(s.dst)));
  CHECK(s.write(s.dst).outcome == Outcome::done);
}

TEST_CASE("the zero page moves as one; a swap entry with all its bits") {
  Areas s;
  const UffdId source = s.watch(s.src, 4, MODE_WP);
  s.read(s.src);
  s.write(s.src + pages(1));
  s.protect(source, s.src + pages(1), 1);
  s.reclaim(s.src + pages(1));
  const u64 swapped = s.pte(s.src + pages(1));
  CHECK(s.move(0) == Cause::none);
  CHECK(s.move(1) == Cause::none);
  CHECK(s.flags_of(s.dst) == present(_PAGE_SPECIAL));
  CHECK(s.pte(s.dst + pages(1)) == swapped);
  CHECK(has(swapped, _PAGE_SWP_UFFD_WP | _PAGE_SWP_EXCLUSIVE));
}

TEST_CASE("holes: ENOENT, or skipped where that is allowed") {
  Areas s;
  CHECK(s.move(0) == Cause::entry_missing);
  s.write(s.src + pages(1));
  CHECK(s.move(0) == Cause::entry_missing);
  CHECK(s.move(0, HOLES) == Cause::none);
  CHECK(s.pte(s.dst) == 0);
  CHECK(s.mm->uffd_move(s.id, s.dst, s.src, pages(4), HOLES).value == i64(pages(4)));
  CHECK(pte_present(s.pte(s.dst + pages(1))));
}

TEST_CASE("the destination must be none: a marker is EEXIST; a missing source table comes first") {
  Areas s;
  s.protect(s.id, s.dst, 1);
  CHECK(s.move(0) == Cause::entry_missing);
  s.write(s.src);
  CHECK(s.move(0) == Cause::entry_exists);
  CHECK(pte_present(s.pte(s.src)));
}

TEST_CASE("shared pages and shared swap entries are EBUSY, markers EFAULT") {
  Areas s;
  s.write(s.src);
  s.write(s.src + pages(1));
  s.reclaim(s.src + pages(1));
  const auto child = s.mm->fork().value;
  CHECK(s.move(0) == Cause::entry_busy);
  CHECK(s.move(1) == Cause::entry_busy);
  const UffdId source = s.watch(s.src, 4, MODE_WP, UFFD_FEATURE_WP_UNPOPULATED);
  s.protect(source, s.src + pages(2), 1);
  CHECK(s.move(2) == Cause::entry_special);
  CHECK(s.move(2, HOLES) == Cause::entry_special);
}

TEST_CASE("validate_move_areas: equal rights, writable, anonymous, the destination registered") {
  Areas s;
  const auto cause = [&](u64 dst, u64 src, u64 nr = 1) {
    return s.mm->uffd_move(s.id, dst, src, pages(nr), 0).error.cause;
  };
  CHECK(cause(s.dst, s.shmem(1)) == Cause::wrong_backing);
  CHECK(cause(s.dst, s.private_shmem(1)) == Cause::wrong_backing);
  CHECK(cause(s.dst, s.anon(1, PROT_READ_)) == Cause::wrong_backing);
  CHECK(cause(s.dst, s.src, 5) == Cause::wrong_backing);
  CHECK(cause(s.anon(1), s.src) == Cause::not_registered_here);
  CHECK(cause(BASE - PMD_SIZE, s.src) == Cause::no_vma);
  CHECK(cause(s.dst, BASE - PMD_SIZE) == Cause::no_vma);
  CHECK(cause(s.dst + 1, s.src) == Cause::start_unaligned);
  CHECK(cause(s.dst, s.src + 1) == Cause::start_unaligned);
  CHECK(s.move(0, 4) == Cause::bad_mode);
  REQUIRE(s.mm->mlock(s.src, pages(4)).ok());
  CHECK(cause(s.dst, s.src) == Cause::wrong_backing);
}

TEST_CASE("partial progress, and who is woken") {
  Areas s;
  s.write(s.src);
  CHECK(s.read(s.dst).outcome == Outcome::blocked);
  const auto partial = s.mm->uffd_move(s.id, s.dst, s.src, pages(2), 0);
  CHECK(partial.value == i64(PAGE_SIZE));
  CHECK(partial.error.cause == Cause::partial);
  CHECK(s.mm->pending.find(s.dst)->woken);
  CHECK(s.mm->uffd_move(s.id, s.dst + pages(1), s.src + pages(1), pages(1), 0).value == -2);
}

TEST_CASE("before 6.8 there is no such ioctl") {
  Areas s("6.12");
  s.write(s.src);
  CHECK(s.move(0) == Cause::none);
  Space old("6.1");
  const u64 addr = old.anon(2);
  const UffdId id = old.watch(addr, 1, MODE_MISSING);
  CHECK(old.mm->uffd_move(id, addr, addr + pages(1), pages(1), 0).error.cause ==
        Cause::unknown_ioctl);
}
