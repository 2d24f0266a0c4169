// Tables that many entries point to: a PTE table without entries or full of uffd-wp markers, and
// the PMD and PUD tables made of nothing else. They make a never-touched terabyte cost pointer
// writes; whoever stores below one copies it first (PageTable::writable). The kernel has a table of
// its own in every place, and no reader here sees a difference.
#pragma once

#include <array>

#include "ptwalk/frame_arena.hpp"
#include "ptwalk/profile.hpp"

namespace ptwalk {

/// Tables of a whole subtree whose uppermost is a table of `level`.
constexpr u64 tables_in(Level level) {
  return level == PTE_LEVEL ? 1 : 1 + PTRS_PER_TABLE * tables_in(level - 1);
}
/// PTE tables among them.
constexpr u64 pte_tables_in(Level level) { return 1ull << (9 * (level - 1)); }

class SharedTables {
 public:
  /// Shared tables are of level 1 to this: 512 GiB below one entry.
  static constexpr Level TOP_LEVEL = PUD_LEVEL;

  SharedTables(FrameArena& frames, const Profile& profile, UndoLog* undo = nullptr);

  [[nodiscard]] FrameArena& frames() const { return frames_; }
  /// The word of each page below; what it is the word of.
  [[nodiscard]] u64 word(Uniform uniform) const { return uniform == Uniform::marker ? marker_ : 0; }
  [[nodiscard]] Uniform uniform_of(u64 word) const;

  /// So many more entries will point to the shared table of that level.
  [[nodiscard]] Pfn take(Uniform uniform, Level level, u64 nr = 1);
  /// So many entries less point to `pfn`.
  void drop(Pfn pfn, u64 nr = 1);
  /// All 512 entries of a private table of `level` come to point, or no longer point, to the shared
  /// table below; none of a PTE table's does.
  void take_all(Uniform uniform, Level level);
  void drop_all(Uniform uniform, Level level);

  /// The table's frame, 0 where it was not needed yet; entries that point to it. Once made, it
  /// stays.
  [[nodiscard]] Pfn pfn(Uniform uniform, Level level) const { return at(uniform, level).pfn; }
  [[nodiscard]] u64 refs(Uniform uniform, Level level) const { return at(uniform, level).refs; }
  /// The word of each entry of the table.
  [[nodiscard]] u64 entry_of(Uniform uniform, Level level) const;

 private:
  struct Shared {
    Pfn pfn = 0;
    u64 refs = 0;
  };
  using Levels = std::array<Shared, TOP_LEVEL + 1>;  // [0] is unused
  /// To be changed.
  [[nodiscard]] Shared& at(Uniform uniform, Level level) {
    if (must_save(undo_, stamp_)) undo_->save(shared_);
    return shared_[std::size_t(uniform)][std::size_t(level)];
  }
  [[nodiscard]] const Shared& at(Uniform uniform, Level level) const {
    return shared_[std::size_t(uniform)][std::size_t(level)];
  }

  FrameArena& frames_;
  UndoLog* undo_;
  u64 marker_;  ///< 0: the profile has none
  std::array<Levels, 3> shared_{};
  u64 stamp_ = 0;
};

}  // namespace ptwalk
