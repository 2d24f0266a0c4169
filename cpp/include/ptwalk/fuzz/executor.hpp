// Runs programs, each from the same state, and says in a few words what they came to. Has no
// kernel counterpart.
#pragma once

#include <deque>

#include "ptwalk/fuzz/program.hpp"
#include "ptwalk/fuzz/run.hpp"
#include "ptwalk/kernels.hpp"

namespace ptwalk::fuzz {

struct Options {
  bool raw = true;  ///< false: raw operations do nothing
  Judge judge = Judge::end;
  const KernelInfo* kernel = &active_kernel();
  int levels = 4;                              ///< of page tables, 4 or 5
  u64 max_tables = FrameArena::DEFAULT_LIMIT;  ///< table frames that may be in use at once
};

struct RunResult {
  u64 digest = 0;      ///< of the final state and of all results
  u64 visible = 0;     ///< of what user space sees
  u64 violations = 0;  ///< bit i: violation i
  u32 ops = 0;         ///< operations that ran
};

/// A program of a batch, and where its counts of branches go; nullptr: nowhere.
struct BatchItem {
  std::span<const u8> program;
  u8* coverage = nullptr;
};

class Executor {
 public:
  /// `setup` is the program that makes the state from which all others start.
  Executor(const Profile& profile, std::span<const u8> setup, const Options& options = {});
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  RunResult run(std::span<const u8> program);
  /// The same, faster, but what coverage() tells then is worth nothing.
  RunResult run_uncounted(std::span<const u8> program);
  void run_batch(std::span<const BatchItem> programs, std::span<RunResult> results);
  /// One by one with texts; the last one's state stays until the next run.
  std::vector<Step> steps(std::span<const u8> program);

  /// Runs start from the state that the last one left, from here on. Returns its number.
  u64 checkpoint();
  /// Runs start from that state again, and those of later checkpoints are gone; 0 is the setup's.
  /// False, and nothing changes, where it is gone itself or never was.
  bool restore(u64 checkpoint);

  /// Of the state that the last run left, or of the setup.
  [[nodiscard]] u64 state_hash() const { return fuzz::state_hash(*world_.machine); }
  /// A hash of the page table entries that the last run left.
  [[nodiscard]] u64 entries_hash() const { return fuzz::entries_hash(*world_.machine); }
  /// How often the last run took each branch; worth nothing after one that did not count.
  [[nodiscard]] std::span<const u64> coverage();
  /// How often it did what branches() leaves out as impossible: never.
  [[nodiscard]] u64 impossible() const {
    return coverage_.back() + world_.machine->coverage.impossible();
  }
  [[nodiscard]] const Profile& profile() const { return profile_; }

 private:
  RunResult run(std::span<const u8> program, std::vector<Step>* steps, bool counted);
  void apply(std::span<const u8> program, Report& report);
  /// One operation, and what judges see before and after it.
  void apply_judged(Run& run, const Operation& operation, const Op& op);

  const Profile profile_;
  const std::vector<u8> setup_;
  const Options options_;
  const RawWords words_;
  World world_;
  struct Start {
    u64 number;
    SavedWorld state;
  };
  std::deque<Start>
      starts_;            ///< what the setup made, and the checkpoints; runs start from the last
  u64 checkpoints_ = 0;   ///< so many were made
  bool touched_ = false;  ///< the state is no longer that
  /// By row of operations() and Ended, where coverage_ counts it.
  const std::array<std::array<std::size_t, 3>, NR_OPERATIONS>& ended_places_;
  std::vector<u64> coverage_;                  ///< of branches(), and last of what cannot be
  const std::vector<u64>::iterator of_rules_;  ///< where the branches of the rules begin
};

/// Names of the branches, in the order of their counts.
std::span<const std::string> branches();

}  // namespace ptwalk::fuzz
