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

namespace {

u8 row_of(std::string_view name) {
  const auto all = operations();
  return u8(std::ranges::find(all, name, &Operation::name) - all.begin());
}

/// What user space sees of one operation behind a setup.
std::string seen(Executor& ex, const Op& op) { return ex.steps(encode({&op, 1}))[0].visible; }

constexpr u8 AT = 1, LENGTH = 2, WRAP = 4, TO = 8;  // of an ioctl; of a system call, shifted by 4

}  // namespace

TEST_CASE("odd arguments are those of the call, and are answered as the kernel does") {
  Executor ex = executor("6.18", "anon-16");
  const auto call = [&](std::string_view name, u8 odd, u8 nr, u16 arg = 0, u8 page2 = 0,
                        u8 extra = 0) {
    return seen(ex, {row_of(name), u8(odd << 4), 0, nr, arg, page2, extra});
  };
  CHECK(call("munmap", AT, 1) == "EINVAL");
  CHECK(call("munmap", LENGTH, 1) == "");
  CHECK(call("munmap", WRAP, 1) == "EINVAL");
  CHECK(call("mprotect", LENGTH, 0, 1) == "");  // a page
  CHECK(call("mprotect", WRAP, 1, 1) == "ENOMEM");
  CHECK(call("mprotect", WRAP, 192, 1) == "ENOMEM");  // beyond user memory: after the 16 pages
  CHECK(call("mlock", AT | LENGTH, 1) == "");
  CHECK(call("mlock", WRAP, 1) == "EINVAL");
  CHECK(call("madvise", WRAP, 1) == "EINVAL");
  CHECK(call("mmap", TO, 1, 3) == "address=0x0; EINVAL");
  CHECK(call("mmap", AT, 1, 3 | 16 << 3).starts_with("address=0x7f"));  // a hint
  CHECK(call("mremap", TO, 1, 3, 200, 1) == "address=0x0; EINVAL");
  CHECK(call("mremap", WRAP, 1, 0, 0, 1) == "address=0x0; EINVAL");
  CHECK(call("pagemap_scan", WRAP, 1) == "walk_end=0x0; EFAULT");
  for (const char* name : {"register", "unregister", "writeprotect", "wake", "copy", "zeropage",
                           "continue", "poison", "move"})
    for (const u8 odd : {AT, LENGTH, WRAP}) {
      CAPTURE(name);
      CHECK(seen(ex, {row_of(name), odd, 0, 1, 2}).ends_with("EINVAL"));
    }
  CHECK(seen(ex, {row_of("move"), TO, 0, 1, 0, 4}).ends_with("EINVAL"));
}

TEST_CASE("the message of an access tells the address itself where EXACT_ADDRESS is on") {
  constexpr u16 EXACT = 1 << 11;
  const Op setup[] = {{row_of("mmap"), 0, 0, 1, 3},
                      {row_of("userfaultfd"), 0, 0, 0, EXACT},
                      {row_of("register"), 0, 0, 1, 1}};
  Executor ex(*find_profile("6.18"), encode(setup));
  CHECK(seen(ex, {row_of("access"), AT << 4}) == "blocked; pagefault 0x7f0000000800");
  CHECK(seen(ex, {row_of("kernel_access"), 0}) == "blocked; pagefault 0x7f0000000000");
}

TEST_CASE("a call on many ranges does what a call for each does, and tells how many it did") {
  for (const Judge judge : {Judge::end, Judge::each}) {
    Executor ex = executor("6.18", "shmem-16", {.raw = false, .judge = judge});
    const auto state_after = [&](std::span<const Op> ops) {
      CHECK(ex.run(encode(ops)).violations == 0);
      return ex.state_hash();
    };
    for (const std::string_view name : {"mprotect", "writeprotect"}) {
      const Op many{row_of(std::string(name) + "_many"), 0, 2, 1, 1, 3, 4};
      std::vector<Op> each;
      for (u8 i = 0; i < 4; ++i) each.push_back({row_of(name), 0, u8(2 + 3 * i), 1, 1});
      CHECK(state_after({&many, 1}) == state_after(each));
      CHECK(seen(ex, many) == "ranges=0x4");
    }
    // The fifth range lies behind the mapping, the others are done.
    CHECK(seen(ex, {row_of("mprotect_many"), 0, 0, 1, 1, 4, 8}) == "ranges=0x4; ENOMEM");
    CHECK(seen(ex, {row_of("writeprotect_many"), LENGTH, 0, 1, 1, 4, 8}) == "ranges=0x0; EINVAL");
    CHECK(seen(ex, {row_of("mprotect_many"), 0, 0, 1, 1, 4, 0}) == "ranges=0x0");
  }
}

TEST_CASE("VMAs and pages are loaded as they are said to be") {
  constexpr u16 SHARED_RW = 3 | 1 << 3, FRAME0_RW = 17;
  constexpr u8 ANON = 1, FILE_DIRTY = 2 | 8, ASKED = 1 << 6;
  Executor ex(*find_profile("6.18"), {});
  const auto told = [&](const Op& vma, const Op& pages) {
    const Op ops[] = {vma, pages, {row_of("access"), 0, 0, 0, 1}, {row_of("access"), 0, 1, 0, 1}};
    std::string all;
    for (const Step& step : ex.steps(encode(ops))) all += step.visible + ";";
    return all;
  };
  const Op file{row_of("load_vma"), 0, 0, 2, SHARED_RW, 0, 1};
  const Op cached{row_of("load_pages"), 0, 0, 1, FRAME0_RW, 0, FILE_DIRTY | ASKED};
  CHECK(told(file, cached) == ";;done;done;");
  const Op memory{row_of("load_vma"), 0, 0, 1, 3};
  const Op page{row_of("load_pages"), 0, 0, 1, FRAME0_RW, 0, ANON | ASKED};
  CHECK(told(memory, page) == ";;done;signal 11 code 1;");
  CHECK(told(page, memory).starts_with("InvalidArgument;"));  // no VMA
}

TEST_CASE("an executor with few table frames refuses what needs more") {
  constexpr u8 FAR = 240;  // behind the first PGD entry
  const Op ops[] = {{row_of("mmap"), 0, 0, 1, 3},
                    {row_of("mmap"), 0, FAR, 1, 3},
                    {row_of("access"), 0, 0, 0, 1},
                    {row_of("access"), 0, FAR, 0, 1}};
  Executor few(*find_profile("6.18"), {}, {.max_tables = 4}), plenty(*find_profile("6.18"), {});
  CHECK(few.steps(encode(ops))[2].visible == "done");
  CHECK(few.steps(encode(ops))[3].visible.ends_with("ENOMEM"));
  CHECK(few.run(encode(ops)).violations == 0);
  CHECK(plenty.steps(encode(ops))[3].visible == "done");
}
