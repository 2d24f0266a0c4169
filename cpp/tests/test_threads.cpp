// Threads: address spaces of one machine under the machine's lock, and machines side by side
// without any. Meant for ThreadSanitizer; without it the invariants are what is checked.
#include <thread>

#include "space.hpp"

using namespace ptwalk;

namespace {

constexpr int THREADS = 4, ROUNDS = 200;
constexpr u64 PAGES = 16;

/// A round of everything on one address space; the caller holds the lock if there is one.
void one_round(AddressSpace& mm, UffdId id, int round) {
  const u64 addr = BASE + pages(u64(round) % PAGES);
  (void)mm.access(addr, round & 1);
  (void)mm.uffd_writeprotect(id, addr, PAGE_SIZE, round % 3 == 0);
  (void)mm.mprotect(addr, PAGE_SIZE, round % 5 == 0 ? PROT_READ_ : PROT_RW);
  if (round % 7 == 0) (void)mm.reclaim(addr, PAGE_SIZE);
  if (round % 11 == 0) (void)mm.fork();
  (void)mm.count(BASE, pages(PAGES));
}

UffdId prepare(AddressSpace& mm, FileId file) {
  REQUIRE(mm.mmap(BASE, pages(PAGES), PROT_RW, MAP_SHARED_ | MAP_FIXED_, file, 0).ok());
  const UffdId id = mm.userfaultfd(UFFD_FEATURE_WP_ASYNC).value;
  REQUIRE(mm.uffd_register(id, BASE, pages(PAGES), MODE_WP).ok());
  return id;
}

}  // namespace

TEST_CASE("address spaces that share a file, each with its thread, under machine.mutex") {
  const auto machine = std::make_shared<Machine>(*find_profile("6.18"), 4);
  const FileId file = machine->create_file(FileKind::shmem, pages(PAGES));
  std::vector<std::shared_ptr<AddressSpace>> mms;
  std::vector<std::thread> threads;
  for (int i = 0; i < THREADS; ++i) {
    mms.push_back(std::make_shared<AddressSpace>(machine));
    prepare(*mms.back(), file);
  }
  for (int i = 0; i < THREADS; ++i)
    threads.emplace_back([&, i] {
      for (int round = 0; round < ROUNDS; ++round) {
        const std::scoped_lock lock(machine->mutex);
        one_round(*mms[std::size_t(i)], i, round + i);
        if (round % 50 == 49) machine->file_truncate(file, pages(PAGES / 2));
        if (round % 50 == 0) machine->file_truncate(file, pages(PAGES));
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const auto& mm : mms) CHECK(mm->validate() == std::vector<std::string>{});
}

TEST_CASE("machines share nothing: no lock between them, the same answers in each") {
  std::vector<EntryCounts> counts(THREADS);
  std::vector<std::vector<std::string>> reports(THREADS);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < THREADS; ++i)
    threads.emplace_back([&, i] {
      const auto machine = std::make_shared<Machine>(*find_profile("6.18"), 4);
      AddressSpace mm(machine);
      const UffdId id = prepare(mm, machine->create_file(FileKind::shmem, pages(PAGES)));
      for (int round = 0; round < ROUNDS; ++round) one_round(mm, id, round);
      counts[i] = mm.count(BASE, pages(PAGES));
      reports[i] = mm.validate();
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < THREADS; ++i) {
    CHECK(reports[i] == std::vector<std::string>{});
    CHECK(counts[i].present == counts[0].present);
    CHECK(counts[i].marker == counts[0].marker);
  }
  CHECK(counts[0].present + counts[0].marker + counts[0].none == PAGES);
}
