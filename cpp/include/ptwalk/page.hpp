// The facts about page frames that decide page-table entries: anonymous or cache, AnonExclusive,
// map count, dirty. Models the parts of struct page and struct folio that mm/memory.c and
// mm/mprotect.c ask for (v6.18); reference counts, LRU lists, nodes and memory cgroups are left
// out.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "ptwalk/undo.hpp"

namespace ptwalk {

using FileId = i64;
inline constexpr FileId NO_FILE = -1;
inline constexpr u64 NO_SLOT = ~0ull;

enum PageFlags : u16 {
  PG_allocated = 1,
  PG_anon = 2,
  PG_anon_exclusive = 4,  ///< PageAnonExclusive, v5.19 on; kept by PagePool, see there
  PG_dirty = 8,           ///< the folio is dirty
  PG_swapcache = 16,
  PG_ksm = 32,
  PG_lazyfree = 64,  ///< MADV_FREE: clean and not swap backed
  PG_referenced = 128,
  PG_locked = 256,  ///< under migration: whoever needs the page waits
};

/// Facts of one frame. A pfn without facts is an ordinary page with one mapping.
struct Page {
  u64 serial = 0;  ///< identity: never used again after the page was freed
  u64 index = 0;   ///< page offset in its file, or its linear address >> 12 when anonymous
  FileId file = NO_FILE;
  u64 swap_slot = NO_SLOT;  ///< while PG_swapcache
  u32 anon_vma = 0;
  u32 mapcount = 0;
  u16 flags = 0;
  u8 order = 0;      ///< folio order; 9 for a transparent huge page
  u8 elsewhere = 0;  ///< of the map count, what no address space of the machine accounts for
  u64 epoch = 0;     ///< of the undo log, when this was last saved
  [[nodiscard]] bool anon() const { return flags & PG_anon; }
  [[nodiscard]] bool dirty() const { return flags & PG_dirty; }
};

/// Pages by pfn, in chunks, so that a real machine's frame numbers cost only what is used.
class PagePool {
 public:
  PagePool() = default;
  explicit PagePool(UndoLog* undo) : undo_(undo), free_(undo) {}

  /// The facts of `pfn`, or nullptr for a frame without facts.
  [[nodiscard]] const Page* find(Pfn pfn) const {
    const u64 c = pfn >> CHUNK_SHIFT;
    if (c >= chunks_.size() || !chunks_[c]) return nullptr;
    const Page& page = chunks_[c][pfn & (CHUNK - 1)];
    return page.flags & PG_allocated ? &page : nullptr;
  }
  /// The same, to be changed.
  [[nodiscard]] Page* find(Pfn pfn) {
    auto* page = const_cast<Page*>(std::as_const(*this).find(pfn));
    if (page) will_change(pfn, *page);
    return page;
  }
  /// PageAnonExclusive(). It is a bit array by pfn, so that a kernel can judge many entries without
  /// touching their facts; only anonymous pages with facts have the bit.
  [[nodiscard]] bool anon_exclusive(Pfn pfn) const {
    return exclusive_word(pfn >> CHUNK_SHIFT) >> (pfn & (CHUNK - 1)) & 1;
  }
  /// SetPageAnonExclusive() and ClearPageAnonExclusive(); the page must be anonymous to be set.
  void set_anon_exclusive(Pfn pfn, bool exclusive);
  /// The bits of pfns 64 * i to 64 * i + 63, lowest first.
  [[nodiscard]] u64 exclusive_word(u64 i) const {
    return i < exclusive_.size() ? exclusive_[i] : 0;
  }
  /// Whether exclusive_word() is `wanted` from `i` to i + nr - 1.
  [[nodiscard]] bool exclusive_words_are(u64 wanted, u64 i, u64 nr) const {
    const u64 end = std::min<u64>(i + nr, exclusive_.size());
    bool alike = !wanted || i + nr == end;
    for (; alike && i < end; ++i) alike = exclusive_[i] == wanted;
    return alike;
  }
  /// How often a bit was cleared of `nr` frames from `first` on, or of others near them. Pages that
  /// were all AnonExclusive still are while this is the same.
  [[nodiscard]] u64 exclusive_clears(Pfn first, u64 nr) const {
    u64 sum = 0;
    const u64 end = std::min<u64>(((first + nr - 1) >> REGION_SHIFT) + 1, clears_.size());
    for (u64 region = first >> REGION_SHIFT; region < end; ++region) sum += clears_[region];
    return sum;
  }
  /// The flags of a page with facts, PG_anon_exclusive among them.
  [[nodiscard]] u16 flags(Pfn pfn) const {
    return u16(find(pfn)->flags | (anon_exclusive(pfn) ? PG_anon_exclusive : 0));
  }

  /// A frame and its facts, to be changed.
  struct NewPage {
    Pfn pfn;
    Page& page;
  };
  /// A frame of the pool's choice; recycled frames get a new serial.
  NewPage make_page(u16 flags);
  Pfn alloc(u16 flags) { return make_page(flags).pfn; }
  /// The facts of a frame that the caller names; made if there are none.
  Page& at(Pfn pfn) {
    Page* const page = find(pfn);
    return page ? *page : make(pfn);
  }
  void free(Pfn pfn);
  [[nodiscard]] u64 in_use() const { return in_use_; }

 private:
  static constexpr unsigned CHUNK_SHIFT = 6;  // a real process has its frames far apart
  static constexpr u64 CHUNK = 1ull << CHUNK_SHIFT;
  static_assert(CHUNK == 64, "exclusive_ has one bit per page of a chunk");
  static constexpr unsigned REGION_SHIFT = 14;  // frames that are counted together
  /// Where the facts of a frame go; `fill` makes them those of a new page.
  Page& room(Pfn pfn) {
    const u64 c = pfn >> CHUNK_SHIFT;
    if (c >= chunks_.size() || !chunks_[c]) make_room(pfn);
    return chunks_[c][pfn & (CHUNK - 1)];
  }
  void make_room(Pfn pfn);
  Page& fill(Page& page, u16 flags);
  Page& make(Pfn pfn);
  NewPage take_new();
  void save_run(Pfn next);
  NewPage take_freed();
  /// Undoes the making of a page.
  void forget(Pfn pfn);
  void will_change(Pfn pfn, Page& page) {
    if (must_save(undo_, page.epoch)) save(pfn, page);
  }
  void save(Pfn pfn, const Page& page);
  void save_free(Pfn pfn);

  u64& in_use_to_change() {
    if (must_save(undo_, in_use_stamp_)) undo_->save(in_use_);
    return in_use_;
  }

  UndoLog* undo_ = nullptr;
  std::vector<std::unique_ptr<Page[]>> chunks_;
  std::vector<u64> exclusive_;  // one word per chunk
  std::vector<u64> clears_;     // one per region; never undone: a count is used once
  UndoStack<Pfn> free_;
  Pfn next_ = 1ull << 20;  // above every frame with a role of its own
  u64 next_stamp_ = 0;
  u64 in_use_ = 0;
  u64 in_use_stamp_ = 0;
  u64 next_serial_ = 1;  // never undone: a serial is used once
};

}  // namespace ptwalk
