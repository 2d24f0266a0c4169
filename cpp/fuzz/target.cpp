#include "target.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "ptwalk/fuzz/setups.hpp"
#include "ptwalk/mutants.hpp"

namespace {

using ptwalk::u32;
using ptwalk::u64;
using ptwalk::u8;

/// Branches that can be told apart; the rest is taken together.
constexpr std::size_t NR_COUNTERS = 1024;
/// Times that a branch was taken are told apart up to here: once, twice, thrice, more often. With
/// larger counts a fuzzer keeps programs for the length of their ranges, and runs slow ones.
constexpr u64 MANY = 4;

/// libFuzzer looks at this section after each run and clears it before the next.
[[gnu::section("__libfuzzer_extra_counters")]] u8 counters[NR_COUNTERS];

}  // namespace

#if defined(__AFL_COMPILER)
// Where AFL++ keeps the address of its map. Named in assembly only, for its compiler declares the
// name in each file by itself, and renames that where it is there already.
asm(".pushsection .data.rel, \"aw\"\n.balign 8\nptwalk_afl_map: .quad __afl_area_ptr\n.popsection");
extern "C" [[gnu::visibility("hidden")]] u8** ptwalk_afl_map;
namespace {
/// AFL++ gives each word of this section a place in its map, as it does for edges.
[[gnu::section("__sancov_guards"), gnu::used]] u32 guards[NR_COUNTERS];
}  // namespace
#endif

namespace ptwalk::fuzz {
namespace {

std::string setting(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

[[noreturn]] void refuse(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(2);
}

template <class Row>
std::string names_of(std::span<const Row> rows) {
  std::string names;
  for (const Row& row : rows) names.append(names.empty() ? "" : ", ").append(row.name);
  return names;
}

Judge judge_named(const std::string& name) {
  if (name == "end") return Judge::end;
  if (name == "each") return Judge::each;
  refuse("PTWALK_FUZZ_JUDGE=" + name + ": use end or each");
}

void run_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) refuse(path.string() + ": cannot be read");
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  LLVMFuzzerTestOneInput(reinterpret_cast<const u8*>(bytes.data()), bytes.size());
}

}  // namespace

void plant_bug() {
  try {
    choose_mutant(setting("PTWALK_MUTANT", ""));
  } catch (const std::invalid_argument& wrong) {
    refuse(wrong.what());
  }
}

Executor make_executor(Options options) {
  plant_bug();
  const std::string name = setting("PTWALK_FUZZ_PROFILE", "6.18");
  const Profile* profile = find_profile(name);
  if (!profile) refuse("PTWALK_FUZZ_PROFILE=" + name + ": use one of " + names_of(profiles()));
  const std::string wanted = setting("PTWALK_FUZZ_SETUP", "shmem-16");
  const Setup* setup = find_setup(wanted);
  if (!setup) refuse("PTWALK_FUZZ_SETUP=" + wanted + ": use one of " + names_of(setups()));
  options.judge = judge_named(setting("PTWALK_FUZZ_JUDGE", "end"));
  return Executor(*profile, encode(setup->ops), options);
}

// Hundreds of words for every execution, of our own arrays: a twentieth of it if each is checked.
__attribute__((no_sanitize("address", "undefined"))) void publish(std::span<const u64> coverage) {
  u8* const map = counters;
  const u64* const counts = coverage.data();
  for (std::size_t i = 0, nr = coverage.size(); i < nr; ++i) {
    if (!counts[i]) continue;
    u8& counter = map[i < NR_COUNTERS ? i : NR_COUNTERS - 1];
    const u64 sum = counter + counts[i];
    counter = u8(sum < MANY ? sum : MANY);
  }
#if defined(__AFL_COMPILER)
  for (std::size_t i = 0; i < NR_COUNTERS; ++i) (*ptwalk_afl_map)[guards[i]] = counters[i];
  std::fill(std::begin(counters), std::end(counters), 0);
#endif
}

void report(const std::string& finding) {
  std::fprintf(stderr, "%s\n", finding.c_str());
  std::abort();
}

int replay(std::span<char* const> paths) {
  std::size_t done = 0;
  for (const char* path : paths) {
    std::vector<std::filesystem::path> files{path};
    if (std::filesystem::is_directory(path))
      files.assign(std::filesystem::directory_iterator(path), {});
    std::sort(files.begin(), files.end());
    for (const std::filesystem::path& file : files) run_file(file);
    done += files.size();
  }
  std::printf("%zu inputs, nothing found\n", done);
  return done ? 0 : 2;
}

}  // namespace ptwalk::fuzz
