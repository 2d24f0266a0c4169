// What address spaces share: page cache, swap slots, and files that change under their mappings.
#include "ptwalk/machine.hpp"

#include "space.hpp"

using namespace ptwalk;

TEST_CASE("the page cache is sparse: a terabyte file with ten cached pages costs ten pages") {
  Machine machine(*find_profile("6.18"), 4);
  const FileId file = machine.create_file(FileKind::shmem, 1ull << 40);
  CHECK(machine.files[0].nr_pages() == 1ull << 28);
  for (u64 i = 0; i < 10; ++i) machine.file_write(file, i << 36, 1);
  CHECK(machine.pages.in_use() == 10);
  CHECK(machine.cached_page(file, 1ull << 24) != 0);
  CHECK(machine.cached_page(file, 1) == 0);
  machine.file_truncate(file, 0);
  CHECK(machine.pages.in_use() == 0);
}

TEST_CASE("write(2) makes pages, dirty ones, and the file longer") {
  Machine machine(*find_profile("6.18"), 4);
  const FileId file = machine.create_file(FileKind::shmem, 100);
  CHECK(machine.files[0].nr_pages() == 1);
  machine.file_write(file, pages(2) - 1, 2);
  CHECK(machine.files[0].size == pages(2) + 1);
  CHECK(machine.cached_page(file, 0) == 0);
  for (u64 index : {1u, 2u}) {
    const Page* page = machine.pages.find(machine.cached_page(file, index));
    REQUIRE(page);
    CHECK(page->dirty());
    CHECK(page->index == index);
    CHECK(page->file == file);
  }
  machine.file_write(file, 0, 0);
  CHECK(machine.cached_page(file, 0) == 0);
}

TEST_CASE("read(2) of a hole allocates nothing in shmem, and reads a page in elsewhere") {
  Machine machine(*find_profile("6.18"), 4);
  for (const auto& [kind, cached] : {std::pair{FileKind::shmem, 0u}, {FileKind::regular, 2u}}) {
    const FileId file = machine.create_file(kind, pages(4));
    machine.file_read(file, pages(1), pages(2));
    machine.file_read(file, pages(9), pages(2));  // beyond the end
    CHECK(machine.files[u64(file)].cache.size() == cached);
  }
}

TEST_CASE("ftruncate unmaps every mapping, private copies too (unmap_mapping_range)") {
  Space space;
  const u64 shared = space.shmem(4);
  const u64 copies = space.map(4, PROT_RW, MAP_PRIVATE_, space.file);
  for (u64 i = 0; i < 4; ++i) {
    space.write(shared + pages(i));
    space.write(copies + pages(i));
  }
  space.machine->file_truncate(space.file, pages(1) + 1);
  for (u64 addr : {shared, copies}) {
    CHECK(pte_present(space.pte(addr + pages(1))));
    CHECK(space.pte(addr + pages(2)) == 0);
    CHECK(space.pte(addr + pages(3)) == 0);
  }
  CHECK(space.machine->pages.in_use() == 4);
  CHECK(space.read(shared + pages(2)).signal.signo == 7);
  space.machine->file_truncate(space.file, pages(4));  // longer again: holes
  CHECK(space.read(shared + pages(2)).outcome == Outcome::done);
}

TEST_CASE("a punched hole leaves private copies, and pages that it covers in part") {
  Space space;
  const u64 shared = space.shmem(4);
  const u64 copies = space.map(4, PROT_RW, MAP_PRIVATE_, space.file);
  for (u64 i = 0; i < 4; ++i) {
    space.write(shared + pages(i));
    if (i < 2) space.write(copies + pages(i));
  }
  space.read(copies + pages(2));
  space.machine->file_punch_hole(space.file, 1, pages(3) - 1);
  CHECK(pte_present(space.pte(shared)));
  CHECK(space.pte(shared + pages(1)) == 0);
  CHECK(space.pte(shared + pages(2)) == 0);
  CHECK(pte_present(space.pte(shared + pages(3))));
  CHECK(pte_present(space.pte(copies + pages(1))));
  CHECK(space.pte(copies + pages(2)) == 0);  // it mapped the file's page
}

TEST_CASE("markers of shmem outlive truncation and punching, beyond the end too") {
  for (const auto& [name, marker] : {std::pair{"uffd-wp-v2", u64(4)}, {"6.18", WP_MARKER}}) {
    CAPTURE(name);
    Space space(name);
    const u64 addr = space.shmem(4);
    const UffdId id = space.watch(addr, 4, MODE_WP);
    for (u64 i = 0; i < 3; ++i) space.write(addr + pages(i));
    space.protect(id, addr, 4);
    CHECK(space.pte(addr + pages(3)) == marker);
    space.machine->file_punch_hole(space.file, 0, pages(1));
    space.machine->file_truncate(space.file, pages(2));
    CHECK(space.pte(addr) == marker);
    CHECK(has(space.pte(addr + pages(1)), _PAGE_UFFD_WP));
    CHECK(space.pte(addr + pages(2)) == marker);
    CHECK(space.pte(addr + pages(3)) == marker);
  }
}

TEST_CASE("a slot of shmem is freed by the read-back and by truncation") {
  Space space;
  const u64 addr = space.shmem(2);
  space.write(addr);
  space.write(addr + pages(1));
  for (u64 i : {0, 1}) space.reclaim(addr + pages(i));
  CHECK(space.machine->cached_page(space.file, 0) == 0);
  CHECK(space.machine->pages.in_use() == 0);
  REQUIRE(space.machine->swap.size() == 3);  // slot 0 is the header's
  CHECK(space.machine->free_slots.empty());
  space.read(addr);
  CHECK(space.page(addr).dirty());  // what came from swap is not on disk
  CHECK(space.machine->free_slots.size() == 1);
  space.machine->file_truncate(space.file, 0);
  CHECK(space.machine->free_slots.size() == 2);
}

TEST_CASE("a page and its slot live while an entry or the swap cache needs them") {
  Space space;
  Machine& machine = *space.machine;
  const u64 addr = space.anon(1);
  space.write(addr);
  space.reclaim(addr);
  const u64 slot = swp_offset(space.pte(addr));
  CHECK(machine.swap[slot].count == 1);
  const auto child = space.mm->fork().value;
  CHECK(machine.swap[slot].count == 2);
  space.read(addr);
  CHECK(machine.swap[slot].count == 1);
  CHECK(machine.swap[slot].cached == pte_pfn(space.pte(addr)));
  CHECK_FALSE(machine.free_swap(pte_pfn(space.pte(addr))));  // the child's entry names the slot
  REQUIRE(child->munmap(addr, pages(1)).ok());
  CHECK(machine.swap[slot].count == 0);
  CHECK(machine.free_swap(pte_pfn(space.pte(addr))));
  CHECK(machine.free_slots.items() == std::vector<u64>{slot});
  CHECK(space.page(addr).dirty());
  REQUIRE(space.mm->munmap(addr, pages(1)).ok());
  CHECK(machine.pages.in_use() == 0);
}
