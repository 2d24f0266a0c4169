// mmap(2) and munmap(2): checks in the kernel's order, placement, flags, and what goes with a
// range.
#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr u32 ANON = MAP_PRIVATE_ | MAP_ANONYMOUS_;

Cause mmap_cause(Space& space, u64 addr, u64 length, int prot, u32 flags, u64 offset = 0) {
  return space.mm->mmap(addr, length, prot, flags, NO_FILE, offset).error.cause;
}

}  // namespace

TEST_CASE("do_mmap: what is refused") {
  Space s;
  CHECK(mmap_cause(s, 0, 0, PROT_RW, ANON) == Cause::length_zero);
  CHECK(mmap_cause(s, 0, pages(1), PROT_RW, MAP_ANONYMOUS_) == Cause::bad_flags);
  CHECK(mmap_cause(s, 0, pages(1), PROT_RW, 0x23) == Cause::bad_flags);  // shared and private
  CHECK(mmap_cause(s, 0, pages(1), PROT_RW, MAP_PRIVATE_) == Cause::bad_flags);  // no file
  CHECK(mmap_cause(s, 0, pages(1), PROT_RW, ANON, 1) == Cause::offset_unaligned);
  CHECK(mmap_cause(s, 1, pages(1), PROT_RW, ANON | MAP_FIXED_) == Cause::start_unaligned);
  CHECK(mmap_cause(s, 0x1000, pages(1), PROT_RW, ANON | MAP_FIXED_) == Cause::start_below_min);
  CHECK(mmap_cause(s, 0, 1ull << 47, PROT_RW, ANON) == Cause::length_overflow);
  CHECK(mmap_cause(s, 0, ~0ull, PROT_RW, ANON) == Cause::length_overflow);
  CHECK(mmap_cause(s, s.mm->task_size(), pages(1), PROT_RW, ANON | MAP_FIXED_) ==
        Cause::length_overflow);
  CHECK(s.nr_vmas() == 0);
  const FileId readonly = s.machine->create_file(FileKind::shmem, pages(1), false);
  CHECK(s.mm->mmap(0, pages(1), PROT_RW, MAP_SHARED_, readonly, 0).error.cause ==
        Cause::file_not_writable);
}

TEST_CASE("file_mmap_ok: a file ends at 2^63 - 1; of anonymous memory nobody asks the offset") {
  Space s;
  const FileId file = s.machine->create_file(FileKind::shmem, pages(1));
  const auto cause = [&](u64 length, u32 flags, u64 offset) {
    return s.mm->mmap(0, length, PROT_RW, flags, file, offset).error.cause;
  };
  CHECK(cause(pages(1), MAP_SHARED_, 1ull << 63) == Cause::offset_overflow);
  CHECK(cause(pages(1), MAP_SHARED_, (1ull << 63) - pages(1)) == Cause::offset_overflow);
  CHECK(cause(pages(1), MAP_SHARED_, (1ull << 63) - pages(2)) == Cause::none);
  CHECK(cause(1ull << 60, MAP_SHARED_, 1ull << 63) == Cause::length_overflow);  // looked at first
  CHECK(cause(pages(1), ANON, 1ull << 63) == Cause::none);
}

TEST_CASE("addresses are picked top down, a free hint is taken, rounded down") {
  Space s;
  const u64 top = s.mm->task_size();
  const auto at = [&](u64 hint, u64 nr) {
    return s.mm->mmap(hint, pages(nr), 0, ANON, NO_FILE, 0).value;
  };
  CHECK(at(0, 2) == top - pages(2));
  CHECK(at(0x10000000800, 1) == 0x10000000000);   // round_hint_to_min()
  CHECK(at(0x10000000000, 1) == top - pages(3));  // taken
  CHECK(at(0x1800, 1) == MMAP_MIN_ADDR);
  CHECK(at(0x800, 1) == top - pages(4));  // page 0: no hint at all
  CHECK(s.mm->munmap(top - pages(3), pages(1)).ok());
  CHECK(at(0, 2) == top - pages(6));  // the gap is too small
  CHECK(at(0, 1) == top - pages(3));
}

TEST_CASE("with 5 levels user memory ends at 2^56") {
  Space s(*find_profile("6.18"), 5);
  const u64 addr = s.mm->mmap(0, pages(1), PROT_RW, ANON, NO_FILE, 0).value;
  CHECK(addr == (1ull << 56) - pages(2));
  CHECK(s.write(addr).outcome == Outcome::done);
}

