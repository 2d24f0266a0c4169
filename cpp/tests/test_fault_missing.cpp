// Faults on none entries: anonymous memory, files read, copied and shared, and who is asked first.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u64 RW_DIRTY = present(_PAGE_RW | _PAGE_DIRTY);
constexpr int SIGBUS_NO = 7;

}  // namespace

TEST_CASE("do_anonymous_page: the zero page for a read, a page of its own for a write") {
  Space s;
  const u64 addr = s.anon(2);
  const AccessResult read = s.read(addr + 0x123);
  CHECK(read.before == 0);
  CHECK(read.after == ((ZERO_PFN << PAGE_SHIFT) | 0x8000000000000225));
  CHECK(s.machine->pages.in_use() == 0);
  s.write(addr);  // do_wp_page copies the zero page
  s.write(addr + pages(1));
  for (u64 at : {addr, addr + pages(1)}) {
    CHECK(s.flags_of(at) == 0x8000000000000067);
    CHECK(s.anon_exclusive(at));
  }
}

TEST_CASE("do_read_fault: shared memory comes in as vm_page_prot says, dirty only on 6.18") {
  for (const auto& [name, dirty] : {std::pair{"6.1", false}, {"6.12", false}, {"6.18", true}}) {
    CAPTURE(name);
    Space s(name);
    const u64 addr = s.shmem(2);
    const u64 soft = s.machine->profile.soft_dirty_bit();
    s.read(addr);
    CHECK(s.flags_of(addr) == present(_PAGE_RW));
    s.machine->file_write(s.file, pages(1), 1);
    s.read(addr + pages(1));
    CHECK(s.flags_of(addr + pages(1)) == (dirty ? RW_DIRTY | soft : present(_PAGE_RW)));
  }
}

TEST_CASE("private mappings of a file: read-only cache pages, copies for stores") {
  Space s;
  const u64 addr = s.private_shmem(2);
  s.read(addr);
  CHECK(s.flags_of(addr) == present());
  CHECK(s.page(addr).file == s.file);
  for (u64 at : {addr, addr + pages(1)}) {
    s.write(at);
    CHECK(s.flags_of(at) == RW_DIRTY);
    CHECK(s.page(at).anon());
  }
  // do_cow_fault read the second page's original in, do_wp_page left the first one's.
  CHECK(s.machine->files[u64(s.file)].cache.size() == 2);
  CHECK(s.machine->pages.find(s.machine->cached_page(s.file, 0))->mapcount == 0);
}

TEST_CASE("do_shared_fault and write-notify: a store makes the page dirty") {
  Space s;
  const u64 addr = s.regular(1);
  s.read(addr);
  CHECK(s.flags_of(addr) == present());
  CHECK_FALSE(s.page(addr).dirty());
  s.write(addr);
  CHECK(s.flags_of(addr) == RW_DIRTY);
  CHECK(s.page(addr).dirty());
}

TEST_CASE("fault-around maps what is cached of 64 KiB, not where a userfaultfd watches") {
  Space s;
  const u64 addr = s.shmem(40);
  const u64 watched = s.map(40, PROT_RW, MAP_SHARED_, s.file);
  s.watch(watched, 40, MODE_WP);
  for (u64 index : {2u, 5u, 15u, 16u}) s.machine->file_write(s.file, pages(index), 1);
  s.read(addr + pages(5));
  for (u64 index : {2u, 5u, 15u}) CHECK(pte_present(s.pte(addr + pages(index))));
  for (u64 index : {3u, 16u}) CHECK(s.pte(addr + pages(index)) == 0);
  s.read(watched + pages(5));
  CHECK(s.pte(watched + pages(2)) == 0);
  CHECK(s.mm->count(addr, pages(40)).present == 3);
}

TEST_CASE("beyond the end of the file: SIGBUS, after the neighbours were mapped") {
  Space s;
  const u64 addr = s.shmem(4);
  s.machine->file_write(s.file, 0, 1);
  s.machine->file_truncate(s.file, pages(2));
  check_signal(s.read(addr + pages(2)), SIGBUS_NO, 2);
  CHECK(pte_present(s.pte(addr)));
  check_signal(s.write(addr + pages(3)), SIGBUS_NO, 2);
}

TEST_CASE(
    "MISSING: a message before anything is installed; a marker without a page is missing, too") {
  Space s;
  const u64 anon = s.anon(2), file = s.shmem(2);
  const UffdId id = s.watch(anon, 2, MODE_MISSING);
  CHECK(s.read(anon + 0x123).outcome == Outcome::blocked);
  const UffdMsg read = s.next_message(id);
  CHECK(read.event == UffdEvent::pagefault);
  CHECK(read.flags == 0);
  CHECK(read.address == anon);
  CHECK(s.write(anon + pages(1)).message->flags == UFFD_PAGEFAULT_FLAG_WRITE);
  CHECK(s.pte(anon) == 0);

  const UffdId both = s.watch(file, 2, MODE_MISSING | MODE_WP);
  s.write(file);
  // While it waits there are tables down to the PMD only.
  CHECK(s.mm->tables.find(file, PMD_LEVEL) != nullptr);
  CHECK(s.mm->tables.find(file, PTE_LEVEL) == nullptr);
  s.protect(both, file + pages(1), 1);
  CHECK(s.write(file + pages(1)).message->flags == UFFD_PAGEFAULT_FLAG_WRITE);
}

TEST_CASE("MINOR: the page is cached and not mapped") {
  Space s;
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_MINOR);
  s.machine->file_write(s.file, 0, 1);
  CHECK(s.read(addr).message->flags == UFFD_PAGEFAULT_FLAG_MINOR);
  CHECK(s.read(addr + pages(1)).outcome == Outcome::done);  // not cached: an ordinary fault
  CHECK(s.messages(id).size() == 1);
}
