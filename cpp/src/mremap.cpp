// mremap(2): resizing in place, moving, DONTUNMAP, and the messages. Models mm/mremap.c:do_mremap,
// mremap_to, remap_move, move_vma and move_page_tables (v6.1, v6.12, v6.18). Duplicating a shared
// mapping (old_len 0), hugetlb and PUD-sized table moves are not modelled.
#include <algorithm>

#include "ptwalk/address_space.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk {
namespace {

constexpr const char* CALL = "mremap";

Error refuse(Cause cause, u64 a = 0, u64 b = 0, u64 c = 0) { return {cause, CALL, a, b, c}; }

/// An entry on its way to another address: soft-dirty comes on, uffd-wp goes where it must.
u64 moved_entry(const Profile& p, u64 entry, bool clear_uffd) {
  const bool marker = p.is_marker(entry);
  if (clear_uffd) {
    if (p.is_uffd_wp_marker(entry)) return 0;
    if (pte_present(entry))
      entry &= ~_PAGE_UFFD_WP;
    else if (is_swap_pte(entry) && !marker)
      entry &= ~_PAGE_SWP_UFFD_WP;
  }
  if (pte_present(entry)) return entry | p.soft_dirty_bit();
  if (is_swap_pte(entry) && (!marker || p.mremap_marks_markers)) entry |= p.swp_soft_dirty_bit();
  return entry;
}

/// The VMA at the destination is no longer registered: all of it, though the move may have merged
/// it with a neighbour, and without a merge afterwards. (userfaultfd_reset_ctx, fs/userfaultfd.c,
/// v6.18)
void reset_uffd(const Profile& p, Vma& vma) {
  const bool was_wp = vma.uffd_wp();
  vma.uffd = NO_UFFD;
  vma.flags &= ~VM_UFFD_FLAGS;
  if (was_wp && vma.shared() && p.writenotify_uffd_wp) vma.page_prot = vma_page_prot(p, vma);
}

/// Whether [start aligned down to 2 MiB, start) holds no other VMA, and `start` begins this one.
bool can_align_down(const VmaList& vmas, const Vma& vma, u64 start) {
  return vma.start == start && !vmas.all().empty() && [&] {
    const VmaList::Index i = vmas.lower(align_down(start, PMD_SIZE));
    return i == vmas.all().size() || vmas.all()[i].start >= start;
  }();
}

/// Calls visit(from, to, length) for each part of [from, end) that lies under one PTE table on both
/// sides, where the source has that table; stops when it says false.
template <class Visit>
bool for_each_part(const PageTable& tables, u64 from, u64 to, u64 end, Visit visit) {
  for (u64 part; from < end; from += part, to += part) {
    part = std::min(
        {end - from, PMD_SIZE - (from & (PMD_SIZE - 1)), PMD_SIZE - (to & (PMD_SIZE - 1))});
    const u64* const pmd = tables.find(from, PMD_LEVEL);
    if (!pmd || tables.kind(*pmd, PMD_LEVEL) != EntryKind::table) continue;
    if (!visit(from, to, part)) return false;
  }
  return true;
}

}  // namespace

