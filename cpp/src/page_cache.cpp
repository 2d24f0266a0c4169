#include "ptwalk/page_cache.hpp"

#include <bit>

namespace ptwalk {

const CacheEntry* PageCache::find(u64 index) const {
  const auto found = nodes_.find(index >> SHIFT);
  if (found == nodes_.end()) return nullptr;
  const Chunk& chunk = found->second.chunk;
  const u64 i = index & (ENTRIES - 1);
  return chunk.present >> i & 1 ? &chunk.entries[i] : nullptr;
}

u64 PageCache::next(u64 index) const {
  u64 skip = index & (ENTRIES - 1);
  for (auto at = nodes_.lower_bound(index >> SHIFT); at != nodes_.end(); ++at) {
    if (at->first != index >> SHIFT) skip = 0;
    if (const u64 rest = at->second.chunk.present >> skip << skip)
      return (at->first << SHIFT) + u64(std::countr_zero(rest));
  }
  return NO_INDEX;
}

void PageCache::will_change(Node& node) {
  if (must_save(undo_, node.stamp)) undo_->save(node.chunk);
  if (must_save(undo_, size_stamp_)) undo_->save(size_);
}

CacheEntry& PageCache::edit(u64 index) {
  Node& node = nodes_[index >> SHIFT];
  will_change(node);
  const u64 i = index & (ENTRIES - 1);
  if (!(node.chunk.present >> i & 1)) {
    node.chunk.entries[i] = {};
    node.chunk.present |= 1ull << i;
    ++size_.entries;
  }
  return node.chunk.entries[i];
}

void PageCache::erase(u64 index) {
  const auto found = nodes_.find(index >> SHIFT);
  const u64 bit = 1ull << (index & (ENTRIES - 1));
  if (found == nodes_.end() || !(found->second.chunk.present & bit)) return;
  will_change(found->second);
  found->second.chunk.present &= ~bit;
  --size_.entries;
  // The log points to nodes.
  if (!found->second.chunk.present && !(undo_ && undo_->active())) nodes_.erase(found);
}

void PageCache::reset() {
  for (auto& [key, node] : nodes_) node.chunk.present = 0;
  size_.entries = 0;
}

}  // namespace ptwalk
