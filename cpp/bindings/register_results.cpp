// ptwalk.ProtectResult: the account of a protection change as an immutable Python value.
#include <array>
#include <sstream>

#include "convert.hpp"

namespace ptwalk::bindings {

namespace {

using R = BoundProtectResult;

struct Counter {
  const char* name;
  u64 ProtectResult::* member;
};

/// The counters that the repr shows, in its order.
constexpr std::array<Counter, 8> COUNTERS{{
    {"pages", &ProtectResult::pages},
    {"none_to_marker", &ProtectResult::none_to_marker},
    {"marker_to_none", &ProtectResult::marker_to_none},
    {"present", &ProtectResult::present},
    {"swap", &ProtectResult::swap},
    {"huge", &ProtectResult::huge},
    {"none_skipped", &ProtectResult::none_skipped},
    {"tables_allocated", &ProtectResult::tables_allocated},
}};

/// The statistics of the kernel that the repr leaves out.
constexpr std::array<Counter, 4> STATISTICS{{
    {"numa_huge_pte_updates", &ProtectResult::numa_huge_pte_updates},
    {"thp_split_pmd", &ProtectResult::thp_split_pmd},
    {"dirtied", &ProtectResult::dirtied},
    {"referenced", &ProtectResult::referenced},
}};

const char* notifier_name(NotifierKind kind) {
  return kind == NotifierKind::clear ? "clear" : "protection_vma";
}

const char* warning_text(Warning warning) {
  return warning == Warning::bad_page_map ? "BUG: Bad page map"
                                          : "WARNING: page table allocation failed";
}

py::object flush(const R& r) {
  if (r.flush.empty()) return py::none();
  return py::make_tuple(r.flush.start, r.flush.end);
}

py::tuple notifier(const R& r) {
  py::tuple starts(r.notifier.size());
  for (std::size_t i = 0; i < r.notifier.size(); ++i) {
    const NotifierStart& n = r.notifier[i];
    starts[i] = py::make_tuple(notifier_name(n.kind), n.start, n.end);
  }
  return starts;
}

u64 notifier_unended(const R& r) {
  u64 count = 0;
  for (const NotifierStart& n : r.notifier) count += !n.ended;
  return count;
}

py::tuple pmd_flush(const R& r) {
  py::tuple starts(r.pmd_flush.size());
  for (std::size_t i = 0; i < r.pmd_flush.size(); ++i) starts[i] = py::int_(r.pmd_flush[i]);
  return starts;
}

py::tuple bad_cleared(const R& r) {
  py::tuple entries(r.bad_cleared.size());
  for (std::size_t i = 0; i < r.bad_cleared.size(); ++i) {
    const BadEntry& bad = r.bad_cleared[i];
    entries[i] = py::make_tuple(level_name(bad.level, r.levels), bad.addr);
  }
  return entries;
}

py::tuple warnings(const R& r) {
  py::tuple texts(r.warnings.size());
  for (std::size_t i = 0; i < r.warnings.size(); ++i) texts[i] = warning_text(r.warnings[i]);
  return texts;
}

py::dict asdict(const R& r) {
  py::dict d;
  for (const Counter& c : COUNTERS) d[c.name] = r.*c.member;
  d["bad_cleared"] = bad_cleared(r);
  d["flush"] = flush(r);
  d["notifier"] = notifier(r);
  d["warnings"] = warnings(r);
  for (const Counter& c : STATISTICS) d[c.name] = r.*c.member;
  d["rss_file"] = r.rss_file;
  d["pmd_flush"] = pmd_flush(r);
  d["notifier_unended"] = notifier_unended(r);
  return d;
}

std::string repr(const R& r) {
  std::ostringstream text;
  text << "ProtectResult(pages=" << r.pages;
  for (const Counter& c : COUNTERS) {
    if (c.member != &ProtectResult::pages && r.*c.member != 0) {
      text << ", " << c.name << "=" << r.*c.member;
    }
  }
  if (!r.bad_cleared.empty()) {
    text << ", bad_cleared=";
    const char* separator = "";
    for (const BadEntry& bad : r.bad_cleared) {
      text << separator << level_name(bad.level, r.levels) << "@" << hex16(bad.addr);
      separator = "|";
    }
  }
  if (!r.flush.empty()) text << ", flush=" << hex16(r.flush.start) << "-" << hex16(r.flush.end);
  if (!r.warnings.empty()) text << ", warnings=" << std::string(py::repr(warnings(r)));
  text << ")";
  return text.str();
}

py::tuple get_state(const R& r) {
  py::tuple counters(COUNTERS.size() + STATISTICS.size());
  std::size_t i = 0;
  for (const Counter& c : COUNTERS) counters[i++] = r.*c.member;
  for (const Counter& c : STATISTICS) counters[i++] = r.*c.member;
  const auto tuple_of = [](const auto& all, auto&& one) {
    py::tuple values(all.size());
    for (std::size_t k = 0; k < all.size(); ++k) values[k] = one(all[k]);
    return values;
  };
  const py::tuple starts = tuple_of(r.notifier, [](const NotifierStart& n) {
    return py::make_tuple(static_cast<int>(n.kind), n.start, n.end, n.ended);
  });
  const py::tuple bad = tuple_of(
      r.bad_cleared, [](const BadEntry& entry) { return py::make_tuple(entry.level, entry.addr); });
  const py::tuple warned =
      tuple_of(r.warnings, [](Warning w) { return py::int_(static_cast<int>(w)); });
  return py::make_tuple(counters, r.rss_file, r.flush.start, r.flush.end, pmd_flush(r), starts, bad,
                        warned, r.levels);
}

R set_state(const py::tuple& state) {
  R r;
  const py::tuple counters = state[0];
  std::size_t i = 0;
  for (const Counter& c : COUNTERS) r.*c.member = counters[i++].cast<u64>();
  for (const Counter& c : STATISTICS) r.*c.member = counters[i++].cast<u64>();
  r.rss_file = state[1].cast<i64>();
  r.flush = {state[2].cast<u64>(), state[3].cast<u64>()};
  for (const py::handle start : state[4]) r.pmd_flush.push_back(start.cast<u64>());
  for (const py::handle h : state[5]) {
    const auto n = h.cast<py::tuple>();
    r.notifier.push_back({static_cast<NotifierKind>(n[0].cast<int>()), n[1].cast<u64>(),
                          n[2].cast<u64>(), n[3].cast<bool>()});
  }
  for (const py::handle h : state[6]) {
    const auto b = h.cast<py::tuple>();
    r.bad_cleared.push_back({b[0].cast<Level>(), b[1].cast<u64>()});
  }
  for (const py::handle w : state[7]) r.warnings.push_back(static_cast<Warning>(w.cast<int>()));
  r.levels = state[8].cast<int>();
  return r;
}

}  // namespace

void register_results(py::module_& m) {
  ValueClass<R> cls(
      m, {"ptwalk.ProtectResult", "What one change of protection did, counted by kind.", asdict,
          get_state, set_state, repr});
  for (const Counter& c : COUNTERS) {
    cls.def_property_readonly(c.name, [member = c.member](const R& r) { return r.*member; });
  }
  for (const Counter& c : STATISTICS) {
    cls.def_property_readonly(c.name, [member = c.member](const R& r) { return r.*member; });
  }
  cls.def_property_readonly("bad_cleared", bad_cleared)
      .def_property_readonly("flush", flush)
      .def_property_readonly("notifier", notifier)
      .def_property_readonly("warnings", warnings)
      .def_property_readonly("rss_file", [](const R& r) { return r.rss_file; })
      .def_property_readonly("pmd_flush", pmd_flush)
      .def_property_readonly("notifier_unended", notifier_unended);
}

}  // namespace ptwalk::bindings
