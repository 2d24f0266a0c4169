// The undo log by itself: what is saved comes back, last change first, and is saved once an epoch.
#include "ptwalk/undo.hpp"

#include <doctest/doctest.h>

using namespace ptwalk;

namespace {

struct Counter {
  explicit Counter(UndoLog*) {}
  int value = 0;
  std::vector<int> history;
  u64 stamp = 0;
  void save(UndoLog& undo) { undo.save(value); }
  void reset() {
    value = 0;
    history.clear();
  }
};

}  // namespace

TEST_CASE("without a mark nothing is saved; stopping forgets") {
  UndoLog log;
  u64 stamp = 0;
  CHECK_FALSE(must_save(&log, stamp));
  CHECK_FALSE(must_save(nullptr, stamp));
  (void)log.mark();
  CHECK(must_save(&log, stamp));
  CHECK_FALSE(must_save(&log, stamp));
  int value = 1;
  log.save(value);
  log.stop();
  CHECK(log.size() == 0);
  CHECK_FALSE(log.active());
}

TEST_CASE("the oldest value wins, for each position its own") {
  UndoLog log;
  int value = 1;
  const auto first = log.mark();
  log.save(value);
  value = 2;
  const auto second = log.mark();
  log.save(value);
  value = 3;
  log.save(value);
  value = 4;
  log.restore(second);
  CHECK(value == 2);
  log.restore(first);
  CHECK(value == 1);
  CHECK(log.size() == 0);
}

TEST_CASE("a restore begins an epoch: what changes next is saved again") {
  UndoLog log;
  int value = 1;
  u64 stamp = 0;
  const auto mark = log.mark();
  for (int round = 0; round < 3; ++round) {
    REQUIRE(must_save(&log, stamp));
    log.save(value);
    value = 7;
    log.restore(mark);
    CHECK(value == 1);
  }
}

TEST_CASE("objects that are no more are left alone, whole or in part") {
  UndoLog log;
  int values[3] = {1, 2, 3};
  const auto mark = log.mark();
  for (int& value : values) {
    log.save(value);
    value = 0;
  }
  log.forget(&values[1], sizeof values[1]);
  log.restore(mark);
  CHECK(values[0] == 1);
  CHECK(values[1] == 0);
  CHECK(values[2] == 3);
}

TEST_CASE("a stack comes back whatever was pushed, popped and sorted") {
  UndoLog log;
  UndoStack<u64> stack(&log);
  for (u64 i = 0; i < 6; ++i) stack.push(i * 3 % 7);
  const std::vector<u64> before = stack.items();
  const auto mark = log.mark();
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 4; ++i) (void)stack.pop();
    for (u64 i = 0; i < 9; ++i) stack.push(100 + i);
    stack.sort();
    for (int i = 0; i < 8; ++i) (void)stack.pop();
    stack.push(1);
    log.restore(mark);
    CHECK(stack.items() == before);
  }
}

TEST_CASE("a stack saves each element once an epoch, however often it is pushed and popped") {
  UndoLog log;
  UndoStack<u64> stack(&log);
  for (u64 i = 0; i < 8; ++i) stack.push(i);
  (void)log.mark();
  (void)stack.pop();
  const std::size_t once = log.size();
  for (u64 i = 0; i < 100; ++i) {
    stack.push(i);
    (void)stack.pop();
  }
  CHECK(log.size() == once);
}

TEST_CASE("a pool's number and objects come back; one handed out again is as new") {
  UndoLog log;
  UndoPool<Counter> pool(&log);
  pool.add().value = 5;
  const auto mark = log.mark();
  pool.edit(0).value = 6;
  Counter& second = pool.add();
  second.value = 7;
  second.history.push_back(1);
  log.restore(mark);
  REQUIRE(pool.size() == 1);
  CHECK(pool[0].value == 5);
  CHECK(&pool.add() == &second);
  CHECK(second.value == 0);
  CHECK(second.history.empty());
}
