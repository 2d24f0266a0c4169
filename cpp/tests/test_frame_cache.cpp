// Reservations: taken, kept warm, given back, and smaller where little can be had.
#include "ptwalk/frame_cache.hpp"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "ptwalk/frame_arena.hpp"

using namespace ptwalk;

TEST_CASE("a reservation comes back warm, and trim() returns its memory") {
  FrameCache cache;
  u64* base = nullptr;
  {
    FrameArena arena(512, cache);
    base = arena.table(TABLE_PFN_BASE);
    for (int i = 0; i < 100; ++i) arena.table(arena.alloc(PTE_LEVEL))[7] = 1;
  }
  {
    FrameArena arena(512, cache);
    CHECK(arena.table(TABLE_PFN_BASE) == base);
    CHECK(arena.rows() == 0);
    CHECK(arena.table(arena.alloc(PTE_LEVEL))[7] == 0);  // though the frame was used before
  }
  CHECK(cache.trim() == 100 * PAGE_SIZE);
  CHECK(cache.trim() == 0);
}

TEST_CASE("what is kept is bounded") {
  FrameCache cache;
  cache.give({.base = cache.take().base, .frames = FrameCache::MAX_FRAMES, .touched = 1 << 20});
  CHECK(cache.trim() == FrameCache::MAX_WARM * PAGE_SIZE);
  std::vector<Reservation> taken;
  for (std::size_t i = 0; i < FrameCache::MAX_KEPT + 2; ++i) taken.push_back(cache.take());
  for (const Reservation& reservation : taken) cache.give(reservation);
}

TEST_CASE("an arena returns the memory of its free frames") {
  FrameCache cache;
  FrameArena arena(512, cache);
  std::vector<Pfn> frames;
  for (int i = 0; i < 10; ++i) frames.push_back(arena.alloc(PTE_LEVEL));
  arena.table(frames[4])[0] = 5;
  for (int i : {2, 7, 6, 9}) arena.free(frames[std::size_t(i)]);
  CHECK(arena.trim() == 4 * PAGE_SIZE);
  CHECK(arena.in_use() == 6);
  CHECK(arena.table(frames[4])[0] == 5);
  CHECK(arena.alloc(PTE_LEVEL) == frames[2]);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they need the address space
TEST_CASE("where the address space is limited, a smaller reservation is taken") {
  const pid_t child = ::fork();
  if (child == 0) {
    FrameCache::shared().trim();  // whose reservations alone exceed the limit
    const rlimit limit{1ull << 32, 1ull << 32};
    ::setrlimit(RLIMIT_AS, &limit);
    FrameCache cache;
    FrameArena arena(FrameArena::DEFAULT_LIMIT, cache);
    const bool small = arena.limit() < FrameCache::MAX_FRAMES / 64 && arena.limit() >= 504;
    ::_exit(small && arena.alloc(PTE_LEVEL) ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
#endif

TEST_CASE("a forked child can use the shared cache") {
  {
    const FrameArena warm(512);
  }
  const pid_t child = ::fork();
  if (child == 0) {
    FrameArena arena(512);
    ::_exit(arena.alloc(PTE_LEVEL) ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
