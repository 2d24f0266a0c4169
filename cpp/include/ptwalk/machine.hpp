// A machine runs one kernel: a profile, physical memory (table frames and page frames), files, swap
// and any number of address spaces. Everything that address spaces share lives here, so there is
// one lock per machine: whoever calls into the core holds `mutex`.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "ptwalk/coverage.hpp"
#include "ptwalk/error.hpp"
#include "ptwalk/file.hpp"
#include "ptwalk/kernels.hpp"
#include "ptwalk/page_table.hpp"
#include "ptwalk/plan_cache.hpp"
#include "ptwalk/thread_pool.hpp"
#include "ptwalk/userfaultfd.hpp"

namespace ptwalk {

class Machine;

/// A state of a machine that can be restored. Whoever drops the last reference holds the machine's
/// lock.
struct Checkpoint {
  explicit Checkpoint(Machine& of);
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;
  ~Checkpoint();

  Machine* const machine;
  const std::shared_ptr<Machine> owner;  ///< keeps the machine alive
  const UndoLog::Position position;
  std::vector<std::shared_ptr<AddressSpace>> mms;  ///< those of then
};

class Machine : public std::enable_shared_from_this<Machine> {
 public:
  /// At most `max_tables` table frames are in use at once, but for copies of shared tables.
  Machine(const Profile& profile, int levels, u64 max_tables = FrameArena::DEFAULT_LIMIT);
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  const Profile profile;
  const int levels;
  /// How many threads a call may use where it pays; whoever holds `mutex` may change it for a call.
  unsigned threads = ThreadPool::usable_cpus();
  /// What change_protection() applies to entries; all give the same. A wrong PTWALK_KERNEL is told
  /// here, before anything can change.
  LeafKernel leaf_kernel = active_kernel().apply;
  /// Held by the caller around every call into the machine or its address spaces.
  std::mutex mutex;

  UndoLog undo;
  FrameArena frames;
  SharedTables shared_tables;
  PagePool pages;
  PlanCache plans{profile};
  Coverage coverage;            ///< never undone
  UndoPool<File> files;         ///< by FileId
  UndoPool<UffdContext> uffds;  ///< by UffdId
  UndoPool<SwapSlot> swap;
  UndoStack<u64> free_slots;
  std::vector<Pfn> found_pages{};  ///< room for one call that works through a list of pages

  /// Living address spaces, in the order of their making.
  [[nodiscard]] const std::vector<AddressSpace*>& mms() const { return mms_; }
  void add(AddressSpace* mm);
  void remove(AddressSpace* mm);
  /// A number that no anon_vma had.
  u32 new_anon_vma();

  // checkpoint.cpp
  /// The state of now, to come back to. It keeps the address spaces of now alive.
  std::shared_ptr<const Checkpoint> checkpoint();
  /// Back to the state of a checkpoint of this machine; at a cost of what was touched since. Those
  /// made after it are void, and address spaces made after it are gone.
  Error restore(const Checkpoint& to);

  FileId create_file(FileKind kind, u64 size, bool writable = true);

  /// The features of a VMA's userfaultfd; 0 without one, which set_vm_flags() can bring about.
  [[nodiscard]] u64 uffd_features(UffdId uffd) const {
    return uffd == NO_UFFD ? 0 : uffds[u64(uffd)].features;
  }

  // Page cache and swap. (mm/filemap.c, mm/shmem.c, mm/swapfile.c)
  /// The frame of the file's page, or 0; swapped-out shmem pages count as absent.
  [[nodiscard]] Pfn cached_page(FileId file, u64 index) const {
    const CacheEntry* found = files[u64(file)].cache.find(index);
    return !found || found->swapped() ? 0 : found->pfn;
  }
  /// The frame of the file's page, brought in if need be (a new zeroed page, or from swap).
  Pfn get_page(FileId file, u64 index);
  /// A new anonymous page at linear index `index`, exclusive to its first mapping.
  Pfn new_anon_page(u64 index);
  /// The slot of a page that goes to swap: the one of its swap-cache entry, or a new one.
  u64 slot_of(Pfn pfn);
  void dup_slot(u64 slot) { ++swap.edit(slot).count; }
  /// Drops one user of a slot; the last one frees it, with its swap-cache page if that is unmapped.
  void put_slot(u64 slot);
  /// Takes a page out of the swap cache if no entry needs its slot. (folio_free_swap)
  bool free_swap(Pfn pfn);

  /// Map counts. The last unmap of an anonymous page that nothing else holds frees it.
  void map_page(Pfn pfn) {
    if (Page* page = pages.find(pfn)) ++page->mapcount;
  }
  void unmap_page(Pfn pfn) {
    if (Page* page = pages.find(pfn)) unmap_page(pfn, *page);
  }
  /// The same for whoever has found its facts, to be changed.
  void unmap_page(Pfn pfn, Page& page) {
    if (page.mapcount && --page.mapcount == 0) free_if_unused(pfn, page);
  }
  void free_if_unused(Pfn pfn, const Page& page);

  /// write(2), read(2), ftruncate(2), fallocate(PUNCH_HOLE) on a file, all its mappings included.
  void file_write(FileId file, u64 offset, u64 length);
  void file_read(FileId file, u64 offset, u64 length);
  void file_truncate(FileId file, u64 size);
  void file_punch_hole(FileId file, u64 offset, u64 length);

  /// Takes a page out of every mapping: anonymous and shmem pages to swap, others out of the cache.
  /// (shrink_folio_list and try_to_unmap, mm/vmscan.c and mm/rmap.c, v6.18)
  void reclaim_page(Pfn pfn);
  /// First phase of migrating a page: every entry that maps it becomes a migration entry.
  /// (try_to_migrate, mm/rmap.c, v6.18)
  void migrate_start(Pfn pfn);
  /// Second phase: the entries map a new frame, which takes over the page's facts; its pfn, or 0
  /// where the page is gone since (`serial` is its identity at the start).
  /// (remove_migration_ptes, mm/migrate.c, v6.18)
  Pfn migrate_finish(Pfn pfn, u64 serial);

 private:
  friend struct Checkpoint;
  void release(const Checkpoint& checkpoint);
  void will_change_mms();
  struct Counts {
    u32 next_anon_vma = 1;
  };

  std::vector<AddressSpace*> mms_;
  u64 mms_stamp_ = 0;
  Counts counts_;
  u64 counts_stamp_ = 0;
  std::vector<const Checkpoint*> checkpoints_;  ///< that can be restored, oldest first

  void unmap_file_range(FileId file, u64 first, u64 last, bool even_cows);
  void drop_cache(FileId file, u64 first, u64 last);
};

}  // namespace ptwalk
