#include "ptwalk/frame_cache.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace ptwalk {
namespace {

Reservation reserve() {
  constexpr u64 LEAST = PMD_SIZE / PAGE_SIZE;
  // By quarters: what is left of a small address space is for others.
  for (u64 frames = FrameCache::MAX_FRAMES; frames >= LEAST; frames /= 4) {
    void* base = ::mmap(nullptr, frames * PAGE_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) continue;
    // Small spaces stay in the first 2 MiB, where a huge page would cost more than it saves.
    ::madvise(static_cast<char*>(base) + PMD_SIZE, (frames - LEAST) * PAGE_SIZE, MADV_HUGEPAGE);
    return {static_cast<u64*>(base), frames, 0};
  }
  throw std::bad_alloc();
}

}  // namespace

void discard_frames(u64* base, u64 first, u64 last) {
  if (first < last)
    ::madvise(base + first * PTRS_PER_TABLE, (last - first) * PAGE_SIZE, MADV_DONTNEED);
}

FrameCache& FrameCache::shared() {
  // Never destroyed: arenas of static objects may outlive it otherwise.
  static FrameCache* const SHARED = [] {
    // A child may be forked while another thread holds the lock.
    ::pthread_atfork([] { shared().mutex_.lock(); }, [] { shared().mutex_.unlock(); },
                     [] { shared().mutex_.unlock(); });
    return new FrameCache;
  }();
  return *SHARED;
}

Reservation FrameCache::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!kept_.empty()) {
      const Reservation warmest = kept_.back();
      kept_.pop_back();
      return warmest;
    }
  }
  return reserve();
}

void FrameCache::give(Reservation reservation) {
  const std::lock_guard lock(mutex_);
  u64 warm = 0;
  for (const Reservation& kept : kept_) warm += kept.touched;
  if (kept_.size() == MAX_KEPT || reservation.frames < MAX_FRAMES) {
    ::munmap(reservation.base, reservation.frames * PAGE_SIZE);
    return;
  }
  const u64 keep = std::min(reservation.touched, MAX_WARM - warm);
  discard_frames(reservation.base, keep, reservation.touched);
  reservation.touched = keep;
  kept_.push_back(reservation);
  std::sort(kept_.begin(), kept_.end(),
            [](const auto& a, const auto& b) { return a.touched < b.touched; });
}

u64 FrameCache::trim() {
  const std::lock_guard lock(mutex_);
  u64 frames = 0;
  for (const Reservation& kept : kept_) {
    frames += kept.touched;
    ::munmap(kept.base, kept.frames * PAGE_SIZE);
  }
  kept_.clear();
  return frames * PAGE_SIZE;
}

}  // namespace ptwalk
