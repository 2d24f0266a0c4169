// The page cache of one file: sparse, by page index. Models address_space->i_pages (mm/filemap.c,
// v6.18) as far as faults, truncation and reclaim look at it; large folios are left out.
#pragma once

#include <array>
#include <bit>
#include <map>

#include "ptwalk/page.hpp"

namespace ptwalk {

/// What the page cache holds at an index: a frame, or the swap slot of a swapped-out shmem page.
struct CacheEntry {
  Pfn pfn = 0;
  u64 swap_slot = NO_SLOT;
  [[nodiscard]] bool swapped() const { return swap_slot != NO_SLOT; }
};

class PageCache {
 public:
  static constexpr u64 NO_INDEX = ~0ull;

  explicit PageCache(UndoLog* undo = nullptr) : undo_(undo) {}
  PageCache(const PageCache&) = delete;  // the log and `recent_` point to nodes
  PageCache& operator=(const PageCache&) = delete;

  [[nodiscard]] const CacheEntry* find(u64 index) const {
    const Node* const node = node_of(index);
    const u64 i = index & (ENTRIES - 1);
    return node && node->chunk.present >> i & 1 ? &node->chunk.entries[i] : nullptr;
  }
  [[nodiscard]] bool contains(u64 index) const { return find(index) != nullptr; }
  /// The first index from there on that has an entry; if that is not below `end`, any that is not.
  [[nodiscard]] u64 next(u64 index, u64 end = NO_INDEX) const {
    const Node* const node = node_of(index);
    const u64 skip = index & (ENTRIES - 1);
    const u64 rest = node ? node->chunk.present >> skip : 0;
    return rest ? index + u64(std::countr_zero(rest)) : next_beyond(index >> SHIFT, end);
  }
  [[nodiscard]] u64 size() const { return size_.entries; }
  [[nodiscard]] bool empty() const { return size_.entries == 0; }

  /// The entry, to be changed; made if there is none.
  CacheEntry& edit(u64 index) {
    const Node* const known = node_of(index);
    Node& node = known ? const_cast<Node&>(*known) : make_node(index >> SHIFT);
    will_change(node);
    const u64 i = index & (ENTRIES - 1);
    if (!(node.chunk.present >> i & 1)) {
      node.chunk.entries[i] = {};
      node.chunk.present |= 1ull << i;
      ++size_.entries;
    }
    return node.chunk.entries[i];
  }
  void erase(u64 index);
  /// Without entries, as for another file; what held them is kept for its own.
  void reset();
  /// Gives nodes without entries back if there are many, so that next() need not pass them. Nothing
  /// may be saved in the log.
  void drop_spare();

 private:
  static constexpr unsigned SHIFT = 4;  // what a fault maps around it, 64 KiB
  static constexpr u64 ENTRIES = 1ull << SHIFT;
  struct Chunk {
    u64 present = 0;  ///< a bit per entry
    std::array<CacheEntry, ENTRIES> entries{};
  };
  struct Node {
    Chunk chunk;
    u64 stamp = 0;
  };
  struct Size {
    u64 entries = 0;
  };
  /// A node that was looked for, nullptr where there was none.
  struct Recent {
    u64 key = ~0ull;  // no index has it
    const Node* node = nullptr;
  };
  [[nodiscard]] const Node* node_of(u64 index) const {
    if (recent_.key != index >> SHIFT) look_for(index >> SHIFT);
    return recent_.node;
  }
  void look_for(u64 key) const;
  /// What lies in entries that are not present is nobody's.
  void save(Chunk& chunk);
  Node& make_node(u64 key);
  /// The first index of a node above that one that has an entry, as next() does.
  [[nodiscard]] u64 next_beyond(u64 key, u64 end) const;
  void will_change(Node& node) {
    if (must_save(undo_, node.stamp)) save(node.chunk);
    if (must_save(undo_, size_stamp_)) undo_->save(size_);
  }

  UndoLog* undo_;
  std::map<u64, Node> nodes_;
  mutable Recent recent_{};  ///< what was looked for last: neighbours are asked for in turn
  Size size_;
  u64 size_stamp_ = 0;
};

}  // namespace ptwalk
