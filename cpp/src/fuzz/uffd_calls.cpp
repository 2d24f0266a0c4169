// userfaultfd and its ioctls as operations of programs. An ioctl acts on the address space that
// its userfaultfd belongs to.
#include "ptwalk/fuzz/run.hpp"
#include "ptwalk/uffd_checks.hpp"

namespace ptwalk::fuzz {

using namespace field;

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
  const auto done = mm->uffd_register(id, AT(op), LENGTH(op), REGISTER_MODE(op));
  run.report.count("ioctls", done.value);
  run.report.end(done.error);
}

void run_unregister(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  if (AddressSpace* const mm = run.uffd(op, id))
    run.report.end(mm->uffd_unregister(id, AT(op), LENGTH(op)));
}

void run_writeprotect(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  AddressSpace* const mm = run.uffd(op, id);
  if (!mm) return;
  const u64 start = AT(op), length = LENGTH(op), mode = WP_MODE(op);
  const bool protect = mode & UFFDIO_WRITEPROTECT_MODE_WP;
  run.protect(*mm, {protect ? ChangeKind::protect : ChangeKind::resolve, {start, start + length}},
              [&] { return mm->uffd_writeprotect(id, start, length, mode); });
}

void run_wake(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  if (AddressSpace* const mm = run.uffd(op, id))
    run.report.end(mm->uffd_wake(id, AT(op), LENGTH(op)));
}

namespace {

void filled(Run& run, const Result<i64>& done) {
  run.report.result("bytes", u64(done.value));
  run.report.end(done.error);
}

using Fill = Result<i64> (AddressSpace::*)(UffdId, u64, u64, u64);

void fill(Run& run, const Op& op, Fill call) {
  UffdId id = NO_UFFD;
  if (AddressSpace* const mm = run.uffd(op, id))
    filled(run, (mm->*call)(id, AT(op), PAGES(op), FILL_MODE(op)));
}

}  // namespace

void run_copy(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_copy); }
void run_zeropage(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_zeropage); }
void run_continue(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_continue); }
void run_poison(Run& run, const Op& op) { fill(run, op, &AddressSpace::uffd_poison); }

void run_move(Run& run, const Op& op) {
  UffdId id = NO_UFFD;
  if (AddressSpace* const mm = run.uffd(op, id))
    filled(run, mm->uffd_move(id, AT(op), TO(op), PAGES(op), MOVE_MODE(op)));
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
