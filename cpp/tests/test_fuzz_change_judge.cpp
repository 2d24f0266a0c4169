// A change of protection that goes wrong by hand is judged by the right name.
#include "ptwalk/fuzz/change_judge.hpp"

#include "space.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

namespace {

/// Four pages of shmem: written, read, none, none; registered for wp.
struct Scene {
  Space s;
  u64 addr = s.shmem(4);
  UffdId id = s.watch(addr, 4, MODE_WP);
  Scene() {
    s.write(addr);
    s.read(addr + pages(1));
  }
  [[nodiscard]] u64* pte(u64 page) const {
    return s.mm->tables.ensure(addr + pages(page), PTE_LEVEL);
  }
  [[nodiscard]] Range range(u64 nr) const { return {addr, addr + pages(nr)}; }
  /// What is found when `spoil` changes the account or the entries of a wr-protect of three pages.
  template <class Spoil>
  u64 protect(Spoil spoil) {
    const ChangeJudge judge(*s.mm, {ChangeKind::protect, range(3)});
    ProtectResult account = s.protect(id, addr, 3);
    const u64 before[] = {*pte(0), *pte(1), *pte(2), *pte(3)};
    spoil(account);
    const u64 found = judge.judge(account, false);
    for (u64 page = 0; page < 4; ++page) *pte(page) = before[page];
    return found;
  }
};

}  // namespace

TEST_CASE("a wr-protect as it should be shows nothing, and nothing when done again") {
  Scene scene;
  CHECK(scene.protect([](ProtectResult&) {}) == 0);
  const ChangeJudge again(*scene.s.mm, {ChangeKind::protect, scene.range(3)});
  CHECK(again.judge_again(scene.s.protect(scene.id, scene.addr, 3)) == 0);
  CHECK(again.judge_again(scene.s.protect(scene.id, scene.addr, 4)) ==
        bit(Violation::protect_twice));
}

TEST_CASE("accounts that do not fit the entries") {
  for (u64 ProtectResult::* const field :
       {&ProtectResult::present, &ProtectResult::none_to_marker, &ProtectResult::marker_to_none,
        &ProtectResult::swap, &ProtectResult::none_skipped}) {
    Scene scene;
    CHECK(scene.protect([&](ProtectResult& account) { ++(account.*field); }) ==
          bit(Violation::count_unlike_entries));
  }
  Scene scene;
  CHECK(scene.protect([](ProtectResult& account) { ++account.tables_allocated; }) ==
        bit(Violation::tables_unlike_count));
}

TEST_CASE("entries that a wr-protect must not leave so") {
  const auto spoiled = [&](u64 page, u64 flip) {
    Scene fresh;
    return fresh.protect([&](ProtectResult&) { *fresh.pte(page) ^= flip; });
  };
  CHECK(spoiled(3, WP_MARKER) == bit(Violation::outside_range));
  CHECK(spoiled(0, _PAGE_UFFD_WP) == bit(Violation::left_unarmed));
  CHECK(spoiled(0, _PAGE_ACCESSED) == bit(Violation::accessed_dirty_changed));
  CHECK(spoiled(1, SAVED_DIRTY) == bit(Violation::accessed_dirty_changed));
  CHECK((spoiled(0, 1 << PAGE_SHIFT) & bit(Violation::pfn_changed)));
  CHECK((spoiled(0, _PAGE_PRESENT) & bit(Violation::kind_changed)));
  // The third page's marker away: the account says that there is one, and nothing arms the page.
  CHECK(spoiled(2, WP_MARKER) ==
        (bit(Violation::count_unlike_entries) | bit(Violation::left_unarmed)));
}

TEST_CASE("flush_missing: a right that went without a flush") {
  Scene scene;
  CHECK(scene.protect([](ProtectResult& account) { account.flush = {}; }) ==
        bit(Violation::flush_missing));
}

TEST_CASE("left_armed: an entry, a marker; uffd_bit_changed under mprotect") {
  Scene scene;
  Space& s = scene.s;
  s.protect(scene.id, scene.addr, 4);
  const ChangeJudge judge(*s.mm, {ChangeKind::resolve, scene.range(4)});
  const ProtectResult account = s.resolve(scene.id, scene.addr, 4);
  CHECK(judge.judge(account, false) == 0);
  *scene.pte(0) |= _PAGE_UFFD_WP;
  CHECK(judge.judge(account, false) == bit(Violation::left_armed));
  CHECK(judge.judge(account, true) == 0);  // stopped half-way, perhaps before it
  const ChangeJudge rights(*s.mm, {ChangeKind::mprotect, scene.range(4), PROT_READ_});
  const ProtectResult changed = s.mm->mprotect(scene.addr, pages(4), PROT_READ_).value;
  CHECK(rights.judge(changed, false) == 0);
  *scene.pte(0) &= ~_PAGE_UFFD_WP;
  CHECK(rights.judge(changed, false) == bit(Violation::uffd_bit_changed));
}

TEST_CASE("mprotect passes over VMAs that have the protection, NUMA over pages of its choice") {
  Scene scene;
  const ChangeJudge same(*scene.s.mm, {ChangeKind::mprotect, scene.range(4), PROT_RW});
  CHECK(same.judge(scene.s.mm->mprotect(scene.addr, pages(4), PROT_RW).value, false) == 0);
  const ChangeJudge numa(*scene.s.mm, {ChangeKind::numa, scene.range(4)});
  const auto done =
      scene.s.mm->change_protection(scene.addr, scene.addr + pages(4), PAGE_NONE, MM_CP_PROT_NUMA);
  CHECK(numa.judge(done.value, false) == 0);
}
