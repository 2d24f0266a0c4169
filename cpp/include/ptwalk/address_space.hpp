// The address space: VMAs, page tables and the system calls on them. Each group of members below is
// implemented by the source file named above it; the rules that differ by kernel come from the
// profile. Callers hold machine.mutex.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "ptwalk/machine.hpp"
#include "ptwalk/protect.hpp"

namespace ptwalk {

struct LeafPlan;

inline constexpr int PROT_READ_ = 1, PROT_WRITE_ = 2, PROT_EXEC_ = 4;

/// mmap flags as in include/uapi/linux/mman.h.
inline constexpr u32 MAP_SHARED_ = 1, MAP_PRIVATE_ = 2, MAP_FIXED_ = 0x10, MAP_ANONYMOUS_ = 0x20,
                     MAP_LOCKED_ = 0x2000, MAP_NORESERVE_ = 0x4000, MAP_POPULATE_ = 0x8000,
                     MAP_FIXED_NOREPLACE_ = 0x100000;
inline constexpr std::size_t MAX_MAP_COUNT = 65530;  ///< vm.max_map_count
inline constexpr u32 MREMAP_MAYMOVE_ = 1, MREMAP_FIXED_ = 2, MREMAP_DONTUNMAP_ = 4;

enum class Outcome : u8 { done, blocked, signal };

/// A signal as siginfo gives it.
struct Signal {
  int signo = 0;  ///< 7 SIGBUS, 11 SIGSEGV
  int code = 0;   ///< SEGV_MAPERR 1, SEGV_ACCERR 2, BUS_ADRERR 2, BUS_MCEERR_AR 4
};

/// What one access did.
struct AccessResult {
  Outcome outcome = Outcome::done;
  u64 address = 0;
  u64 before = 0;  ///< the entry before; 0 where no PTE table exists
  u64 after = 0;
  Signal signal{};
  std::optional<UffdMsg> message{};
};

/// What one access of a batch did; messages are in the queues of their userfaultfds.
struct AccessRecord {  // not made zero: room for many costs nothing
  u64 before;
  u64 after;
  u8 outcome;  ///< Outcome
  u8 signo;
  u8 code;
};

/// One step of a walk.
struct WalkStep {
  Level level = 0;
  unsigned index = 0;
  u64 entry = 0;
};

/// Pages of a range by what their walk ends at.
struct EntryCounts {
  u64 none = 0, present = 0, swap = 0, marker = 0, migration = 0, device = 0, hwpoison = 0,
      huge = 0;
};

/// What one call on many ranges did.
struct RangesResult {
  u64 done = 0;            ///< ranges whose calls succeeded: those before the one that failed
  ProtectResult result{};  ///< the sum, with what the failed call changed
};

/// A page between the two phases of its migration.
struct MigratingPage {
  Pfn pfn = 0;
  u64 serial = 0;  ///< identity: the frame may have gone to another page since
};

/// One matching range of PAGEMAP_SCAN.
struct ScanRange {
  u64 start = 0, end = 0, categories = 0;
};
struct ScanArgs {
  u64 flags = 0, inverted = 0, mask = 0, anyof = 0, returned = 0;
  u64 max_pages = 0, vec_len = 0;  ///< 0: no limit
};
struct ScanResult {
  std::vector<ScanRange> ranges;
  u64 walk_end = 0;
};

class AddressSpace : public std::enable_shared_from_this<AddressSpace> {
 public:
  explicit AddressSpace(std::shared_ptr<Machine> machine);
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  const std::shared_ptr<Machine> machine;
  VmaList vmas;
  PageTable tables;
  std::vector<std::string> names{""};
  PendingFaults pending;
  u32 users = 1;      ///< mm_users: NUMA skips look at it
  const u64 born;     ///< the epoch of the undo log
  bool gone = false;  ///< made after a checkpoint that was restored: nothing may be done with it

  [[nodiscard]] const Profile& profile() const { return machine->profile; }
  [[nodiscard]] u64 task_size() const { return ptwalk::task_size(tables.levels()); }

