// Reclaim and migration: what the entries of one page become, in every address space that maps it.
// F19 to F21 and HZ3 are named by the v2 series' document.
#include "space.hpp"

using namespace ptwalk;

TEST_CASE("F19, F20: an armed cache page leaves a marker, an armed private copy a swap entry") {
  Space s("uffd-wp-v2");
  const u64 shared = s.shmem(1), copies = s.private_shmem(1);
  const UffdId id = s.watch(shared, 1, MODE_WP);
  REQUIRE(s.mm->uffd_register(id, copies, pages(1), MODE_WP).ok());
  s.write(shared);
  s.write(copies);
  s.protect(id, shared, 1);
  s.protect(id, copies, 1);
  s.reclaim(shared);
  s.reclaim(copies);
  CHECK(s.pte(shared) == 4);
  CHECK((s.pte(copies) & 0x1ff) == 0x6);  // SWP_SOFT_DIRTY and SWP_UFFD_WP
  CHECK(s.kind_of(copies) == SwpKind::swap);
}

TEST_CASE(
    "try_to_unmap: anonymous pages go to swap in every address space, exclusive ones known so") {
  Space s;
  const u64 addr = s.anon(2);
  s.write(addr);
  s.write(addr + pages(1));
  CHECK(s.mm->reclaim(addr + pages(1), pages(1)) == 1);
  CHECK(s.pte(addr + pages(1)) == (make_swp_pte(0, 1) | _PAGE_SWP_EXCLUSIVE));
  const auto child = s.mm->fork().value;
  CHECK(s.mm->reclaim(addr, pages(2)) == 1);  // the second is out already
  CHECK(s.pte(addr) == make_swp_pte(0, 2));
  CHECK(*child->tables.find(addr, PTE_LEVEL) == make_swp_pte(0, 2));
  CHECK(s.machine->swap[2].count == 2);
  CHECK(s.machine->pages.in_use() == 0);
}

TEST_CASE("a page of a file on disk leaves the cache, one of shmem goes to swap") {
  Space s;
  const u64 regular = s.regular(1);
  const FileId disk = s.file;
  const u64 shmem = s.shmem(1);
  const u64 again = s.map(1, PROT_READ_, MAP_SHARED_, s.file);
  for (u64 addr : {regular, shmem, again}) s.read(addr);
  s.reclaim(regular);
  s.reclaim(shmem);
  for (u64 addr : {regular, shmem, again}) CHECK(s.pte(addr) == 0);
  CHECK(s.machine->files[u64(disk)].cache.empty());
  CHECK(s.machine->files[u64(s.file)].cache.find(0)->swapped());
  CHECK(s.read(again).outcome == Outcome::done);
}

TEST_CASE("a clean swap-cache page keeps its slot") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  s.reclaim(addr);
  const u64 slot = swp_offset(s.pte(addr));
  s.read(addr);
  s.reclaim(addr);
  CHECK(swp_offset(s.pte(addr)) == slot);
  CHECK(s.machine->swap.size() == 2);
}

TEST_CASE("the zero page, locked pages and frames without facts are no reclaim's business") {
  Space s;
  const u64 addr = s.anon(3);
  s.read(addr);
  const u64 words[] = {0x8000000012345067};
  REQUIRE(s.mm->set_ptes(addr + pages(1), words).ok());
  CHECK(s.mm->reclaim(addr, pages(3)) == 0);
  s.write(addr + pages(2));
  s.migrate(addr + pages(2), [&] { CHECK(s.mm->reclaim(addr, pages(3)) == 0); });
}

TEST_CASE("F21: migration entries carry kind, soft-dirty and uffd-wp (try_to_migrate_one)") {
  Space v2("uffd-wp-v2");
  const u64 shared = v2.shmem(1);
  v2.write(shared);
  v2.protect(v2.watch(shared, 1, MODE_WP), shared, 1);
  v2.migrate(shared, [&] {
    CHECK(v2.kind_of(shared) == SwpKind::migration_read);
    CHECK((v2.pte(shared) & 0x1ff) == 0x6);
  });

  Space s;
  const u64 addr = s.anon(3);
  for (u64 i = 0; i < 3; ++i) s.write(addr + pages(i));
  REQUIRE(s.mm->mprotect(addr + pages(1), pages(1), PROT_READ_).ok());
  const auto kind = [&](u64 at) {
    SwpKind found{};
    s.migrate(at, [&] { found = s.kind_of(at); });
    return found;
  };
  CHECK(kind(addr) == SwpKind::migration_write);
  CHECK(kind(addr + pages(1)) == SwpKind::migration_read_exclusive);
  const auto child = s.mm->fork().value;
  CHECK(kind(addr + pages(2)) == SwpKind::migration_read);
}