bool AddressSpace::move_page_tables(const Vma& source, const Move& move, bool clear_uffd) {
  const Profile& p = profile();
  u64 from = move.from, to = move.to;
  const u64 end = move.from + move.from_length;
  // Whole tables move when both sides may be rounded down to 2 MiB. (try_realign_addr, v6.6 on)
  const u64 offset = from & (PMD_SIZE - 1);
  if (offset && offset == (to & (PMD_SIZE - 1)) && move.from_length >= PMD_SIZE - offset &&
      can_align_down(vmas, source, from) && can_align_down(vmas, *vmas.find(to), to)) {
    cover(Branch::rule_move_realigns);
    if (p.move_realigns) {
      from -= offset;
      to -= offset;
    }
  }
  // What the pages of a shared table at `addr` become, if they all do.
  const auto moved_uniform = [&](u64 addr, bool clear) {
    const Extent at = tables.extent(addr, addr + PMD_SIZE);
    const SharedTables& shared = machine->shared_tables;
    return at.level == PTE_LEVEL && at.uniform ? shared.uniform_of(moved_entry(p, *at.entry, clear))
                                               : Uniform::no;
  };
  // The destination's tables come first, so that a failure leaves every entry where it was.
  const auto reserve = [&](u64 from_addr, u64 to_addr, u64 part) {
    u64* const to_pmd = tables.ensure(to_addr, PMD_LEVEL);
    if (!to_pmd) return false;
    const bool whole = part == PMD_SIZE && pte_none(*to_pmd);
    if (whole && !clear_uffd) return true;
    if (whole && moved_uniform(from_addr, clear_uffd) != Uniform::no)
      return tables.populate(to_pmd, PMD_LEVEL, _PAGE_TABLE, Uniform::none) != 0;
    return tables.ensure(to_addr, PTE_LEVEL) != nullptr;
  };
  const auto transfer = [&](u64 from_addr, u64 to_addr, u64 part) {
    u64* const pmd = tables.writable(from_addr, PMD_LEVEL);
    u64* const to_pmd = tables.writable(to_addr, PMD_LEVEL);
    const u64 nr = part >> PAGE_SHIFT;
    if (pte_none(*to_pmd)) {
      cover(Branch::mremap_table);
      std::swap(*pmd, *to_pmd);  // the whole table
      return true;
    }
    const Uniform moved = moved_uniform(from_addr, clear_uffd);
    if (part == PMD_SIZE && moved != Uniform::no &&
        tables.uniform_below(*to_pmd) == Uniform::none) {
      cover(Branch::mremap_shared_table);
      tables.exchange(to_pmd, moved);
      tables.exchange(pmd, Uniform::none);
      return true;
    }
    u64* const target = tables.writable(to_addr, PTE_LEVEL, nr);
    u64* const entry = tables.writable(from_addr, PTE_LEVEL, nr);
    for (u64 i = 0; i < nr - planted(Mutant::mremap_leaves_one); ++i) {
      if (pte_none(entry[i])) continue;
      machine->coverage.meet(LeafWalk::mremap, p, entry[i]);
      if (p.is_marker(entry[i])) cover(Branch::rule_mremap_marks_markers);
      cover(clear_uffd ? Branch::mremap_clears : Branch::mremap_entry);
      target[i] = moved_entry(p, entry[i], clear_uffd);
      entry[i] = 0;
    }
    return true;
  };
  return for_each_part(tables, from, to, end, reserve) &&
         for_each_part(tables, from, to, end, transfer);
}

Error AddressSpace::move_vma(const Move& move, std::vector<UnmapEvents>& unmapped) {
  const Vma source = *vmas.find(move.from);
  const Profile& p = profile();
  const UffdContext* ctx = source.uffd == NO_UFFD ? nullptr : &machine->uffds[u64(source.uffd)];
  const bool follows = ctx && (ctx->features & UFFD_FEATURE_EVENT_REMAP);
  const bool clear_uffd =
      p.mremap_clears_uffd && ctx && !follows && !planted(Mutant::mremap_keeps_uffd);

  if (ctx && !follows) cover(Branch::rule_mremap_clears_uffd);
  Vma moved = source;
  moved.start = move.to;
  moved.end = move.to + move.to_length;
  moved.pgoff =
      source.anonymous() && !source.anon_vma ? move.to >> PAGE_SHIFT : source.index_of(move.from);
  vmas.merge(vmas.insert(moved), p);
  if (!move_page_tables(source, move, clear_uffd)) {
    (void)unmap_range(moved.start, moved.end);
    if (Error e = need_tables_for_page(CALL, move.to)) return e;
    return refuse(Cause::table_alloc_failed, move.to);
  }
  if (ctx && !follows && source.uffd_wp()) cover_writenotify(source);
  if (ctx && !follows) reset_uffd(p, vmas.edit(vmas.lower(move.to)));

  cover(move.keep_source ? Branch::mremap_dontunmap : Branch::mremap_moves);
  if (move.keep_source) {
    Vma& kept = vmas.edit(vmas.lower(move.from));
    kept.flags &= ~VM_LOCKED;
    if (source.start == move.from && source.end == move.from + move.from_length)
      kept.anon_vma = kept.anon_vma_chain = 0;
  } else {
    unmapped.push_back(unmap_range(move.from, move.from + move.from_length));
  }
  if (follows) cover(Branch::mremap_event);
  if (follows)
    send(source.uffd, {.event = UffdEvent::remap,
                       .address = move.from,
                       .to = move.to,
                       .length = move.told_length});
  if ((source.flags & VM_LOCKED) && move.to_length > move.from_length)
    (void)populate_locked(move.to + move.from_length, move.to + move.to_length, false);
  return {};
}

