// Each violation is seen where it is made by hand, and only where the profile promises otherwise.
#include "ptwalk/fuzz/violations.hpp"

#include "space.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

namespace {

u64 judge(const Space& s, u64 addr) {
  return judge_entry(*s.machine, s.mm->vmas.find(addr), addr, s.pte(addr), PTE_LEVEL);
}

void store(Space& s, u64 addr, u64 word) { *s.mm->tables.ensure(addr, PTE_LEVEL) = word; }

}  // namespace

TEST_CASE("armed_writable: RW on an armed entry, where write-notify keeps it off") {
  for (const std::string_view profile : {"uffd-wp-v2", "6.1", "6.18"}) {
    Space s(profile);
    const u64 addr = s.shmem(1);
    s.write(addr);
    s.watch(addr, 1, MODE_WP);
    const u64 word = s.pte(addr);
    CHECK(judge(s, addr) == 0);
    store(s, addr, word | _PAGE_RW | _PAGE_UFFD_WP);
    CHECK(judge(s, addr) == (profile == "uffd-wp-v2" ? 0 : bit(Violation::armed_writable)));
    store(s, addr, word);
  }
}

TEST_CASE("marker_in_anonymous: only WP_UNPOPULATED leaves markers there") {
  for (const u64 features : {u64(0), UFFD_FEATURE_WP_UNPOPULATED}) {
    Space s;
    const u64 addr = s.anon(1);
    s.watch(addr, 1, MODE_WP, features);
    store(s, addr, WP_MARKER);
    CHECK(judge(s, addr) == (features ? 0 : bit(Violation::marker_in_anonymous)));
  }
  Space s;
  const u64 addr = s.shmem(1);
  store(s, addr, WP_MARKER);
  CHECK(judge(s, addr) == 0);
}

TEST_CASE("entry_outside_vma, page_freed, swap_freed") {
  Space s;
  const u64 addr = s.anon(2);
  CHECK(judge_entry(*s.machine, nullptr, 0, WP_MARKER, PTE_LEVEL) ==
        bit(Violation::entry_outside_vma));
  CHECK(judge_entry(*s.machine, nullptr, 0, _PAGE_ACCESSED, PTE_LEVEL) == 0);
  s.write(addr);
  const u64 word = s.pte(addr);
  CHECK(judge(s, addr) == 0);
  store(s, addr, pfn_pte(pte_pfn(word) + 1, present()));
  CHECK(judge(s, addr) == bit(Violation::page_freed));
  store(s, addr, word);
  s.reclaim(addr);
  CHECK(judge(s, addr) == 0);
  CHECK(judge_entry(*s.machine, s.mm->vmas.find(addr), addr, make_swp_pte(0, 7), PTE_LEVEL) ==
        bit(Violation::swap_freed));
}

TEST_CASE(
    "index_unlike_vma: a page of another place, another file's, a private one that is shared") {
  Space s;
  const u64 addr = s.anon(2), shared = s.shmem(2), other = s.shmem(2);
  for (const u64 at : {addr, shared, other}) {
    s.write(at);
    s.write(at + PAGE_SIZE);
    CHECK(judge(s, at) == 0);
  }
  for (const auto& [to, from] :
       {std::pair{addr, addr + PAGE_SIZE}, {shared, other}, {shared, addr}}) {
    const u64 word = s.pte(to);
    store(s, to, s.pte(from));
    CHECK(judge(s, to) == bit(Violation::index_unlike_vma));
    store(s, to, word);
  }
}

TEST_CASE("exclusive_shared, writable_shared: what a fork shares is neither") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  const auto child = s.mm->fork().value;
  const u64 word = s.pte(addr);
  CHECK(judge(s, addr) == 0);
  store(s, addr, word | _PAGE_RW);
  CHECK(judge(s, addr) == bit(Violation::writable_shared));
  store(s, addr, word);
  s.machine->pages.set_anon_exclusive(pte_pfn(word), true);
  CHECK(judge(s, addr) == bit(Violation::exclusive_shared));
  s.machine->pages.set_anon_exclusive(pte_pfn(word), false);
}

TEST_CASE("count_sum and flush_unlike_count judge an account by itself") {
  const Profile& v2 = *find_profile("uffd-wp-v2");
  const Profile& v618 = *find_profile("6.18");
  ProtectResult account;
  account.pages = 3;
  account.present = 2;
  account.none_to_marker = 1;
  account.flush = {BASE, BASE + pages(3)};
  CHECK(judge_account(v2, account) == 0);
  account.pages = 4;
  CHECK(judge_account(v618, account) == bit(Violation::count_sum));
  account.pages = 3;
  account.flush = {};
  CHECK(judge_account(v2, account) == bit(Violation::flush_unlike_count));
  CHECK(judge_account(v618, account) == 0);
}

TEST_CASE("every violation has a name") {
  CHECK(violation_names().size() == std::size_t(Violation::invariant) + 1);
  CHECK(violation_names()[std::size_t(Violation::flush_missing)] == "flush_missing");
}
