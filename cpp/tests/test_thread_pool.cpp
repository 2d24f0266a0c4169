// The pool of threads: every chunk once, errors to the caller, nesting, forks, several callers.
#include "ptwalk/thread_pool.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace ptwalk;

TEST_CASE("every chunk is worked on once, by as many threads as were asked for at most") {
  ThreadPool& pool = ThreadPool::shared();
  for (unsigned threads : {1u, 2u, 5u}) {
    for (std::size_t chunks : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> seen(chunks);
      std::atomic<int> at_once = 0, most = 0;
      pool.run(threads, chunks, [&](std::size_t chunk) {
        const int now = ++at_once;
        for (int old = most; old < now && !most.compare_exchange_weak(old, now);) {
        }
        ++seen[chunk];
        --at_once;
      });
      for (const auto& count : seen) CHECK(count == 1);
      CHECK(most <= int(threads));
    }
  }
}

TEST_CASE("an exception reaches the caller, and the pool goes on working") {
  ThreadPool& pool = ThreadPool::shared();
  for (int round = 0; round < 20; ++round) {
    CHECK_THROWS_AS(pool.run(3, 100,
                             [](std::size_t chunk) {
                               if (chunk == 37) throw std::runtime_error("chunk 37");
                             }),
                    std::runtime_error);
    std::atomic<int> done = 0;
    pool.run(3, 100, [&](std::size_t) { ++done; });
    CHECK(done == 100);
  }
}

TEST_CASE("work inside work runs where it is") {
  std::atomic<int> done = 0;
  ThreadPool::shared().run(4, 8, [&](std::size_t) {
    const auto self = std::this_thread::get_id();
    ThreadPool::shared().run(4, 8, [&](std::size_t) {
      CHECK(std::this_thread::get_id() == self);
      ++done;
    });
  });
  CHECK(done == 64);
}

TEST_CASE("several callers at once each get their own work done") {
  std::vector<std::thread> callers;
  std::atomic<int> done = 0;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round)
        ThreadPool::shared().run(3, 20, [&](std::size_t) { ++done; });
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(done == 4 * 50 * 20);
}

#if !defined(__SANITIZE_THREAD__)  // which does not support threads of a forked child
TEST_CASE("a forked child has a pool that works") {
  ThreadPool::shared().run(3, 30, [](std::size_t) {});
  const pid_t child = ::fork();
  if (child == 0) {
    std::atomic<int> done = 0;
    ThreadPool::shared().run(3, 30, [&](std::size_t) { ++done; });
    ::_exit(done == 30 ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
#endif
