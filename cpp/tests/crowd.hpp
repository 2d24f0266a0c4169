// A crowd of address spaces that share a file, and what can happen to them, at random from a fixed
// seed.
#pragma once

#include <random>

#include "ptwalk/madvise.hpp"
#include "space.hpp"

namespace ptwalk {

inline constexpr u64 PAGES = 24;
inline constexpr u64 SHARED = BASE, PRIVATE = BASE + PMD_SIZE, ANON = BASE + 2 * PMD_SIZE,
                     SPARE = BASE + 3 * PMD_SIZE;

class Crowd {
 public:
  Crowd(std::string_view profile, std::size_t size)
      : machine(std::make_shared<Machine>(*find_profile(profile), 4)),
        file_(machine->create_file(FileKind::shmem, pages(PAGES))) {
    for (std::size_t i = 0; i < size; ++i) {
      mms.push_back(std::make_shared<AddressSpace>(machine));
      map(*mms.back(), SHARED, MAP_SHARED_);
      map(*mms.back(), PRIVATE, MAP_PRIVATE_);
      map(*mms.back(), ANON, MAP_PRIVATE_ | MAP_ANONYMOUS_);
      const u64 async = machine->profile.uffd_features & UFFD_FEATURE_WP_ASYNC;
      const u64 features = i % 2 ? UFFD_FEATURE_EVENT_FORK : async;
      const UffdId id = mms.back()->userfaultfd(features).value;
      for (u64 start : {SHARED, PRIVATE, ANON})
        if (random_() % 4) (void)mms.back()->uffd_register(id, start, pages(PAGES), MODE_WP);
    }
  }

  void step() {
    std::shared_ptr<AddressSpace>& mm = mms[random_() % mms.size()];
    const u64 addr = anywhere(), nr = 1 + random_() % 6;
    switch (random_() % 16) {
      case 0: machine->file_truncate(file_, pages(random_() % (PAGES + 1))); break;
      case 1: machine->file_punch_hole(file_, pages(random_() % PAGES), pages(nr)); break;
      case 2: (void)mm->reclaim(addr, pages(nr)); break;
      case 3: fork(mm); break;
      case 4: (void)mm->mprotect(addr, pages(nr), int(random_() % 4)); break;
      case 5:
      case 6: write_protect(*mm, addr, pages(nr)); break;
      case 7: unmap(*mm, addr, pages(nr)); break;
      case 8: move(*mm, addr, pages(nr)); break;
      case 9: migrate(*mm, addr, pages(nr)); break;
      case 10: (void)mm->madvise(addr, pages(nr), advice()); break;
      case 11: machine->file_write(file_, pages(random_() % PAGES), pages(nr)); break;
      default:
        for (u64 i = 0; i < nr; ++i) (void)mm->access(addr + pages(i), random_() & 1);
    }
  }

  /// Who plays, and with which luck: what a checkpoint of the machine does not know.
  struct Players {
    std::vector<std::shared_ptr<AddressSpace>> mms;
    std::mt19937_64 random;
  };
  [[nodiscard]] Players players() const { return {mms, random_}; }
  void become(const Players& players) {
    mms = players.mms;
    random_ = players.random;
  }

  const std::shared_ptr<Machine> machine;
  std::vector<std::shared_ptr<AddressSpace>> mms;

 private:
  void map(AddressSpace& mm, u64 at, u32 flags) {
    const FileId backing = flags & MAP_ANONYMOUS_ ? NO_FILE : file_;
    REQUIRE(mm.mmap(at, pages(PAGES), PROT_RW, flags | MAP_FIXED_, backing, 0).ok());
  }
  u64 anywhere() { return BASE + random_() % 4 * PMD_SIZE + pages(random_() % PAGES); }
  int advice() {
    constexpr int all[] = {MADV_DONTNEED_, MADV_FREE_,          MADV_REMOVE_,
                           MADV_COLD_,     MADV_PAGEOUT_,       MADV_POPULATE_WRITE_,
                           MADV_DONTFORK_, MADV_GUARD_INSTALL_, MADV_GUARD_REMOVE_};
    return all[random_() % std::size(all)];
  }
  /// The child takes the place of another, which exits.
  void fork(const std::shared_ptr<AddressSpace>& mm) {
    auto child = mm->fork().value;
    for (u64 id = 0; id < machine->uffds.size(); ++id) {  // every event is read at once
      machine->uffds.edit(id).queue.clear();
      machine->uffds.edit(id).mmap_changing = 0;
    }
    mms[random_() % mms.size()] = std::move(child);
  }
  void write_protect(AddressSpace& mm, u64 addr, u64 length) {
    const Vma* vma = mm.vmas.find(addr);
    if (vma && vma->uffd != NO_UFFD)
      (void)mm.uffd_writeprotect(vma->uffd, addr, length, random_() & 1);
  }
  void unmap(AddressSpace& mm, u64 addr, u64 length) {
    REQUIRE(mm.munmap(addr, length).ok());
    if (random_() % 2) (void)mm.mmap(addr, length, PROT_RW, 0x32, NO_FILE, 0);
  }
  void move(AddressSpace& mm, u64 addr, u64 length) {
    const u32 flags = MREMAP_MAYMOVE_ | MREMAP_FIXED_ | (random_() % 4 ? 0 : MREMAP_DONTUNMAP_);
    (void)mm.mremap(addr, length, length, flags, SPARE + pages(random_() % PAGES));
  }
  void migrate(AddressSpace& mm, u64 addr, u64 length) {
    for (const MigratingPage& page : mm.migrate_start(addr, length)) {
      if (random_() % 4 == 0) (void)mm.munmap(addr, PAGE_SIZE);
      (void)machine->migrate_finish(page.pfn, page.serial);
    }
  }

  std::mt19937_64 random_{20210427};
  FileId file_;
};

}  // namespace ptwalk
