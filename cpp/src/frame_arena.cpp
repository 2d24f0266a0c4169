#include "ptwalk/frame_arena.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace ptwalk {

FrameArena::FrameArena(u64 limit, FrameCache& cache)
    : cache_(cache), reserved_(cache.take()), limit_(limit) {
  if (reserved_.frames < FrameCache::MAX_FRAMES)
    limit_ = std::min(limit_, reserved_.frames / 64 * 63);
}

FrameArena::~FrameArena() { cache_.give(reserved_); }

Pfn FrameArena::take(Level level) {
  Pfn pfn;
  if (free_.empty()) {
    if (rows() == reserved_.frames) throw std::bad_alloc();
    pfn = TABLE_PFN_BASE + rows();
    info_.emplace_back();
  } else {
    pfn = free_.back();
    free_.pop_back();
  }
  if (pfn - TABLE_PFN_BASE < reserved_.touched)
    std::memset(table(pfn), 0, PAGE_SIZE);
  else
    reserved_.touched = pfn - TABLE_PFN_BASE + 1;
  info(pfn) = {.level = u8(level)};
  return pfn;
}

void FrameArena::free(Pfn pfn) {
  info(pfn) = {};
  free_.push_back(pfn);
}

u64 FrameArena::trim() {
  std::sort(free_.begin(), free_.end(), std::greater<>());  // the lowest is taken first
  u64 returned = reserved_.touched > rows() ? reserved_.touched - rows() : 0;
  discard_frames(reserved_.base, rows(), reserved_.touched);
  reserved_.touched = std::min(reserved_.touched, rows());
  for (auto run = free_.rbegin(); run != free_.rend();) {
    auto end = run + 1;
    while (end != free_.rend() && *end == *(end - 1) + 1) ++end;
    const u64 first = *run - TABLE_PFN_BASE;
    discard_frames(reserved_.base, first, first + u64(end - run));
    returned += u64(end - run);
    run = end;
  }
  return returned * PAGE_SIZE;
}

}  // namespace ptwalk
