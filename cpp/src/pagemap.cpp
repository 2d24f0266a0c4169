// What user space sees: /proc/PID/pagemap words and PAGEMAP_SCAN. Models fs/proc/task_mmu.c:
// pte_to_pagemap_entry, pagemap_page_category, pagemap_scan_test_walk (v6.1, v6.12, v6.18). Frame
// numbers are always shown, as to a reader with CAP_SYS_ADMIN; hugetlb ranges read as absent.
#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {
namespace {

constexpr u64 PM_SOFT_DIRTY = 1ull << 55, PM_MMAP_EXCLUSIVE = 1ull << 56, PM_UFFD_WP = 1ull << 57,
              PM_GUARD_REGION = 1ull << 58, PM_FILE = 1ull << 61, PM_SWAP = 1ull << 62,
              PM_PRESENT = 1ull << 63;
constexpr u64 PM_PFRAME_MASK = (1ull << 55) - 1;
constexpr unsigned MAX_SWAPFILES_SHIFT = 5;

constexpr u64 PAGE_IS_WPALLOWED = 1, PAGE_IS_WRITTEN = 2, PAGE_IS_FILE = 4, PAGE_IS_PRESENT = 8,
              PAGE_IS_SWAPPED = 16, PAGE_IS_PFNZERO = 32, PAGE_IS_HUGE = 64,
              PAGE_IS_SOFT_DIRTY = 128, PAGE_IS_GUARD = 256;
constexpr u64 PM_SCAN_WP_MATCHING = 1, PM_SCAN_CHECK_WPASYNC = 2;
constexpr u64 FEATURE_WP_ASYNC = UFFD_FEATURE_WP_ASYNC;

/// Facts of the page that an entry names, as both interfaces report them.
const Page* named_page(const Machine& machine, u64 entry, Level level) {
  if (level == PTE_LEVEL && (entry & _PAGE_SPECIAL) && pte_present(entry)) return nullptr;
  if (pmd_present(entry)) return machine.pages.find(leaf_address(entry, level) >> PAGE_SHIFT);
  const SwpKind kind = machine.profile.swp_kind(entry);
  if (kind == SwpKind::swap || machine.profile.is_marker(entry)) return nullptr;
  return machine.pages.find(swp_offset(entry) & SWP_PFN_MASK);
}

u64 page_bits(const Page* page) {
  if (!page) return 0;
  return (page->anon() ? 0 : PM_FILE) | (page->mapcount == 1 ? PM_MMAP_EXCLUSIVE : 0);
}

u64 pagemap_entry(const Machine& machine, u64 entry, Level level, u64 page_in_leaf) {
  const Profile& p = machine.profile;
  if (pte_none(entry)) return 0;
  const bool uffd = p.pagemap_uffd_wp;
  const u64 about_page = page_bits(named_page(machine, entry, level));
  if (level == PTE_LEVEL ? pte_present(entry) : pmd_present(entry)) {
    const u64 frame = (leaf_address(entry, level) >> PAGE_SHIFT) + page_in_leaf;
    return frame | PM_PRESENT | about_page | (entry & p.soft_dirty_bit() ? PM_SOFT_DIRTY : 0) |
           (uffd && (entry & _PAGE_UFFD_WP) ? PM_UFFD_WP : 0);
  }
  if (p.marker_format == MarkerFormat::special_pte && p.is_marker(entry)) return 0;
  const SwpKind kind = p.swp_kind(entry);
  const bool has_pfn = kind != SwpKind::swap && kind != SwpKind::pte_marker;
  const u64 offset = has_pfn ? swp_offset(entry) & SWP_PFN_MASK : swp_offset(entry);
  const u64 frame = (u64(swp_type(entry)) | (offset << MAX_SWAPFILES_SHIFT)) & PM_PFRAME_MASK;
  const u64 bits = p.marker_bits(entry);
  const bool armed = (entry & _PAGE_SWP_UFFD_WP) || (bits & PTE_MARKER_UFFD_WP);
  return frame | PM_SWAP | about_page | (entry & p.swp_soft_dirty_bit() ? PM_SOFT_DIRTY : 0) |
         (uffd && armed ? PM_UFFD_WP : 0) | (bits & PTE_MARKER_GUARD ? PM_GUARD_REGION : 0);
}

bool armed(const Profile& p, u64 entry) {
  if (pte_present(entry)) return entry & _PAGE_UFFD_WP;
  return is_swap_pte(entry) && ((entry & _PAGE_SWP_UFFD_WP) || p.is_uffd_wp_marker(entry));
}

u64 page_categories(const Machine& machine, u64 entry) {
  const Profile& p = machine.profile;
  u64 categories = armed(p, entry) ? 0 : PAGE_IS_WRITTEN;
  if (pte_none(entry)) return categories;
  const Page* page = named_page(machine, entry, PTE_LEVEL);
  if (page && !page->anon()) categories |= PAGE_IS_FILE;
  if (pte_present(entry)) {
    categories |= PAGE_IS_PRESENT;
    if (pte_pfn(entry) == ZERO_PFN) categories |= PAGE_IS_PFNZERO;
    if (entry & p.soft_dirty_bit()) categories |= PAGE_IS_SOFT_DIRTY;
    return categories;
  }
  if (entry & p.swp_soft_dirty_bit()) categories |= PAGE_IS_SOFT_DIRTY;
  if (p.marker_bits(entry) & PTE_MARKER_GUARD) categories |= PAGE_IS_GUARD;
  return categories | PAGE_IS_SWAPPED;
}

/// One PAGEMAP_SCAN under way.
class Scan {
 public:
  Scan(AddressSpace& mm, const ScanArgs& args) : mm_(mm), args_(args) {}