  // mmap.cpp
  /// mmap(2). `addr` 0 and no MAP_FIXED: the space picks, top down.
  Result<u64> mmap(u64 addr, u64 length, int prot, u32 flags, FileId file, u64 offset);
  Error munmap(u64 start, u64 length);
  /// Unmaps everything and leaves the machine, as the last holder does too. It is no more to be
  /// used, unless a checkpoint is restored. (exit_mmap)
  void exit();

  // mprotect.cpp
  Result<ProtectResult> mprotect(u64 start, u64 length, int prot);
  /// The seed's function itself, VMA by VMA over [start, end). (mm/mprotect.c:change_protection)
  Result<ProtectResult> change_protection(u64 start, u64 end, u64 newprot, u32 cp_flags);

  // ranges.cpp; `ranges` holds start and length of each in turn. The first that fails ends it.
  Result<RangesResult> mprotect_many(std::span<const u64> ranges, int prot);
  Result<RangesResult> uffd_writeprotect_many(UffdId ctx, std::span<const u64> ranges, u64 mode);

  // reclaim.cpp
  /// Takes the pages that the range maps out of every mapping, as reclaim would; how many.
  u64 reclaim(u64 start, u64 length);
  /// First phase of migrating the pages that the range maps; Machine::migrate_finish() ends each.
  std::vector<MigratingPage> migrate_start(u64 start, u64 length);

  // mlock.cpp
  Error mlock(u64 start, u64 length);
  Error munlock(u64 start, u64 length);

  // madvise.cpp; `victims`: pages that PAGEOUT may take (nullptr: all that it could)
  Error madvise(u64 start, u64 length, int advice, const std::vector<u64>* victims = nullptr);

  // mremap.cpp
  Result<u64> mremap(u64 old_addr, u64 old_len, u64 new_len, u32 flags, u64 new_addr);

  // fork.cpp
  /// fork(2); the error, if any, is that the child's tables cannot be allocated (ENOMEM).
  Result<std::shared_ptr<AddressSpace>> fork();

  // fault.cpp
  /// One load or store of the CPU at `addr`, with the faults that it takes.
  /// `thread` is told to handlers that asked for THREAD_ID.
  Result<AccessResult> access(u64 addr, bool write, u32 thread = 0);
  /// Accesses one after another, as `write` says of each; how many were made. Stops at an address
  /// that is no user memory or lies in a huge page, with the error.
  Result<u64> access_many(std::span<const u64> addrs, std::span<const u8> write,
                          std::span<AccessRecord> out);
  /// The same from kernel mode, as read(2) or write(2) copying from or to user memory; where the
  /// CPU would raise a signal the call fails with EFAULT.
  Result<AccessResult> kernel_access(u64 addr, bool write);
  /// Makes pages present as touching each would; stops at the first that cannot be.
  Result<u64> populate(u64 start, u64 length, bool write);

  // userfaultfd.cpp
  /// userfaultfd(2) and UFFDIO_API. A context is made even where UFFDIO_API fails; its id is
  /// `value`.
  Result<UffdId> userfaultfd(u64 features, bool user_mode_only = false);
  void uffd_close(UffdId ctx);
  /// UFFDIO_REGISTER; the ioctls mask of the range.
  Result<u64> uffd_register(UffdId ctx, u64 start, u64 length, u64 mode);
  Error uffd_unregister(UffdId ctx, u64 start, u64 length);
  Result<ProtectResult> uffd_writeprotect(UffdId ctx, u64 start, u64 length, u64 mode);
  Error uffd_wake(UffdId ctx, u64 start, u64 length);

  // uffd_copy.cpp: bytes done
  Result<i64> uffd_copy(UffdId ctx, u64 dst, u64 length, u64 mode);
  Result<i64> uffd_zeropage(UffdId ctx, u64 start, u64 length, u64 mode);
  Result<i64> uffd_continue(UffdId ctx, u64 start, u64 length, u64 mode);
  Result<i64> uffd_poison(UffdId ctx, u64 start, u64 length, u64 mode);
  // uffd_move.cpp
  Result<i64> uffd_move(UffdId ctx, u64 dst, u64 src, u64 length, u64 mode);

