// Protection words, the write-notify rules, and the list of VMAs with its splits and merges.
#include "ptwalk/vma.hpp"

#include <doctest/doctest.h>

using namespace ptwalk;

namespace {

constexpr u64 BASE = 0x7f0000000000;
constexpr u64 RW = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE;

Vma shared(VmaKind kind, u64 more = 0) {
  Vma vma{.start = BASE, .end = BASE + 0x4000, .flags = RW | VM_SHARED | more, .kind = kind};
  vma.file = 0;
  return vma;
}

/// Anonymous VMA of `nr` pages, `at` pages above BASE.
Vma anon(u64 at, u64 nr, u64 flags = RW) {
  Vma vma{.start = BASE + at * PAGE_SIZE, .end = BASE + (at + nr) * PAGE_SIZE, .flags = flags};
  vma.pgoff = vma.start >> PAGE_SHIFT;
  return vma;
}

/// Whether two neighbours become one after the second was changed.
bool merges(const Vma& left, const Vma& right, std::string_view profile = "6.18") {
  VmaList list;
  list.insert(left);
  list.merge(list.insert(right), *find_profile(profile));
  return list.all().size() == 1;
}

}  // namespace

TEST_CASE("protection_map: words of private and of shared mappings (vm_get_page_prot)") {
  constexpr u64 RO_NX = 0x8000000000000025, RW_NX = 0x8000000000000027;
  constexpr u64 words[][2] = {{0x120, 0x120}, {RO_NX, RO_NX}, {RO_NX, RW_NX}, {RO_NX, RW_NX},
                              {0x25, 0x25},   {0x25, 0x25},   {0x25, 0x27},   {0x25, 0x27}};
  for (u64 xwr = 0; xwr < 8; ++xwr) {
    CHECK(vm_get_page_prot(xwr) == words[xwr][0]);
    CHECK(vm_get_page_prot(xwr | VM_SHARED) == words[xwr][1]);
  }
  CHECK(vm_get_page_prot(VM_READ | 5ull << VM_PKEY_SHIFT) == 0xa800000000000025);
}

TEST_CASE(
    "vma_wants_writenotify: file systems with page_mkwrite, and WP registrations since 6.1.y") {
  const auto word = [](std::string_view profile, const Vma& vma) {
    return vma_page_prot(*find_profile(profile), vma);
  };
  CHECK(word("6.18", shared(VmaKind::shmem)) == 0x8000000000000027);
  CHECK(word("6.18", shared(VmaKind::regular)) == 0x8000000000000025);
  CHECK(word("6.18", shared(VmaKind::shmem, VM_UFFD_WP)) == 0x8000000000000025);
  CHECK(word("6.18", shared(VmaKind::hugetlb, VM_UFFD_WP)) == 0x8000000000000025);
  CHECK(word("6.1", shared(VmaKind::shmem, VM_UFFD_WP | VM_SOFTDIRTY)) == 0x8000000000000025);
  CHECK(word("uffd-wp-v2", shared(VmaKind::shmem, VM_UFFD_WP | VM_SOFTDIRTY)) ==
        0x8000000000000027);
  // Soft-dirty tracking, where the kernel has it: without VM_SOFTDIRTY writes must fault.
  CHECK(word("6.12", shared(VmaKind::shmem)) == 0x8000000000000025);
  CHECK(word("6.12", shared(VmaKind::hugetlb)) == 0x8000000000000027);
  CHECK(word("6.18", anon(0, 1, RW | VM_UFFD_WP)) == 0x8000000000000025);
}

TEST_CASE("vma_wants_manual_pte_write_upgrade: the trap of a registered shared shmem VMA") {
  const Profile& p = *find_profile("6.18");
  const auto upgrades = [&](Vma vma) {
    vma.page_prot = vma_page_prot(p, vma);
    return vma_wants_manual_pte_write_upgrade(p, vma);
  };
  CHECK(upgrades(anon(0, 1)));
  CHECK_FALSE(upgrades(anon(0, 1, VM_READ)));
  CHECK_FALSE(upgrades(shared(VmaKind::shmem)));
  CHECK_FALSE(upgrades(shared(VmaKind::shmem, VM_UFFD_WP)));
  CHECK(upgrades(shared(VmaKind::regular)));
  CHECK_FALSE(vma_wants_manual_pte_write_upgrade(*find_profile("uffd-wp-v2"), anon(0, 1)));
}

