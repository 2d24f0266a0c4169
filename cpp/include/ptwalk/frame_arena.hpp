// The frames that page tables live in: one reserved, lazily committed mapping, so that a pfn
// becomes a pointer by a shift and an add. Frames are recycled warm. No kernel counterpart:
// pte_alloc_one() takes any page; here table frames have a pfn range of their own, from
// TABLE_PFN_BASE.
#pragma once

#include <vector>

#include "ptwalk/types.hpp"

namespace ptwalk {

/// First pfn of table frames: physical address 16 TiB, above every page frame.
inline constexpr Pfn TABLE_PFN_BASE = 1ull << 32;

/// What is known about a table frame beside its 512 words.
struct FrameInfo {
  u8 level = 0;  ///< level of its entries; 0: free
};

class FrameArena {
 public:
  /// Reserves address space for up to `max_frames` frames; takes less where that is refused
  /// (RLIMIT_AS). Commits nothing.
  explicit FrameArena(u64 max_frames = 1ull << 24);
  ~FrameArena();
  FrameArena(const FrameArena&) = delete;
  FrameArena& operator=(const FrameArena&) = delete;

  /// A zeroed frame for a table of `level`, or 0 when the arena is full.
  [[nodiscard]] Pfn alloc(Level level);
  void free(Pfn pfn);

  /// Whether `pfn` is a table frame in use.
  [[nodiscard]] bool owns(Pfn pfn) const {
    const u64 i = pfn - TABLE_PFN_BASE;
    return i < info_.size() && info_[i].level != 0;
  }
  [[nodiscard]] u64* table(Pfn pfn) const {
    return base_ + (pfn - TABLE_PFN_BASE) * PTRS_PER_TABLE;
  }
  [[nodiscard]] Level level(Pfn pfn) const { return info_[pfn - TABLE_PFN_BASE].level; }
  /// Frames ever handed out: rows of the image, free ones included (they are zero or stale).
  [[nodiscard]] u64 rows() const { return info_.size(); }
  [[nodiscard]] u64 in_use() const { return info_.size() - free_.size(); }
  [[nodiscard]] const u64* image() const { return base_; }

 private:
  u64* base_ = nullptr;
  u64 max_frames_ = 0;
  std::vector<FrameInfo> info_;
  std::vector<Pfn> free_;
};

}  // namespace ptwalk