Error AddressSpace::expand_or_move(u64 addr, u64 old_length, u64 new_length, u32 flags, u64 hint,
                                   u64& result) {
  const VmaList::Index i = vmas.lower(addr);
  const Vma& vma = vmas.all()[i];
  result = addr;
  const u64 grown = addr + new_length;
  const bool room = vma.end == addr + old_length && grown <= task_size() && grown > addr &&
                    !vmas.first_intersecting(vma.end, grown);
  if (room && !(flags & MREMAP_DONTUNMAP_)) {
    const bool locked = vma.flags & VM_LOCKED;
    cover(Branch::mremap_grows);
    vmas.edit(i).end = grown;
    vmas.merge(i, profile());
    if (locked) (void)populate_locked(addr + old_length, grown, false);
    return {};
  }
  if (!(flags & MREMAP_MAYMOVE_)) return refuse(Cause::no_space, new_length);
  const bool hint_free = hint && !vmas.first_intersecting(hint, hint + new_length);
  const u64 place = hint_free ? hint : pick_address(new_length);
  if (!place) return refuse(Cause::no_space, new_length);
  result = place;
  std::vector<UnmapEvents> unmapped;
  const Error error = move_vma(
      {addr, old_length, place, new_length, old_length, bool(flags & MREMAP_DONTUNMAP_)}, unmapped);
  for (const UnmapEvents& events : unmapped) send(events);
  return error;
}

/// MREMAP_FIXED and MREMAP_DONTUNMAP to a given address. (mremap_to, remap_move)
Error AddressSpace::move_to(u64 addr, u64 old_length, u64 new_length, u32 flags, u64 new_addr) {
  const bool keep = flags & MREMAP_DONTUNMAP_;
  const u64 asked = old_length;
  const bool pure_move = old_length == new_length;
  const bool batches = profile().mremap_multi_vma && pure_move;
  const Vma* first = vmas.find(addr);
  if (profile().mremap_multi_vma && !first) return refuse(Cause::not_mapped, addr);
  const u64 kept = std::min(old_length, new_length);
  if (first && pure_move && kept > first->end - addr) cover(Branch::rule_mremap_multi_vma);
  if (!batches && profile().mremap_multi_vma && kept > first->end - addr)
    return refuse(Cause::crosses_vma, addr, kept);
  if (batches && first->uffd != NO_UFFD && first->end < addr + old_length)
    return refuse(Cause::crosses_vma, addr, old_length);

  // Messages: what lay at the destination, the move, then what went from the source.
  // A move of several VMAs makes room for each by itself: what lies opposite their gaps stays.
  if (!batches) send(unmap_range(new_addr, new_addr + new_length));
  std::vector<UnmapEvents> unmapped;
  if (old_length > new_length) {  // do_munmap() judges the rest of the source
    const u64 rest = addr + new_length, length = old_length - new_length;
    if (rest > task_size() || length > task_size() - rest)
      return refuse(Cause::beyond_task_size, rest, length, task_size());
    unmapped.push_back(unmap_range(rest, rest + length));
  }
  old_length = kept;
  Error error;
  const u64 end = addr + old_length;
  for (u64 at = addr, moved = 0; at != end && !error;) {
    const Vma* vma = vmas.find(at);
    if (!vma && moved && vmas.first_intersecting(at, end)) {  // gaps stay gaps
      at = vmas.first_intersecting(at, end)->start;
      continue;
    }
    if (!vma && moved) break;
    if (!vma) {
      error = refuse(Cause::not_mapped, at);
    } else if ((!batches && end > vma->end) || (moved && vma->uffd != NO_UFFD)) {
      error = refuse(Cause::crosses_vma, at, end - at);
    } else {
      const u64 part = std::min(vma->end, end) - at;
      const u64 target = batches ? part : new_length;
      const u64 to = new_addr + (at - addr);
      if (batches) send(unmap_range(to, to + part));
      const u64 told = profile().mremap_multi_vma ? part : asked;
      error = move_vma({at, part, to, target, told, keep}, unmapped);
      moved += part;
      at += part;
    }
  }
  for (const UnmapEvents& events : unmapped) send(events);
  return error;
}

