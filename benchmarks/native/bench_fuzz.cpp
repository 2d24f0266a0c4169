// Programs per second of the fuzzing backend: 20 operations on 16 pages, going back and digest
// included; one executor, and one for each of two threads in the same run. Prints nanoseconds per
// program, per operation and per restore.
//   bench_fuzz [--quick] [--json FILE]     prints a Markdown table
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "ptwalk/fuzz/mix.hpp"
#include "ptwalk/fuzz/setups.hpp"
#include "ptwalk/fuzz/yardstick.hpp"

namespace {

using namespace ptwalk;
using namespace ptwalk::fuzz;

constexpr std::size_t PROGRAM_BYTES = MIX_OPS * OP_BYTES;

struct Row {
  std::string profile, setup;
  double one, two, empty;  ///< programs per second: one thread, two together, of nothing
};

/// Programs of the standard mix, one after another.
std::vector<u8> programs(std::size_t nr, u64 seed) {
  std::vector<u8> all(nr * PROGRAM_BYTES);
  for (std::size_t i = 0; i < nr; ++i)
    standard_program(seed, i,
                     std::span<u8, PROGRAM_BYTES>(all.data() + i * PROGRAM_BYTES, PROGRAM_BYTES));
  return all;
}

double seconds(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

volatile u64 sink;  ///< keeps digests alive

/// The best of several rounds, the three measurements taken in turns.
Row measure(std::string_view profile, std::string_view setup, std::size_t nr, int rounds) {
  const std::vector<u8> setup_program = encode(find_setup(setup)->ops);
  Executor first(*find_profile(profile), setup_program),
      second(*find_profile(profile), setup_program);
  const std::vector<u8> a = programs(nr, 1), b = programs(nr, 2);
  Row row{std::string(profile), std::string(setup), 0, 0, 0};
  for (int round = 0; round < rounds; ++round) {
    row.one = std::max(
        row.one, double(nr) / seconds([&] { sink = sink + run_all(first, a, PROGRAM_BYTES); }));
    const double both = seconds([&] {
      std::jthread other([&] { sink = sink + run_all(second, b, PROGRAM_BYTES); });
      sink = sink + run_all(first, a, PROGRAM_BYTES);
    });
    row.two = std::max(row.two, 2 * double(nr) / both);
    const double nothing = seconds([&] {
      for (std::size_t i = 0; i < nr; ++i) sink = sink + first.run({}).digest;
    });
    row.empty = std::max(row.empty, double(nr) / nothing);
  }
  return row;
}

bool write_json(const std::vector<Row>& rows, double restore, const char* path) {
  std::FILE* file = std::fopen(path, "w");
  if (!file) return false;
  std::fprintf(file, "[\n");
  for (const Row& row : rows)
    std::fprintf(file,
                 "  {\"profile\": \"%s\", \"setup\": \"%s\", \"programs_per_s\": %.0f, "
                 "\"two_threads\": %.0f, \"empty_programs_per_s\": %.0f},\n",
                 row.profile.c_str(), row.setup.c_str(), row.one, row.two, row.empty);
  std::fprintf(file, "  {\"restore_ns\": %.0f}\n]\n", restore);
  return std::fclose(file) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  const char* json = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--quick"))
      quick = true;
    else if (!std::strcmp(argv[i], "--json") && i + 1 < argc)
      json = argv[++i];
    else
      return std::fprintf(stderr, "usage: bench_fuzz [--quick] [--json FILE]\n"), 2;
  }
  std::vector<Row> rows;
  std::printf("| profile | setup | programs/s | ns/operation | two threads | of nothing |\n");
  std::printf("|---|---|---|---|---|---|\n");
  for (const char* profile : {"uffd-wp-v2", "6.18"}) {
    for (const char* setup : {"shmem-16", "anon-16", "mixed"}) {
      rows.push_back(measure(profile, setup, quick ? 5'000 : 100'000, quick ? 2 : 5));
      const Row& row = rows.back();
      std::printf("| %s | %s | %.0f | %.0f | %.2f | %.0f |\n", profile, setup, row.one,
                  1e9 / row.one / double(MIX_OPS), row.two / row.one, row.empty);
      std::fflush(stdout);
    }
  }
  const double restore = restore_ns(*find_profile("6.18"), quick ? 1'000 : 100'000);
  std::printf("\nrestore after a store to one page: %.0f ns, the clock included\n", restore);
  if (json && !write_json(rows, restore, json)) return std::perror(json), 1;
  return 0;
}
