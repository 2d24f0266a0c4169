// The userfaultfd calls of _core.AddressSpace: a context is a number here, the first argument of
// each. python/ptwalk/userfaultfd.py documents them. The one that programs make most is a method of
// _core.Userfaultfd, on which ptwalk.Userfaultfd stands, and is called without Python between.
#include <pybind11/stl.h>

#include "fast_method.hpp"
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

u64 uffd_features(Space& s, UffdId ctx) {
  return s.call(0, [&] { return context_of(s, ctx).features; });
}

bool uffd_closed(Space& s, UffdId ctx) {
  return s.call(0, [&] { return context_of(s, ctx).closed; });
}

/// A context of an address space, and the object that keeps the address space.
struct Uffd {
  py::object keeper;
  Space& space;
  UffdId id;
  std::string gone{};  ///< why it may no longer be used; empty: it may
};

std::unique_ptr<Uffd> make_uffd(const py::object& keeper, py::handle number) {
  auto& s = keeper.cast<Space&>();
  const u64 n = word(number, "number");
  const bool known = s.call(0, [&] {
    const auto& all = s.mm->machine->uffds;
    return n < all.size() && all[n].mm == s.mm.get();
  });
  if (!known) {
    raise_invalid("number " + shown(number) +
                  " is no userfaultfd of this address space; open one with userfaultfd()");
  }
  return std::make_unique<Uffd>(Uffd{keeper, s, static_cast<UffdId>(n)});
}

constexpr const char* WRITEPROTECT_DOC =
    R"(writeprotect($self, start, length, *, protect=True, wake=True, mode=None, threads=None)
--

Write-protect a range, or resolve its write-protection.

*Models* mm/userfaultfd.c:mwriteprotect_range, uffd_wp_range (v6.18).

Parameters
----------
start, length : int
    Range in bytes, page aligned.
protect : bool
    True to arm the entries, False to resolve them.
wake : bool
    Whether resolving wakes the faults that wait.
mode : int, optional
    The mode word of the ioctl itself.
threads : int, optional
    How many threads may work on it; default `Machine.threads`. Results do not depend on it.

Returns
-------
ProtectResult
    What happened to the entries.

Raises
------
KernelError
    EINVAL for a bad range or mode, ENOENT where a VMA is missing or not registered for
    wp, EAGAIN while an event waits to be read, ENOMEM where a table cannot be
    allocated; `done` is what was changed before it.

Notes
-----
The GIL is released for ranges above 16 MiB.)";

PyObject* writeprotect(PyObject* self, PyObject* const* args, Py_ssize_t nr, PyObject* keywords) {
  static constexpr std::array NAMES{"start", "length", "protect", "wake", "mode", "threads"};
  return guarded([&] {
    const auto given = arguments(NAMES, 2, args, nr, keywords);
    const auto is_true = [&](std::size_t i) { return !given[i] || truth(given[i]); };
    const u64 a = word(given[0], NAMES[0]), n = word(given[1], NAMES[1]);
    const u64 m = given[4] && given[4] != Py_None
                      ? word(given[4], NAMES[4])
                      : (is_true(2) ? UFFDIO_WRITEPROTECT_MODE_WP : 0) |
                            (is_true(3) ? 0 : UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
    const unsigned t = given[5] ? thread_count(given[5]) : 0;
    const Uffd& uffd = self_of<Uffd>(self);
    if (!uffd.gone.empty()) raise_invalid(uffd.gone);
    const Space& s = uffd.space;
    auto result = s.call(n, t, [&] { return s.mm->uffd_writeprotect(uffd.id, a, n, m); });
    return make_value(finish_protect(std::move(result), s.levels()));
  });
}

}  // namespace

void register_userfaultfd(py::module_& m, SpaceClass& space) {
  static PyMethodDef definition{
      "writeprotect", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(writeprotect)),
      METH_FASTCALL | METH_KEYWORDS, WRITEPROTECT_DOC};
  py::class_<Uffd> uffd(m, "Userfaultfd");
  uffd.def(py::init(&make_uffd)).def("_retire", [](Uffd& u, std::string text) {
    u.gone = std::move(text);
  });
  add_method(uffd, definition);
  space.def("userfaultfd", userfaultfd)
      .def("uffd_register", uffd_register)
      .def("uffd_unregister", uffd_unregister)
      .def("uffd_writeprotect_many", uffd_writeprotect_many)
      .def("uffd_wake", uffd_wake)
      .def("uffd_copy", uffd_fill<&AddressSpace::uffd_copy>)
      .def("uffd_zeropage", uffd_fill<&AddressSpace::uffd_zeropage>)
      .def("uffd_continue", uffd_fill<&AddressSpace::uffd_continue>)
      .def("uffd_poison", uffd_fill<&AddressSpace::uffd_poison>)
      .def("uffd_move", uffd_move)
      .def("uffd_read", uffd_read)
      .def("uffd_close", uffd_close)
      .def("uffd_features", uffd_features)
      .def("uffd_closed", uffd_closed);
}

}  // namespace ptwalk::bindings
