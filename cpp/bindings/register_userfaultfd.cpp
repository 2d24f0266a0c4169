// The userfaultfd calls of _core.AddressSpace: a context is a number here, the first argument of
// each. python/ptwalk/userfaultfd.py documents them.
#include <pybind11/stl.h>

#include "convert.hpp"
#include "ptwalk/uffd_checks.hpp"

namespace ptwalk::bindings {

namespace {

const UffdContext& context_of(Space& s, UffdId ctx) {
  return s.mm->machine->uffds[static_cast<std::size_t>(ctx)];
}

/// The new context. A failed UFFDIO_API leaves its descriptor open: `done` of the error names it.
UffdId userfaultfd(Space& s, py::handle features, bool user_mode_only) {
  const u64 f = word(features, "features");
  const auto result = s.call(0, [&] { return s.mm->userfaultfd(f, user_mode_only); });
  if (!result.ok()) raise(result.error, py::int_(result.value));
  return result.value;
}

u64 uffd_register(Space& s, UffdId ctx, py::handle start, py::handle length, py::handle mode) {
  const u64 a = word(start, "start"), n = word(length, "length"), m = word(mode, "mode");
  return finish(s.call(n, [&] { return s.mm->uffd_register(ctx, a, n, m); }));
}

void uffd_unregister(Space& s, UffdId ctx, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  finish(s.call(n, [&] { return s.mm->uffd_unregister(ctx, a, n); }));
}

BoundProtectResult uffd_writeprotect(Space& s, UffdId ctx, py::handle start, py::handle length,
                                     py::handle mode, py::handle threads) {
  const u64 a = word(start, "start"), n = word(length, "length"), m = word(mode, "mode");
  const unsigned t = thread_count(threads);
  return finish_protect(s.call(n, t, [&] { return s.mm->uffd_writeprotect(ctx, a, n, m); }),
                        s.levels());
}

BoundProtectResult uffd_writeprotect_many(Space& s, UffdId ctx, const Array<u64>& ranges,
                                          py::handle mode, py::handle threads) {
  const u64 m = word(mode, "mode");
  const unsigned t = thread_count(threads);
  const std::span<const u64> pairs{ranges.data(), static_cast<std::size_t>(ranges.size())};
  return finish_ranges(
      s.call(WHOLE_SPACE, t, [&] { return s.mm->uffd_writeprotect_many(ctx, pairs, m); }),
      pairs.size() / 2, s.levels());
}

void uffd_wake(Space& s, UffdId ctx, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  finish(s.call(0, [&] { return s.mm->uffd_wake(ctx, a, n); }));
}

using Fill = Result<i64> (AddressSpace::*)(UffdId, u64, u64, u64);

/// UFFDIO_COPY, ZEROPAGE, CONTINUE and POISON differ by name only.
template <Fill fill>
i64 uffd_fill(Space& s, UffdId ctx, py::handle start, py::handle length, py::handle mode) {
  const u64 a = word(start, "start"), n = word(length, "length"), m = word(mode, "mode");
  return finish_counted(s.call(n, [&] { return (*s.mm.*fill)(ctx, a, n, m); }));
}

i64 uffd_move(Space& s, UffdId ctx, py::handle dst, py::handle src, py::handle length,
              py::handle mode) {
  const u64 d = word(dst, "dst"), a = word(src, "src");
  const u64 n = word(length, "length"), m = word(mode, "mode");
  return finish_counted(s.call(n, [&] { return s.mm->uffd_move(ctx, d, a, n, m); }));
}

/// read(2) until EAGAIN. (fs/userfaultfd.c:userfaultfd_ctx_read, v6.18)
Result<std::vector<UffdMsg>> drain(Machine& machine, UffdId ctx) {
  if (const Error error = check_context(machine, ctx, "read")) return {{}, error};
  UffdContext& context = machine.uffds.edit(static_cast<std::size_t>(ctx));
  std::vector<UffdMsg> messages = context.queue;
  context.queue.clear();
  context.mmap_changing = 0;  // every event that held it has now been read
  return {std::move(messages), {}};
}

std::vector<UffdMsg> uffd_read(Space& s, UffdId ctx) {
  return finish(s.call(0, [&] { return drain(*s.mm->machine, ctx); }));
}

void uffd_close(Space& s, UffdId ctx) {
  s.call(WHOLE_SPACE, [&] { s.mm->uffd_close(ctx); });
}

/// Refuses a number that is no context of this address space.
void uffd_check(Space& s, py::handle number) {
  const u64 n = word(number, "number");
  const bool known = s.call(0, [&] {
    const auto& all = s.mm->machine->uffds;
    return n < all.size() && all[n].mm == s.mm.get();
  });
  if (!known) {
    raise_invalid("number " + shown(number) +
                  " is no userfaultfd of this address space; open one with userfaultfd()");
  }
}

u64 uffd_features(Space& s, UffdId ctx) {
  return s.call(0, [&] { return context_of(s, ctx).features; });
}

bool uffd_closed(Space& s, UffdId ctx) {
  return s.call(0, [&] { return context_of(s, ctx).closed; });
}

}  // namespace

void register_userfaultfd(SpaceClass& space) {
  space.def("userfaultfd", userfaultfd)
      .def("uffd_register", uffd_register)
      .def("uffd_unregister", uffd_unregister)
      .def("uffd_writeprotect", uffd_writeprotect)
      .def("uffd_writeprotect_many", uffd_writeprotect_many)
      .def("uffd_wake", uffd_wake)
      .def("uffd_copy", uffd_fill<&AddressSpace::uffd_copy>)
      .def("uffd_zeropage", uffd_fill<&AddressSpace::uffd_zeropage>)
      .def("uffd_continue", uffd_fill<&AddressSpace::uffd_continue>)
      .def("uffd_poison", uffd_fill<&AddressSpace::uffd_poison>)
      .def("uffd_move", uffd_move)
      .def("uffd_read", uffd_read)
      .def("uffd_close", uffd_close)
      .def("uffd_check", uffd_check)
      .def("uffd_features", uffd_features)
      .def("uffd_closed", uffd_closed);
}

}  // namespace ptwalk::bindings
