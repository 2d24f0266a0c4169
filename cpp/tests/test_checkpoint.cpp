// Checkpoints: whatever happens to a machine is undone to the last bit, and happens again alike.
#include "crowd.hpp"

using namespace ptwalk;

namespace {

void add_table(std::vector<u64>& words, const PageTable& tables, const u64* table, Level level) {
  for (unsigned i = 0; i < PTRS_PER_TABLE; ++i) {
    if (!table[i]) continue;
    words.insert(words.end(), {u64(level), i, table[i]});
    if (level > PTE_LEVEL && tables.kind(table[i], level) == EntryKind::table)
      if (const u64* below = tables.below(table[i])) add_table(words, tables, below, level - 1);
  }
}

/// Everything that a machine is made of, but serials of pages and the epochs of the log.
std::vector<u64> all_of(const Machine& machine) {
  std::vector<u64> words{machine.mms().size(),   machine.frames.in_use(),  machine.frames.rows(),
                         machine.pages.in_use(), machine.files.size(),     machine.uffds.size(),
                         machine.swap.size(),    machine.free_slots.size()};
  for (const AddressSpace* mm : machine.mms()) {
    add_table(words, mm->tables, mm->tables.root_table(), mm->tables.levels());
    words.push_back(mm->tables.nr_tables());
    for (const Vma& vma : mm->vmas.all())
      words.insert(words.end(), {vma.start, vma.end, vma.flags, vma.page_prot, vma.pgoff,
                                 u64(vma.file), u64(vma.uffd), vma.anon_vma, vma.anon_vma_chain});
    for (const PendingFault& fault : mm->pending.all())
      words.insert(words.end(), {fault.address, fault.write, fault.woken, u64(fault.uffd)});
  }
  for (Pfn pfn = 1 << 20; pfn < (1 << 20) + 4096; ++pfn) {
    const Page* page = machine.pages.find(pfn);
    if (!page) continue;
    words.insert(words.end(), {pfn, page->index, u64(page->file), page->swap_slot, page->mapcount,
                               page->anon_vma, machine.pages.flags(pfn)});
  }
  for (const File& file : machine.files) {
    words.push_back(file.size);
    for (u64 i = file.cache.next(0); i != PageCache::NO_INDEX; i = file.cache.next(i + 1))
      words.insert(words.end(), {i, file.cache.find(i)->pfn, file.cache.find(i)->swap_slot});
  }
  for (const UffdContext& ctx : machine.uffds) {
    words.insert(words.end(), {u64(ctx.closed), ctx.mmap_changing, ctx.features});
    for (const UffdMsg& message : ctx.queue)
      words.insert(words.end(), {u64(message.event), message.flags, message.address, message.to});
  }
  for (const SwapSlot& slot : machine.swap) words.insert(words.end(), {slot.count, slot.cached});
  for (Uniform uniform : {Uniform::none, Uniform::marker})
    for (Level level = PTE_LEVEL; level <= SharedTables::TOP_LEVEL; ++level)
      words.push_back(machine.shared_tables.refs(uniform, level));
  return words;
}

void run(Crowd& crowd, int steps) {
  for (int i = 0; i < steps; ++i) crowd.step();
}

}  // namespace

TEST_CASE("everything is undone, and the same steps give the same machine again") {
  for (const Profile& profile : profiles()) {
    CAPTURE(profile.name);
    Crowd crowd(profile.name, 5);
    run(crowd, 300);
    const auto cp = crowd.machine->checkpoint();
    const auto before = all_of(*crowd.machine);
    const Crowd::Players players = crowd.players();
    std::vector<u64> after;
    for (int round = 0; round < 4; ++round) {
      run(crowd, 200);
      if (round == 0) after = all_of(*crowd.machine);
      REQUIRE(all_of(*crowd.machine) == after);
      REQUIRE(crowd.machine->restore(*cp).ok());
      crowd.become(players);
      REQUIRE(all_of(*crowd.machine) == before);
      CHECK(crowd.mms[0]->validate() == std::vector<std::string>{});
    }
  }
}

