// The executor: each run starts from the setup's state, and the same program gives the same result
// whichever kernel and however many threads.
#include "ptwalk/fuzz/executor.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "ptwalk/fuzz/setups.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

namespace {

std::vector<u8> random_program(std::mt19937_64& random, std::size_t ops) {
  std::vector<u8> program(ops * OP_BYTES);
  for (u8& byte : program) byte = u8(random());
  return program;
}

Executor executor(std::string_view profile, std::string_view setup, const Options& options = {}) {
  return {*find_profile(profile), encode(find_setup(setup)->ops), options};
}

}  // namespace

TEST_CASE("every setup does what it is for, under the newest profile") {
  for (const Setup& setup : setups()) {
    Executor empty(profiles().back(), {});
    for (const Step& step : empty.steps(encode(setup.ops))) {
      CHECK(step.outcome.find("EINVAL") == std::string::npos);
      CHECK(step.outcome.find("nothing") == std::string::npos);
    }
  }
  CHECK(find_setup("shmem") == nullptr);
}

TEST_CASE("a setup's operations are those that its text means") {
  const auto name = [](const Op& op) { return operations()[op.op].name; };
  const auto ops = find_setup("mixed")->ops;
  CHECK(name(ops[0]) == "mmap");
  CHECK(name(ops[5]) == "access_many");
  CHECK(name(ops[10]) == "reclaim");
  CHECK(name(ops[13]) == "fork");
  CHECK(name(ops[14]) == "userfaultfd");
  CHECK(name(ops[15]) == "register");
}

TEST_CASE("runs do not depend on those before, nor on batches") {
  std::mt19937_64 random(1);
  for (const Profile& profile : profiles()) {
    Executor ex = executor(profile.name, "mixed");
    const std::vector<u8> a = random_program(random, 20), b = random_program(random, 20);
    const RunResult first = ex.run(a);
    const u64 state = ex.state_hash();
    CHECK(ex.run(b).digest != first.digest);
    const BatchItem items[] = {{b}, {a}};
    RunResult results[2];
    ex.run_batch(items, results);
    CHECK(results[1].digest == first.digest);
    CHECK(results[1].visible == first.visible);
    CHECK(ex.state_hash() == state);
  }
}

TEST_CASE("all leaf kernels give one digest") {
  std::mt19937_64 random(2);
  for (const Profile& profile : profiles()) {
    std::deque<Executor> all;
    for (const KernelInfo& kernel : supported_kernels())
      all.emplace_back(profile, encode(find_setup("mixed")->ops), Options{.kernel = &kernel});
    for (int i = 0; i < 40; ++i) {
      const std::vector<u8> program = random_program(random, 20);
      const RunResult first = all[0].run(program);
      for (Executor& ex : all) {
        const RunResult result = ex.run(program);
        CHECK(result.digest == first.digest);
        CHECK(result.violations == first.violations);
      }
    }
  }
}

TEST_CASE("judging each operation changes no digest and no coverage") {
  std::mt19937_64 random(3);
  for (const Profile& profile : profiles()) {
    Executor end = executor(profile.name, "mixed", {.raw = false});
    Executor each = executor(profile.name, "mixed", {.raw = false, .judge = Judge::each});
    for (int i = 0; i < 10; ++i) {
      const std::vector<u8> program = random_program(random, 16);
      const RunResult a = end.run(program), b = each.run(program);
      CHECK(a.digest == b.digest);
      CHECK(std::ranges::equal(end.coverage(), each.coverage()));
      CHECK(a.violations == 0);
      CHECK(b.violations == 0);
    }
  }
}

TEST_CASE("runs start from the newest checkpoint, and from an earlier one again") {
  std::mt19937_64 random(5);
  Executor ex = executor("6.18", "mixed"), fresh = executor("6.18", "mixed");
  for (int round = 0; round < 20; ++round) {
    const std::vector<u8> a = random_program(random, 8), b = random_program(random, 8);
    ex.run(a);
    const u64 after_a = ex.state_hash(), one = ex.checkpoint();
    const RunResult first = ex.run(b);
    const u64 after_b = ex.state_hash(), two = ex.checkpoint();
    CHECK(two != one);
    ex.run(a);
    CHECK(ex.restore(two));
    CHECK(ex.state_hash() == after_b);
    CHECK(ex.restore(one));
    CHECK(ex.state_hash() == after_a);
    CHECK_FALSE(ex.restore(two));
    for (int again = 0; again < 3; ++again) CHECK(ex.run(b).digest == first.digest);
    CHECK(ex.state_hash() == after_b);
    CHECK(ex.restore(0));
    CHECK_FALSE(ex.restore(one));
    CHECK(ex.run(a).digest == fresh.run(a).digest);
    CHECK(ex.state_hash() == after_a);
  }
}

TEST_CASE("programs run on five levels too, and user space sees the same") {
  std::mt19937_64 random(6);
  for (const char* setup : {"shmem-16", "mixed"}) {
    Executor four = executor("6.18", setup, {.raw = false});
    Executor five = executor("6.18", setup, {.raw = false, .levels = 5});
    for (int i = 0; i < 50; ++i) {
      const std::vector<u8> program = random_program(random, 16);
      const RunResult a = four.run(program), b = five.run(program);
      CHECK(a.visible == b.visible);
      CHECK(b.violations == 0);
    }
  }
}

TEST_CASE("branches leave out only what cannot be") {
  std::mt19937_64 random(7);
  for (const Profile& profile : profiles()) {
    for (const Setup& setup : setups()) {
      Executor ex = executor(profile.name, setup.name);
      u64 impossible = 0;
      for (int i = 0; i < 40; ++i) {
        ex.run(random_program(random, 24));
        impossible += ex.impossible();
      }
      CAPTURE(profile.name);
      CAPTURE(setup.name);
      CHECK(impossible == 0);
    }
  }
}
