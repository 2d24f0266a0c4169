// What reads an address space without changing it: entries as numpy arrays, walks, VMAs, counts.
#include <pybind11/stl.h>

#include <array>

#include "fast_method.hpp"

namespace ptwalk::bindings {

namespace {

template <class T>
std::span<T> span_of(Array<T>& array) {
  return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

/// An output array of `nr` words: `out` where it fits, a new one for None.
Array<u64> output(py::handle out, u64 nr) {
  if (out.is_none()) return Array<u64>(static_cast<py::ssize_t>(nr));
  if (!py::isinstance<py::array>(out)) {
    raise_invalid("out " + shown(out) + " is not an array; pass numpy.empty(" + std::to_string(nr) +
                  ", numpy.uint64)");
  }
  const auto array = py::reinterpret_borrow<py::array>(out);
  if (!array.dtype().equal(py::dtype::of<u64>()) || !is_packed(array) || !array.writeable() ||
      array.size() != static_cast<py::ssize_t>(nr)) {
    raise_invalid("out has dtype " + std::string(py::str(array.dtype())) + " and shape " +
                  std::string(py::str(array.attr("shape"))) +
                  "; it must be a writeable, C-contiguous array of uint64 with shape (" +
                  std::to_string(nr) + ",)");
  }
  return py::reinterpret_borrow<Array<u64>>(array);
}

Array<u64> ptes(Space& s, py::handle start, py::handle length, py::handle out, py::handle threads) {
  const u64 a = word(start, "start"), n = word(length, "length");
  const unsigned t = thread_count(threads);
  check_range("ptes", a, n, s.user_end());
  Array<u64> entries = output(out, n >> PAGE_SHIFT);
  const std::span<u64> words = span_of(entries);
  s.call(n, t, [&] { s.mm->ptes(a, words); });
  return entries;
}

Array<u8> levels(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  check_range("levels", a, n, s.user_end());
  Array<u8> result(static_cast<py::ssize_t>(n >> PAGE_SHIFT));
  const std::span<u8> bytes = span_of(result);
  s.call(n, [&] { s.mm->levels(a, bytes); });
  return result;
}

Array<u64> pagemap(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  check_range("pagemap", a, n, s.user_end());
  Array<u64> result(static_cast<py::ssize_t>(n >> PAGE_SHIFT));
  const std::span<u64> words = span_of(result);
  s.call(n, [&] { s.mm->pagemap(a, words); });
  return result;
}

/// `addrs` is uint64 and contiguous: the Python side has made it so.
Array<u64> translate(Space& s, const Array<u64>& addrs, const py::object& out, py::handle threads) {
  const unsigned t = thread_count(threads);
  const std::span<const u64> from{addrs.data(), static_cast<std::size_t>(addrs.size())};
  Array<u64> result = output(out, from.size());
  const std::span<u64> to = span_of(result);
  s.call(from.size() << PAGE_SHIFT, t, [&] { s.mm->translate(from, to); });
  return result;
}

/// Facts of the page that one address maps; the dtype of pages().
struct PageFacts {
  u64 pfn;
  u64 serial;
  u64 index;
  i64 file;
  u32 mapcount;
  u16 flags;
  u8 level;
  u8 order;
};

PageFacts facts_at(const AddressSpace& mm, u64 addr) {
  PageFacts facts{0, 0, 0, NO_FILE, 0, 0, 0, 0};
  const WalkEnd end = mm.tables.walk(addr);
  if (end.entry == nullptr) return facts;
  const u64 entry = *end.entry;
  facts.level = static_cast<u8>(end.level);
  const bool present =
      end.level == PTE_LEVEL
          ? pte_present(entry)
          : mm.tables.kind(entry, end.level) == EntryKind::leaf && pmd_present(entry);
  if (!present) return facts;
  const u64 base = leaf_address(entry, end.level) >> PAGE_SHIFT;
  facts.pfn = base + ((addr & (level_size(end.level) - 1)) >> PAGE_SHIFT);
  if (const Page* page = mm.machine->pages.find(facts.pfn)) {
    facts.serial = page->serial;
    facts.index = page->index;
    facts.file = page->file;
    facts.mapcount = page->mapcount;
    facts.flags = mm.machine->pages.flags(facts.pfn);
    facts.order = page->order;
  }
  return facts;
}

py::array_t<PageFacts> pages(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  check_range("pages", a, n, s.user_end());
  py::array_t<PageFacts> result(static_cast<py::ssize_t>(n >> PAGE_SHIFT));
  PageFacts* out = result.mutable_data();
  s.call(n, [&] {
    for (u64 i = 0; i < n >> PAGE_SHIFT; ++i) out[i] = facts_at(*s.mm, a + (i << PAGE_SHIFT));
  });
  return result;
}

/// A read-only view of every table frame; it keeps the machine alive.
Array<u64> tables(Space& s, bool copy) {
  const FrameArena& frames = s.mm->machine->frames;
  const auto rows = static_cast<py::ssize_t>(s.call(0, [&] { return frames.rows(); }));
  const std::array<py::ssize_t, 2> shape{rows, PTRS_PER_TABLE};
  if (copy) {
    Array<u64> result(shape);
    u64* out = result.mutable_data();
    s.call(WHOLE_SPACE, [&] { std::copy_n(frames.image(), rows * PTRS_PER_TABLE, out); });
    return result;
  }
  auto* keep = new std::shared_ptr<Machine>(s.mm->machine);
  const py::capsule owner(keep, [](void* p) { delete static_cast<std::shared_ptr<Machine>*>(p); });
  Array<u64> view(shape, frames.image(), owner);
  view.attr("setflags")(py::arg("write") = false);
  return view;
}

std::vector<std::tuple<const char*, unsigned, u64>> walk(Space& s, py::handle addr) {
  const u64 a = word(addr, "addr");
  if (a >= s.user_end()) {
    raise_invalid("walk: addr " + hex16(a) + " is not canonical user memory, which ends at " +
                  hex16(s.user_end()) + "; pass a user address");
  }
  std::vector<std::tuple<const char*, unsigned, u64>> steps;
  for (const WalkStep& step : s.call(0, [&] { return s.mm->walk(a); })) {
    steps.emplace_back(level_name(step.level, s.levels()), step.index, step.entry);
  }
  return steps;
}

py::dict count(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  check_range("count", a, n, s.user_end());
  const EntryCounts c = s.call(n, [&] { return s.mm->count(a, n); });
  const std::array<std::pair<const char*, u64>, 8> kinds{{{"none", c.none},
                                                          {"present", c.present},
                                                          {"swap", c.swap},
                                                          {"marker", c.marker},
                                                          {"migration", c.migration},
                                                          {"device", c.device},
                                                          {"hwpoison", c.hwpoison},
                                                          {"huge", c.huge}}};
  py::dict result;
  for (const auto& [name, pages] : kinds) {
    if (pages != 0) result[name] = pages;
  }
  return result;
}

py::list vmas(Space& s) {
  std::vector<NamedVma> found;
  s.call(0, [&] {
    for (const Vma& v : s.mm->vmas.all()) found.push_back({v, s.mm->names[v.name]});
  });
  py::list result;
  for (const NamedVma& v : found) result.append(vma_tuple(v));
  return result;
}

/// The VMA that holds `addr`, or None.
py::object find_vma(Space& s, py::handle addr) {
  const u64 a = word(addr, "addr");
  const std::optional<NamedVma> found = s.call(0, [&] { return named_vma(*s.mm, a); });
  return found ? py::object(vma_tuple(*found)) : py::none();
}

py::dict stats(Space& s) {
  struct Stats {
    u64 tables_modelled, tables_resident, pages, vmas, pending;
  };
  const Stats stats = s.call(0, [&]() -> Stats {
    const AddressSpace& mm = *s.mm;
    const u64 root = 1;
    return {mm.tables.nr_tables() + root, mm.machine->frames.in_use(), mm.machine->pages.in_use(),
            mm.vmas.all().size(), mm.pending.all().size()};
  });
  py::dict d;
  d["tables_modelled"] = stats.tables_modelled;
  d["tables_resident"] = stats.tables_resident;
  d["pages"] = stats.pages;
  d["vmas"] = stats.vmas;
  d["pending"] = stats.pending;
  return d;
}

}  // namespace

void register_queries(SpaceClass& space) {
  PYBIND11_NUMPY_DTYPE(PageFacts, pfn, serial, index, file, mapcount, flags, level, order);
  space.def("levels", levels)
      .def("pagemap", pagemap)
      .def("translate", translate)
      .def("pages", pages)
      .def("tables", tables)
      .def("walk", walk)
      .def("vmas", vmas)
      .def("find_vma", find_vma)
      .def("stats", stats)
      .def("validate",
           [](Space& s) { return s.call(WHOLE_SPACE, [&] { return s.mm->validate(); }); })
      .def_property_readonly("root", [](Space& s) { return s.mm->tables.root(); })
      .def_property_readonly("table_base", [](const Space&) { return TABLE_PFN_BASE; })
      .def_property_readonly("task_size", [](Space& s) { return s.mm->task_size(); });
  def_fast<ptes>(space, "ptes");
  def_fast<count>(space, "count");
}

}  // namespace ptwalk::bindings
