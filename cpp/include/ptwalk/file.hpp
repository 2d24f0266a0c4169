// Files and their page cache: sparse, by page index. Models address_space->i_pages as far as page
// faults, truncation and reclaim look at it (mm/filemap.c, mm/shmem.c, v6.18); readahead, writeback
// and large folios in the cache are left out.
#pragma once

#include <map>

#include "ptwalk/page.hpp"

namespace ptwalk {

enum class FileKind : u8 {
  shmem,    ///< memfd, tmpfs, shared anonymous memory
  regular,  ///< page_mkwrite and writeback: write-notify
  hugetlb,
  dax,  ///< DAX mapping: device frames, write-notify
};

/// What the page cache holds at an index: a frame, or the swap slot of a swapped-out shmem page.
struct CacheEntry {
  Pfn pfn = 0;
  u64 swap_slot = NO_SLOT;
  [[nodiscard]] bool swapped() const { return swap_slot != NO_SLOT; }
};

struct File {
  FileKind kind = FileKind::shmem;
  bool writable = true;  ///< opened for writing; decides VM_MAYWRITE of shared mappings
  u64 size = 0;          ///< bytes
  std::map<u64, CacheEntry> cache;

  [[nodiscard]] u64 nr_pages() const { return align_up(size, PAGE_SIZE) >> PAGE_SHIFT; }
};

/// Swap slots of area 0. A slot lives while entries, a page in the swap cache or the page cache
/// need it.
struct SwapSlot {
  u32 count = 0;   ///< swap entries and shmem cache entries that name it
  Pfn cached = 0;  ///< the page in the swap cache, 0 for none
};

}  // namespace ptwalk
