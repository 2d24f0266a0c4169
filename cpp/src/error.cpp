// The errno and the text of every cause: one row each. In a text, {a} {b} {c} are 16-digit
// addresses, {A} {B} {C} short hex numbers, {1} {2} {3} decimal ones, {vma} is the range a-b with
// the permissions of c.
#include "ptwalk/error.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <iterator>
#include <string_view>

#include "ptwalk/vma.hpp"

namespace ptwalk {
namespace {

struct Row {
  Cause cause;
  int err;
  std::string_view text;
};

constexpr Row ROWS[] = {
    {Cause::none, 0, "no error"},
    {Cause::entry_unaligned, 0,
     "address {a} is not page aligned (4096); round down with ptwalk.page_align_down"},
    {Cause::entry_level, 0, "level {A} does not exist with {B} paging levels; use pte … pgd"},
    {Cause::entry_not_a_frame, 0,
     "entry {a} would point to frame {B}, which is no page-table frame of this machine; make a "
     "table "
     "with alloc_table()"},
    {Cause::entry_wrong_frame, 0,
     "entry {a} would point to table frame {B}, which is of another level or hangs elsewhere "
     "already; "
     "make a table with alloc_table()"},
    {Cause::entry_no_table, 0,
     "no table of level {A} maps {b}; make the tables above it with alloc_table()"},
    {Cause::entry_not_none, 0,
     "the entry of level {A} for {b} is {c}, not none; munmap its range, or clear a leaf with "
     "set_entry()"},
    {Cause::bad_table_flags, 0,
     "flags {A} do not make a table entry of level {B}; a user table entry has 0x67 (P RW US A D)"},
    {Cause::entry_not_canonical, 0,
     "address {a} is not canonical user memory (it ends at {b} with {C} paging levels)"},
    {Cause::range_unaligned, 0,
     "range {a}-{b} is not page aligned (4096); round down with ptwalk.page_align_down"},
    {Cause::range_backwards, 0,
     "range {a}-{b} is empty or ends before it starts; start must be < end"},
    {Cause::both_wp_and_resolve, 0,
     "cp_flags {A} hold both MM_CP_UFFD_WP and MM_CP_UFFD_WP_RESOLVE; a request is one of the two"},
    {Cause::unknown_cp_flag, 0,
     "cp_flags {A} hold a bit that is no MM_CP_ flag; use ptwalk.MM_CP_*"},
    {Cause::vma_missing, 0, "no VMA holds {a}; map it with mmap() first"},
    {Cause::huge_fault, 0,
     "{a} lies in a huge page, whose faults are not modelled; see docs/fidelity.md"},
    {Cause::checkpoint_void, 0,
     "the checkpoint is void: it is another machine's, or one made before it was restored since; "
     "make a new one"},
    {Cause::space_gone, 0,
     "the address space is gone: it was made after the checkpoint that was restored; fork again"},
    {Cause::out_of_frames, ENOMEM,
     "{1} page-table frames are in use, the limit is {2}, and the call may need {3} more; unmap "
     "something, or make the machine with a larger max_tables"},
    {Cause::start_unaligned, EINVAL,
     "start {a} is not page aligned (4096); round down with ptwalk.page_align_down"},
    {Cause::length_unaligned, EINVAL,
     "length {A} is not a multiple of the page size (4096); round up with ptwalk.page_align"},
    {Cause::length_zero, EINVAL, "length is 0; give at least one page (4096)"},
    {Cause::length_overflow, ENOMEM,
     "range of length {B} from {a} wraps or leaves the address space; shorten it"},
    {Cause::start_below_min, EINVAL,
     "start {a} is below mmap_min_addr ({B}); the first mappable address is {b}"},
    {Cause::beyond_task_size, EINVAL,
     "range of length {B} from {a} leaves user memory, which ends at {c}; shorten it"},
    {Cause::beyond_access, EFAULT,
     "{B} bytes from {a} reach beyond {c}, where user memory ends; shorten the range"},
    {Cause::offset_unaligned, EINVAL,
     "offset {A} is not page aligned (4096); round down with ptwalk.page_align_down"},
    {Cause::offset_overflow, EOVERFLOW,
     "offset {A} with length {B} lies beyond 2**63 - 1, the largest file; give a smaller one"},
    {Cause::address_taken, EEXIST,
     "{a}-{b} overlaps a mapping and MAP_FIXED_NOREPLACE was given; munmap it or use MAP_FIXED"},
    {Cause::no_space, ENOMEM,
     "no gap of length {A} is left in the address space; munmap something"},
    {Cause::bad_flags, EINVAL,
     "flags {A} are not a valid combination; give exactly one of shared and private, and known "
     "flags"},
    {Cause::bad_mremap_flags, EINVAL,
     "flags {A} are not valid; MREMAP_FIXED and MREMAP_DONTUNMAP need MREMAP_MAYMOVE"},
    {Cause::bad_prot, EINVAL, "prot {A} has bits other than PROT_READ, PROT_WRITE and PROT_EXEC"},
    {Cause::grow_both, EINVAL, "prot {A} has both PROT_GROWSDOWN and PROT_GROWSUP; give one"},
    {Cause::hole, ENOMEM, "nothing is mapped at {a}; the range must be mapped without a hole"},
    {Cause::no_vma, ENOENT, "no VMA lies in {a}-{b}; mmap and register it first"},
    {Cause::no_vma_einval, EINVAL, "no VMA lies in {a}-{b}; mmap it first"},
    {Cause::may_not, EACCES,
     "VMA {vma} may not get that access (its VM_MAY* flags lack it); map the file for it"},
    {Cause::map_count, ENOMEM,
     "more than 65530 VMAs (vm.max_map_count) would be needed; unmap some"},
    {Cause::file_not_writable, EACCES,
     "a shared writable mapping needs a file opened for writing; map it private or read-only"},
    {Cause::not_registered, ENOENT,
     "VMA {vma} is not registered with this userfaultfd; call uffd.register({a}, {length}, …) "
     "first"},
    {Cause::not_registered_wp, ENOENT,
     "VMA {vma} is not registered for wp; call uffd.register({a}, {length}, \"wp\") first"},
    {Cause::not_registered_einval, EINVAL,
     "VMA {vma} is registered with another userfaultfd; unregister it there"},
    {Cause::not_registered_here, EINVAL,
     "VMA {vma} is not registered with this userfaultfd; register it here first"},
    {Cause::wp_not_registered_einval, EINVAL,
     "VMA {vma} is not registered for wp, so mode WP is refused; register it with \"wp\""},
    {Cause::unknown_ioctl, EINVAL,
     "this kernel does not know the ioctl (POISON came in v6.6, MOVE in v6.8); use a later "
     "profile"},
    {Cause::no_pagemap_scan, ENOTTY, "this kernel has no PAGEMAP_SCAN (v6.7); use a later profile"},
    {Cause::one_vma_rule, ENOENT,
     "{a}-{b} is not inside one VMA, which this kernel asks for; call once per VMA"},
    {Cause::wrong_backing, EINVAL,
     "VMA {vma} has a backing or access rights that this kernel refuses here; shmem and hugetlb "
     "take wp from v5.19 on"},
    {Cause::huge_unaligned, EINVAL,
     "{a} with length {B} is not a multiple of the huge page size; align both"},
    {Cause::no_may_write, EPERM,
     "VMA {vma} lacks VM_MAYWRITE, which a registration needs; map the file writable"},
    {Cause::owned_by_other, EBUSY,
     "VMA {vma} is registered with another userfaultfd; unregister it there first"},
    {Cause::bad_mode, EINVAL,
     "mode {A} holds a bit that this call lacks, none, or two that exclude each other"},
    {Cause::mmap_changing, EAGAIN,
     "a fork, remap, remove or unmap event is not read yet; call uffd.read() first"},
    {Cause::closed, EBADF, "the userfaultfd is closed; open another with mm.userfaultfd()"},
    {Cause::api_missing, EINVAL, "the UFFDIO_API call of this userfaultfd failed; open another"},
    {Cause::bad_feature, EINVAL, "features {A} hold bits that this kernel lacks (it has {B})"},
    {Cause::table_alloc_failed, ENOMEM,
     "a page table for {a} could not be allocated; unmap something and call again"},
    {Cause::entry_exists, EEXIST, "{a} already has an entry ({b}); zap it first"},
    {Cause::entry_missing, ENOENT, "{a} has no page to take; touch it first"},
    {Cause::entry_busy, EBUSY, "the page at {a} is shared or pinned; only an exclusive page moves"},
    {Cause::entry_migrating, EAGAIN,
     "the page at {a} is being migrated; finish that and call again"},
    {Cause::entry_special, EFAULT, "{a} holds {b}, an entry that cannot be used here"},
    {Cause::fault_repeats, EFAULT,
     "{a} holds {b}, for which the kernel would take the same fault for ever; store another entry"},
    {Cause::page_not_cached, EFAULT, "{a} is not in the page cache; write the file's page first"},
    {Cause::beyond_eof, EFAULT, "{a} lies beyond the end of its file; extend the file first"},
    {Cause::beyond_eof_einval, EINVAL,
     "{a} lies beyond the end of its file, where no page can be; extend the file first"},
    {Cause::locked_vma, EINVAL, "VMA {vma} is locked or special, which this advice refuses"},
    {Cause::bad_advice, EINVAL, "VMA {vma} does not support this advice"},
    {Cause::unknown_advice, EINVAL, "advice {A} does not exist in this kernel; see ptwalk.MADV_*"},
    {Cause::unmodelled_advice, 0, "advice {A} is not modelled; see docs/fidelity.md"},
    {Cause::guard_livelock, EINTR,
     "{a}-{b} holds wr-protected file pages, which the kernel zaps and finds again without end; "
     "resolve them first"},
    {Cause::wraps, EINVAL, "range of length {B} from {a} wraps; shorten it"},
    {Cause::page_fault_failed, EFAULT,
     "the page at {a} cannot be faulted in (signal {B}, code {C})"},
    {Cause::page_poisoned, EHWPOISON, "the page at {a} is poisoned (signal {B}, code {C})"},
    {Cause::gup_refused, EINVAL,
     "VMA {vma} does not allow the access that would bring its pages in; mprotect it first"},
    {Cause::lock_fault_failed, ENOMEM,
     "the page at {a} cannot be faulted in; the range is locked all the same"},
    {Cause::would_block, EAGAIN,
     "the page at {a} waits for its userfaultfd handler; resolve the fault and call again"},
    {Cause::overlap, EINVAL, "the ranges at {a} and {b} overlap; give disjoint ones"},
    {Cause::resized_old, EINVAL,
     "old length {A} and new length {B} are not valid with these flags"},
    {Cause::not_mapped, EFAULT, "nothing is mapped at {a}; give the start of a mapping"},
    {Cause::crosses_vma, EFAULT,
     "{B} bytes from {a} are not in one VMA, which this kernel asks for here; move each by itself"},
    {Cause::bad_scan, EINVAL,
     "flags or categories {A} hold bits that this kernel lacks; use ptwalk.PAGE_IS_* and "
     "PM_SCAN_*"},
    {Cause::not_wp_async, EPERM,
     "VMA {vma} is not registered with WP_ASYNC; PM_SCAN_WP_MATCHING needs that"},
    {Cause::partial, EAGAIN, "stopped after {A} bytes; call again for the rest"},
};

static_assert(std::size(ROWS) == std::size_t(Cause::beyond_access) + 1, "one row per cause");

/// The row of each cause.
constexpr auto INDICES = [] {
  std::array<u8, std::size(ROWS)> indices{};
  for (std::size_t i = 0; i < std::size(ROWS); ++i) indices[std::size_t(ROWS[i].cause)] = u8(i);
  return indices;
}();

const Row& row_of(Cause cause) { return ROWS[INDICES[std::size_t(cause)]]; }

std::string hex16(u64 value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string hex(u64 value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string field(std::string_view name, const Error& e) {
  if (name == "a") return hex16(e.a);
  if (name == "b") return hex16(e.b);
  if (name == "c") return hex16(e.c);
  if (name == "A") return hex(e.a);
  if (name == "B") return hex(e.b);
  if (name == "C") return hex(e.c);
  if (name == "1") return std::to_string(e.a);
  if (name == "2") return std::to_string(e.b);
  if (name == "3") return std::to_string(e.c);
  if (name == "vma") return vma_range(e.a, e.b, e.c);
  return hex(e.b - e.a);  // {length}
}

}  // namespace

int errno_of(Cause cause) { return row_of(cause).err; }

std::string describe(const Error& error) {
  std::string out = *error.call ? std::string(error.call) + ": " : std::string();
  std::string_view text = row_of(error.cause).text;
  while (!text.empty()) {
    const auto open = text.find('{');
    out += text.substr(0, open);
    if (open == std::string_view::npos) break;
    const auto close = text.find('}', open);
    out += field(text.substr(open + 1, close - open - 1), error);
    text.remove_prefix(close + 1);
  }
  return out;
}

std::string permissions(u64 vm_flags) {
  std::string text = "---p";
  if (vm_flags & VM_READ) text[0] = 'r';
  if (vm_flags & VM_WRITE) text[1] = 'w';
  if (vm_flags & VM_EXEC) text[2] = 'x';
  if (vm_flags & (VM_SHARED | VM_MAYSHARE)) text[3] = 's';
  return text;
}

std::string vma_range(u64 start, u64 end, u64 flags) {
  return hex16(start) + "-" + hex16(end) + " " + permissions(flags);
}

}  // namespace ptwalk
