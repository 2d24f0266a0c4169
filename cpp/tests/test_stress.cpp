// A thousand address spaces that share a file, and everything that can happen to them, at random
// from a fixed seed: every invariant holds on the way, and at the end nothing is left behind.
#include "crowd.hpp"

using namespace ptwalk;

namespace {

void survive(std::string_view profile, std::size_t size, int steps) {
  Crowd crowd(profile, size);
  for (int i = 1; i <= steps; ++i) {
    crowd.step();
    if (i % (steps / 5)) continue;
    CAPTURE(i);
    for (const std::string& broken : crowd.mms[0]->validate()) FAIL_CHECK(broken);
  }
  const Machine& machine = *crowd.machine;
  CHECK(machine.swap.size() > 1);  // some of it was swapped out
  CHECK(machine.pages.in_use() > 0);
  crowd.mms.clear();
  crowd.machine->file_truncate(0, 0);
  CHECK(machine.mms().empty());
  CHECK(machine.pages.in_use() == 0);
  CHECK(machine.frames.in_use() == 0);
  CHECK(machine.free_slots.size() == machine.swap.size() - 1);
}

}  // namespace

TEST_CASE("a thousand address spaces survive, and leave nothing") { survive("6.18", 1000, 20000); }

TEST_CASE("so do a few of every kernel") {
  for (const Profile& profile : profiles()) {
    CAPTURE(profile.name);
    survive(profile.name, 12, 4000);
  }
}

TEST_CASE("a terabyte that is mapped costs the ten pages that are touched") {
  Space s;
  const u64 tebibyte = 1ull << 28;  // in pages
  s.file = s.machine->create_file(FileKind::shmem, pages(tebibyte));
  const u64 addr = s.mm->mmap(0, pages(tebibyte), PROT_RW, MAP_SHARED_, s.file, 0).value;
  for (u64 i = 0; i < 10; ++i) s.write(addr + pages(i * (tebibyte / 10)));
  CHECK(s.machine->pages.in_use() == 10);
  CHECK(s.mm->tables.nr_tables() <= 10 * 2 + 3);  // a PUD table for each 512 GiB
  CHECK(s.mm->count(addr, pages(tebibyte)).present == 10);
  s.machine->file_truncate(s.file, pages(1));
  CHECK(s.machine->pages.in_use() == 1);
  CHECK(s.mm->reclaim(addr, pages(tebibyte)) == 1);
  CHECK(s.machine->pages.in_use() == 0);
}
