// Files, page cache, swap slots and map counts of a machine: what its address spaces share.
#include "ptwalk/machine.hpp"

#include <algorithm>

#include "ptwalk/address_space.hpp"

namespace ptwalk {

Machine::Machine(const Profile& chosen, int nr_levels, u64 max_tables)
    : profile(chosen),
      levels(nr_levels),
      frames(max_tables, FrameCache::shared(), &undo),
      shared_tables(frames, profile, &undo),
      pages(&undo),
      files(&undo),
      uffds(&undo),
      swap(&undo),
      free_slots(&undo) {
  swap.add();  // slot 0 holds the header of the swap area
}

FileId Machine::create_file(FileKind kind, u64 size, bool writable) {
  File& file = files.add();
  file.kind = kind;
  file.writable = writable;
  file.size = size;
  return FileId(files.size()) - 1;
}

void Machine::add(AddressSpace* mm) {
  will_change_mms();
  mms_.push_back(mm);
}

void Machine::remove(AddressSpace* mm) {
  will_change_mms();
  std::erase(mms_, mm);
}

void Machine::will_change_mms() {
  if (!must_save(&undo, mms_stamp_)) return;
  undo.save(
      this,
      [](void* self, UndoLog::Bytes saved) { assign(static_cast<Machine*>(self)->mms_, saved); },
      bytes_of(mms_));
}

u32 Machine::new_anon_vma() {
  if (must_save(&undo, counts_stamp_)) undo.save(counts_);
  return counts_.next_anon_vma++;
}

Pfn Machine::get_page(FileId file, u64 index) {
  if (const Pfn cached = cached_page(file, index)) return cached;
  CacheEntry& entry = files.edit(u64(file)).cache.edit(index);
  const bool from_swap = entry.swapped();
  if (from_swap) put_slot(entry.swap_slot);
  entry.swap_slot = NO_SLOT;
  const PagePool::NewPage made = pages.make_page(from_swap ? PG_dirty : 0);
  made.page.file = file;
  made.page.index = index;
  return entry.pfn = made.pfn;
}

Pfn Machine::new_anon_page(u64 index) {
  const PagePool::NewPage made =
      pages.make_page(PG_anon | (profile.anon_exclusive ? PG_anon_exclusive : 0));
  made.page.index = index;
  made.page.mapcount = 1;
  return made.pfn;
}

u64 Machine::slot_of(Pfn pfn) {
  Page& page = pages.at(pfn);
  if (page.flags & PG_swapcache) return page.swap_slot;
  if (free_slots.empty()) {
    free_slots.push(swap.size());
    swap.add();
  }
  page.swap_slot = free_slots.pop();
  swap.edit(page.swap_slot).cached = pfn;
  page.flags |= PG_swapcache;
  return page.swap_slot;
}

void Machine::put_slot(u64 slot) {
  if (slot >= swap.size() || swap[slot].count == 0)
    return;  // a raw entry that names no slot of ours
  if (--swap.edit(slot).count) return;
  const Pfn cached = swap[slot].cached;
  if (!cached)
    free_slots.push(slot);
  else
    free_if_unused(cached, pages.at(cached));
}

bool Machine::free_swap(Pfn pfn) {
  Page& page = pages.at(pfn);
  if (!(page.flags & PG_swapcache)) return true;
  if (swap[page.swap_slot].count) return false;
  swap.edit(page.swap_slot).cached = 0;
  free_slots.push(page.swap_slot);
  page.swap_slot = NO_SLOT;
  page.flags = u16((page.flags & ~PG_swapcache) | PG_dirty);
  return true;
}

void Machine::free_if_unused(Pfn pfn, const Page& page) {
  if (page.mapcount || page.file != NO_FILE) return;
  if (!(page.flags & PG_swapcache) || free_swap(pfn)) pages.free(pfn);
}

void Machine::file_write(FileId id, u64 offset, u64 length) {
  if (!length) return;
  File& file = files.edit(u64(id));
  file.size = std::max(file.size, offset + length);
  for (u64 i = offset >> PAGE_SHIFT; i <= (offset + length - 1) >> PAGE_SHIFT; ++i)
    pages.at(get_page(id, i)).flags |= PG_dirty;
}

void Machine::file_read(FileId id, u64 offset, u64 length) {
  const File& file = files[u64(id)];
  const u64 end = std::min(align_up(offset + length, PAGE_SIZE), align_up(file.size, PAGE_SIZE));
  for (u64 at = align_down(offset, PAGE_SIZE); at < end; at += PAGE_SIZE) {
    const u64 index = at >> PAGE_SHIFT;
    // A hole of shmem is read without a page; another file system reads it in.
    if (file.kind == FileKind::regular || file.cache.contains(index)) get_page(id, index);
  }
}

void Machine::unmap_file_range(FileId file, u64 first, u64 last, bool even_cows) {
  const AddressSpace::ZapDetails details{.even_cows = even_cows,
                                         .skip_swap = !profile.exclusive_types};
  for (AddressSpace* mm : mms_) {
    for (const Vma& vma : mm->vmas.all()) {
      if (vma.file != file) continue;
      const u64 lo = std::max(first, vma.pgoff);
      const u64 hi = std::min(last, vma.pgoff + (vma.length() >> PAGE_SHIFT));
      if (lo < hi) mm->zap_range(vma, vma.address_of(lo), vma.address_of(hi), details);
    }
  }
}

void Machine::drop_cache(FileId file, u64 first, u64 last) {
  PageCache& cache = files.edit(u64(file)).cache;
  for (u64 index; (index = cache.next(first, last)) < last; first = index) {
    const CacheEntry& entry = *cache.find(index);
    if (entry.swapped())
      put_slot(entry.swap_slot);
    else
      pages.free(entry.pfn);
    cache.erase(index);
  }
}

void Machine::file_truncate(FileId id, u64 size) {
  File& file = files.edit(u64(id));
  const u64 old_size = file.size;
  file.size = size;
  if (size >= old_size) return;
  const u64 first = align_up(size, PAGE_SIZE) >> PAGE_SHIFT;
  unmap_file_range(id, first, ~0ull, true);
  drop_cache(id, first, ~0ull);
}

void Machine::file_punch_hole(FileId id, u64 offset, u64 length) {
  const u64 first = align_up(offset, PAGE_SIZE) >> PAGE_SHIFT;
  const u64 last = (offset + length) >> PAGE_SHIFT;
  if (first >= last) return;
  unmap_file_range(id, first, last, false);
  drop_cache(id, first, last);
}

}  // namespace ptwalk
