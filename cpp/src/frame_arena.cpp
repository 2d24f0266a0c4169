#include "ptwalk/frame_arena.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

namespace ptwalk {

namespace {

constexpr u64 WORDS_PER_LINE = 8, ALL_LINES = ~0ull;
static_assert(PTRS_PER_TABLE / WORDS_PER_LINE == 64, "FrameInfo::lines has a bit per line");

/// What of a FrameInfo can be undone.
struct SavedInfo {
  u64 row;
  u8 level;
  Uniform uniform;
};

}  // namespace

FrameArena::FrameArena(u64 limit, FrameCache& cache, UndoLog* undo)
    : cache_(cache), undo_(undo), reserved_(cache.take()), limit_(limit), free_(undo) {
  if (reserved_.frames < FrameCache::MAX_FRAMES)
    limit_ = std::min(limit_, reserved_.frames / 64 * 63);
}

FrameArena::~FrameArena() { cache_.give(reserved_); }

Pfn FrameArena::take(Level level) {
  Pfn pfn;
  if (free_.empty()) {
    if (rows() == reserved_.frames) throw std::bad_alloc();
    if (must_save(undo_, rows_stamp_))
      undo_->save(
          this,
          [](void* self, UndoLog::Bytes saved) {
            static_cast<FrameArena*>(self)->info_.resize(value_of<u64>(saved));
          },
          bytes_of(rows()));
    pfn = TABLE_PFN_BASE + rows();
    info_.emplace_back();
  } else {
    pfn = free_.pop();
  }
  will_change(pfn);
  if (pfn - TABLE_PFN_BASE < reserved_.touched)
    std::memset(table(pfn), 0, PAGE_SIZE);
  else
    reserved_.touched = pfn - TABLE_PFN_BASE + 1;
  info(pfn).level = u8(level);
  info(pfn).uniform = Uniform::no;
  return pfn;
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
  undo_->save(
      this,
      [](void* self, UndoLog::Bytes saved) {
        const auto was = value_of<SavedInfo>(saved);
        auto& all = static_cast<FrameArena*>(self)->info_;
        if (was.row >= all.size()) return;
        all[was.row].level = was.level;
        all[was.row].uniform = was.uniform;
      },
      bytes_of(SavedInfo{row, info.level, info.uniform}));
}

void FrameArena::save_entries(const u64* entry, u64 nr) {
  const u64 first = u64(entry - reserved_.base), line = first % PTRS_PER_TABLE / WORDS_PER_LINE;
  const u64 last = (first % PTRS_PER_TABLE + nr - 1) / WORDS_PER_LINE;
  save_info(first / PTRS_PER_TABLE);
  save_lines(first / PTRS_PER_TABLE, (ALL_LINES >> (63 - last)) & (ALL_LINES << line));
}

/// Saves those of the lines that are not saved yet, neighbours by one record.
void FrameArena::save_lines(u64 row, u64 lines) {
  FrameInfo& info = info_[row];
  u64 missing = lines & ~info.lines;
  info.lines |= lines;
  u64* const table = reserved_.base + row * PTRS_PER_TABLE;
  while (missing) {
    const int first = std::countr_zero(missing), nr = std::countr_one(missing >> first);
    u64* const at = table + u64(first) * WORDS_PER_LINE;
    undo_->save(at, nullptr,
                {reinterpret_cast<const std::byte*>(at), std::size_t(nr) * WORDS_PER_LINE * 8});
    missing &= nr == 64 ? 0 : ~(((1ull << nr) - 1) << first);
  }
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