TEST_CASE("find_vma, vma_lookup and the first VMA of a range") {
  VmaList list;
  list.insert(anon(4, 2));
  list.insert(anon(0, 2));
  CHECK(list.lower(BASE) == 0);
  CHECK(list.lower(BASE + 0x2000) == 1);
  CHECK(list.lower(BASE + 0x6000) == 2);
  CHECK(list.find(BASE + 0x1fff) == &list.all()[0]);
  CHECK(list.find(BASE + 0x2000) == nullptr);
  CHECK(list.first_intersecting(BASE + 0x2000, BASE + 0x4000) == nullptr);
  CHECK(list.first_intersecting(BASE + 0x2000, BASE + 0x4001) == &list.all()[1]);
}

TEST_CASE("a VMA is found among few and among many, whatever was asked for before") {
  VmaList list;
  for (u64 nr = 0; nr < 40; ++nr) {
    for (u64 a = 0; a < 2 * nr + 2; ++a) {
      const u64 addr = (a * 7) % (2 * nr + 2);  // VMAs are the odd pages
      CHECK(list.lower(addr * PAGE_SIZE) == addr / 2);
      CHECK((list.find(addr * PAGE_SIZE) != nullptr) == (addr % 2 == 1 && addr / 2 < nr));
    }
    Vma vma;
    vma.start = (2 * nr + 1) * PAGE_SIZE;
    vma.end = vma.start + PAGE_SIZE;
    list.insert(vma);
  }
}

TEST_CASE("a split keeps every page at its offset, and a merge undoes it") {
  VmaList list;
  Vma whole = shared(VmaKind::shmem);
  whole.pgoff = 5;
  list.insert(whole);
  CHECK(list.split(0, BASE + 0x1000) == 1);
  REQUIRE(list.all().size() == 2);
  CHECK(list.all()[0].end == BASE + 0x1000);
  CHECK(list.all()[1].pgoff == 6);
  CHECK(list.all()[1].address_of(7) == BASE + 0x2000);
  CHECK(list.merge(1, *find_profile("6.18")) == 0);
  REQUIRE(list.all().size() == 1);
  CHECK(list.all()[0].end == whole.end);
}

TEST_CASE("a range is taken out of one VMA's middle, its ends, and of several VMAs") {
  struct Row {
    u64 start, end;  // of what goes, in pages
    std::vector<std::pair<u64, u64>> left;
    VmaList::Index above;
  };
  const Row rows[] = {
      {1, 2, {{0, 1}, {2, 4}, {4, 6}, {8, 10}}, 1},
      {0, 1, {{1, 4}, {4, 6}, {8, 10}}, 0},
      {5, 8, {{0, 4}, {4, 5}, {8, 10}}, 2},
      {4, 6, {{0, 4}, {8, 10}}, 1},
      {3, 9, {{0, 3}, {9, 10}}, 1},
      {0, 20, {}, 0},
  };
  for (const Row& row : rows) {
    CAPTURE(row.start);
    VmaList list;
    for (const Vma& vma : {anon(0, 4), anon(4, 2, VM_READ), anon(8, 2)}) list.insert(vma);
    (void)list.find(BASE + row.start * PAGE_SIZE);
    CHECK(list.remove(BASE + row.start * PAGE_SIZE, BASE + row.end * PAGE_SIZE) == row.above);
    REQUIRE(list.all().size() == row.left.size());
    for (std::size_t i = 0; i < row.left.size(); ++i) {
      const Vma& vma = list.all()[i];
      CHECK(vma.start == BASE + row.left[i].first * PAGE_SIZE);
      CHECK(vma.end == BASE + row.left[i].second * PAGE_SIZE);
      CHECK(vma.pgoff == vma.start >> PAGE_SHIFT);
      CHECK(list.find(vma.start) == &vma);
    }
    CHECK(list.find(BASE + row.start * PAGE_SIZE) == nullptr);
  }
}

