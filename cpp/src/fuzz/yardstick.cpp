#include "ptwalk/fuzz/yardstick.hpp"

#include <algorithm>
#include <chrono>
#include <limits>

#include "ptwalk/fuzz/setups.hpp"

namespace ptwalk::fuzz {

u64 run_all(Executor& executor, std::span<const u8> programs, std::size_t width) {
  u64 sum = 0;
  for (; programs.size() >= width; programs = programs.subspan(width))
    sum += executor.run_uncounted(programs.first(width)).digest;
  return sum;
}

double restore_ns(const Profile& profile, std::size_t times) {
  using Clock = std::chrono::steady_clock;
  const std::vector<u8> setup = encode(find_setup("shmem-16")->ops);
  const Op store{.op = 0, .arg = 1};
  World world(profile);
  const RawWords words = raw_words(profile);
  Report report;
  Run run(world, words, Judge::end, report);
  for (std::size_t i = 0; i < nr_ops(setup); ++i) {
    const Op op = decode(setup, i);
    operations()[op.op].run(run, op);
  }
  const SavedWorld saved(world);
  double best = std::numeric_limits<double>::max();
  for (std::size_t i = 0; i < times; ++i) {
    operations()[store.op].run(run, store);
    const Clock::time_point start = Clock::now();
    saved.restore(world);
    best = std::min(best, std::chrono::duration<double, std::nano>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace ptwalk::fuzz
