// Each law of operations is seen broken where an entry is spoiled by hand, and only then.
#include "ptwalk/fuzz/operation_judge.hpp"

#include <doctest/doctest.h>

#include "ptwalk/fuzz/executor.hpp"
#include "ptwalk/fuzz/setups.hpp"

using namespace ptwalk;
using namespace ptwalk::fuzz;

namespace {

constexpr u64 ADDR = FIRST_PLACE, NR = 4;
constexpr int RW = PROT_READ_ | PROT_WRITE_;

/// Four pages, registered for wp and armed; the first one is present.
struct Scene {
  explicit Scene(u32 flags, u64 features = 0) : world(*find_profile("6.18")), mm(*world.spaces[0]) {
    if (!(flags & MAP_ANONYMOUS_))
      file = world.machine->create_file(FileKind::shmem, NR * PAGE_SIZE);
    REQUIRE(mm.mmap(ADDR, NR * PAGE_SIZE, RW, flags | MAP_FIXED_, file, 0).ok());
    id = mm.userfaultfd(features).value;
    REQUIRE(mm.uffd_register(id, ADDR, NR * PAGE_SIZE, UFFDIO_REGISTER_MODE_WP).ok());
    REQUIRE(mm.access(ADDR, true).ok());
    REQUIRE(mm.uffd_writeprotect(id, ADDR, NR * PAGE_SIZE, 1).ok());
  }
  [[nodiscard]] u64* pte(u64 page = 0) const {
    return mm.tables.ensure(ADDR + page * PAGE_SIZE, PTE_LEVEL);
  }
  /// What is found when an operation of that name does what `act` does.
  template <class Act>
  u64 judge(std::string_view name, Act act, const Op& op = {}) {
    const OperationJudge judge(world, name, op);
    act();
    return judge.judge();
  }
  void fork() { world.spaces.push_back(mm.fork().value); }

  World world;
  AddressSpace& mm;
  FileId file = NO_FILE;
  UffdId id = NO_UFFD;
};

constexpr u32 PRIVATE = MAP_PRIVATE_ | MAP_ANONYMOUS_;
constexpr u64 EVENT_FORK = 1 << 1;

}  // namespace

TEST_CASE("arm_lost: where nothing resolves, a present entry and a marker stay armed") {
  for (const std::string_view name : {"access", "reclaim", "mprotect", "migrate_finish"}) {
    Scene s(MAP_SHARED_);
    CHECK(s.judge(name, [] {}) == 0);
    CHECK(s.judge(name, [&] { *s.pte() &= ~_PAGE_UFFD_WP; }) == bit(Violation::arm_lost));
    CHECK(s.judge(name, [&] { *s.pte(1) = 0; }) == bit(Violation::arm_lost));
  }
  Scene s(MAP_SHARED_);
  CHECK(s.judge("writeprotect", [&] { *s.pte() &= ~_PAGE_UFFD_WP; }) == 0);
  Scene anonymous(PRIVATE);
  CHECK(anonymous.judge("reclaim", [&] { *anonymous.pte() = 0; }) == 0);  // MADV_FREE
  CHECK(Scene(PRIVATE).judge("access", [] {}) == 0);
}

TEST_CASE("arm_lost: advice leaves a marker for a page of a shared file, but a hole does not") {
  constexpr u16 DONTNEED = 4, REMOVE = 6;
  Scene s(MAP_SHARED_);
  const auto dropped = [&] { *s.pte() = 0; };
  CHECK(s.judge("madvise", dropped, {.arg = DONTNEED}) == bit(Violation::arm_lost));
  CHECK(Scene(MAP_SHARED_).judge("madvise", [] {}, {.arg = DONTNEED}) == 0);
  Scene hole(MAP_SHARED_);
  CHECK(hole.judge("madvise", [&] { *hole.pte() = 0; }, {.arg = REMOVE}) == 0);
}

TEST_CASE("arm_lost, armed_unregistered: a child has what is armed if it is registered too") {
  Scene follows(MAP_SHARED_, EVENT_FORK);
  CHECK(follows.judge("fork", [&] { follows.fork(); }) == 0);
  CHECK(follows.judge("fork", [&] {
    follows.fork();
    *follows.world.spaces.back()->tables.ensure(ADDR, PTE_LEVEL) &= ~_PAGE_UFFD_WP;
  }) == bit(Violation::arm_lost));
  Scene alone(PRIVATE);
  CHECK(alone.judge("fork", [&] { alone.fork(); }) == 0);
  CHECK(alone.judge("fork", [&] {
    alone.fork();
    *alone.world.spaces.back()->tables.ensure(ADDR, PTE_LEVEL) |= _PAGE_UFFD_WP;
  }) == bit(Violation::armed_unregistered));
}

TEST_CASE("writable_shared: a child's private entry has no RW") {
  Scene s(PRIVATE);
  CHECK(s.judge("fork", [&] {
    s.fork();
    *s.world.spaces.back()->tables.ensure(ADDR, PTE_LEVEL) |= _PAGE_RW;
  }) == bit(Violation::writable_shared));
}

TEST_CASE("message_unlike_entry: a store to an armed page is told with the WP flag") {
  Scene s(MAP_SHARED_);
  const auto store = [&](u64 flags) {
    return s.judge("access", [&] {
      REQUIRE(s.mm.access(ADDR, true).value.outcome == Outcome::blocked);
      s.mm.pending.edit(ADDR, ADDR + PAGE_SIZE)[0].message.flags = flags;
    });
  };
  CHECK(store(UFFD_PAGEFAULT_FLAG_WP) == 0);
  CHECK(store(0) == bit(Violation::message_unlike_entry));
}

TEST_CASE("copy_lost: a hole in a file leaves private copies") {
  Scene s(MAP_PRIVATE_);
  const auto punch = [&] { s.world.machine->file_punch_hole(s.file, 0, PAGE_SIZE); };
  CHECK(s.judge("file_punch_hole", punch) == 0);
  CHECK(s.judge("file_punch_hole", [&] { *s.pte() = 0; }) == bit(Violation::copy_lost));
  CHECK(s.judge("file_truncate", [] {}) == 0);
}

TEST_CASE("vma_changed: what is split keeps its offsets, and who is told") {
  Scene s(MAP_SHARED_);
  const auto split = [&] { REQUIRE(s.mm.mprotect(ADDR, PAGE_SIZE, PROT_READ_).ok()); };
  CHECK(s.judge("mprotect", split) == 0);
  CHECK(s.judge("mprotect", [&] { s.mm.vmas.edit(1).pgoff += 1; }) == bit(Violation::vma_changed));
  CHECK(s.judge("mprotect", [&] { s.mm.vmas.edit(0).uffd = NO_UFFD; }) != 0);
  CHECK(s.judge("mprotect", [&] { REQUIRE(!s.mm.munmap(ADDR, PAGE_SIZE)); }) != 0);
}

TEST_CASE("nothing is found in programs of a sound kernel, whatever they do") {
  for (const Setup& setup : setups()) {
    Executor each(*find_profile("6.18"), encode(setup.ops), {.judge = Judge::each});
    for (u8 op = 0; op < 34; ++op)
      for (const u16 arg : {0, 1, 2}) {
        const Op one{.op = op, .nr = 2, .arg = arg}, store{.op = 0, .arg = 1};
        CHECK(each.run(encode(std::array{store, one, store, one})).violations == 0);
      }
  }
}
