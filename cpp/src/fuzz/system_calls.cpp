// The system calls on an address space as operations of programs.
#include <algorithm>

#include "ptwalk/fuzz/run.hpp"
#include "ptwalk/madvise.hpp"

namespace ptwalk::fuzz {

using namespace field;

AddressSpace* Run::uffd(const Op& op, UffdId& id) const {
  if (world.fds.empty()) {
    report.skip("no userfaultfd");
    return nullptr;
  }
  id = fd(op);
  AddressSpace* const mm = machine().uffds[u64(id)].mm;
  if (!mm) report.skip("the address space of the userfaultfd is gone (ESRCH)");
  return mm;
}

Asked Run::odd_of(const Asked& whole, u64 odd) const {
  Asked made = whole;
  if (odd & ODD_WRAP) {
    const u64 end = whole.length > MAX_PAGES * PAGE_SIZE ? task_size(machine().levels) : 0;
    made.length += end - whole.at;
  }
  if (odd & ODD_LENGTH) made.length += ODD_BYTES;
  if (odd & ODD_AT) made.at += ODD_BYTES;
  if (odd & ODD_TO) made.to += ODD_BYTES;
  return made;
}

FileId Run::file(u64 number) const {
  const std::size_t nr = machine().files.size();
  return nr ? FileId(number % nr) : NO_FILE;
}

Error Run::protect(const Result<ProtectResult>& done) const {
  report.protect(done.value);
  if (!world.fails) report.violations |= judge_account(machine().profile, done.value);
  return done.error;
}

bool Run::populates(const AddressSpace& mm, const ChangeRequest& request) {
  const auto& all = mm.vmas.all();
  return request.kind == ChangeKind::mprotect &&
         std::any_of(all.begin(), all.end(), [&](const Vma& vma) {
           return (vma.flags & VM_LOCKED) && vma.start < request.range.end &&
                  vma.end > request.range.start;
         });
}

namespace {

/// What was done needs an entry that allows it.
void judge_access(const Run& run, u8 outcome, u64 entry, bool write) {
  const u64 needed = _PAGE_PRESENT | (write ? _PAGE_RW : 0);
  if (outcome == u8(Outcome::done) && !run.world.raw && (entry & needed) != needed)
    run.report.violations |= bit(Violation::unmapped_access);
}

}  // namespace

void run_access(Run& run, const Op& op) {
  const Asked asked = run.asked(op, 0, ODD_PLACE(op));
  const auto done = run.mm(op).access(asked.at, ACCESS(op), u32(THREAD(op)));
  run.report.access(done.value);
  run.report.end(done.error);
  if (done.ok()) judge_access(run, u8(done.value.outcome), done.value.after, ACCESS(op));
}

void run_kernel_access(Run& run, const Op& op) {
  const Asked asked = run.asked(op, 0, ODD_PLACE(op));
  const auto done = run.mm(op).kernel_access(asked.at, ACCESS(op));
  run.report.access(done.value);
  run.report.end(done.error);
}

namespace {

/// The accesses of a pattern (field::PATTERN_NAMES) on page `i` of `nr`: which page, and whether a
/// store.
struct OneAccess {
  u64 page;
  bool write;
};
OneAccess pattern_access(u64 pattern, u64 i, u64 nr) {
  switch (pattern) {
    case 0: return {i, false};
    case 1: return {i, true};
    case 2: return {i, i % 2 == 1};
    case 3: return {i, i % 2 == 0};
    case 4: return {nr - 1 - i, false};
    case 5: return {nr - 1 - i, true};
    case 6: return {i * 2 % nr, true};
    default: return {i / 2, true};
  }
}

}  // namespace

void run_access_many(Run& run, const Op& op) {
  constexpr u64 BATCH = 64;
  u64 addrs[BATCH];
  u8 write[BATCH];
  AccessRecord records[BATCH];
  const u64 start = run.asked(op, 0, ODD_PLACE(op)).at, nr = PAGES(op) >> PAGE_SHIFT;
  for (u64 first = 0; first < nr; first += BATCH) {
    const u64 batch = std::min(BATCH, nr - first);
    for (u64 i = 0; i < batch; ++i) {
      const OneAccess one = pattern_access(PATTERN(op), first + i, nr);
      addrs[i] = start + (one.page << PAGE_SHIFT);
      write[i] = one.write;
    }
    const auto done = run.mm(op).access_many({addrs, batch}, {write, batch}, {records, batch});
    for (u64 i = 0; i < done.value; ++i) {
      run.report.record(addrs[i], records[i]);
      judge_access(run, records[i].outcome, records[i].after, write[i]);
    }
    run.report.end(done.error);
    if (!done.ok()) return;
  }
}

void run_populate(Run& run, const Op& op) {
  const Asked asked = run.asked(op, PAGES(op), ODD_RANGE(op));
  const auto done = run.mm(op).populate(asked.at, asked.length, ACCESS(op));
  run.report.count("pages", done.value);
  run.report.end(done.error);
}

void run_mmap(Run& run, const Op& op) {
  AddressSpace& mm = run.mm(op);
  const u64 what = MMAP_FLAGS(op), backing = BACKING(op), offset = OFFSET(op) << PAGE_SHIFT;
  const u64 length = what & (LOCKED | POPULATE) ? PAGES(op) : LENGTH(op);
  const Asked asked = run.asked(op, length, ODD_PAIR(op), offset);
  FileId file = NO_FILE;
  constexpr FileKind KINDS[] = {FileKind::shmem, FileKind::shmem,   FileKind::regular,
                                FileKind::shmem, FileKind::hugetlb, FileKind::dax};
  if (backing >= BACKING_NAMES.size())
    file = run.file(backing - BACKING_NAMES.size());
  else if (backing > 0)
    file = run.machine().create_file(KINDS[backing], offset + length, backing != 3);
  u32 flags = what & SHARED ? MAP_SHARED_ : MAP_PRIVATE_;
  if (file == NO_FILE) flags |= MAP_ANONYMOUS_;
  if (what & LOCKED) flags |= MAP_LOCKED_;
  if (what & POPULATE) flags |= MAP_POPULATE_;
  if (what & NORESERVE) flags |= MAP_NORESERVE_;
  if (what & FIXED_NOREPLACE) flags |= MAP_FIXED_NOREPLACE_;
  if (!(what & (HINT | FIXED_NOREPLACE))) flags |= MAP_FIXED_;
  const auto done = mm.mmap(asked.at, asked.length, int(PROT(op)), flags, file, asked.to);
  run.report.result("address", done.value);
  run.report.end(done.error);
}

void run_munmap(Run& run, const Op& op) {
  const Asked asked = run.asked(op, LENGTH(op), ODD_RANGE(op));
  run.report.end(run.mm(op).munmap(asked.at, asked.length));
}

void run_mprotect(Run& run, const Op& op) {
  AddressSpace& mm = run.mm(op);
  const Asked asked = run.asked(op, LENGTH(op), ODD_RANGE(op));
  const u64 prot = PROT(op);
  run.report.end(run.protect(mm, {ChangeKind::mprotect, asked.pages(), prot},
                             [&] { return mm.mprotect(asked.at, asked.length, int(prot)); }));
}

ManyRanges many_ranges(const Op& op, const Asked& first) {
  ManyRanges all;
  all.nr = RANGES(op);
  for (u64 i = 0; i < all.nr; ++i) {
    all.words[2 * i] = first.at + i * STEP(op);
    all.words[2 * i + 1] = first.length;
  }
  return all;
}

void run_mprotect_many(Run& run, const Op& op) {
  AddressSpace& mm = run.mm(op);
  const ManyRanges ranges = many_ranges(op, run.asked(op, LENGTH(op), ODD_RANGE(op)));
  const u64 prot = PROT(op);
  run.protect_many(mm, {ChangeKind::mprotect, {}, prot}, ranges.span(),
                   [&](std::span<const u64> some) { return mm.mprotect_many(some, int(prot)); });
}

void run_madvise(Run& run, const Op& op) {
  const int advice = ADVICES[ADVICE(op)];
  const bool by_page = advice == MADV_POPULATE_READ_ || advice == MADV_POPULATE_WRITE_ ||
                       advice == MADV_GUARD_INSTALL_;
  const Asked asked = run.asked(op, by_page ? PAGES(op) : LENGTH(op), ODD_RANGE(op));
  run.report.end(run.mm(op).madvise(asked.at, asked.length, advice));
}

namespace {

struct Mapped {
  u64 offset;
  Pfn pfn;
};

/// The pages of a range, up to the limit of operations that work page by page.
std::vector<Mapped> mapped(const AddressSpace& mm, u64 start, u64 length) {
  std::vector<Mapped> found;
  const u64 end = start + std::min(length, MAX_PAGES * PAGE_SIZE);
  for (u64 at = start; at < end; at += PAGE_SIZE) {
    const u64* pte = mm.tables.find(at, PTE_LEVEL);
    if (pte && pte_present(*pte)) found.push_back({at - start, pte_pfn(*pte)});
  }
  return found;
}

}  // namespace

void run_mremap(Run& run, const Op& op) {
  AddressSpace& mm = run.mm(op);
  const auto [start, length, to] = run.asked(op, LENGTH(op), ODD_PAIR(op), TO(op));
  u64 new_length = NEW_LENGTH(op) + (ODD_PAIR(op) & ODD_LENGTH ? ODD_BYTES : 0);
  // What a locked mapping gains is populated page by page.
  if (const Vma* vma = mm.vmas.find(start); vma && (vma->flags & VM_LOCKED))
    new_length = std::min(new_length, length + MAX_PAGES * PAGE_SIZE);
  std::vector<Mapped> pages;
  if (run.judge == Judge::each && !run.world.raw)
    pages = mapped(mm, start, std::min(length, new_length));
  const auto done = mm.mremap(start, length, new_length, u32(MREMAP_FLAGS(op)), to);
  run.report.result("address", done.ok() ? done.value : 0);
  run.report.end(done.error);
  if (!done.ok()) return;
  for (const Mapped& page : pages) {
    const u64* pte = mm.tables.find(done.value + page.offset, PTE_LEVEL);
    if (!pte || !pte_present(*pte) || pte_pfn(*pte) != page.pfn)
      run.report.violations |= bit(Violation::page_left);
  }
}

void run_fork(Run& run, const Op& op) {
  constexpr std::size_t MOST_SPACES = 16;  // as many as an operation can name
  if (run.world.spaces.size() == MOST_SPACES) {
    run.report.skip("there are 16 address spaces");
    return;
  }
  auto done = run.mm(op).fork();
  if (done.ok()) run.world.spaces.push_back(std::move(done.value));
  run.report.end(done.error);
}

void run_exit(Run& run, const Op& op) {
  auto& spaces = run.world.spaces;
  if (spaces.size() == 1) {
    run.report.skip("the last address space stays");
    return;
  }
  const auto chosen = spaces.begin() + std::ptrdiff_t(run.space(op));
  (*chosen)->exit();
  spaces.erase(chosen);
  run.report.end({});
}

void run_mlock(Run& run, const Op& op) {
  const Asked asked = run.asked(op, PAGES(op), ODD_RANGE(op));
  run.report.end(run.mm(op).mlock(asked.at, asked.length));
}

void run_munlock(Run& run, const Op& op) {
  const Asked asked = run.asked(op, PAGES(op), ODD_RANGE(op));
  run.report.end(run.mm(op).munlock(asked.at, asked.length));
}

void run_pagemap_scan(Run& run, const Op& op) {
  const ScanArgs args{.flags = SCAN_FLAGS(op),
                      .inverted = INVERTED(op),
                      .mask = CATEGORY_MASK(op),
                      .anyof = CATEGORY_ANYOF(op),
                      .returned = 0xff,
                      .max_pages = MAX_FOUND(op)};
  const Asked asked = run.asked(op, PAGES(op), ODD_RANGE(op));
  const auto done = run.mm(op).pagemap_scan(asked.at, asked.length, args);
  for (const ScanRange& range : done.value.ranges) {
    run.report.result("start", range.start);
    run.report.result("end", range.end);
    run.report.result("categories", range.categories);
  }
  run.report.result("walk_end", done.value.walk_end);
  run.report.end(done.error);
}

}  // namespace ptwalk::fuzz
