// What the fuzz targets share. A target is a file with one function, LLVMFuzzerTestOneInput; it is
// linked with libFuzzer, with afl_main.cpp or with replay_main.cpp. Has no kernel counterpart.
#pragma once

#include <cstddef>
#include <string>

#include "ptwalk/fuzz/executor.hpp"

/// Runs one input; aborts when it shows a bug.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace ptwalk::fuzz {

/// An executor as the environment wishes: PTWALK_FUZZ_PROFILE ("6.18"), PTWALK_FUZZ_SETUP
/// ("shmem-16") and PTWALK_FUZZ_JUDGE ("end" or "each"). A wrong name ends the process.
[[nodiscard]] Executor make_executor(Options options);

/// Plants the bug that PTWALK_MUTANT names; a name that this build does not have ends the process.
void plant_bug();

/// Tells the fuzzer which branches the last run took: as libFuzzer's extra counters, or in AFL++'s
/// map. Replaying, nobody reads them.
void publish(std::span<const u64> coverage);

/// Prints a finding and aborts.
[[noreturn]] void report(const std::string& finding);

/// Runs every file that is named, and every file of a directory that is named. Returns an exit
/// status: 2 where there was nothing to run.
int replay(std::span<char* const> paths);

}  // namespace ptwalk::fuzz