TEST_CASE("flags and words of new mappings") {
  Space s;
  const u64 may = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC;
  const u64 anon = s.anon(1), shared = s.shmem(1), copies = s.private_shmem(1, PROT_READ_);
  CHECK(s.vma(anon).flags == (VM_READ | VM_WRITE | may | VM_ACCOUNT));
  CHECK(s.vma(anon).page_prot == RO_NX);
  CHECK(s.vma(shared).flags == (VM_READ | VM_WRITE | may | VM_SHARED | VM_MAYSHARE));
  CHECK(s.vma(shared).page_prot == RW_NX);
  CHECK(s.vma(copies).flags == (VM_READ | may));
  CHECK(s.vma(s.anon(1, 0)).page_prot == PAGE_NONE);
  CHECK(s.vma(s.regular(1)).page_prot == RO_NX);  // write-notify
  CHECK_FALSE(has(s.vma(s.map(1, PROT_RW, ANON | MAP_NORESERVE_)).flags, VM_ACCOUNT));
  const FileId readonly = s.machine->create_file(FileKind::shmem, pages(1), false);
  const u64 seen = s.map(1, PROT_READ_, MAP_SHARED_, readonly);
  CHECK((s.vma(seen).flags & (VM_SHARED | VM_MAYSHARE | VM_MAYWRITE)) == VM_MAYSHARE);
}

TEST_CASE("shared anonymous memory is a shmem file of its own") {
  Space s;
  const u64 addr = s.map(3, PROT_RW, MAP_SHARED_ | MAP_ANONYMOUS_);
  CHECK(s.vma(addr).kind == VmaKind::shmem);
  CHECK(s.machine->files[u64(s.vma(addr).file)].size == pages(3));
  CHECK(s.vma(addr).pgoff == 0);
}

TEST_CASE("adjacent mappings merge; a file's only where the offset goes on") {
  Space s;
  const u64 addr = s.anon(4);
  REQUIRE(s.mm->munmap(addr + pages(1), pages(2)).ok());
  CHECK(s.nr_vmas() == 2);
  REQUIRE(s.mm->mmap(addr + pages(1), pages(2), PROT_RW, ANON | MAP_FIXED_, NO_FILE, 0).ok());
  CHECK(s.nr_vmas() == 1);
  const u64 file = s.shmem(8);
  const auto map = [&](u64 at, u64 offset) {
    return s.mm->mmap(file + pages(at), pages(2), PROT_RW, MAP_SHARED_ | MAP_FIXED_, s.file,
                      pages(offset));
  };
  REQUIRE(s.mm->munmap(file + pages(2), pages(6)).ok());
  REQUIRE(map(2, 2).ok());
  CHECK(s.nr_vmas() == 2);
  REQUIRE(map(4, 6).ok());
  CHECK(s.nr_vmas() == 3);
}

TEST_CASE("MAP_FIXED replaces what is there, MAP_FIXED_NOREPLACE refuses") {
  Space s;
  const u64 addr = s.anon(3);
  for (u64 i = 0; i < 3; ++i) s.write(addr + pages(i));
  CHECK(mmap_cause(s, addr, pages(1), PROT_RW, ANON | MAP_FIXED_NOREPLACE_) ==
        Cause::address_taken);
  REQUIRE(s.mm->mmap(addr + pages(1), pages(1), PROT_READ_, ANON | MAP_FIXED_, NO_FILE, 0).ok());
  CHECK(s.nr_vmas() == 3);
  CHECK(s.pte(addr + pages(1)) == 0);
  CHECK(pte_present(s.pte(addr + pages(2))));
  CHECK(s.machine->pages.in_use() == 2);
}

TEST_CASE("MAP_POPULATE and MAP_LOCKED bring the pages in") {
  Space s;
  const u64 written = s.map(2, PROT_RW, ANON | MAP_POPULATE_);
  CHECK(s.flags_of(written + pages(1)) == present(_PAGE_RW | _PAGE_DIRTY));
  const u64 read = s.map(1, PROT_READ_, ANON | MAP_LOCKED_);
  CHECK(has(s.vma(read).flags, VM_LOCKED));
  CHECK(s.flags_of(read) == present(_PAGE_SPECIAL));
}

