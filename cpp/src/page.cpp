#include "ptwalk/page.hpp"

namespace ptwalk {
namespace {

/// A page as it was, with the exclusive bits of its chunk.
struct SavedPage {
  Pfn pfn;
  u64 exclusive;
  Page page;
};

/// Frames that make_page() took one after another: going back frees them all.
struct NewRun {
  Pfn next;  ///< what was to be looked at next before
  Pfn first;
};

}  // namespace

/// A frame without facts has nothing else to come back to.
void PagePool::save_free(Pfn pfn) {
  undo_->save_for(
      this,
      [](void* self, UndoLog::Bytes saved) {
        auto& pool = *static_cast<PagePool*>(self);
        const auto was = value_of<Pfn>(saved);
        pool.forget(was);
      },
      pfn);
}

void PagePool::save(Pfn pfn, const Page& page) {
  if (!(page.flags & PG_allocated)) return save_free(pfn);
  undo_->save_for(
      this,
      [](void* self, UndoLog::Bytes saved) {
        auto& pool = *static_cast<PagePool*>(self);
        const auto was = value_of<SavedPage>(saved);
        pool.chunks_[was.pfn >> CHUNK_SHIFT][was.pfn & (CHUNK - 1)] = was.page;
        pool.exclusive_[was.pfn >> CHUNK_SHIFT] = was.exclusive;
        ++pool.clears_[was.pfn >> REGION_SHIFT];
      },
      SavedPage{pfn, exclusive_[pfn >> CHUNK_SHIFT], page});
}

void PagePool::forget(Pfn pfn) {
  chunks_[pfn >> CHUNK_SHIFT][pfn & (CHUNK - 1)].flags = 0;
  exclusive_[pfn >> CHUNK_SHIFT] &= ~(1ull << (pfn & (CHUNK - 1)));
  ++clears_[pfn >> REGION_SHIFT];
}

void PagePool::make_room(Pfn pfn) {
  const u64 c = pfn >> CHUNK_SHIFT;
  if (c >= chunks_.size()) {
    chunks_.resize(c + 1);
    exclusive_.resize(c + 1);
    clears_.resize((pfn >> REGION_SHIFT) + 1);
  }
  if (!chunks_[c]) chunks_[c] = std::make_unique<Page[]>(CHUNK);
}

Page& PagePool::fill(Page& page, u16 flags) {
  page = Page{.serial = next_serial_++, .flags = u16(PG_allocated | flags), .epoch = page.epoch};
  ++in_use_to_change();
  return page;
}

Page& PagePool::make(Pfn pfn) {
  Page& page = room(pfn);
  will_change(pfn, page);
  return fill(page, 0);
}

/// The next frame that was never used. It needs no record of its own where the last one was made
/// since the log's epoch began and no frame that a caller named lies between.
PagePool::NewPage PagePool::take_new() {
  const Pfn next = next_;
  Page* page = &room(next);
  while (page->flags & PG_allocated) page = &room(++next_);
  page->epoch = epoch_of(undo_);
  if (must_save(undo_, next_stamp_) || (next_ != next && undo_ && undo_->active())) save_run(next);
  return {next_++, *page};
}

void PagePool::save_run(Pfn next) {
  undo_->save_for(
      this,
      [](void* self, UndoLog::Bytes saved) {
        auto& pool = *static_cast<PagePool*>(self);
        const auto run = value_of<NewRun>(saved);
        for (Pfn pfn = run.first; pfn < pool.next_; ++pfn) pool.forget(pfn);
        pool.next_ = run.next;
      },
      NewRun{next, next_});
}

PagePool::NewPage PagePool::make_page(u16 flags) {
  // A frame that the caller named (PagePool::at) may lie in the way, or be among the freed ones.
  const PagePool& known = *this;
  while (!free_.empty() && known.find(free_.back())) (void)free_.pop();
  const NewPage made = free_.empty() ? take_new() : take_freed();
  fill(made.page, flags & u16(~PG_anon_exclusive));
  if (flags & PG_anon_exclusive)
    exclusive_[made.pfn >> CHUNK_SHIFT] |= 1ull << (made.pfn & (CHUNK - 1));
  return made;
}

PagePool::NewPage PagePool::take_freed() {
  const Pfn pfn = free_.pop();
  Page& page = room(pfn);
  will_change(pfn, page);
  return {pfn, page};
}

void PagePool::set_anon_exclusive(Pfn pfn, bool exclusive) {
  const u64 bit = 1ull << (pfn & (CHUNK - 1));
  if (anon_exclusive(pfn) == exclusive) return;
  (void)find(pfn);  // saves the bit with the page
  u64& word = exclusive_[pfn >> CHUNK_SHIFT];
  word = exclusive ? word | bit : word & ~bit;
  if (!exclusive) ++clears_[pfn >> REGION_SHIFT];
}

void PagePool::free(Pfn pfn) {
  Page* page = find(pfn);
  if (!page) return;
  const u64 bit = 1ull << (pfn & (CHUNK - 1));
  u64& word = exclusive_[pfn >> CHUNK_SHIFT];
  if (word & bit) ++clears_[pfn >> REGION_SHIFT];
  word &= ~bit;
  page->flags = 0;
  --in_use_to_change();
  free_.push(pfn);
}

}  // namespace ptwalk
