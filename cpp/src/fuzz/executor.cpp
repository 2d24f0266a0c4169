#include "ptwalk/fuzz/executor.hpp"

#include <algorithm>

#include "ptwalk/fuzz/operation_judge.hpp"

namespace ptwalk::fuzz {
namespace {

bool breaks_invariants(const World& world) {
  return std::any_of(world.spaces.begin(), world.spaces.end(),
                     [](const auto& mm) { return !mm->validate().empty(); });
}

constexpr std::size_t ENDINGS = 3;
constexpr const char* ENDED_NAMES[ENDINGS] = {"done", "refused", "nothing to act on"};

template <std::size_t N>
bool is_one_of(const Operation& row, void (*const (&all)[N])(Run&, const Op&)) {
  return std::find(std::begin(all), std::end(all), row.run) != std::end(all);
}

/// Whether there is any state in which the operation ends so.
bool can_end(const Operation& row, Ended how) {
  if (how == Ended::refused)
    return !is_one_of(row, {run_exit, run_reclaim, run_migrate_start, run_migrate_finish, run_numa,
                            run_uffd_close, run_file_write, run_file_read, run_file_truncate,
                            run_file_punch_hole, run_fail_table_alloc});
  if (how == Ended::nothing)
    return row.raw || is_one_of(row, {run_fork, run_exit, run_migrate_finish}) ||
           std::any_of(row.fields.begin(), row.fields.end(), [](const Field& field) {
             return field.name == field::UFFD.name || field.name == field::OF_FILE.name;
           });
  return true;
}

/// Where each operation's ending is counted; what cannot be, beyond all branches.
using Places = std::array<std::array<std::size_t, ENDINGS>, NR_OPERATIONS>;
const Places& ended_places() {
  static const Places all = [] {
    Places places;
    std::size_t next = 0;
    for (std::size_t row = 0; row < places.size(); ++row)
      for (std::size_t how = 0; how < ENDINGS; ++how)
        places[row][how] = can_end(operations()[row], Ended(how)) ? next++ : branches().size();
    return places;
  }();
  return all;
}

}  // namespace

Executor::Executor(const Profile& profile, std::span<const u8> setup, const Options& options)
    : profile_(profile),
      setup_(setup.begin(), setup.end()),
      options_(options),
      words_(raw_words(profile)),
      world_(profile, options.levels, options.max_tables),
      ended_places_(ended_places()),
      coverage_(branches().size() + 1),
      of_rules_(coverage_.end() - std::ptrdiff_t(Coverage::SIZE + 1)) {
  world_.machine->leaf_kernel = options_.kernel->apply;
  world_.machine->threads = 1;
  Report report;
  apply(setup_, report);
  starts_.push_back({0, SavedWorld(world_)});
}

void Executor::apply(std::span<const u8> program, Report& report) {
  Run run(world_, words_, options_.judge, report);
  const std::span<const Operation> all = operations();
  const std::size_t nr = nr_ops(program);
  for (std::size_t i = 0; i < nr; ++i) {
    const Op op = decode(program, i);
    const unsigned row = op.op % NR_OPERATIONS;
    const Operation& operation = all[row];
    report.begin(row);
    if (operation.raw && !options_.raw) {
      report.skip("raw operations are off");
      continue;
    }
    world_.raw |= operation.raw;
    if (options_.judge == Judge::each)
      apply_judged(run, operation, op);
    else
      operation.run(run, op);
    ++coverage_[ended_places_[row][std::size_t(report.ended)]];
  }
}

void Executor::apply_judged(Run& run, const Operation& operation, const Op& op) {
  std::optional<OperationJudge> judge;
  if (!world_.raw) judge.emplace(world_, operation.name, op);
  operation.run(run, op);
  if (judge) run.report.violations |= judge->judge();
  if (!world_.raw && breaks_invariants(world_)) run.report.violations |= bit(Violation::invariant);
}

RunResult Executor::run(std::span<const u8> program, std::vector<Step>* steps, bool counted) {
  if (touched_) starts_.back().state.restore(world_);
  touched_ = true;
  world_.machine->coverage.entries = counted;
  if (counted) {
    std::fill(coverage_.begin(), of_rules_, 0);
    coverage_.back() = 0;
    world_.machine->coverage.clear();
  }
  Report report;
  report.steps = steps;
  apply(program, report);
  const bool everywhere = world_.raw || options_.judge == Judge::each;
  const u64 found =
      add_state(report.digest, *world_.machine, everywhere ? Scope::everywhere : Scope::vmas);
  // Raw stores make whatever states they like.
  if (world_.raw)
    report.violations &= ~bit(Violation::fault_repeats);
  else
    report.violations |= found;
  return {.digest = report.digest.value(),
          .visible = report.visible.value(),
          .violations = report.violations,
          .ops = u32(nr_ops(program))};
}

RunResult Executor::run(std::span<const u8> program) { return run(program, nullptr, true); }

RunResult Executor::run_uncounted(std::span<const u8> program) {
  return run(program, nullptr, false);
}

std::vector<Step> Executor::steps(std::span<const u8> program) {
  std::vector<Step> steps;
  run(program, &steps, true);
  return steps;
}

u64 Executor::checkpoint() {
  starts_.push_back({++checkpoints_, SavedWorld(world_)});
  touched_ = false;
  return checkpoints_;
}

bool Executor::restore(u64 checkpoint) {
  const auto found = std::find_if(starts_.begin(), starts_.end(),
                                  [&](const Start& start) { return start.number == checkpoint; });
  if (found == starts_.end()) return false;
  found->state.restore(world_);
  while (&starts_.back() != &*found) starts_.pop_back();
  touched_ = false;
  return true;
}

std::span<const u64> Executor::coverage() {
  const std::span<const u64> counts = world_.machine->coverage.counts();
  std::copy_n(counts.data(), counts.size(), &*of_rules_);
  return std::span(coverage_).first(coverage_.size() - 1);
}

void Executor::run_batch(std::span<const BatchItem> programs, std::span<RunResult> results) {
  for (std::size_t i = 0; i < programs.size(); ++i) {
    results[i] = run(programs[i].program, nullptr, programs[i].coverage != nullptr);
    if (!programs[i].coverage) continue;
    std::ranges::transform(coverage(), programs[i].coverage,
                           [](u64 count) { return u8(std::min<u64>(count, 255)); });
  }
}

std::span<const std::string> branches() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Operation& operation : operations())
      for (std::size_t how = 0; how < ENDINGS; ++how)
        if (can_end(operation, Ended(how)))
          all.push_back("operation/" + std::string(operation.name) + ": " + ENDED_NAMES[how]);
    all.insert(all.end(), Coverage::names().begin(), Coverage::names().end());
    return all;
  }();
  return names;
}

}  // namespace ptwalk::fuzz
