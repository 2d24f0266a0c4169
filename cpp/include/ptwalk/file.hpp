// Files, and the slots of the swap area. Models struct inode and swap_info_struct as far as page
// faults, truncation and reclaim look at them (mm/shmem.c, mm/swapfile.c, v6.18); writeback is left
// out.
#pragma once

#include "ptwalk/page_cache.hpp"

namespace ptwalk {

enum class FileKind : u8 {
  shmem,    ///< memfd, tmpfs, shared anonymous memory
  regular,  ///< page_mkwrite and writeback: write-notify
  hugetlb,
  dax,  ///< DAX mapping: device frames, write-notify
};

struct File {
  explicit File(UndoLog* undo) : cache(undo) {}

  FileKind kind = FileKind::shmem;
  bool writable = true;  ///< opened for writing; decides VM_MAYWRITE of shared mappings
  u64 size = 0;          ///< bytes
  PageCache cache;
  u64 stamp = 0;

  void save(UndoLog& undo) { undo.save(size); }
  void reset() { cache.reset(); }

  [[nodiscard]] u64 nr_pages() const { return align_up(size, PAGE_SIZE) >> PAGE_SHIFT; }
};

/// Swap slots of area 0. A slot lives while entries, a page in the swap cache or the page cache
/// need it.
struct SwapSlot {
  explicit SwapSlot(UndoLog*) {}

  Pfn cached = 0;  ///< the page in the swap cache, 0 for none
  u32 count = 0;   ///< swap entries and shmem cache entries that name it
  u64 stamp = 0;

  void save(UndoLog& undo) { undo.save(*this); }
  void reset() { *this = SwapSlot(nullptr); }
};

}  // namespace ptwalk