  // pagemap.cpp
  void pagemap(u64 start, std::span<u64> out) const;
  Result<ScanResult> pagemap_scan(u64 start, u64 length, const ScanArgs& args);

  // query.cpp
  void ptes(u64 start, std::span<u64> out) const;
  void levels(u64 start, std::span<u8> out) const;
  void translate(std::span<const u64> addrs, std::span<u64> out) const;
  [[nodiscard]] std::vector<WalkStep> walk(u64 addr) const;
  [[nodiscard]] EntryCounts count(u64 start, u64 length) const;

  // raw.cpp: stores that no system call judges
  Result<u64> entry(u64 addr, Level level) const;
  Error set_entry(u64 addr, Level level, u64 value);
  Error set_ptes(u64 start, std::span<const u64> values);
  Error alloc_table(u64 addr, Level level, u64 flags);
  Error set_vm_flags(u64 start, u64 length, u64 add, u64 remove);
  /// Inserts a VMA as it stands, unjudged but for overlap; for address spaces read from elsewhere.
  Error load_vma(const Vma& vma, std::string_view name);
  /// Stores entries with the facts of their pages (LOAD_ bits per page); a pfn field of 0 asks for
  /// a frame: the file's cached page, or a new one. A word of 0 leaves its entry alone.
  Error load_pages(u64 start, std::span<const u64> entries, std::span<const u8> facts);

  // validate.cpp
  /// Every invariant that does not hold, in words; empty when all do.
  [[nodiscard]] std::vector<std::string> validate() const;

  // ---- shared by the source files above, not for callers ----

  void cover(Branch branch) const { machine->coverage.hit(branch); }
  /// Counts the first of three branches that differ by the level: pgd, pud, pmd.
  void cover_absent(Branch first, Level level) const {
    cover(Branch(u16(first) + u16(P4D_LEVEL - std::min(level, P4D_LEVEL))));
  }
  /// Whether a VMA wants write faults is asked, and its registration for wp matters.
  void cover_writenotify(const Vma& vma) const {
    constexpr u64 SHARED_WRITABLE = VM_SHARED | VM_WRITE;
    if ((vma.flags & SHARED_WRITABLE) == SHARED_WRITABLE) cover(Branch::rule_writenotify_uffd_wp);
  }

  // mmap.cpp
  /// An error unless the machine's limit leaves that many table frames: asked before anything
  /// changes.
  [[nodiscard]] Error need_tables(const char* call, u64 nr) const {
    const FrameArena& frames = machine->frames;
    if (frames.available() >= nr) return {};
    return {Cause::out_of_frames, call, frames.in_use(), frames.limit(), nr};
  }
  /// The same for one page, for every page of a range, and for a request that shares what it can.
  [[nodiscard]] Error need_tables_for_page(const char* call, u64 addr) const {
    if (machine->frames.available() >= u64(tables.levels())) return {};
    const u64 page = align_down(addr, PAGE_SIZE);
    return need_tables(call, tables.frames_to_map(page, page + PAGE_SIZE));
  }
  [[nodiscard]] Error need_tables_for_pages(const char* call, u64 start, u64 end) const;
  [[nodiscard]] Error need_tables_for_change(const char* call, u64 start, u64 end) const {
    // Tables that the range covers whole are shared, up to 512 GiB each; at its ends and at those
    // of each VMA there is one of each level. Most often there is plenty for every VMA.
    const u64 most = (vmas.all().size() + 1) * 2 * u64(tables.levels());
    if (machine->frames.available() >= most + (end - start) / level_size(5)) return {};
    return count_tables_for_change(call, start, end);
  }
  [[nodiscard]] Error count_tables_for_change(const char* call, u64 start, u64 end) const;
  /// Whether making [start, end) an own part would exceed vm.max_map_count: only a hole punched
  /// into the middle of one VMA adds to the count.
  [[nodiscard]] bool split_would_exceed(u64 start, u64 end) const {
    if (vmas.all().size() < MAX_MAP_COUNT) return false;
    const Vma* const first = vmas.find(start);
    return first && first->start < start && end < first->end;
  }
  /// Makes `addr` a VMA boundary; the index of the first VMA at or above it.
  VmaList::Index split_at(u64 addr);
  /// Makes a part of one VMA a VMA of its own; its index.
  VmaList::Index split_off(u64 start, u64 end);
  /// The highest gap of `length`, or 0. (arch_get_unmapped_area_topdown, without a random offset)
  [[nodiscard]] u64 pick_address(u64 length) const;
  /// UNMAP messages that a call still has to send: the contexts and the range.
  struct UnmapEvents {
    std::vector<UffdId> contexts;
    Range range{};
  };
  /// Unmaps whatever lies in [start, end): entries, VMAs, tables.
  [[nodiscard]] UnmapEvents unmap_range(u64 start, u64 end);
  void send(const UnmapEvents& events);
  /// Frees the tables of [start, end) that no VMA needs; `next` is the first VMA above.
  /// (free_pgtables, mm/memory.c, v6.18)
  void free_pgtables(u64 start, u64 end, VmaList::Index next);