TEST_CASE("neighbours merge when flags, file, offset and userfaultfd agree (vma_merge)") {
  CHECK(merges(anon(0, 2), anon(2, 2)));
  CHECK_FALSE(merges(anon(0, 2), anon(3, 2)));
  CHECK_FALSE(merges(anon(0, 2), anon(2, 2, VM_READ)));
  CHECK(merges(anon(0, 2, RW | VM_SOFTDIRTY), anon(2, 2)));  // not looked at
  CHECK_FALSE(merges(anon(0, 2, RW | VM_PFNMAP), anon(2, 2, RW | VM_PFNMAP)));
  const auto changed = [](auto change) {
    Vma right = anon(2, 2);
    change(right);
    return merges(anon(0, 2), right);
  };
  CHECK_FALSE(changed([](Vma& v) { v.uffd = 0; }));
  CHECK_FALSE(changed([](Vma& v) { v.pgoff += 1; }));
  CHECK_FALSE(changed([](Vma& v) { v.name = 1; }));
  CHECK_FALSE(changed([](Vma& v) { v.file = 0; }));
}

TEST_CASE("what the changed VMA and its neighbour may have of anon_vmas (is_mergeable_anon_vma)") {
  const auto with = [](Vma vma, u32 anon_vma, u32 chain = 1) {
    vma.anon_vma = anon_vma;
    vma.anon_vma_chain = chain;
    return vma;
  };
  CHECK(merges(with(anon(0, 2), 1), with(anon(2, 2), 1), "6.1"));
  CHECK_FALSE(merges(with(anon(0, 2), 1), with(anon(2, 2), 2)));
  CHECK(merges(with(anon(0, 2), 1), anon(2, 2), "6.1"));  // the changed one has none
  // It has one and the neighbour none: refused by 6.1 and 6.12, merged by 6.18.
  CHECK_FALSE(merges(anon(0, 2), with(anon(2, 2), 1), "6.1"));
  CHECK_FALSE(merges(anon(0, 2), with(anon(2, 2), 1), "6.12"));
  CHECK(merges(anon(0, 2), with(anon(2, 2), 1), "6.18"));
  CHECK_FALSE(merges(with(anon(0, 2), 1, 2), anon(2, 2)));  // forked

  // Both neighbours fit the changed VMA, not each other.
  VmaList list;
  list.insert(with(anon(0, 2), 1));
  list.insert(with(anon(4, 2), 2));
  list.merge(list.insert(anon(2, 2)), *find_profile("6.18"));
  CHECK(list.all().size() == 2);
  CHECK(list.all()[0].end == BASE + 0x4000);
  CHECK(list.all()[0].anon_vma == 1);
}

TEST_CASE("an anon_vma is reused from a neighbour that differs in R, W, X only") {
  VmaList list;
  Vma owner = anon(0, 2, VM_READ | VM_MAYREAD | VM_MAYWRITE);
  owner.anon_vma = 7;
  owner.anon_vma_chain = 1;
  list.insert(owner);
  CHECK(list.reusable_anon_vma(list.insert(anon(2, 2))) == 7);
  list.edit(0).anon_vma_chain = 2;
  CHECK(list.reusable_anon_vma(1) == 0);
  list.edit(0).anon_vma_chain = 1;
  list.edit(1).flags |= VM_LOCKED;
  CHECK(list.reusable_anon_vma(1) == 0);
}

TEST_CASE("register on 6.1 does not merge with the next VMA") {
  VmaList list;
  list.insert(anon(0, 2));
  list.insert(anon(2, 2));
  CHECK(list.merge(0, *find_profile("6.1"), false) == 0);
  CHECK(list.all().size() == 2);
}

TEST_CASE("a VMA as messages print it") {
  CHECK(vma_range(BASE, BASE + 0x4000, RW | VM_SHARED) ==
        "0x00007f0000000000-0x00007f0000004000 rw-s");
}
