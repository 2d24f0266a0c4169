// _core.Machine: one kernel with its memory and files. The Python classes Machine and ShmemFile,
// RegularFile stand on it; a file is a number here.
#include <pybind11/stl.h>

#include "convert.hpp"
#include "ptwalk/hybrid.hpp"
#include "ptwalk/kernels.hpp"
#include "ptwalk/mutants.hpp"

namespace ptwalk::bindings {

namespace {

using MachinePtr = std::shared_ptr<Machine>;

const char* swp_kind_name(SwpKind kind) {
  switch (kind) {
    case SwpKind::swap: return "swap";
    case SwpKind::hwpoison: return "hwpoison";
    case SwpKind::migration_read: return "migration_read";
    case SwpKind::migration_read_exclusive: return "migration_read_exclusive";
    case SwpKind::migration_write: return "migration_write";
    case SwpKind::device_private_read: return "device_private_read";
    case SwpKind::device_private_write: return "device_private_write";
    case SwpKind::device_exclusive_read: return "device_exclusive_read";
    case SwpKind::device_exclusive_write: return "device_exclusive_write";
    case SwpKind::pte_marker: return "pte_marker";
    case SwpKind::swapin_error: return "swapin_error";
  }
  return "unknown";
}

const char* marker_format_name(MarkerFormat format) {
  switch (format) {
    case MarkerFormat::none: return "none";
    case MarkerFormat::special_pte: return "special_pte";
    case MarkerFormat::swap_type: return "swap_type";
  }
  return "unknown";
}

py::dict config_dict(const Profile& profile) {
  py::dict config;
  for (const std::string_view option : config_options()) {
    bool value = false;
    get_config(profile, option, value);
    config[py::str(option)] = value;
  }
  return config;
}

/// What decoding an entry needs to know about a profile.
py::dict profile_info(const std::string& name, const py::dict& config) {
  const Profile profile = make_profile(name, config);
  py::list kinds;
  for (const SwpKind kind : profile.swp_kinds) kinds.append(swp_kind_name(kind));
  py::dict info;
  info["name"] = profile.name;
  info["kernel"] = profile.kernel;
  info["config"] = config_dict(profile);
  info["swp_kinds"] = kinds;
  info["marker_format"] = marker_format_name(profile.marker_format);
  info["marker_mask"] = profile.marker_mask;
  info["saved_dirty_bit"] = profile.saved_dirty_bit;
  info["devmap_bit"] = profile.devmap_bit;
  info["soft_dirty_bit"] = profile.soft_dirty_bit();
  info["swp_soft_dirty_bit"] = profile.swp_soft_dirty_bit();
  info["swp_exclusive"] = profile.swp_exclusive;
  info["uffd_features"] = profile.uffd_features;
  info["wp_file_feature"] = profile.wp_file_feature;
  info["levels"] = py::make_tuple("pte", "pmd", "pud", "p4d", "pgd");
  return info;
}

/// Every rule and its value in words.
py::dict profile_rules(const std::string& name) {
  const Profile profile = make_profile(name, {});
  py::dict values;
  for (const Rule& rule : rules()) values[py::str(rule.name)] = rule.value(profile);
  return values;
}

template <class T>
py::tuple names_of(std::span<const T> all) {
  py::tuple names(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) names[i] = py::str(all[i].name);
  return names;
}

MachinePtr make_machine(const std::string& profile, const py::dict& config, py::handle levels,
                        py::handle max_tables) {
  const int n = levels_of(levels);
  const Profile made = make_profile(profile, config);
  return std::make_shared<Machine>(made, n, max_tables_of(max_tables));
}

/// Refuses ranges of a file that overflow; pages are whole, so bytes need no alignment.
void check_file_range(const char* call, u64 offset, u64 length) {
  constexpr u64 limit = (1ull << 63) - 1;  // loff_t
  if (offset > limit || length > limit - offset) {
    raise_invalid(std::string(call) + ": offset " + hex16(offset) + " and length " + hex16(length) +
                  " reach beyond 2**63 - 1, the largest file; shorten the range");
  }
}

py::array_t<u64> file_cached_pages(Machine& machine, FileId id) {
  std::vector<u64> pages;
  locked(machine, 0, [&] {
    const PageCache& cache = machine.files[static_cast<std::size_t>(id)].cache;
    for (u64 i = cache.next(0); i != PageCache::NO_INDEX; i = cache.next(i + 1))
      if (!cache.find(i)->swapped()) pages.push_back(i);
  });
  return py::array_t<u64>(static_cast<py::ssize_t>(pages.size()), pages.data());
}

u64 file_size(py::handle size) {
  const u64 bytes = word(size, "size");
  check_file_range("file", 0, bytes);
  return bytes;
}

FileId create_file(Machine& machine, const std::string& kind, u64 bytes, bool writable) {
  const FileKind which = kind == "regular" ? FileKind::regular : FileKind::shmem;
  return locked(machine, 0, [&] { return machine.create_file(which, bytes, writable); });
}

/// (kind, size in bytes, writable) of a file.
py::tuple file_info(Machine& machine, FileId id) {
  const auto [file_kind, size, writable] = locked(machine, 0, [&] {
    const File& f = machine.files[static_cast<std::size_t>(id)];
    return std::tuple{f.kind, f.size, f.writable};
  });
  const char* kind = file_kind == FileKind::regular ? "regular"
                     : file_kind == FileKind::dax   ? "dax"
                                                    : "shmem";
  return py::make_tuple(kind, size, writable);
}

}  // namespace

Profile make_profile(const std::string& name, const py::dict& config) {
  NamedProfile named = named_profile(name);
  if (!named.profile) raise_invalid(named.wrong);
  Profile& profile = *named.profile;
  for (const auto& [key, value] : config) {
    const bool is_name = PyUnicode_Check(key.ptr());
    if (!PyBool_Check(value.ptr())) {
      raise_invalid("config " + shown(key) + " is " + shown(value) + "; use True or False");
    }
    if (!is_name || !set_config(profile, key.cast<std::string>(), value.cast<bool>())) {
      std::string known;
      for (const std::string_view o : config_options())
        known += (known.empty() ? "" : ", ") + std::string(o);
      raise_invalid("config option " + shown(key) + " is not known; use one of " + known);
    }
  }
  return std::move(profile);
}

void register_profiles(py::module_& m) {
  m.def(
      "mutants",
      [] {
        std::vector<std::pair<std::string_view, std::string_view>> all;
        for (const MutantInfo& mutant : mutants()) all.emplace_back(mutant.name, mutant.text);
        return all;
      },
      "Names of the planted bugs and what is wrong; none in a normal build.");
  m.def(
      "choose_mutant",
      [](std::string_view name) {
        try {
          choose_mutant(name);
        } catch (const std::invalid_argument& refused) {
          raise_invalid(refused.what());
        }
      },
      py::arg("name"), "Plants one bug in the whole process, or none.");
  m.def("active_mutant", active_mutant, "The planted bug, an empty string for none.");
  m.def("kernels", [] { return names_of(kernels()); }, "Names of the leaf kernels that can run.");
  m.def("profiles", [] { return names_of(profiles()); }, "Names of all profiles, oldest first.");
  m.def(
      "trim", [] { return FrameCache::shared().trim(); },
      "Returns the memory of machines that are gone to the system; bytes.");
  m.def("profile_rules", profile_rules, "Every rule of a profile and its value in words.");
  m.def("profile_info", profile_info, py::arg("name"), py::arg("config"),
        "What decoding an entry needs to know about a profile.");
}

void register_machine(py::module_& m) {
  m.def("file_size", file_size, "A size in bytes that a file may have, or InvalidArgument.");
  py::class_<Machine, MachinePtr>(m, "Machine")
      .def(py::init(&make_machine))
      .def_property_readonly("profile", [](const Machine& s) { return s.profile.name; })
      .def_property_readonly("kernel", [](const Machine& s) { return s.profile.kernel; })
      .def_property_readonly("levels", [](const Machine& s) { return s.levels; })
      .def_property_readonly("config", [](const Machine& s) { return config_dict(s.profile); })
      .def_property(
          "threads", [](Machine& s) { return locked(s, 0, [&] { return s.threads; }); },
          [](Machine& s, py::handle threads) {
            const unsigned n = thread_count(threads);
            if (!n) raise_invalid("threads None is not a number; 1 keeps all work in the caller");
            locked(s, 0, [&] { s.threads = n; });
          })
      .def_property_readonly("max_tables", [](const Machine& s) { return s.frames.limit(); })
      .def("trim", [](Machine& s) { return locked(s, 0, [&] { return s.frames.trim(); }); })
      .def("create_file", create_file)
      .def("file_info", file_info)
      .def("file_cached_pages", file_cached_pages)
      .def("file_read",
           [](Machine& s, FileId id, py::handle offset, py::handle length) {
             const u64 o = word(offset, "offset"), n = word(length, "length");
             check_file_range("read", o, n);
             locked(s, n, [&] { s.file_read(id, o, n); });
           })
      .def("file_write",
           [](Machine& s, FileId id, py::handle offset, py::handle length) {
             const u64 o = word(offset, "offset"), n = word(length, "length");
             check_file_range("write", o, n);
             locked(s, n, [&] { s.file_write(id, o, n); });
           })
      .def("file_truncate",
           [](Machine& s, FileId id, py::handle size) {
             const u64 n = word(size, "size");
             check_file_range("truncate", 0, n);
             locked(s, n, [&] { s.file_truncate(id, n); });
           })
      .def("file_punch_hole", [](Machine& s, FileId id, py::handle offset, py::handle length) {
        const u64 o = word(offset, "offset"), n = word(length, "length");
        check_file_range("punch_hole", o, n);
        locked(s, n, [&] { s.file_punch_hole(id, o, n); });
      });
}

}  // namespace ptwalk::bindings