Result<u64> AddressSpace::mremap(u64 addr, u64 old_length, u64 new_length, u32 flags,
                                 u64 new_addr) {
  const auto fail = [](const Error& e) { return Result<u64>{0, e}; };
  const bool fixed = flags & MREMAP_FIXED_, keep = flags & MREMAP_DONTUNMAP_;
  if ((flags & ~7u) || (fixed && !(flags & MREMAP_MAYMOVE_)))
    return fail(refuse(Cause::bad_mremap_flags, flags));
  const u64 unit = profile().mremap_multi_vma ? PAGE_SIZE : 1;  // rounded before or after
  const bool resizes = align_up(old_length, unit) != align_up(new_length, unit);
  if (keep && (!(flags & MREMAP_MAYMOVE_) || resizes))
    return fail(refuse(Cause::resized_old, old_length, new_length));
  if (!is_aligned(addr, PAGE_SIZE)) return fail(refuse(Cause::start_unaligned, addr));
  old_length = align_up(old_length, PAGE_SIZE);
  new_length = align_up(new_length, PAGE_SIZE);
  if (!new_length) return fail(refuse(Cause::length_zero));
  if (profile().mremap_multi_vma && new_length > task_size())
    return fail(refuse(Cause::beyond_task_size, addr, new_length, task_size()));
  if (!old_length) return fail(refuse(Cause::resized_old, old_length, new_length));
  if (fixed || keep) {  // vrm_implies_new_addr(): an address, for DONTUNMAP alone a hint
    if (!is_aligned(new_addr, PAGE_SIZE)) return fail(refuse(Cause::start_unaligned, new_addr));
    if (new_length > task_size() || new_addr > task_size() - new_length)
      return fail(refuse(Cause::beyond_task_size, new_addr, new_length, task_size()));
    if (addr + old_length > new_addr && new_addr + new_length > addr)
      return fail(refuse(Cause::overlap, addr, new_addr));
  }
  if (fixed) return {new_addr, move_to(addr, old_length, new_length, flags, new_addr)};
  const Vma* vma = vmas.find(addr);
  if (!vma) return fail(refuse(Cause::not_mapped, addr));
  if (new_length < old_length) {
    const u64 rest = addr + new_length, length = old_length - new_length;
    if (rest > task_size() || length > task_size() - rest)  // what munmap of it says
      return fail(refuse(Cause::beyond_task_size, rest, length, task_size()));
    cover(Branch::mremap_shrinks);
    send(unmap_range(rest, rest + length));
    return {addr, {}};
  }
  // Nothing to do is no error, whatever the range covers. (mremap_at: MREMAP_NO_RESIZE)
  if (new_length == old_length && !keep) return {addr, {}};
  if (old_length > vma->end - addr) return fail(refuse(Cause::crosses_vma, addr, old_length));
  Result<u64> out;
  const u64 hint = keep ? new_addr : 0;
  out.error = expand_or_move(addr, old_length, new_length, flags, hint, out.value);
  return out;
}

}  // namespace ptwalk
