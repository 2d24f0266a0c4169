// What happens to many pages at once: batched accesses, reclaim, migration in two phases.
#include <pybind11/stl.h>

#include "convert.hpp"

namespace ptwalk::bindings {

namespace {

/// `addrs` and `write` are contiguous and of one length: the Python side has made them so.
py::array_t<AccessRecord> access_many(Space& s, const Array<u64>& addrs, const Array<u8>& write) {
  const std::span<const u64> from{addrs.data(), static_cast<std::size_t>(addrs.size())};
  const std::span<const u8> stores{write.data(), static_cast<std::size_t>(write.size())};
  py::array_t<AccessRecord> result(addrs.size());
  const std::span<AccessRecord> out{result.mutable_data(), from.size()};
  finish(s.call(from.size() << PAGE_SHIFT, [&] { return s.mm->access_many(from, stores, out); }));
  return result;
}

u64 reclaim(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  check_range("reclaim", a, n, s.user_end());
  return s.call(n, [&] { return s.mm->reclaim(a, n); });
}

std::vector<std::pair<u64, u64>> migrate_start(Space& s, py::handle start, py::handle length) {
  const u64 a = word(start, "start"), n = word(length, "length");
  check_range("migrate_pages", a, n, s.user_end());
  std::vector<std::pair<u64, u64>> pages;
  s.call(n, [&] {
    for (const MigratingPage& page : s.mm->migrate_start(a, n))
      pages.emplace_back(page.pfn, page.serial);
  });
  return pages;
}

/// The new frames; 0 for a page that went away in between.
std::vector<u64> migrate_finish(Space& s, const std::vector<std::pair<u64, u64>>& pages) {
  std::vector<u64> frames;
  s.call(pages.size() << PAGE_SHIFT, [&] {
    for (const auto& [pfn, serial] : pages)
      frames.push_back(s.mm->machine->migrate_finish(pfn, serial));
  });
  return frames;
}

}  // namespace

void register_pages(SpaceClass& space) {
  PYBIND11_NUMPY_DTYPE(AccessRecord, before, after, outcome, signo, code);
  space.def("access_many", access_many)
      .def("reclaim", reclaim)
      .def("migrate_start", migrate_start)
      .def("migrate_finish", migrate_finish);
}

}  // namespace ptwalk::bindings
