// Raw stores into an address space, which no system call judges, and PAGEMAP_SCAN.
#include <pybind11/stl.h>

#include "convert.hpp"

namespace ptwalk::bindings {

namespace {

/// The words of a C-contiguous uint64 array of one dimension; InvalidArgument for anything else.
py::array_t<u64> entry_array(const py::object& object, const char* name) {
  const std::string what = name;
  if (!py::isinstance<py::array>(object)) {
    raise_invalid(what + " is a " + Py_TYPE(object.ptr())->tp_name +
                  "; pass a numpy array of uint64");
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!array.dtype().equal(py::dtype::of<u64>())) {
    const bool same_size = array.dtype().kind() == 'i' && array.itemsize() == 8;
    raise_invalid(what + " has dtype " + std::string(py::str(array.dtype())) +
                  "; page-table entries are uint64; use " + what +
                  (same_size ? ".view(numpy.uint64)" : ".astype(numpy.uint64)"));
  }
  if (!is_packed(array)) {
    raise_invalid(
        what + " has shape " + std::string(py::str(array.attr("shape"))) +
        " and is not a C-contiguous array of one dimension; use numpy.ascontiguousarray(" + what +
        ").ravel()");
  }
  return py::reinterpret_borrow<py::array_t<u64>>(array);
}

std::span<const u64> span_of(const py::array_t<u64>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

u64 entry(Space& s, py::handle addr, py::handle level) {
  const u64 a = word(addr, "addr");
  const Level l = level_of(level, s.levels());
  return finish(s.call(0, [&] { return s.mm->entry(a, l); }));
}

void set_entry(Space& s, py::handle addr, py::handle level, py::handle value) {
  const u64 a = word(addr, "addr"), v = word(value, "value");
  const Level l = level_of(level, s.levels());
  finish(s.call(0, [&] { return s.mm->set_entry(a, l, v); }));
}

void set_ptes(Space& s, py::handle start, const py::object& values) {
  const u64 a = word(start, "start");
  const py::array_t<u64> entries = entry_array(values, "ptes");
  const std::span<const u64> words = span_of(entries);
  const u64 n = words.size() << PAGE_SHIFT;
  check_range("set_ptes", a, n, s.user_end());
  finish(s.call(n, [&] { return s.mm->set_ptes(a, words); }));
}

void alloc_table(Space& s, py::handle addr, py::handle level, py::handle flags) {
  const u64 a = word(addr, "addr"), f = word(flags, "flags");
  const Level l = level_of(level, s.levels());
  finish(s.call(0, [&] { return s.mm->alloc_table(a, l, f); }));
}

void set_vm_flags(Space& s, py::handle start, py::handle length, py::handle add,
                  py::handle remove) {
  const u64 a = word(start, "start"), n = word(length, "length");
  const u64 on = word(add, "add"), off = word(remove, "remove");
  check_range("set_vm_flags", a, n, s.user_end());
  finish(s.call(0, [&] { return s.mm->set_vm_flags(a, n, on, off); }));
}

VmaKind vma_kind(const std::string& name) {
  if (name == "anon") return VmaKind::anon;
  if (name == "shmem") return VmaKind::shmem;
  if (name == "regular") return VmaKind::regular;
  if (name == "hugetlb") return VmaKind::hugetlb;
  if (name == "dax") return VmaKind::dax;
  if (name == "other") return VmaKind::other;
  raise_invalid("kind " + shown(py::str(name)) +
                " is not known; use anon, shmem, regular, hugetlb, dax or other");
}

void load_vma(Space& s, py::handle start, py::handle end, py::handle vm_flags, py::handle pgoff,
              FileId file, const std::string& kind, const std::string& name) {
  Vma vma;
  vma.start = word(start, "start");
  vma.end = word(end, "end");
  vma.flags = word(vm_flags, "vm_flags");
  vma.pgoff = word(pgoff, "offset");
  vma.file = file;
  vma.kind = vma_kind(kind);
  if (vma.end < vma.start) {
    raise_invalid("load_vma: end " + hex16(vma.end) + " lies below start " + hex16(vma.start) +
                  "; swap them");
  }
  check_range("load_vma", vma.start, vma.end - vma.start, s.user_end());
  finish(s.call(0, [&] { return s.mm->load_vma(vma, name); }));
}

void load_pages(Space& s, py::handle start, const py::object& values,
                const py::array_t<u8, py::array::c_style | py::array::forcecast>& facts) {
  const u64 a = word(start, "start");
  const py::array_t<u64> entries = entry_array(values, "ptes");
  const std::span<const u64> words = span_of(entries);
  if (facts.ndim() != 1 || facts.size() != entries.size()) {
    raise_invalid("facts has " + std::to_string(facts.size()) + " elements for " +
                  std::to_string(entries.size()) + " ptes; pass one byte a page");
  }
  const std::span<const u8> bytes{facts.data(), static_cast<std::size_t>(facts.size())};
  const u64 n = words.size() << PAGE_SHIFT;
  check_range("load_pages", a, n, s.user_end());
  finish(s.call(n, [&] { return s.mm->load_pages(a, words, bytes); }));
}

/// The n-th table allocation of the space's tables from now on fails; 0: none.
void fail_table_alloc(Space& s, py::handle n) {
  const u64 count = word(n, "n");
  s.call(0, [&] { s.mm->tables.fail_alloc(count); });
}

py::tuple scan_tuple(const ScanResult& result) {
  py::list ranges;
  for (const ScanRange& r : result.ranges) {
    ranges.append(py::make_tuple(r.start, r.end, r.categories));
  }
  return py::make_tuple(ranges, result.walk_end);
}

/// (ranges, walk_end); the masks are flags, inverted, mask, anyof, returned, max_pages, vec_len.
py::tuple pagemap_scan(Space& s, py::handle start, py::handle length,
                       const std::vector<u64>& masks) {
  const u64 a = word(start, "start"), n = word(length, "length");
  const ScanArgs args{masks.at(0), masks.at(1), masks.at(2), masks.at(3),
                      masks.at(4), masks.at(5), masks.at(6)};
  auto result = s.call(n, [&] { return s.mm->pagemap_scan(a, n, args); });
  const py::tuple found = scan_tuple(result.value);
  if (!result.ok()) raise(result.error, done_or_none(result.error, found));
  return found;
}

}  // namespace

void register_raw(SpaceClass& space) {
  space.def("entry", entry)
      .def("set_entry", set_entry)
      .def("set_ptes", set_ptes)
      .def("alloc_table", alloc_table)
      .def("set_vm_flags", set_vm_flags)
      .def("load_vma", load_vma)
      .def("load_pages", load_pages)
      .def("fail_table_alloc", fail_table_alloc)
      .def("pagemap_scan", pagemap_scan);
}

}  // namespace ptwalk::bindings
