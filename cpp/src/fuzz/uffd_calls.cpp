// userfaultfd and its ioctls as operations of programs. An ioctl acts on the address space that
// its userfaultfd belongs to.
#include "ptwalk/fuzz/operation_judge.hpp"
#include "ptwalk/fuzz/run.hpp"
#include "ptwalk/uffd_checks.hpp"

namespace ptwalk::fuzz {

using namespace field;

constexpr u64 MODE_WP = 2;  ///< of UFFDIO_COPY, UFFDIO_CONTINUE

void run_userfaultfd(Run& run, const Op& op) {
  constexpr u64 FEATURE_MOVE = 1 << 16;
  AddressSpace& mm = run.mm(op);
  const u64 api = API(op);
  u64 features = FEATURES(op) | (api & API_MOVE ? FEATURE_MOVE : 0);
  if (!(api & API_AS_THEY_ARE)) features &= mm.profile().uffd_features;
  const auto done = mm.userfaultfd(features, api & API_USER_MODE_ONLY);
  run.world.fds.push_back(done.value);
  run.report.count("features", features);
  run.report.end(done.error);
}

void run_uffd_close(Run& run, const Op& op) {
  if (run.world.fds.empty()) return run.report.skip("no userfaultfd");
  const UffdId id = run.fd(op);
  // Closing needs no address space: any will do to reach the machine.
  run.world.spaces.front()->uffd_close(id);
  run.report.end({});
}

void run_register(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  AddressSpace* const mm = run.uffd(op, id);
  if (!mm) return;
  const Asked asked = run.asked(op, LENGTH(op), UFFD_ODD_RANGE(op));
  const auto done = mm->uffd_register(id, asked.at, asked.length, REGISTER_MODE(op));
  run.report.count("ioctls", done.value);
  run.report.end(done.error);
}

void run_unregister(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  const Asked asked = run.asked(op, LENGTH(op), UFFD_ODD_RANGE(op));
  if (AddressSpace* const mm = run.uffd(op, id))
    run.report.end(mm->uffd_unregister(id, asked.at, asked.length));
}

namespace {

/// Faults that a userfaultfd was told of and that nobody woke.
void judge_woken(const Run& run, const AddressSpace& mm, UffdId id, Range range) {
  for (const PendingFault& fault : mm.pending.all())
    if (fault.uffd == id && !fault.woken && fault.address >= range.start &&
        fault.address < range.end)
      run.report.violations |= bit(Violation::left_asleep);
}

/// Whether event messages wait, so that ioctls must say EAGAIN.
bool is_changing(const Run& run, UffdId id) {
  return run.machine().uffds[u64(id)].mmap_changing != 0;
}

/// What UFFDIO_WRITEPROTECT asks for, and whether it wakes.
ChangeKind kind_of(u64 mode) {
  return mode & UFFDIO_WRITEPROTECT_MODE_WP ? ChangeKind::protect : ChangeKind::resolve;
}
bool wakes(u64 mode) {
  return !(mode & (UFFDIO_WRITEPROTECT_MODE_WP | UFFDIO_WRITEPROTECT_MODE_DONTWAKE));
}

}  // namespace

void run_writeprotect(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  AddressSpace* const mm = run.uffd(op, id);
  if (!mm) return;
  const Asked asked = run.asked(op, LENGTH(op), UFFD_ODD_RANGE(op));
  const u64 mode = WP_MODE(op);
  const bool changing = is_changing(run, id);
  run.report.end(run.protect(*mm, {kind_of(mode), asked.pages()}, [&] {
    return mm->uffd_writeprotect(id, asked.at, asked.length, mode);
  }));
  if (run.report.ended != Ended::done) return;
  if (changing) run.report.violations |= bit(Violation::changing_ignored);
  if (wakes(mode)) judge_woken(run, *mm, id, asked.pages());
}

void run_writeprotect_many(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  AddressSpace* const mm = run.uffd(op, id);
  if (!mm) return;
  const ManyRanges ranges = many_ranges(op, run.asked(op, LENGTH(op), UFFD_ODD_RANGE(op)));
  const u64 mode = WP_MODE(op);
  const bool changing = is_changing(run, id);
  run.protect_many(*mm, {kind_of(mode), {}}, ranges.span(), [&](std::span<const u64> some) {
    return mm->uffd_writeprotect_many(id, some, mode);
  });
  if (run.report.ended != Ended::done) return;
  if (changing && ranges.nr) run.report.violations |= bit(Violation::changing_ignored);
  for (u64 i = 0; wakes(mode) && i < ranges.nr; ++i)
    judge_woken(run, *mm, id, Asked{ranges.words[2 * i], ranges.words[2 * i + 1]}.pages());
}

void run_wake(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  AddressSpace* const mm = run.uffd(op, id);
  if (!mm) return;
  const Asked asked = run.asked(op, LENGTH(op), UFFD_ODD_RANGE(op));
  run.report.end(mm->uffd_wake(id, asked.at, asked.length));
  if (run.report.ended == Ended::done) judge_woken(run, *mm, id, asked.pages());
}

namespace {

/// Pages that came in armed; kernels that look at VM_WRITE first leave read-only ones alone.
void judge_armed(const Run& run, const AddressSpace& mm, Range range) {
  const Profile& profile = run.machine().profile;
  for (u64 at = range.start; at < range.end; at += PAGE_SIZE) {
    const Extent page = mm.tables.extent(at, at + PAGE_SIZE);
    const Vma* vma = mm.vmas.find(at);
    const bool promised = vma && (vma->flags & VM_WRITE || !profile.copy_ignores_wp_readonly);
    if (promised && (page.level != PTE_LEVEL || !armed(profile, *page.entry)))
      run.report.violations |= bit(Violation::copied_unarmed);
  }
}

void filled(Run& run, const Result<i64>& done) {
  run.report.result("bytes", u64(done.value));
  run.report.end(done.error);
}

using Fill = Result<i64> (AddressSpace::*)(UffdId, u64, u64, u64);

void fill(Run& run, const Op& op, Fill call) {
  UffdId id = NO_UFFD;
  AddressSpace* const mm = run.uffd(op, id);
  if (!mm) return;
  const bool changing = is_changing(run, id);
  const Asked asked = run.asked(op, PAGES(op), UFFD_ODD_RANGE(op));
  const auto done = (mm->*call)(id, asked.at, asked.length, FILL_MODE(op));
  filled(run, done);
  if (done.value <= 0 || run.world.raw) return;
  if (changing) run.report.violations |= bit(Violation::changing_ignored);
  if (FILL_MODE(op) & MODE_WP) judge_armed(run, *mm, {asked.at, asked.at + u64(done.value)});
}

}  // namespace

void run_copy(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_copy); }
void run_zeropage(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_zeropage); }
void run_continue(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_continue); }
void run_poison(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_poison); }

void run_move(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  const Asked asked = run.asked(op, PAGES(op), UFFD_ODD_PAIR(op), TO(op));
  if (AddressSpace* const mm = run.uffd(op, id))
    filled(run, mm->uffd_move(id, asked.at, asked.to, asked.length, MOVE_MODE(op)));
}

/// read(2) until nothing is left; a fork's message opens the child's userfaultfd.
void run_read(Run& run, const Op& op) {
  if (run.world.fds.empty()) return run.report.skip("no userfaultfd");
  const UffdId id = run.fd(op);
  if (const Error error = check_context(run.machine(), id, "read")) return run.report.end(error);
  UffdContext& context = run.machine().uffds.edit(u64(id));
  for (const UffdMsg& message : context.queue) {
    run.report.message(message);
    if (message.event == UffdEvent::fork) run.world.fds.push_back(message.child);
  }
  context.queue.clear();
  context.mmap_changing = 0;
  run.report.end({});
}

}  // namespace ptwalk::fuzz