  /// The VMA's part of the walk; the error is EPERM where WP_ASYNC was asked for.
  Error vma(const Vma& vma, u64 start, u64 end) {
    const bool wp_async =
        vma.uffd_wp() && (mm_.machine->uffd_features(vma.uffd) & FEATURE_WP_ASYNC);
    if (!wp_async) {
      if (args_.flags & PM_SCAN_CHECK_WPASYNC)
        return {Cause::not_wp_async, "PAGEMAP_SCAN", vma.start, vma.end, vma.flags};
      if (args_.flags & PM_SCAN_WP_MATCHING) return {};
    }
    if (vma.flags & VM_PFNMAP) return {};
    vma_categories_ =
        (wp_async ? PAGE_IS_WPALLOWED : 0) | (vma.flags & VM_SOFTDIRTY ? PAGE_IS_SOFT_DIRTY : 0);
    const u64 required = args_.mask & PAGE_IS_WPALLOWED;
    if (((vma_categories_ ^ args_.inverted) & required) != required) return {};
    for (u64 addr = start; addr < end && !full_;) addr = step(vma, addr, end);
    return {};
  }

  ScanResult result;
  [[nodiscard]] bool full() const { return full_; }

 private:
  [[nodiscard]] bool interesting(u64 categories) const {
    categories ^= args_.inverted;
    if ((categories & args_.mask) != args_.mask) return false;
    return !args_.anyof || (categories & args_.anyof);
  }

  /// An extent without a table, or one page; returns where to go on.
  u64 step(const Vma& vma, u64 addr, u64 end) {
    const WalkEnd at = mm_.tables.walk(addr);
    if (at.level > PTE_LEVEL) {
      const u64 size = level_size(at.level);
      const u64 next = std::min(end, align_down(addr, size) + size);
      const bool leaf = mm_.tables.kind(*at.entry, at.level) == EntryKind::leaf;
      // An absent table reads as written memory only in a VMA registered for wp.
      u64 categories = vma_categories_ | (vma.uffd_wp() ? PAGE_IS_WRITTEN : 0);
      if (leaf)
        categories = vma_categories_ | PAGE_IS_HUGE |
                     (pmd_present(*at.entry) ? PAGE_IS_PRESENT : PAGE_IS_SWAPPED) |
                     (armed(mm_.profile(), *at.entry) ? 0 : PAGE_IS_WRITTEN);
      if (!interesting(categories)) return next;
      const u64 stop = output(categories, addr, next);
      ProtectResult account;  // nobody asks for it
      if (stop != addr && (args_.flags & PM_SCAN_WP_MATCHING))
        (void)mm_.uffd_wp_range(vma, addr, stop, true, account);
      return stop;
    }
    mm_.machine->coverage.meet(LeafWalk::scan, mm_.profile(), *at.entry);
    const u64 categories = vma_categories_ | page_categories(*mm_.machine, *at.entry);
    if (!interesting(categories)) return addr + PAGE_SIZE;
    const u64 stop = output(categories, addr, addr + PAGE_SIZE);
    if (stop != addr && (args_.flags & PM_SCAN_WP_MATCHING))
      arm(mm_.tables.writable(addr, PTE_LEVEL));
    return addr + PAGE_SIZE;
  }

  /// make_uffd_wp_pte(): whatever matched is wr-protected, a none entry by a marker.
  void arm(u64* pte) const {
    const Profile& p = mm_.profile();
    mm_.cover(pte_present(*pte)   ? Branch::scan_arms_present
              : is_swap_pte(*pte) ? Branch::scan_arms_swap
                                  : Branch::scan_arms_none);
    if (pte_present(*pte))
      *pte = p.pte_mkuffd_wp(*pte);
    else if (is_swap_pte(*pte))
      *pte |= _PAGE_SWP_UFFD_WP;
    else
      *pte = p.make_marker(PTE_MARKER_UFFD_WP);
  }

