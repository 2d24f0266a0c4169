// Causes, their errno and their text: every cause has one row, and every text is whole.
#include "ptwalk/error.hpp"

#include <doctest/doctest.h>

#include <cerrno>
#include <set>

#include "ptwalk/vma.hpp"

using namespace ptwalk;

namespace {

constexpr int LAST = int(Cause::beyond_access);

}  // namespace

TEST_CASE("every cause has a row of its own") {
  std::set<std::string> texts;
  for (int i = 0; i <= LAST; ++i) {
    CAPTURE(i);
    const std::string text = describe({Cause(i), ""});
    CHECK(text.size() > 5);
    CHECK((text == "no error") == (i == 0));
    texts.insert(text);
  }
  CHECK(texts.size() == LAST + 1);
}

TEST_CASE("no text holds a field that was not filled in, or a line break") {
  for (int i = 0; i <= LAST; ++i) {
    CAPTURE(i);
    const std::string text = describe({Cause(i), "call", 0x1000, 0x2000, VM_READ});
    CHECK(text.find_first_of("{}\n") == std::string::npos);
    CHECK(text.starts_with("call: "));
  }
}

TEST_CASE("what no system call judges has no errno, the rest has the kernel's") {
  for (Cause cause :
       {Cause::entry_unaligned, Cause::entry_level, Cause::entry_not_a_frame, Cause::entry_no_table,
        Cause::entry_not_none, Cause::bad_table_flags, Cause::entry_not_canonical,
        Cause::range_unaligned, Cause::range_backwards, Cause::both_wp_and_resolve,
        Cause::unknown_cp_flag, Cause::vma_missing, Cause::huge_fault})
    CHECK(errno_of(cause) == 0);
  for (int i = int(Cause::start_unaligned); i <= LAST; ++i) {
    CAPTURE(i);
    CHECK((errno_of(Cause(i)) > 0) == (Cause(i) != Cause::unmodelled_advice));
  }
  CHECK(errno_of(Cause::hole) == ENOMEM);
  CHECK(errno_of(Cause::may_not) == EACCES);
  CHECK(errno_of(Cause::not_registered) == ENOENT);
  CHECK(errno_of(Cause::owned_by_other) == EBUSY);
  CHECK(errno_of(Cause::mmap_changing) == EAGAIN);
  CHECK(errno_of(Cause::no_may_write) == EPERM);
  CHECK(errno_of(Cause::entry_exists) == EEXIST);
  CHECK(errno_of(Cause::page_not_cached) == EFAULT);
  CHECK(errno_of(Cause::page_poisoned) == EHWPOISON);
}

TEST_CASE("a message names the call, the value, the rule and the remedy") {
  CHECK(describe({Cause::start_unaligned, "mprotect", 0x10001001}) ==
        "mprotect: start 0x0000000010001001 is not page aligned (4096); round down with "
        "ptwalk.page_align_down");
  CHECK(describe({Cause::not_registered_wp, "UFFDIO_WRITEPROTECT", 0x7f0000000000, 0x7f0000002000,
                  VM_READ | VM_WRITE | VM_SHARED}) ==
        "UFFDIO_WRITEPROTECT: VMA 0x00007f0000000000-0x00007f0000002000 rw-s is not registered for "
        "wp; call uffd.register(0x00007f0000000000, 0x2000, \"wp\") first");
}

TEST_CASE("permissions as /proc/PID/maps prints them") {
  CHECK(permissions(0) == "---p");
  CHECK(permissions(VM_READ | VM_EXEC) == "r-xp");
  CHECK(permissions(VM_READ | VM_WRITE | VM_SHARED) == "rw-s");
  CHECK(permissions(VM_READ | VM_MAYSHARE) == "r--s");  // a file that was opened read-only
}
