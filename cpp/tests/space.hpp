// A machine with one address space for tests of the system calls: mappings, accesses and entries in
// short words. Where it ends, every invariant of every address space must still hold.
#pragma once

#include <doctest/doctest.h>

#include "ptwalk/userfaultfd.hpp"
#include "walk_space.hpp"

namespace ptwalk {

inline constexpr int PROT_RW = PROT_READ_ | PROT_WRITE_;
inline constexpr u64 MODE_MISSING = UFFDIO_REGISTER_MODE_MISSING, MODE_WP = UFFDIO_REGISTER_MODE_WP,
                     MODE_MINOR = UFFDIO_REGISTER_MODE_MINOR;
inline constexpr u64 WP_MARKER = 0xfffffffffffffc00;  ///< of 6.12 and 6.18
inline constexpr u64 POISON_MARKER = 0xfffffffffffffa00, GUARD_MARKER = 0xfffffffffffff600;
inline constexpr u64 SAVED_DIRTY = 1ull << 58;

/// An entry without its frame.
constexpr u64 bits(u64 entry) { return entry & ~PTE_PFN_MASK; }
constexpr bool has(u64 word, u64 flags) { return (word & flags) == flags; }
constexpr u64 pages(u64 n) { return n << PAGE_SHIFT; }
/// Flags of a present 4 KiB entry as the tests write them: P US A NX and what is named.
constexpr u64 present(u64 more = 0) {
  return _PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED | _PAGE_NX | more;
}

inline void check_signal(const AccessResult& result, int signo, int code) {
  CHECK(result.outcome == Outcome::signal);
  CHECK(result.signal.signo == signo);
  CHECK(result.signal.code == code);
}

struct Space {
  explicit Space(const Profile& profile, int levels = 4)
      : machine(std::make_shared<Machine>(profile, levels)),
        mm(std::make_shared<AddressSpace>(machine)) {}
  explicit Space(std::string_view profile = "6.18") : Space(*find_profile(profile)) {}
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;
  ~Space() {
    for (const std::string& broken : mm->validate()) FAIL_CHECK(broken);
  }

  /// Maps at the next 2 MiB boundary that is well away from other mappings.
  u64 map(u64 nr, int prot, u32 flags, FileId backing = NO_FILE, u64 offset = 0) {
    const auto done = mm->mmap(next_, pages(nr), prot, flags | MAP_FIXED_, backing, offset);
    REQUIRE(done.ok());
    next_ += align_up(pages(nr), PMD_SIZE) + PMD_SIZE;
    return done.value;
  }
  u64 anon(u64 nr, int prot = PROT_RW) { return map(nr, prot, MAP_PRIVATE_ | MAP_ANONYMOUS_); }
  /// A shared (or private) mapping of a new memfd of that many pages.
  u64 shmem(u64 nr, int prot = PROT_RW, u32 flags = MAP_SHARED_) {
    return map(nr, prot, flags, file = machine->create_file(FileKind::shmem, pages(nr)));
  }
  u64 private_shmem(u64 nr, int prot = PROT_RW) { return shmem(nr, prot, MAP_PRIVATE_); }
  /// A shared mapping of a new file on a disk.
  u64 regular(u64 nr, int prot = PROT_RW) {
    return map(nr, prot, MAP_SHARED_, file = machine->create_file(FileKind::regular, pages(nr)));
  }

  AccessResult touch(u64 addr, bool write) {
    const auto done = mm->access(addr, write);
    REQUIRE(done.ok());
    return done.value;
  }
  AccessResult read(u64 addr) { return touch(addr, false); }
  AccessResult write(u64 addr) { return touch(addr, true); }
  /// The PTE; 0 where there is no table.
  [[nodiscard]] u64 pte(u64 addr) const {
    const u64* found = mm->tables.find(addr, PTE_LEVEL);
    return found ? *found : 0;
  }
  [[nodiscard]] u64 flags_of(u64 addr) const { return bits(pte(addr)); }
  [[nodiscard]] Page& page(u64 addr) { return machine->pages.at(pte_pfn(pte(addr))); }
  [[nodiscard]] bool anon_exclusive(u64 addr) const {
    return machine->pages.anon_exclusive(pte_pfn(pte(addr)));
  }
  [[nodiscard]] const Vma& vma(u64 addr) const { return *mm->vmas.find(addr); }
  [[nodiscard]] std::size_t nr_vmas() const { return mm->vmas.all().size(); }

  /// Swaps the page out, or drops it where it has no place in swap.
  void reclaim(u64 addr) { REQUIRE(mm->reclaim(addr, PAGE_SIZE) == 1); }
  /// Both phases of a migration, with whatever `between` does to the migration entries; the
  /// frame.
  template <class Between>
  Pfn migrate(u64 addr, Between between) {
    const auto started = mm->migrate_start(addr, PAGE_SIZE);
    REQUIRE(started.size() == 1);
    between();
    return machine->migrate_finish(started[0].pfn, started[0].serial);
  }
  /// The kind of a swap-format entry.
  [[nodiscard]] SwpKind kind_of(u64 addr) const { return machine->profile.swp_kind(pte(addr)); }

  UffdId uffd(u64 features = 0) {
    const auto made = mm->userfaultfd(features);
    REQUIRE(made.ok());
    return made.value;
  }
  /// A new context that the range is registered with.
  UffdId watch(u64 addr, u64 nr, u64 mode, u64 features = 0) {
    const UffdId id = uffd(features);
    REQUIRE(mm->uffd_register(id, addr, pages(nr), mode).ok());
    return id;
  }
  ProtectResult protect(UffdId id, u64 addr, u64 nr) {
    auto done = mm->uffd_writeprotect(id, addr, pages(nr), UFFDIO_WRITEPROTECT_MODE_WP);
    REQUIRE(done.ok());
    return done.value;
  }
  ProtectResult resolve(UffdId id, u64 addr, u64 nr) {
    auto done = mm->uffd_writeprotect(id, addr, pages(nr), 0);
    REQUIRE(done.ok());
    return done.value;
  }
  [[nodiscard]] std::vector<UffdMsg>& messages(UffdId id) {
    return machine->uffds.edit(u64(id)).queue;
  }
  /// read(2) of one message from the userfaultfd.
  UffdMsg next_message(UffdId id) {
    UffdContext& ctx = machine->uffds.edit(u64(id));
    REQUIRE_FALSE(ctx.queue.empty());
    const UffdMsg message = ctx.queue.front();
    ctx.queue.erase(ctx.queue.begin());
    if (message.event != UffdEvent::pagefault) --ctx.mmap_changing;
    return message;
  }

  std::shared_ptr<Machine> machine;
  std::shared_ptr<AddressSpace> mm;
  FileId file = NO_FILE;  ///< the file that was made last

 private:
  u64 next_ = BASE;
};

}  // namespace ptwalk