  /// Adds [start, end) to the answer, up to max_pages and vec_len; returns how far it got. A limit
  /// that is just reached ends the walk at the next match only. (pagemap_scan_output)
  u64 output(u64 categories, u64 start, u64 end) {
    u64 nr = (end - start) >> PAGE_SHIFT;
    if (args_.max_pages) nr = std::min(nr, args_.max_pages - found_);
    auto& ranges = result.ranges;
    const u64 reported = categories & args_.returned;
    const bool extends =
        !ranges.empty() && ranges.back().end == start && ranges.back().categories == reported;
    if (!extends && args_.vec_len && ranges.size() == args_.vec_len) nr = 0;
    const u64 stop = start + (nr << PAGE_SHIFT);
    if (stop != end) {
      full_ = true;
      result.walk_end = stop;
    }
    if (stop == start) return start;
    if (extends)
      ranges.back().end = stop;
    else
      ranges.push_back({start, stop, reported});
    found_ += nr;
    return stop;
  }

  AddressSpace& mm_;
  const ScanArgs& args_;
  u64 vma_categories_ = 0;
  u64 found_ = 0;
  bool full_ = false;
};

}  // namespace

void AddressSpace::pagemap(u64 start, std::span<u64> out) const {
  std::fill(out.begin(), out.end(), 0);
  const u64 end = start + (u64(out.size()) << PAGE_SHIFT);
  for (u64 addr = start; addr < end;) {
    const VmaList::Index i = vmas.lower(addr);
    if (i == vmas.all().size() || vmas.all()[i].start >= end) return;
    const Vma& vma = vmas.all()[i];
    addr = std::max(addr, vma.start);
    const WalkEnd at = tables.walk(addr);
    const u64 size = level_size(std::max(at.level, PMD_LEVEL));
    const u64 next = std::min({end, vma.end, align_down(addr, size) + size});
    const bool leaf = at.level > PTE_LEVEL && tables.kind(*at.entry, at.level) == EntryKind::leaf;
    const u64 from_vma = vma.flags & VM_SOFTDIRTY ? PM_SOFT_DIRTY : 0;
    const u64 in_leaf = leaf ? (addr & (size - 1)) >> PAGE_SHIFT : 0;
    u64* word = out.data() + ((addr - start) >> PAGE_SHIFT);
    for (u64 page = 0; addr < next; ++page, addr += PAGE_SIZE) {
      const u64 entry = at.level == PTE_LEVEL ? at.entry[page] : leaf ? *at.entry : 0;
      *word++ = pagemap_entry(*machine, entry, at.level, leaf ? in_leaf + page : 0) | from_vma;
    }
  }
}

Result<ScanResult> AddressSpace::pagemap_scan(u64 start, u64 length, const ScanArgs& args) {
  const char* const call = "PAGEMAP_SCAN";
  const auto fail = [&](Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) {
    return Result<ScanResult>{{}, {cause, call, a, b, c}};
  };
  cover(Branch::rule_pagemap_scan);
  if (!profile().pagemap_scan) return fail(Cause::no_pagemap_scan);
  if (args.flags & ~(PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC))
    return fail(Cause::bad_scan, args.flags);
  u64 known = PAGE_IS_GUARD - 1;
  if (profile().marker_mask & PTE_MARKER_GUARD) known |= PAGE_IS_GUARD;
  const u64 asked = args.inverted | args.mask | args.anyof;
  if ((asked & ~known) || (args.returned & ~known))
    return fail(Cause::bad_scan, asked | args.returned);
  if (!is_aligned(start, PAGE_SIZE)) return fail(Cause::start_unaligned, start);
  const u64 end = start + align_up(length, PAGE_SIZE);
  if (end < start || end > task_size())  // access_ok()
    return fail(Cause::beyond_access, start, length, task_size());
  if (args.flags & PM_SCAN_WP_MATCHING)
    if (Error error = need_tables_for_pages(call, start, end)) return {{}, error};
  Scan scan(*this, args);
  for (u64 at = start; at < end && !scan.full();) {
    const Vma* vma = vmas.first_intersecting(at, end);
    if (!vma) break;
    const Range part{std::max(at, vma->start), std::min(end, vma->end)};
    if (Error error = scan.vma(*vma, part.start, part.end)) return {std::move(scan.result), error};
    at = part.end;
  }
  if (!scan.full()) scan.result.walk_end = end;
  return {std::move(scan.result), {}};
}

}  // namespace ptwalk