  // mremap.cpp
  struct Move {
    u64 from = 0, from_length = 0, to = 0, to_length = 0;
    u64 told_length = 0;       ///< the length that the REMAP message names
    bool keep_source = false;  ///< MREMAP_DONTUNMAP
  };
  /// Moves part of one VMA and its entries; the REMAP message is sent, UNMAP messages are handed
  /// back. (move_vma, mm/mremap.c, v6.18)
  Error move_vma(const Move& move, std::vector<UnmapEvents>& unmapped);
  /// Moves the entries; false where a table cannot be allocated, and then nothing has moved.
  bool move_page_tables(const Vma& source, const Move& move, bool clear_uffd);
  Error move_to(u64 addr, u64 old_length, u64 new_length, u32 flags, u64 new_addr);
  Error expand_or_move(u64 addr, u64 old_length, u64 new_length, u32 flags, u64 hint, u64& result);

  // fork.cpp
  using Contexts = std::vector<std::pair<UffdId, UffdId>>;  ///< the parent's and the child's
  UffdId dup_userfaultfd(AddressSpace& child, Contexts& made, UffdId parent);
  Vma dup_vma(AddressSpace& child, Contexts& made, const Vma& vma);
  bool copy_page_range(AddressSpace& child, const Vma& vma, const Vma& copied);

  // reclaim.cpp
  /// In the machine's list, which holds them until the next such call.
  const std::vector<Pfn>& find_mapped_pages(u64 start, u64 length) const;

  // mprotect.cpp
  Error mprotect(u64 start, u64 length, int prot, ProtectResult& account);

  // mlock.cpp
  Error apply_lock(const char* call, u64 start, u64 length, u64 lock);

  // fault.cpp
  /// Gives the VMA an anon_vma if it has none. (vmf_anon_prepare, mm/memory.c, v6.18)
  void anon_vma_prepare(const Vma& vma);
  /// What a pass of the handler came to; `migrating` waits without a message.
  enum class Fault : u8 { done, blocked, migrating, sigbus, sigsegv, hwpoison, oom };
  struct FaultRequest {
    u64 addr = 0;
    bool write = false;
    bool kernel = false;  ///< taken in kernel mode
    bool nowait = false;  ///< FAULT_FLAG_ALLOW_RETRY is missing: a fault that would wait fails
    u32 thread = 0;
  };
  /// One pass of the kernel's fault handler. (handle_mm_fault, mm/memory.c, v6.18)
  Fault handle_mm_fault(const Vma& vma, const FaultRequest& request);
  Error touch(const FaultRequest& request, AccessResult& result);
  struct FaultIn {
    bool write = false;
    bool force = false;  ///< FOLL_FORCE: the VM_MAY* flags decide
    bool nowait = false;
  };
  /// Brings pages in for the kernel's own use; the pages done. (faultin_page, mm/gup.c, v6.18)
  Result<u64> fault_in(const char* call, u64 start, u64 end, const FaultIn& how);
  /// The same for pages from `addr` on whose entries are none, or allow the access, and lie in the
  /// PTE table of a page that was brought in before: none of the checks of the first page can come
  /// out otherwise. Stops where the handler must be asked; the pages done.
  u64 fault_in_neighbours(const Vma& vma, u64 addr, u64 end, const FaultIn& how);
  /// As mlock and mprotect do it for a VM_LOCKED VMA. (populate_vma_page_range, mm/gup.c, v6.18)
  Result<u64> populate_locked(u64 start, u64 end, bool nowait);

