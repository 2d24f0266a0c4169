#include "ptwalk/page.hpp"

namespace ptwalk {

Page& PagePool::at(Pfn pfn) {
  const u64 c = pfn >> CHUNK_SHIFT;
  if (c >= chunks_.size()) {
    chunks_.resize(c + 1);
    exclusive_.resize(c + 1);
  }
  if (!chunks_[c]) chunks_[c] = std::make_unique<Page[]>(CHUNK);
  Page& page = chunks_[c][pfn & (CHUNK - 1)];
  if (!(page.flags & PG_allocated)) {
    page = Page{};
    page.flags = PG_allocated;
    page.serial = next_serial_++;
    ++in_use_;
  }
  return page;
}

Pfn PagePool::alloc(u16 flags) {
  // A frame that the caller named (PagePool::at) may lie in the way, or be among the freed ones.
  while (!free_.empty() && find(free_.back())) free_.pop_back();
  while (find(next_)) ++next_;
  const Pfn pfn = free_.empty() ? next_++ : free_.back();
  if (!free_.empty()) free_.pop_back();
  at(pfn).flags |= flags & u16(~PG_anon_exclusive);
  set_anon_exclusive(pfn, flags & PG_anon_exclusive);
  return pfn;
}

void PagePool::set_anon_exclusive(Pfn pfn, bool exclusive) {
  const u64 bit = 1ull << (pfn & (CHUNK - 1));
  u64& word = exclusive_[pfn >> CHUNK_SHIFT];
  word = exclusive ? word | bit : word & ~bit;
}

void PagePool::free(Pfn pfn) {
  Page* page = find(pfn);
  if (!page) return;
  set_anon_exclusive(pfn, false);
  page->flags = 0;
  --in_use_;
  free_.push_back(pfn);
}

}  // namespace ptwalk
