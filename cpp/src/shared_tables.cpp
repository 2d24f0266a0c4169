#include "ptwalk/shared_tables.hpp"

#include <algorithm>

namespace ptwalk {

SharedTables::SharedTables(FrameArena& frames, const Profile& profile, UndoLog* undo)
    : frames_(frames),
      undo_(undo),
      marker_(profile.marker_format == MarkerFormat::none
                  ? 0
                  : profile.make_marker(PTE_MARKER_UFFD_WP)) {}

Uniform SharedTables::uniform_of(u64 word) const {
  if (word == 0) return Uniform::none;
  return word == marker_ ? Uniform::marker : Uniform::no;
}

u64 SharedTables::entry_of(Uniform uniform, Level level) const {
  if (level == PTE_LEVEL) return word(uniform);
  return (pfn(uniform, level - 1) << PAGE_SHIFT) | _PAGE_TABLE;
}

Pfn SharedTables::take(Uniform uniform, Level level, u64 nr) {
  Shared& shared = at(uniform, level);
  if (!shared.pfn) {
    take_all(uniform, level);
    shared.pfn = frames_.alloc_beyond_limit(level);
    frames_.info(shared.pfn).uniform = uniform;  // alloc saved it
    frames_.will_fill(shared.pfn);
    std::fill_n(frames_.table(shared.pfn), PTRS_PER_TABLE, entry_of(uniform, level));
  }
  shared.refs += nr;
  return shared.pfn;
}

void SharedTables::drop(Pfn pfn, u64 nr) {
  const FrameInfo& info = frames_.info(pfn);
  at(info.uniform, info.level).refs -= nr;
}

void SharedTables::take_all(Uniform uniform, Level level) {
  if (level == PTE_LEVEL) return;
  (void)take(uniform, level - 1);
  at(uniform, level - 1).refs += PTRS_PER_TABLE - 1;
}

void SharedTables::drop_all(Uniform uniform, Level level) {
  if (level > PTE_LEVEL) at(uniform, level - 1).refs -= PTRS_PER_TABLE;
}

}  // namespace ptwalk
