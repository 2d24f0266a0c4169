#include "ptwalk/frame_arena.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>

namespace ptwalk {

namespace {

/// What of a FrameInfo can be undone.
struct SavedInfo {
  u64 row;
  u8 level;
  Uniform uniform;
  u64 dirty;
};

}  // namespace

FrameArena::FrameArena(u64 limit, FrameCache& cache, UndoLog* undo)
    : cache_(cache), undo_(undo), reserved_(cache.take()), limit_(limit), free_(undo) {
  if (reserved_.frames < FrameCache::MAX_FRAMES)
    limit_ = std::min(limit_, reserved_.frames / 64 * 63);
}

FrameArena::~FrameArena() { cache_.give(reserved_); }

/// Calls visit(first, nr) for each run of lines.
template <class Visit>
void for_each_run(u64 lines, Visit visit) {
  while (lines) {
    const int first = std::countr_zero(lines), nr = std::countr_one(lines >> first);
    visit(u64(first), u64(nr));
    lines &= nr == 64 ? 0 : ~(((1ull << nr) - 1) << first);
  }
}

Pfn FrameArena::take(Level level) {
  Pfn pfn;
  if (free_.empty()) {
    if (rows_ == reserved_.frames) throw std::bad_alloc();
    if (must_save(undo_, rows_stamp_)) undo_->save(rows_);
    pfn = TABLE_PFN_BASE + rows_++;
    if (info_.size() < rows_) info_.emplace_back();
    // Going back takes the row away, with whatever is known about it.
    info(pfn).epoch = epoch_of(undo_);
    info(pfn).lines = ALL_LINES;
  } else {
    pfn = free_.pop();
    will_change(pfn);
  }
  clear(pfn);
  FrameInfo& info = this->info(pfn);
  info.level = u8(level);
  info.uniform = Uniform::no;
  info.facts = {};
  return pfn;
}

/// Makes a frame zero, where it may hold anything else.
void FrameArena::clear(Pfn pfn) {
  const u64 row = pfn - TABLE_PFN_BASE;
  u64& dirty = info(pfn).dirty;
  if (row >= reserved_.touched) {
    reserved_.touched = row + 1;  // fresh from the system
  } else if (dirty == ALL_LINES) {
    std::memset(table(pfn), 0, PAGE_SIZE);
  } else {
    for (u64 lines = dirty; lines; lines &= lines - 1)
      std::fill_n(table(pfn) + u64(std::countr_zero(lines)) * WORDS_PER_LINE, WORDS_PER_LINE, 0);
  }
  dirty = 0;
}

void FrameArena::free(Pfn pfn) {
  will_store(table(pfn), PTRS_PER_TABLE);  // from now on nobody knows what a free frame holds
  will_change(pfn);
  info(pfn).level = 0;
  info(pfn).uniform = Uniform::no;
  free_.push(pfn);
}

void FrameArena::save_info(u64 row) {
  FrameInfo& info = info_[row];
  if (!must_save(undo_, info.epoch)) return;
  info.lines = info.level ? 0 : ALL_LINES;  // what a free frame holds is nobody's
  undo_->save_for(
      this,
      [](void* self, UndoLog::Bytes saved) {
        const auto was = value_of<SavedInfo>(saved);
        FrameInfo& info = static_cast<FrameArena*>(self)->info_[was.row];
        info.level = was.level;
        info.uniform = was.uniform;
        info.facts = {};                         // of the words that are undone
        if (was.level) info.dirty |= was.dirty;  // of a free frame, words stay as they are
      },
      SavedInfo{row, info.level, info.uniform, info.dirty});
}

/// Saves those of the lines that are not saved yet, neighbours by one record.
void FrameArena::save_entries(u64 row, u64 lines) {
  save_info(row);
  FrameInfo& info = info_[row];
  const u64 missing = lines & ~info.lines;
  info.lines |= lines;
  u64* const table = reserved_.base + row * PTRS_PER_TABLE;
  for_each_run(missing, [&](u64 first, u64 nr) {
    using Line = std::array<u64, WORDS_PER_LINE>;
    auto* const at = reinterpret_cast<Line*>(table + first * WORDS_PER_LINE);
    if (nr == 1) return undo_->save(*at);  // its size is known, so it costs less
    undo_->save(at, nullptr, {reinterpret_cast<const std::byte*>(at), nr * sizeof(Line)});
  });
}

u64 FrameArena::trim() {
  free_.sort();  // the lowest is taken first
  u64 returned = reserved_.touched > rows() ? reserved_.touched - rows() : 0;
  discard_frames(reserved_.base, rows(), reserved_.touched);
  reserved_.touched = std::min(reserved_.touched, rows());
  const std::vector<Pfn>& free = free_.items();
  for (auto run = free.rbegin(); run != free.rend();) {
    auto end = run + 1;
    while (end != free.rend() && *end == *(end - 1) + 1) ++end;
    const u64 first = *run - TABLE_PFN_BASE;
    discard_frames(reserved_.base, first, first + u64(end - run));
    returned += u64(end - run);
    run = end;
  }
  return returned * PAGE_SIZE;
}

}  // namespace ptwalk
