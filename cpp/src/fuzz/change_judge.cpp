// One function per property group of violations.hpp. Pages are judged in pieces: an all-marker
// mapping of many GiB is one.
#include "ptwalk/fuzz/change_judge.hpp"

#include <algorithm>

#include "ptwalk/fuzz/operation_judge.hpp"
#include "ptwalk/kernels.hpp"

namespace ptwalk::fuzz {
namespace {

u64 nr_pages(const Range& range) { return (range.end - range.start) >> PAGE_SHIFT; }

bool is_migration(const Profile& p, u64 word) {
  const SwpKind kind = p.swp_kind(word);
  return kind >= SwpKind::migration_read && kind <= SwpKind::migration_write;
}

}  // namespace

ChangeJudge::ChangeJudge(const AddressSpace& mm, const ChangeRequest& request)
    : mm_(mm), request_(request), before_(pieces()), tables_(mm.tables.nr_tables()) {}

/// mprotect passes over VMAs that have the protection already.
bool ChangeJudge::asks_for(const Vma& vma) const {
  switch (request_.kind) {
    case ChangeKind::mprotect: return (vma.flags & VM_ACCESS_FLAGS) != request_.prot;
    case ChangeKind::numa: return vma.kind != VmaKind::dax && (vma.flags & VM_ACCESS_FLAGS) != 0;
    default: return true;
  }
}

/// Whether the kernel promises that wr-protect holds for pages that are not there yet.
bool ChangeJudge::arms_none(const Vma& vma) const {
  const Profile& p = mm_.profile();
  if (p.populate != Populate::every_level || !(p.marker_mask & PTE_MARKER_UFFD_WP)) return false;
  if (vma.kind == VmaKind::shmem || vma.kind == VmaKind::regular) return true;
  return vma.anonymous() && vma.uffd != NO_UFFD && p.marker_vmas == MarkerVmas::registered &&
         mm_.machine->uffds[u64(vma.uffd)].features & UFFD_FEATURE_WP_UNPOPULATED;
}

std::vector<ChangeJudge::Piece> ChangeJudge::pieces() const {
  std::vector<Piece> found;
  for (const Vma& vma : mm_.vmas.all()) {
    for (u64 addr = vma.start; addr < vma.end;) {
      // Pieces end where the request's range does.
      u64 limit = vma.end;
      for (const u64 edge : {request_.range.start, request_.range.end})
        if (edge > addr) limit = std::min(limit, edge);
      const Extent at = mm_.tables.extent(addr, limit);
      const bool asked = asks_for(vma) && addr >= request_.range.start && addr < request_.range.end;
      const bool leaf =
          at.level > PTE_LEVEL && mm_.tables.kind(*at.entry, at.level) == EntryKind::leaf;
      const u64 nr = at.uniform ? 1 : nr_pages({addr, at.end});
      for (u64 i = 0; i < nr; ++i) {
        const u64 word = at.level == PTE_LEVEL || leaf ? at.entry[i] : 0;
        const u64 end = at.uniform ? at.end : addr + PAGE_SIZE;
        found.push_back({{addr, end}, word, leaf, asked, vma});
        addr = end;
      }
    }
  }
  return found;
}

/// Present entries stay present, swap entries stay swap entries of their page or slot.
u64 ChangeJudge::judge_kinds(u64 before, u64 word) const {
  const Profile& p = mm_.profile();
  const auto kind = [&](u64 w) {
    return pte_none(w) || p.is_uffd_wp_marker(w) ? 0
           : pte_present(w)                      ? 1
           : is_migration(p, w)                  ? 2
                                                 : 3 + int(p.swp_kind(w));
  };
  if (kind(before) != kind(word)) return bit(Violation::kind_changed);
  if (kind(word) == 0) return 0;
  const bool same =
      kind(word) == 1 ? pte_pfn(before) == pte_pfn(word) : swp_offset(before) == swp_offset(word);
  return same ? 0 : bit(Violation::pfn_changed);
}

u64 ChangeJudge::judge_asked(const Piece& before, u64 word) const {
  const Profile& p = mm_.profile();
  u64 found = judge_kinds(before.word, word);
  if (pte_present(before.word) && pte_present(word)) {
    constexpr u64 KEPT = _PAGE_ACCESSED | _PAGE_SOFT_DIRTY;
    if (((before.word ^ word) & KEPT) || p.pte_dirty(before.word) != p.pte_dirty(word))
      found |= bit(Violation::accessed_dirty_changed);
  }
  const bool was = armed(p, before.word), is = armed(p, word);
  switch (request_.kind) {
    case ChangeKind::protect:
      // A poisoned or guarded page needs no arming; a none entry is armed where markers are had.
      if (pte_none(before.word) ? pte_none(word) && arms_none(before.vma)
                                : !is && !p.is_marker(word))
        found |= bit(Violation::left_unarmed);
      break;
    case ChangeKind::resolve:
      // The v2 series leaves markers of anonymous VMAs alone.
      if (is && !(p.marker_resolve_needs_file && p.is_marker(word) && before.vma.anonymous()))
        found |= bit(Violation::left_armed);
      break;
    default: {
      // PAGEMAP_SCAN arms writable migration entries too; from 6.12 on they forget it with write.
      const bool forgets = !p.migration_keeps_uffd && is_swap_pte(before.word) &&
                           p.swp_kind(before.word) == SwpKind::migration_write;
      if (was != is && !(was && forgets)) found |= bit(Violation::uffd_bit_changed);
    }
  }
  return found;
}

u64 ChangeJudge::judge_piece(const Piece& before, u64 word, const ProtectResult& result,
                             ProtectResult& seen) const {
  const Profile& p = mm_.profile();
  if (!before.asked) return before.word == word ? 0 : bit(Violation::outside_range);
  const u64 nr = nr_pages(before.range);
  const bool none = pte_none(before.word), marker = p.is_uffd_wp_marker(before.word);
  if (none && p.is_uffd_wp_marker(word)) seen.none_to_marker += nr;
  if (none && pte_none(word) && request_.kind == ChangeKind::protect) seen.none_skipped += nr;
  if (marker && pte_none(word)) seen.marker_to_none += nr;
  if (pte_present(before.word)) seen.present += nr;
  if (!none && !marker && !pte_present(before.word) && before.word != word) seen.swap += nr;
  u64 found = judge_asked(before, word);
  if (needs_flush(before.word, word) &&
      (before.range.start < result.flush.start || before.range.end > result.flush.end))
    found |= bit(Violation::flush_missing);
  return found;
}

u64 ChangeJudge::judge(const ProtectResult& result, bool stopped) const {
  const std::vector<Piece> after = pieces();
  ProtectResult seen;
  u64 found = 0;
  // The VMAs may have split and merged, but they cover the same pages.
  for (std::size_t i = 0, j = 0; i < before_.size() && j < after.size();) {
    Piece piece = before_[i];
    piece.range = {std::max(piece.range.start, after[j].range.start),
                   std::min(piece.range.end, after[j].range.end)};
    if (piece.range.start < piece.range.end && !piece.leaf && !after[j].leaf)
      found |= judge_piece(piece, after[j].word, result, seen);
    const u64 end_before = before_[i].range.end, end_after = after[j].range.end;
    i += end_before <= end_after;
    j += end_after <= end_before;
  }
  if (result.tables_allocated != mm_.tables.nr_tables() - tables_)
    found |= bit(Violation::tables_unlike_count);
  if (stopped) {  // how far it came is not known, nor what it still had to do
    return found & ~(bit(Violation::left_armed) | bit(Violation::left_unarmed));
  }
  // NUMA balancing passes over pages that a move would not help.
  const bool same_present = request_.kind == ChangeKind::numa ? result.present <= seen.present
                                                              : result.present == seen.present;
  if (!same_present || result.none_to_marker != seen.none_to_marker ||
      result.marker_to_none != seen.marker_to_none || result.swap != seen.swap ||
      result.none_skipped != seen.none_skipped)
    found |= bit(Violation::count_unlike_entries);
  return found;
}

u64 ChangeJudge::judge_again(const ProtectResult& result) const {
  const std::vector<Piece> after = pieces();
  bool same = result.none_to_marker == 0 && result.marker_to_none == 0 && result.swap == 0 &&
              result.tables_allocated == 0 && after.size() == before_.size();
  for (std::size_t i = 0; same && i < after.size(); ++i)
    same = before_[i].word == after[i].word && before_[i].range == after[i].range;
  return same ? 0 : bit(Violation::protect_twice);
}

}  // namespace ptwalk::fuzz
