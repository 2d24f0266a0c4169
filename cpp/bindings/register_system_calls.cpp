// The system calls of _core.AddressSpace, positional; python/ptwalk/address_space.py documents
// them.
#include <pybind11/stl.h>

#include "fast_method.hpp"

namespace ptwalk::bindings {

namespace {

std::unique_ptr<Space> make_space(const std::shared_ptr<Machine>& machine) {
  return std::make_unique<Space>(
      locked(*machine, 0, [&] { return std::make_shared<AddressSpace>(machine); }));
}

/// Does `map` and returns the address that it gives with the VMA that lies there now.
template <class Map>
py::tuple mapped(Space& s, u64 bytes, Map&& map) {
  std::optional<NamedVma> vma;
  const u64 start = finish(s.call(bytes, [&] {
    Result<u64> result = map();
    if (result.ok()) vma = named_vma(*s.mm, result.value);
    return result;
  }));
  return py::make_tuple(start, vma_tuple(vma.value()));
}

py::tuple mmap(Space& s, py::handle addr, py::handle length, py::handle prot, py::handle flags,
               FileId file, py::handle offset) {
  const u64 a = word(addr, "addr"), n = word(length, "length"), o = word(offset, "offset");
  const u32 p = word32(prot, "prot"), f = word32(flags, "flags");
  return mapped(s, n, [&] { return s.mm->mmap(a, n, static_cast<int>(p), f, file, o); });
}

void munmap(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  finish(s.call(n, [&] { return s.mm->munmap(a, n); }));
}

BoundProtectResult mprotect(Space& s, py::handle start, py::handle length, py::handle prot,
                            py::handle threads) {
  const u64 a = word(start, "start"), n = word(length, "length");
  const int p = static_cast<int>(word32(prot, "prot"));
  const unsigned t = thread_count(threads);
  return finish_protect(s.call(n, t, [&] { return s.mm->mprotect(a, n, p); }), s.levels());
}

BoundProtectResult mprotect_many(Space& s, const Array<u64>& ranges, py::handle prot,
                                 py::handle threads) {
  const int p = static_cast<int>(word32(prot, "prot"));
  const unsigned t = thread_count(threads);
  const std::span<const u64> pairs{ranges.data(), static_cast<std::size_t>(ranges.size())};
  return finish_ranges(s.call(WHOLE_SPACE, t, [&] { return s.mm->mprotect_many(pairs, p); }),
                       pairs.size() / 2, s.levels());
}

BoundProtectResult change_protection(Space& s, py::handle start, py::handle end, py::handle newprot,
                                     py::handle cp_flags) {
  const u64 a = word(start, "start"), e = word(end, "end"), prot = word(newprot, "newprot");
  const u32 flags = word32(cp_flags, "cp_flags");
  return finish_protect(s.call(e - a, [&] { return s.mm->change_protection(a, e, prot, flags); }),
                        s.levels());
}

void mlock(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  finish(s.call(n, [&] { return s.mm->mlock(a, n); }));
}

void munlock(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  finish(s.call(n, [&] { return s.mm->munlock(a, n); }));
}

void madvise(Space& s, py::handle start, py::handle length, py::handle advice,
             const std::optional<std::vector<u64>>& victims) {
  const u64 a = word(start, "start"), n = word(length, "length");
  const int what = static_cast<int>(word32(advice, "advice"));
  const std::vector<u64>* pages = victims ? &*victims : nullptr;
  finish(s.call(n, [&] { return s.mm->madvise(a, n, what, pages); }));
}

py::tuple mremap(Space& s, py::handle old_addr, py::handle old_len, py::handle new_len,
                 py::handle flags, py::handle new_addr) {
  const u64 a = word(old_addr, "old_addr"), n = word(old_len, "old_len");
  const u64 m = word(new_len, "new_len"), b = word(new_addr, "new_addr");
  const u32 f = word32(flags, "flags");
  return mapped(s, std::max(n, m), [&] { return s.mm->mremap(a, n, m, f, b); });
}

std::unique_ptr<Space> fork(Space& s) {
  return std::make_unique<Space>(finish(s.call(WHOLE_SPACE, [&] { return s.mm->fork(); })));
}

AccessResult access(Space& s, py::handle addr, py::handle write, py::handle thread) {
  const u64 a = word(addr, "addr");
  const u32 t = word32(thread, "thread");
  const bool w = truth(write);
  return finish(s.call(0, [&] { return s.mm->access(a, w, t); }));
}

AccessResult kernel_access(Space& s, py::handle addr, bool write) {
  const u64 a = word(addr, "addr");
  return finish(s.call(0, [&] { return s.mm->kernel_access(a, write); }));
}

u64 populate(Space& s, py::handle start, py::handle length, bool write, py::handle threads) {
  const u64 a = word(start, "start"), n = word(length, "length");
  const unsigned t = thread_count(threads);
  return finish_counted(s.call(n, t, [&] { return s.mm->populate(a, n, write); }));
}

std::vector<PendingFault> pending(Space& s) {
  return s.call(0, [&] { return s.mm->pending.all(); });
}

}  // namespace

void register_system_calls(SpaceClass& space) {
  space.def(py::init(&make_space))
      .def("mmap", mmap)
      .def("munmap", munmap)
      .def("mprotect_many", mprotect_many)
      .def("change_protection", change_protection)
      .def("mlock", mlock)
      .def("munlock", munlock)
      .def("madvise", madvise)
      .def("mremap", mremap)
      .def("fork", fork)
      .def("kernel_access", kernel_access)
      .def("populate", populate)
      .def("pending", pending);
  def_fast<mprotect>(space, "mprotect");
  def_fast<access>(space, "access");
}

}  // namespace ptwalk::bindings
