#include "ptwalk/frame_arena.hpp"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace ptwalk {

FrameArena::FrameArena(u64 max_frames) : max_frames_(max_frames) {
  void* base = MAP_FAILED;
  for (; max_frames_ >= 512; max_frames_ /= 2) {
    base = ::mmap(nullptr, max_frames_ * PAGE_SIZE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base != MAP_FAILED) break;
  }
  if (base == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<u64*>(base);
  // Small spaces stay in the first 2 MiB, where a huge page would cost more than it saves.
  ::madvise(static_cast<char*>(base) + PMD_SIZE, (max_frames_ - 512) * PAGE_SIZE, MADV_HUGEPAGE);
}

FrameArena::~FrameArena() { ::munmap(base_, max_frames_ * PAGE_SIZE); }

Pfn FrameArena::alloc(Level level) {
  Pfn pfn;
  if (!free_.empty()) {
    pfn = free_.back();
    free_.pop_back();
    std::memset(table(pfn), 0, PAGE_SIZE);
  } else {
    if (info_.size() == max_frames_) return 0;
    pfn = TABLE_PFN_BASE + info_.size();
    info_.emplace_back();
  }
  info_[pfn - TABLE_PFN_BASE].level = u8(level);
  return pfn;
}

void FrameArena::free(Pfn pfn) {
  info_[pfn - TABLE_PFN_BASE].level = 0;
  free_.push_back(pfn);
}

}  // namespace ptwalk
