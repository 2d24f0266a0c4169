// What happens to pages and files behind the back of an address space, as operations of programs.
#include <algorithm>

#include "ptwalk/fuzz/run.hpp"

namespace ptwalk::fuzz {

using namespace field;

void run_reclaim(Run& run, const Op& op) {
  run.report.count("pages", run.mm(op).reclaim(AT(op), PAGES(op)));
}

void run_migrate_start(Run& run, const Op& op) {
  const auto started = run.mm(op).migrate_start(AT(op), PAGES(op));
  auto& all = run.world.migrations;
  all.insert(all.end(), started.begin(), started.end());
  run.report.count("pages", started.size());
}

void run_migrate_finish(Run& run, const Op& op) {
  auto& all = run.world.migrations;
  if (all.empty()) return run.report.skip("no migration under way");
  const auto chosen = all.begin() + std::ptrdiff_t(WHICH(op) % all.size());
  const MigratingPage page = *chosen;
  all.erase(chosen);
  run.report.count("frame", run.machine().migrate_finish(page.pfn, page.serial));
}

/// NUMA balancing marks what it finds, VMA by VMA, so that the next access tells where it comes
/// from. (task_numa_work and change_prot_numa, v6.18)
void run_numa(Run& run, const Op& op) {
  AddressSpace& mm = run.mm(op);
  const u64 end = AT(op) + LENGTH(op);
  Error error;
  for (u64 at = AT(op); at < end && !error;) {
    const Vma* vma = mm.vmas.first_intersecting(at, end);
    if (!vma) break;
    const Range part{std::max(at, vma->start), std::min(vma->end, end)};
    at = part.end;
    // vma_migratable(), and memory that somebody may access
    if (vma->kind == VmaKind::hugetlb || vma->kind == VmaKind::dax ||
        (vma->flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP)) || !(vma->flags & VM_ACCESS_FLAGS))
      continue;
    error = run.protect(mm, {ChangeKind::numa, part}, [&] {
      return mm.change_protection(part.start, part.end, PAGE_NONE, MM_CP_PROT_NUMA);
    });
  }
  run.report.end(error);  // once: user space does not see how many VMAs there were
}

namespace {

/// The file that the operation names; what it does with it is not seen in user memory by itself.
FileId named_file(Run& run, const Op& op) {
  const FileId file = run.file(OF_FILE(op));
  if (file == NO_FILE) run.report.skip("no file");
  return file;
}

}  // namespace

void run_file_write(Run& run, const Op& op) {
  const FileId file = named_file(run, op);
  if (file == NO_FILE) return;
  run.machine().file_write(file, INDEX(op) << PAGE_SHIFT, PAGES(op));
  run.report.end({});
}

void run_file_read(Run& run, const Op& op) {
  const FileId file = named_file(run, op);
  if (file == NO_FILE) return;
  run.machine().file_read(file, INDEX(op) << PAGE_SHIFT, PAGES(op));
  run.report.end({});
}

void run_file_truncate(Run& run, const Op& op) {
  const FileId file = named_file(run, op);
  if (file == NO_FILE) return;
  run.machine().file_truncate(file, INDEX(op) << PAGE_SHIFT);
  run.report.end({});
}

void run_file_punch_hole(Run& run, const Op& op) {
  const FileId file = named_file(run, op);
  if (file == NO_FILE) return;
  run.machine().file_punch_hole(file, INDEX(op) << PAGE_SHIFT, PAGES(op));
  run.report.end({});
}

}  // namespace ptwalk::fuzz
