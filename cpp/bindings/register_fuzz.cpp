// _core.FuzzExecutor and the tables of the fuzzing backend. python/ptwalk/fuzz documents them.
#include <pybind11/stl.h>

#include "convert.hpp"
#include "ptwalk/fuzz/executor.hpp"
#include "ptwalk/fuzz/mix.hpp"
#include "ptwalk/fuzz/setups.hpp"
#include "ptwalk/fuzz/text.hpp"
#include "ptwalk/fuzz/yardstick.hpp"

namespace ptwalk::bindings {

namespace {

using fuzz::Executor;

constexpr const char* ROLES[] = {"number", "place", "length", "pages",
                                 "choice", "flags", "prot",   "choice_or_file"};
constexpr const char* MEMBERS[] = {"mm", "page", "nr", "arg", "page2", "extra"};

py::tuple strings(std::span<const std::string_view> all) {
  py::tuple names(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) names[i] = py::str(all[i]);
  return names;
}

/// (name, raw, ((name, role, member, shift, bits, names), …)) of every operation.
py::tuple operations() {
  py::list rows;
  for (const fuzz::Operation& row : fuzz::operations()) {
    py::list fields;
    for (const fuzz::Field& f : row.fields)
      fields.append(py::make_tuple(f.name, ROLES[static_cast<std::size_t>(f.role)],
                                   MEMBERS[static_cast<std::size_t>(f.member)], f.shift, f.bits,
                                   strings(f.names)));
    rows.append(py::make_tuple(row.name, row.raw, py::tuple(fields)));
  }
  return rows;
}

/// What each value of a place or a length stands for.
py::tuple values(u64 (*value)(u8)) {
  py::tuple all(256);
  for (unsigned i = 0; i < 256; ++i) all[i] = value(u8(i));
  return all;
}

py::bytes bytes_of(std::span<const u8> program) {
  return {reinterpret_cast<const char*>(program.data()), program.size()};
}

/// (name, what it is, program) of every setup.
py::tuple setups() {
  py::list rows;
  for (const fuzz::Setup& setup : fuzz::setups())
    rows.append(py::make_tuple(setup.name, setup.what, bytes_of(fuzz::encode(setup.ops))));
  return rows;
}

std::span<const u8> program_of(const py::bytes& program) {
  char* data = nullptr;
  py::ssize_t size = 0;
  if (PyBytes_AsStringAndSize(program.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {reinterpret_cast<const u8*>(data), static_cast<std::size_t>(size)};
}

/// `n` programs of the standard mix, a row for each.
py::array_t<u8> standard_mix(py::handle n, py::handle seed) {
  constexpr std::size_t WIDTH = fuzz::MIX_OPS * fuzz::OP_BYTES;
  const u64 nr = word(n, "n"), s = word(seed, "seed");
  py::array_t<u8> programs({static_cast<py::ssize_t>(nr), static_cast<py::ssize_t>(WIDTH)});
  u8* const data = programs.mutable_data();
  for (u64 i = 0; i < nr; ++i)
    fuzz::standard_program(s, i, std::span<u8, WIDTH>(data + i * WIDTH, WIDTH));
  return programs;
}

/// (what, percent) of each kind of operation of the standard mix.
py::tuple mix_shares() {
  py::list rows;
  for (const fuzz::MixShare& share : fuzz::mix_shares())
    rows.append(py::make_tuple(share.what, share.percent));
  return rows;
}

/// An executor with the lock that makes its calls take turns.
struct BoundExecutor {
  BoundExecutor(const Profile& profile, std::span<const u8> setup, const fuzz::Options& options)
      : executor(profile, setup, options) {}
  std::mutex mutex;
  Executor executor;
};

std::unique_ptr<BoundExecutor> make_executor(const std::string& profile, const py::dict& config,
                                             const py::bytes& setup, const std::string& kernel,
                                             bool raw, bool judge_each, py::handle levels,
                                             py::handle max_tables) {
  fuzz::Options options{.raw = raw, .judge = judge_each ? fuzz::Judge::each : fuzz::Judge::end};
  options.levels = levels_of(levels);
  options.max_tables = max_tables_of(max_tables);
  if (!kernel.empty()) {
    std::string known;
    const KernelInfo* found = nullptr;
    for (const KernelInfo& info : supported_kernels()) {
      if (info.name == kernel) found = &info;
      known += (known.empty() ? "" : ", ") + std::string(info.name);
    }
    if (!found)
      raise_invalid("kernel " + shown(py::str(kernel)) + " cannot run here; use one of " + known);
    options.kernel = found;
  }
  return std::make_unique<BoundExecutor>(make_profile(profile, config), program_of(setup), options);
}

/// (digest, visible, coverage, violations, operations).
py::tuple run(BoundExecutor& bound, const py::bytes& program) {
  py::array_t<u64> coverage(static_cast<py::ssize_t>(fuzz::branches().size()));
  const std::scoped_lock lock(bound.mutex);
  const fuzz::RunResult result = bound.executor.run(program_of(program));
  const std::span<const u64> counts = bound.executor.coverage();
  std::copy(counts.begin(), counts.end(), coverage.mutable_data());
  return py::make_tuple(result.digest, result.visible, coverage, result.violations, result.ops);
}

using Programs = std::vector<fuzz::BatchItem>;

/// The rows of a two-dimensional array of bytes, or the bytes objects of a sequence.
Programs programs_of(const py::object& object) {
  Programs programs;
  if (py::isinstance<py::array>(object)) {
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (!array.dtype().equal(py::dtype::of<u8>()) || array.ndim() != 2 ||
        !(array.flags() & py::array::c_style)) {
      raise_invalid("programs has dtype " + std::string(py::str(array.dtype())) + " and shape " +
                    std::string(py::str(array.attr("shape"))) +
                    "; pass a C-contiguous uint8 array with a row for each program");
    }
    const auto* data = static_cast<const u8*>(array.data());
    const auto width = static_cast<std::size_t>(array.shape(1));
    for (py::ssize_t i = 0; i < array.shape(0); ++i)
      programs.push_back({{data + static_cast<std::size_t>(i) * width, width}});
    return programs;
  }
  for (const py::handle item : object) {
    if (!PyBytes_Check(item.ptr()))
      raise_invalid("program " + shown(item) + " is no bytes object; use bytes()");
    programs.push_back({program_of(py::reinterpret_borrow<py::bytes>(item))});
  }
  return programs;
}

/// (digest, visible, coverage or None, violations); arrays with a row for each program.
py::tuple run_batch(BoundExecutor& bound, const py::object& object, bool with_coverage) {
  const py::object kept = py::isinstance<py::array>(object) ? object : py::tuple(object);
  Programs programs = programs_of(kept);
  const auto n = static_cast<py::ssize_t>(programs.size());
  const auto width = static_cast<py::ssize_t>(fuzz::branches().size());
  py::array_t<u64> digest(n), visible(n), violations(n);
  py::object coverage = py::none();
  if (with_coverage) {
    py::array_t<u8> counts({n, width});
    for (py::ssize_t i = 0; i < n; ++i)
      programs[static_cast<std::size_t>(i)].coverage = counts.mutable_data(i, 0);
    coverage = counts;
  }
  std::vector<fuzz::RunResult> results(programs.size());
  {
    const py::gil_scoped_release released;
    const std::scoped_lock lock(bound.mutex);
    bound.executor.run_batch(programs, results);
  }
  for (py::ssize_t i = 0; i < n; ++i) {
    const fuzz::RunResult& result = results[static_cast<std::size_t>(i)];
    digest.mutable_at(i) = result.digest;
    visible.mutable_at(i) = result.visible;
    violations.mutable_at(i) = result.violations;
  }
  return py::make_tuple(digest, visible, coverage, violations);
}

/// What run_batch does for an array, in a loop of C++ that keeps no results.
u64 run_all(BoundExecutor& bound, const py::array_t<u8, py::array::c_style>& programs) {
  if (programs.ndim() != 2 || programs.shape(1) == 0)
    raise_invalid("programs has shape " + std::string(py::str(programs.attr("shape"))) +
                  "; pass an array with a row for each program");
  const std::span<const u8> bytes(programs.data(), static_cast<std::size_t>(programs.size()));
  const auto width = static_cast<std::size_t>(programs.shape(1));
  const py::gil_scoped_release released;
  const std::scoped_lock lock(bound.mutex);
  return fuzz::run_all(bound.executor, bytes, width);
}

double restore_ns(const std::string& profile, py::handle times) {
  return fuzz::restore_ns(make_profile(profile, {}), word(times, "times"));
}

/// (outcome, visible) of each operation, in words.
py::list steps(BoundExecutor& bound, const py::bytes& program) {
  py::list texts;
  const std::scoped_lock lock(bound.mutex);
  for (const fuzz::Step& step : bound.executor.steps(program_of(program)))
    texts.append(py::make_tuple(step.outcome, step.visible));
  return texts;
}

u64 checkpoint(BoundExecutor& bound) {
  const std::scoped_lock lock(bound.mutex);
  return bound.executor.checkpoint();
}

void restore(BoundExecutor& bound, py::handle number) {
  const u64 wanted = word(number, "checkpoint");
  const std::scoped_lock lock(bound.mutex);
  if (!bound.executor.restore(wanted))
    raise_invalid("checkpoint " + std::to_string(wanted) +
                  " is none of this executor's, or was given up by going back to an earlier one; "
                  "pass what checkpoint() returned since, or 0 for the setup's state");
}

u64 state_hash(BoundExecutor& bound) {
  const std::scoped_lock lock(bound.mutex);
  return bound.executor.state_hash();
}

u64 entries_hash(BoundExecutor& bound) {
  const std::scoped_lock lock(bound.mutex);
  return bound.executor.entries_hash();
}

}  // namespace

void register_fuzz(py::module_& m) {
  m.attr("FUZZ_FORMAT_VERSION") = fuzz::FORMAT_VERSION;
  m.attr("FUZZ_MAX_OPS") = fuzz::MAX_OPS;
  m.attr("FUZZ_MAX_LENGTH") = fuzz::MAX_PAGES * PAGE_SIZE;
  m.def("fuzz_places", [] { return values(fuzz::address_of); }, "The address of each place.");
  m.def("fuzz_lengths", [] { return values(fuzz::length_of); }, "The bytes of each length.");
  m.def("fuzz_operations", operations, "Names, raw or not, and fields of all operations.");
  m.def("fuzz_standard_mix", standard_mix, "Programs of the standard mix.");
  m.def("fuzz_mix_shares", mix_shares, "Kinds of operations of the standard mix, in percent.");
  m.def("fuzz_setups", setups, "Names, descriptions and programs of all setups.");
  m.def(
      "fuzz_violations", [] { return strings(fuzz::violation_names()); },
      "Names of the violations, in the order of their bits.");
  m.def(
      "fuzz_text", [](const py::bytes& program) { return fuzz::to_text(program_of(program)); },
      "A program as text.", py::arg("program"), py::pos_only());
  m.def("fuzz_branches", [] {
    py::list names;
    for (const std::string& name : fuzz::branches()) names.append(name);
    return py::tuple(names);
  });
  m.def("fuzz_restore_ns", restore_ns, "Nanoseconds of a restore, the fastest of many.");
  py::class_<BoundExecutor>(m, "FuzzExecutor")
      .def(py::init(&make_executor))
      .def("run", run)
      .def("run_batch", run_batch)
      .def("run_all", run_all)
      .def("steps", steps)
      .def("checkpoint", checkpoint)
      .def("restore", restore)
      .def("state_hash", state_hash)
      .def("entries_hash", entries_hash);
}

}  // namespace ptwalk::bindings