  // userfaultfd.cpp
  Error writeprotect(UffdId ctx, u64 start, u64 length, u64 mode, ProtectResult& account);
  /// uffd_wp_range(): protects or resolves part of one registered VMA. (mm/userfaultfd.c, v6.18)
  Error uffd_wp_range(const Vma& vma, u64 start, u64 end, bool protect, ProtectResult& account);
  /// The plan by which it does so, for a kernel that is run by itself.
  [[nodiscard]] LeafPlan uffd_wp_plan(const Vma& vma, bool protect) const;
  /// Registers (or, with NO_UFFD, unregisters) part of one VMA: flags, word, split, merge.
  void set_uffd(u64 start, u64 end, UffdId ctx, u64 uffd_flags);
  /// Unregisters part of one VMA: entries resolved where the profile says so, waiters woken.
  void clear_uffd(u64 start, u64 end);
  void wake(PendingFault& fault);
  void wake_range(UffdId ctx, u64 start, u64 end);
  void send(UffdId ctx, const UffdMsg& message);
  /// The message of a fault that has to wait, and the fault itself. (handle_userfault)
  Fault handle_userfault(const Vma& vma, const FaultRequest& request, u64 reason);

  // raw.cpp
  [[nodiscard]] Error check_entry(const char* call, u64 addr, Level level) const;
  u64 adopt_entry(const Vma& vma, u64 addr, u64 entry, u8 facts);
  /// The frame that the caller names, or where it cannot be that one, the file's or a new one.
  Pfn adopt_frame(const Vma& vma, u64 index, Pfn pfn, bool cached);
  u64 adopt_page(const Vma& vma, u64 addr, u64 entry, u8 facts);
  u64 adopt_swap(u64 entry);

  // zap.cpp
  struct ZapDetails {
    bool drop_marker = false;     ///< ZAP_FLAG_DROP_MARKER
    bool even_cows = true;        ///< private copies too
    bool reclaim_tables = false;  ///< free PTE tables left empty (PT_RECLAIM)
    bool skip_swap = false;       ///< v2: ZAP_FLAG_SKIP_SWAP
  };
  void zap_range(const Vma& vma, u64 start, u64 end, const ZapDetails& details);
  void zap_shared(const Vma& vma, u64 start, const Extent& at, const ZapDetails& details);
  void zap_tables(const Vma& vma, u64 start, u64 end, const ZapDetails& details);
  void zap_ptes(const Vma& vma, u64* pte, u64 nr, const ZapDetails& details);
  void zap_pte(const Vma& vma, u64* pte, const ZapDetails& details);
  /// Leaves a marker in a none entry that was armed, where the profile says so. (7.3 "persist")
  void install_uffd_wp_if_needed(const Vma& vma, u64* pte, u64 old);
};

/// Facts of a page for AddressSpace::load_pages: anonymous, of the VMA's file, exclusive, dirty,
/// the zero page, mapped by processes that are not modelled too.
inline constexpr u8 LOAD_ANON = 1, LOAD_FILE = 2, LOAD_EXCLUSIVE = 4, LOAD_DIRTY = 8,
                    LOAD_ZERO = 16, LOAD_SHARED = 32;

}  // namespace ptwalk
