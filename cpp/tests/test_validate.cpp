// validate(): an address space in order says nothing, and each invariant is noticed when it is
// broken.
#include <algorithm>

#include "space.hpp"

using namespace ptwalk;

namespace {

/// An address space with a page of each kind. Unlike Space it may end broken.
struct Ground {
  Ground() {
    const auto map = [&](u64 at, u32 flags, FileId backing) {
      REQUIRE(mm->mmap(at, pages(4), PROT_RW, flags | MAP_FIXED_, backing, 0).ok());
    };
    map(ANON, MAP_PRIVATE_ | MAP_ANONYMOUS_, NO_FILE);
    map(FILE, MAP_SHARED_, file);
    for (u64 addr : {ANON, ANON + pages(1), FILE}) REQUIRE(mm->access(addr, true).ok());
    REQUIRE(mm->reclaim(ANON + pages(1), PAGE_SIZE) == 1);
    REQUIRE(mm->validate().empty());
  }
  u64& pte(u64 addr) { return *mm->tables.writable(addr, PTE_LEVEL); }
  Page& page(u64 addr) { return machine->pages.at(pte_pfn(pte(addr))); }
  Vma& vma(u64 addr) { return mm->vmas.edit(mm->vmas.lower(addr)); }
  [[nodiscard]] bool noticed(std::string_view what) const {
    const auto report = mm->validate();
    return std::any_of(report.begin(), report.end(), [&](const std::string& line) {
      return line.find(what) != std::string::npos;
    });
  }

  static constexpr u64 ANON = BASE, FILE = BASE + PMD_SIZE;
  std::shared_ptr<Machine> machine = std::make_shared<Machine>(*find_profile("6.18"), 4);
  FileId file = machine->create_file(FileKind::shmem, pages(4));
  std::shared_ptr<AddressSpace> mm = std::make_shared<AddressSpace>(machine);
};

}  // namespace

TEST_CASE("VMAs: order, alignment, extent") {
  Ground g;
  Vma& vma = g.vma(Ground::ANON);
  const Vma good = vma;
  vma.end = Ground::FILE + pages(1);
  CHECK(g.noticed("overlaps the one before it"));
  vma = good;
  vma.end = good.end + 5;
  CHECK(g.noticed("is not page aligned"));
  vma.end = good.start;
  CHECK(g.noticed("is empty or backwards"));
  vma = good;
  CHECK(g.mm->validate().empty());
}

TEST_CASE("VMAs: file and userfaultfd fit the kind and the flags") {
  Ground g;
  Vma& vma = g.vma(Ground::FILE);
  vma.kind = VmaKind::anon;
  CHECK(g.noticed("has a file that does not fit its kind"));
  vma.kind = VmaKind::shmem;
  vma.uffd = 0;
  CHECK(g.noticed("names a userfaultfd but has no VM_UFFD_ flag"));
  vma.uffd = NO_UFFD;
}

TEST_CASE("an armed entry is not writable") {
  Ground g;
  const UffdId id = g.mm->userfaultfd(0).value;
  REQUIRE(g.mm->uffd_register(id, Ground::ANON, pages(4), MODE_WP).ok());
  REQUIRE(g.mm->uffd_writeprotect(id, Ground::ANON, pages(4), 1).ok());
  CHECK(g.mm->validate().empty());
  g.pte(Ground::ANON) |= _PAGE_RW;
  CHECK(g.noticed("is armed and writable"));
}

TEST_CASE("tables: every entry names a table of the level below, and all are counted") {
  Ground g;
  u64* pmd = g.mm->tables.writable(Ground::ANON, PMD_LEVEL);
  const u64 good = *pmd;
  *pmd = 0x12345067;
  CHECK(g.noticed("names no table of the level below"));
  *pmd = (g.mm->tables.root() << PAGE_SHIFT) | _PAGE_TABLE;
  CHECK(g.noticed("names no table of the level below"));
  *pmd = 0;
  CHECK(g.noticed("tables hang below the root"));
  CHECK(g.noticed("are linked"));
  *pmd = good;
  CHECK(g.mm->validate().empty());
}

TEST_CASE("pages: map counts, in use or not") {
  Ground g;
  g.page(Ground::ANON).mapcount = 2;
  CHECK(g.noticed("has map count 2 but 1 entries map it"));
  g.page(Ground::ANON).mapcount = 1;
  const Pfn cached = g.machine->get_page(g.file, 3);
  g.machine->pages.at(cached).mapcount = 1;
  CHECK(g.noticed("has a map count but no entry maps it"));
  g.machine->pages.at(cached).mapcount = 0;
  CHECK(g.mm->validate().empty());
}

TEST_CASE("the page cache and its pages agree") {
  Ground g;
  g.page(Ground::FILE).index = 2;
  CHECK(g.noticed("which is not its own"));
  g.page(Ground::FILE).index = 0;
  CHECK(g.mm->validate().empty());
}

TEST_CASE("swap slots: as many users as entries, of the tables and of the page cache") {
  Ground g;
  SwapSlot& slot = g.machine->swap.edit(swp_offset(g.pte(Ground::ANON + pages(1))));
  slot.count = 2;
  CHECK(g.noticed("has count 2 but 1 entries name it"));
  slot.count = 1;
  REQUIRE(g.mm->reclaim(Ground::FILE, PAGE_SIZE) == 1);
  CHECK(g.mm->validate().empty());  // the slot of the shmem page is the cache's
  g.machine->files.edit(0).cache.reset();
  CHECK(g.noticed("has count 1 but 0 entries name it"));
}

TEST_CASE("a fault in another address space of the machine is seen from each") {
  Ground g;
  const auto child = g.mm->fork().value;
  u64* pte = child->tables.writable(Ground::ANON, PTE_LEVEL);
  REQUIRE(pte);
  *pte = 0;
  CHECK(g.noticed("has map count 2 but 1 entries map it"));
  CHECK_FALSE(child->validate().empty());
}
