#include "ptwalk/page_cache.hpp"

namespace ptwalk {

void PageCache::look_for(u64 key) const {
  const auto found = nodes_.find(key);
  recent_ = {key, found == nodes_.end() ? nullptr : &found->second};
}

u64 PageCache::next_beyond(u64 key, u64 end) const {
  if (empty() || (key + 1) << SHIFT >= end) return NO_INDEX;
  for (auto at = nodes_.upper_bound(key); at != nodes_.end() && at->first << SHIFT < end; ++at)
    if (const u64 present = at->second.chunk.present)
      return (at->first << SHIFT) + u64(std::countr_zero(present));
  return NO_INDEX;
}

PageCache::Node& PageCache::make_node(u64 key) {
  Node& node = nodes_[key];
  recent_ = {key, &node};
  return node;
}

void PageCache::save(Chunk& chunk) {
  if (chunk.present)
    undo_->save(chunk);
  else
    undo_->save(chunk.present);
}

void PageCache::erase(u64 index) {
  if (!contains(index)) return;
  Node& node = const_cast<Node&>(*recent_.node);
  will_change(node);
  node.chunk.present &= ~(1ull << (index & (ENTRIES - 1)));
  --size_.entries;
  if (node.chunk.present || (undo_ && undo_->active())) return;  // the log points to nodes
  nodes_.erase(index >> SHIFT);
  recent_ = {};
}

void PageCache::drop_spare() {
  constexpr u64 FEW = 16;  // which the next program uses again
  if (nodes_.size() <= 2 * size_.entries + FEW) return;
  std::erase_if(nodes_, [](const auto& item) { return item.second.chunk.present == 0; });
  recent_ = {};
}

void PageCache::reset() {
  for (auto& [key, node] : nodes_) node.chunk.present = 0;
  size_.entries = 0;
}

}  // namespace ptwalk