TEST_CASE("checkpoints stack; restoring one voids those made after it") {
  Crowd crowd("6.18", 3);
  run(crowd, 100);
  const auto first = crowd.machine->checkpoint();
  const auto at_first = all_of(*crowd.machine);
  const Crowd::Players players = crowd.players();
  run(crowd, 100);
  auto second = crowd.machine->checkpoint();
  const auto at_second = all_of(*crowd.machine);
  const Crowd::Players later = crowd.players();
  run(crowd, 100);
  REQUIRE(crowd.machine->restore(*second).ok());
  crowd.become(later);
  CHECK(all_of(*crowd.machine) == at_second);
  run(crowd, 100);
  REQUIRE(crowd.machine->restore(*first).ok());
  CHECK(crowd.machine->restore(*second).cause == Cause::checkpoint_void);
  crowd.become(players);
  CHECK(all_of(*crowd.machine) == at_first);
}

TEST_CASE("a checkpoint that is dropped costs nothing more, an older one still holds") {
  Crowd crowd("6.12", 3);
  auto first = crowd.machine->checkpoint();
  const auto at_first = all_of(*crowd.machine);
  const Crowd::Players players = crowd.players();
  run(crowd, 100);
  auto second = crowd.machine->checkpoint();
  run(crowd, 300);  // exits and forks of what only the second knew among them
  second.reset();
  run(crowd, 300);
  REQUIRE(crowd.machine->restore(*first).ok());
  crowd.become(players);
  CHECK(all_of(*crowd.machine) == at_first);
  first.reset();
  CHECK_FALSE(crowd.machine->undo.active());
}

TEST_CASE("an address space of later is gone, one of then is kept alive") {
  Space s;
  const u64 addr = s.anon(4);
  s.write(addr);
  std::shared_ptr<AddressSpace> early = s.mm->fork().value;
  const AddressSpace* const known = early.get();
  const auto cp = s.machine->checkpoint();
  early.reset();  // the process still lives: the checkpoint has it
  CHECK(s.machine->mms().size() == 2);
  const auto late = s.mm->fork().value;
  REQUIRE(late->access(addr, true).ok());
  REQUIRE(s.machine->restore(*cp).ok());
  CHECK(late->gone);
  CHECK(s.machine->mms().back() == known);
  CHECK(s.page(addr).mapcount == 2);
}

TEST_CASE("what was unmapped, freed and handed out again comes back, tables included") {
  Space s;
  const u64 addr = s.anon(1024);
  for (u64 i = 0; i < 1024; i += 7) s.write(addr + pages(i));
  const auto cp = s.machine->checkpoint();
  const auto before = all_of(*s.machine);
  for (int round = 0; round < 2; ++round) {
    REQUIRE(s.mm->munmap(addr, pages(1024)).ok());
    (void)s.machine->frames.trim();
    const u64 other = s.anon(2048);
    for (u64 i = 0; i < 2048; i += 5) s.write(other + pages(i));
    REQUIRE(s.machine->restore(*cp).ok());
    CHECK(all_of(*s.machine) == before);
  }
}

TEST_CASE("a frame that was used again between two checkpoints is zero when it is used once more") {
  Space s;
  const u64 addr = s.anon(512);
  const auto outer = s.machine->checkpoint();
  s.write(addr + pages(5));
  s.write(addr + pages(300));
  const auto inner = s.machine->checkpoint();
  REQUIRE(s.mm->munmap(addr, PMD_SIZE).ok());
  REQUIRE(
      s.mm->mmap(addr, PMD_SIZE, PROT_RW, MAP_PRIVATE_ | MAP_ANONYMOUS_ | MAP_FIXED_, NO_FILE, 0)
          .ok());
  s.write(addr + pages(100));
  REQUIRE(s.machine->restore(*inner).ok());
  CHECK(s.mm->count(addr, PMD_SIZE).present == 2);
  REQUIRE(s.machine->restore(*outer).ok());
  s.write(addr + pages(200));
  CHECK(s.mm->count(addr, PMD_SIZE).present == 1);
}

TEST_CASE("restoring costs what was touched: the log does not grow with what is mapped or redone") {
  Space s;
  const u64 addr = s.shmem(1ull << 20);
  const UffdId id = s.watch(addr, 1ull << 20, MODE_WP);
  s.write(addr);
  const auto cp = s.machine->checkpoint();
  s.protect(id, addr, 16);
  const std::size_t little = s.machine->undo.size();
  CHECK(little < 1024);
  for (int i = 0; i < 100; ++i) {
    s.resolve(id, addr, 16);
    s.protect(id, addr, 16);
  }
  CHECK(s.machine->undo.size() == little);
  REQUIRE(s.machine->restore(*cp).ok());
}
