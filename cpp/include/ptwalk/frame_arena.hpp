// The frames that page tables live in: one reserved, lazily committed mapping, so that a pfn
// becomes a pointer by a shift and an add. Frames are recycled warm. No kernel counterpart:
// pte_alloc_one() takes any page; here table frames have a pfn range of their own, from
// TABLE_PFN_BASE.
#pragma once

#include <vector>

#include "ptwalk/frame_cache.hpp"
#include "ptwalk/leaf_facts.hpp"
#include "ptwalk/undo.hpp"

namespace ptwalk {

/// First pfn of table frames: physical address 16 TiB, above every page frame.
inline constexpr Pfn TABLE_PFN_BASE = 1ull << 32;

/// What every page below a shared table has in its entry; `no`: the table is nobody else's.
enum class Uniform : u8 { no, none, marker };

/// What is known about a table frame beside its 512 words.
struct FrameInfo {
  u8 level = 0;  ///< level of its entries; 0: free
  Uniform uniform = Uniform::no;
  LeafFacts facts{};  ///< of a PTE table; unknown from every store on
  u64 epoch = 0;      ///< of the undo log, when this and `lines` were last saved
  u64 lines = 0;      ///< cache lines of the table that are saved, a bit each
  u64 dirty = ~0ull;  ///< lines that may hold anything but zeros
};

static_assert(sizeof(FrameInfo) == 48, "a table costs its 4 KiB and little more");

class FrameArena {
 public:
  /// What may be in use at once unless the user says otherwise; the rest of a reservation is for
  /// alloc_beyond_limit().
  static constexpr u64 DEFAULT_LIMIT = FrameCache::MAX_FRAMES / 64 * 63;

  /// Commits nothing. The limit is lower where only a small reservation can be had.
  explicit FrameArena(u64 limit = DEFAULT_LIMIT, FrameCache& cache = FrameCache::shared(),
                      UndoLog* undo = nullptr);
  ~FrameArena();
  FrameArena(const FrameArena&) = delete;
  FrameArena& operator=(const FrameArena&) = delete;

  /// A zeroed frame for a table of `level`, or 0 when the limit is reached.
  [[nodiscard]] Pfn alloc(Level level) { return available() ? take(level) : 0; }
  /// The same for what must not fail: copying a shared table. Throws std::bad_alloc at the end of
  /// the reservation.
  [[nodiscard]] Pfn alloc_beyond_limit(Level level) { return take(level); }
  void free(Pfn pfn);
  /// The caller is about to store to `nr` entries of one table: they are saved where somebody may
  /// want them back.
  void will_store(const u64* entry, u64 nr = 1) {
    const u64 first = u64(entry - reserved_.base), row = first / PTRS_PER_TABLE;
    const u64 line = first % PTRS_PER_TABLE / WORDS_PER_LINE;
    const u64 last = (first % PTRS_PER_TABLE + nr - 1) / WORDS_PER_LINE;
    const u64 lines = ((2ull << (last - line)) - 1) << line;
    FrameInfo& info = info_[row];
    if (undo_ && undo_->active() && (info.epoch != undo_->epoch() || (lines & ~info.lines)))
      save_entries(row, lines);
    info.dirty |= lines;
    info.facts.known = false;
    shape_ += info.level != PTE_LEVEL;
  }
  /// The caller is about to store to all of a table that it has just allocated.
  void will_fill(Pfn pfn) { info(pfn).dirty = ALL_LINES; }
  /// Changes whenever an entry above the PTE level may: until then a PTE stays where it was found.
  [[nodiscard]] u64 shape() const { return shape_; }
  /// Frames and entries have changed by themselves: a checkpoint was restored.
  void was_restored() { ++shape_; }
  /// The caller is about to change the frame's info.
  void will_change(Pfn pfn) {
    if (undo_ && undo_->active()) save_info(pfn - TABLE_PFN_BASE);
  }

  /// Whether `pfn` is a table frame in use.
  [[nodiscard]] bool owns(Pfn pfn) const {
    const u64 i = pfn - TABLE_PFN_BASE;
    return i < rows_ && info_[i].level != 0;
  }
  [[nodiscard]] u64* table(Pfn pfn) const {
    return reserved_.base + (pfn - TABLE_PFN_BASE) * PTRS_PER_TABLE;
  }
  [[nodiscard]] FrameInfo& info(Pfn pfn) { return info_[pfn - TABLE_PFN_BASE]; }
  [[nodiscard]] const FrameInfo& info(Pfn pfn) const { return info_[pfn - TABLE_PFN_BASE]; }
  /// The frame that an entry of one of the tables lies in.
  [[nodiscard]] Pfn pfn_of(const u64* entry) const {
    return TABLE_PFN_BASE + u64(entry - reserved_.base) / PTRS_PER_TABLE;
  }
  /// Frames ever handed out: rows of the image, free ones included (they are zero or stale).
  [[nodiscard]] u64 rows() const { return rows_; }
  [[nodiscard]] u64 in_use() const { return rows_ - free_.size(); }
  [[nodiscard]] const u64* image() const { return reserved_.base; }

  [[nodiscard]] u64 limit() const { return limit_; }
  /// Frames that alloc() may still hand out.
  [[nodiscard]] u64 available() const { return limit_ > in_use() ? limit_ - in_use() : 0; }
  /// Returns the memory of frames that are free to the system; the bytes.
  u64 trim();

 private:
  static constexpr u64 WORDS_PER_LINE = 8, ALL_LINES = ~0ull;
  static_assert(PTRS_PER_TABLE / WORDS_PER_LINE == 64, "FrameInfo has a bit per line");

  [[nodiscard]] Pfn take(Level level);
  void clear(Pfn pfn);
  void save_entries(u64 row, u64 lines);
  void save_info(u64 row);

  FrameCache& cache_;
  UndoLog* undo_;
  Reservation reserved_;
  u64 limit_;
  std::vector<FrameInfo> info_;  ///< of every frame that was ever handed out; the first rows_ count
  u64 rows_ = 0;
  UndoStack<Pfn> free_;
  u64 rows_stamp_ = 0;
  u64 shape_ = 1;
};

}  // namespace ptwalk