TEST_CASE("do_vmi_munmap: checks, holes, splits") {
  Space s;
  const u64 addr = s.anon(5);
  CHECK(s.mm->munmap(addr + 1, pages(1)).cause == Cause::start_unaligned);
  CHECK(s.mm->munmap(addr, 0).cause == Cause::length_zero);
  CHECK(s.mm->munmap(addr, 1ull << 47).cause == Cause::beyond_task_size);
  CHECK(s.mm->munmap(BASE - PUD_SIZE, PUD_SIZE).ok());  // nothing there
  CHECK(s.mm->munmap(addr + pages(2), 1).ok());         // rounded up
  REQUIRE(s.nr_vmas() == 2);
  CHECK(s.vma(addr).end == addr + pages(2));
  CHECK(s.vma(addr + pages(3)).start == addr + pages(3));
  CHECK(s.vma(addr + pages(3)).pgoff == (addr >> PAGE_SHIFT) + 3);
}

TEST_CASE("free_pgtables: tables go with the last VMA that needs them") {
  Space s;
  const u64 addr = s.anon(1024);
  s.write(addr);
  s.write(addr + PMD_SIZE);
  const u64 tables = s.mm->tables.nr_tables();
  CHECK(tables == 4);
  REQUIRE(s.mm->munmap(addr + PMD_SIZE, pages(256)).ok());
  CHECK(s.mm->tables.nr_tables() == tables);  // the rest of the 2 MiB is mapped still
  REQUIRE(s.mm->munmap(addr + PMD_SIZE + pages(256), pages(256)).ok());
  CHECK(s.mm->tables.nr_tables() == tables - 1);
  REQUIRE(s.mm->munmap(addr, pages(512)).ok());
  CHECK(s.mm->tables.nr_tables() == 0);
  CHECK(s.machine->frames.in_use() == 1);
}

TEST_CASE("munmap drops markers (ZAP_FLAG_DROP_MARKER) and tells who asked for EVENT_UNMAP") {
  Space s;
  const u64 addr = s.shmem(2);
  const UffdId id = s.watch(addr, 2, MODE_WP, UFFD_FEATURE_EVENT_UNMAP);
  s.protect(id, addr, 2);
  REQUIRE(s.mm->munmap(addr, pages(1)).ok());
  const UffdMsg message = s.next_message(id);
  CHECK(message.event == UffdEvent::unmap);
  CHECK(message.address == addr);
  CHECK(message.to == addr + pages(1));
  REQUIRE(s.mm->mmap(addr, pages(1), PROT_RW, MAP_SHARED_ | MAP_FIXED_, s.file, 0).ok());
  CHECK(s.pte(addr) == 0);
  CHECK(s.pte(addr + pages(1)) == WP_MARKER);
  CHECK(s.messages(id).empty());
}

TEST_CASE("the end of an address space gives everything back and sends nothing") {
  Space s;
  {
    const auto other = std::make_shared<AddressSpace>(s.machine);
    const u64 addr = other->mmap(0, pages(4), PROT_RW, ANON, NO_FILE, 0).value;
    REQUIRE(other->access(addr, true).ok());
    CHECK(s.machine->mms().size() == 2);
    CHECK(s.machine->pages.in_use() == 1);
  }
  CHECK(s.machine->mms().size() == 1);
  CHECK(s.machine->pages.in_use() == 0);
  CHECK(s.machine->frames.in_use() == 1);
}

TEST_CASE("exit_mmap: pages, tables and contexts go, and come back with a checkpoint") {
  Space s;
  const u64 addr = s.anon(4);
  s.write(addr);
  auto child = s.mm->fork().value;
  const UffdId id = child->userfaultfd(0).value;
  const u64 frames = s.machine->frames.in_use();
  const auto before = s.machine->checkpoint();
  child->exit();
  CHECK(s.machine->mms().size() == 1);
  CHECK(s.machine->uffds[u64(id)].mm == nullptr);
  CHECK(s.page(addr).mapcount == 1);
  CHECK(s.machine->frames.in_use() < frames);
  CHECK(s.mm->validate().empty());
  REQUIRE(!s.machine->restore(*before));
  CHECK(s.machine->mms().size() == 2);
  CHECK(s.machine->uffds[u64(id)].mm == child.get());
  CHECK(s.page(addr).mapcount == 2);
  CHECK(child->validate().empty());
  CHECK(child->access(addr, true).value.outcome == Outcome::done);
}