TEST_CASE("remove_migration_pte: another frame, the same page") {
  Space s;
  const u64 addr = s.anon(1);
  s.write(addr);
  const Page before = s.page(addr);
  const Pfn old = pte_pfn(s.pte(addr));
  const Pfn moved = s.migrate(addr, [&] {
    CHECK((swp_offset(s.pte(addr)) & SWP_PFN_MASK) == old);
    CHECK(s.machine->pages.find(old)->mapcount == 1);
  });
  CHECK(moved != old);
  CHECK(pte_pfn(s.pte(addr)) == moved);
  CHECK(has(s.pte(addr), _PAGE_RW));
  CHECK(s.machine->pages.find(old) == nullptr);
  CHECK(s.page(addr).index == before.index);
  CHECK(s.page(addr).mapcount == 1);
  CHECK(s.anon_exclusive(addr));
  CHECK(s.page(addr).dirty());  // the entry was
  CHECK(s.page(addr).serial != before.serial);
}

TEST_CASE("a page that is forked while it migrates comes back shared (try_to_migrate_one)") {
  for (const std::string_view profile : {"6.1", "6.12", "6.18"}) {
    Space s(profile);
    const u64 addr = s.anon(1);
    s.write(addr);
    std::shared_ptr<AddressSpace> child;
    const Pfn moved = s.migrate(addr, [&] { child = s.mm->fork().value; });
    CHECK_FALSE(s.anon_exclusive(addr));
    CHECK(s.page(addr).mapcount == 2);
    s.write(addr);  // copied, not reused
    CHECK(pte_pfn(s.pte(addr)) != moved);
    CHECK(pte_pfn(*child->tables.find(addr, PTE_LEVEL)) == moved);
  }
}

TEST_CASE("a cache page migrates under all its mappings, and stays the file's") {
  Space s;
  const u64 addr = s.shmem(1), again = s.map(1, PROT_READ_, MAP_SHARED_, s.file);
  s.write(addr);
  s.read(again);
  const Pfn moved = s.migrate(again, [&] {
    CHECK(s.kind_of(addr) == SwpKind::migration_write);
    CHECK(s.kind_of(again) == SwpKind::migration_read);
  });
  CHECK(s.machine->cached_page(s.file, 0) == moved);
  CHECK(pte_pfn(s.pte(addr)) == moved);
  CHECK(pte_pfn(s.pte(again)) == moved);
  CHECK(has(s.pte(addr), _PAGE_RW));
  CHECK_FALSE(has(s.pte(again), _PAGE_RW));
}

TEST_CASE("wr-protect and resolve reach a page while it migrates") {
  Space s;
  const u64 addr = s.anon(1);
  const UffdId id = s.watch(addr, 1, MODE_WP);
  s.write(addr);
  s.migrate(addr, [&] {
    s.protect(id, addr, 1);
    CHECK(s.kind_of(addr) == SwpKind::migration_read_exclusive);
    CHECK(has(s.pte(addr), _PAGE_SWP_UFFD_WP));
  });
  CHECK(s.flags_of(addr) == (present(_PAGE_UFFD_WP) & ~_PAGE_ACCESSED));
  CHECK(s.write(addr).message->flags == 3);
}

TEST_CASE(
    "HZ3: migration re-opens an armed page of a shared mapping in the v2 series, not on 6.x") {
  for (const auto& [name, reopened] :
       {std::pair{"uffd-wp-v2", true}, {"6.1", false}, {"6.12", false}, {"6.18", false}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.shmem(1);
    const UffdId id = s.watch(addr, 1, MODE_WP);
    s.write(addr);
    s.protect(id, addr, 1);
    s.migrate(addr, [] {});
    CHECK(has(s.pte(addr), _PAGE_UFFD_WP));
    CHECK(has(s.pte(addr), _PAGE_RW) == reopened);
    CHECK(s.write(addr).outcome == (reopened ? Outcome::done : Outcome::blocked));
  }
}

TEST_CASE("a page that is gone when the second phase comes") {
  Space s;
  const u64 addr = s.shmem(1);
  s.write(addr);
  const Pfn moved = s.migrate(addr, [&] { s.machine->file_truncate(s.file, 0); });
  CHECK(moved == 0);
  CHECK(s.pte(addr) == 0);
  CHECK(s.machine->pages.in_use() == 0);
}
