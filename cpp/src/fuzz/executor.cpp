#include "ptwalk/fuzz/executor.hpp"

#include <algorithm>

#include "ptwalk/fuzz/operation_judge.hpp"

namespace ptwalk::fuzz {
namespace {

bool breaks_invariants(const World& world) {
  return std::any_of(world.spaces.begin(), world.spaces.end(),
                     [](const auto& mm) { return !mm->validate().empty(); });
}

}  // namespace

Executor::Executor(const Profile& profile, std::span<const u8> setup, const Options& options)
    : profile_(profile),
      setup_(setup.begin(), setup.end()),
      options_(options),
      words_(raw_words(profile)),
      world_(profile, options.levels),
      coverage_(branches().size()),
      of_rules_(coverage_.end() - std::ptrdiff_t(Coverage::SIZE)) {
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
    ++coverage_[3 * row + std::size_t(report.ended)];
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
  std::ranges::copy(world_.machine->coverage.counts(), of_rules_);
  return coverage_;
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
      for (const char* how : {"done", "refused", "nothing to act on"})
        all.push_back("operation/" + std::string(operation.name) + ": " + how);
    all.insert(all.end(), Coverage::names().begin(), Coverage::names().end());
    return all;
  }();
  return names;
}

}  // namespace ptwalk::fuzz
