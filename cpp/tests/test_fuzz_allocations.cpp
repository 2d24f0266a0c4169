// In the steady state a run allocates nothing: programs that ran before run again, and operator
// new is counted.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "ptwalk/fuzz/executor.hpp"
#include "ptwalk/fuzz/mix.hpp"
#include "ptwalk/fuzz/setups.hpp"

namespace {

std::atomic<ptwalk::u64> allocations;

void* counted(std::size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}

/// Not inlined: GCC would see free() meet what operator new returned, and warn.
[[gnu::noinline]] void release(void* memory) noexcept { std::free(memory); }

}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }

using namespace ptwalk;
using namespace ptwalk::fuzz;

TEST_CASE("programs of the standard mix allocate nothing when they run again") {
  constexpr u64 NR = 300;
  constexpr std::size_t WIDTH = MIX_OPS * OP_BYTES;
  std::vector<u8> programs(NR * WIDTH);
  for (u64 i = 0; i < NR; ++i)
    standard_program(1, i, std::span<u8, WIDTH>(programs.data() + i * WIDTH, WIDTH));
  for (const Profile& profile : profiles()) {
    for (const char* setup : {"shmem-16", "anon-16", "mixed"}) {
      Executor executor(profile, encode(find_setup(setup)->ops));
      const auto run_all = [&] {
        u64 sum = 0;
        for (u64 i = 0; i < NR; ++i) sum += executor.run({&programs[i * WIDTH], WIDTH}).digest;
        return sum;
      };
      const u64 first = run_all(), before = allocations;
      CHECK(before > 0);  // this file's operator new is the one that counts
      CHECK(run_all() == first);
      CHECK(allocations - before == 0);
    }
  }
}
