#include "ptwalk/page.hpp"

namespace ptwalk {
namespace {

/// A page as it was, with the exclusive bits of its chunk.
struct SavedPage {
  Pfn pfn;
  u64 exclusive;
  Page page;
};

}  // namespace

/// A frame without facts has nothing else to come back to.
void PagePool::save_free(Pfn pfn) {
  undo_->save_for(
      this,
      [](void* self, UndoLog::Bytes saved) {
        auto& pool = *static_cast<PagePool*>(self);
        const auto was = value_of<Pfn>(saved);
        pool.chunks_[was >> CHUNK_SHIFT][was & (CHUNK - 1)].flags = 0;
        pool.exclusive_[was >> CHUNK_SHIFT] &= ~(1ull << (was & (CHUNK - 1)));
        ++pool.clears_[was >> REGION_SHIFT];
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

Page& PagePool::make(Pfn pfn) {
  const u64 c = pfn >> CHUNK_SHIFT;
  if (c >= chunks_.size()) {
    chunks_.resize(c + 1);
    exclusive_.resize(c + 1);
    clears_.resize((pfn >> REGION_SHIFT) + 1);
  }
  if (!chunks_[c]) chunks_[c] = std::make_unique<Page[]>(CHUNK);
  Page& page = chunks_[c][pfn & (CHUNK - 1)];
  will_change(pfn, page);
  page = Page{.serial = next_serial_++, .flags = PG_allocated, .epoch = page.epoch};
  ++counts().in_use;
  return page;
}

PagePool::NewPage PagePool::make_page(u16 flags) {
  // A frame that the caller named (PagePool::at) may lie in the way, or be among the freed ones.
  const PagePool& known = *this;
  while (!free_.empty() && known.find(free_.back())) (void)free_.pop();
  Pfn pfn;
  if (free_.empty()) {
    while (known.find(counts_.next)) ++counts().next;
    pfn = counts().next++;
  } else {
    pfn = free_.pop();
  }
  Page& page = make(pfn);
  page.flags |= flags & u16(~PG_anon_exclusive);
  if (flags & PG_anon_exclusive) exclusive_[pfn >> CHUNK_SHIFT] |= 1ull << (pfn & (CHUNK - 1));
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
  set_anon_exclusive(pfn, false);
  page->flags = 0;
  --counts().in_use;
  free_.push(pfn);
}

}  // namespace ptwalk
