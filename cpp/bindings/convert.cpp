// Integers from Python and errors to Python: see convert.hpp.
#include "convert.hpp"

#include <array>
#include <cstdio>
#include <string_view>

namespace ptwalk::bindings {

namespace {

constexpr std::size_t LONGEST_REPR = 60;
constexpr std::array<const char*, 6> LEVEL_NAMES{"", "pte", "pmd", "pud", "p4d", "pgd"};

py::object error_class(const char* name) { return py::module_::import("ptwalk.errors").attr(name); }

void set_instance(const py::object& instance) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(instance.ptr())), instance.ptr());
}

[[noreturn]] void raise_level(py::handle value, int levels) {
  raise_invalid("level " + shown(value) + " is not a level; use 'pte', 'pmd', 'pud', " +
                (levels == 5 ? "'p4d', " : "") + "'pgd' or 1 to " + std::to_string(levels));
}

}  // namespace

std::string hex16(u64 value) {
  std::array<char, 19> text;
  std::snprintf(text.data(), text.size(), "0x%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

const char* level_name(Level level, int levels) {
  return level == levels ? "pgd" : LEVEL_NAMES[static_cast<std::size_t>(level)];
}

void set_error(const Error& error, const py::object& done, const std::string& where) {
  const int number = errno_of(error.cause);
  const std::string text = describe(error) + where;
  set_instance(number ? error_class("KernelError")(number, text, done)
                      : error_class("InvalidArgument")(text));
}

void raise_invalid(const std::string& text) {
  set_instance(error_class("InvalidArgument")(text));
  throw py::error_already_set();
}

void raise(const Error& error, const py::object& done, const std::string& where) {
  set_error(error, done, where);
  throw py::error_already_set();
}

std::string shown(py::handle value) {
  try {
    std::string text = py::repr(value);
    if (text.size() <= LONGEST_REPR) return text;
  } catch (const py::error_already_set&) {
    // int.__repr__ refuses very long integers; the type is enough
  }
  return std::string("(a long ") + Py_TYPE(value.ptr())->tp_name + ")";
}

u64 word(py::handle value, const char* name) {
  if (PyLong_CheckExact(value.ptr())) {  // nearly always
    const u64 result = PyLong_AsUnsignedLongLong(value.ptr());
    if (result != ~0ull || !PyErr_Occurred()) return result;
    PyErr_Clear();  // told below
  }
  py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    PyErr_Clear();
    raise_invalid(std::string(name) + " " + shown(value) +
                  " is not an integer; pass an int from 0 to 2**64 - 1");
  }
  const u64 result = PyLong_AsUnsignedLongLong(index.ptr());
  if (result == ~0ull && PyErr_Occurred()) {
    PyErr_Clear();
    raise_invalid(std::string(name) + " " + shown(value) +
                  " is not an unsigned 64-bit integer; pass an int from 0 to 2**64 - 1");
  }
  return result;
}

u32 word32(py::handle value, const char* name) {
  const u64 result = word(value, name);
  if (result > 0x7fffffff) {
    raise_invalid(std::string(name) + " " + shown(value) +
                  " does not fit the system call's int; pass an int from 0 to 2**31 - 1");
  }
  return static_cast<u32>(result);
}

unsigned thread_count(py::handle value) {
  if (value.is_none()) return 0;
  const u64 n = word(value, "threads");
  if (n < 1 || n > 1024) {
    raise_invalid("threads " + std::to_string(n) +
                  " is not 1 to 1024; 1 keeps all work in the calling thread");
  }
  return static_cast<unsigned>(n);
}

int levels_of(py::handle value) {
  const u64 levels = word(value, "levels");
  if (levels != 4 && levels != 5)
    raise_invalid("levels " + shown(value) +
                  " is not 4 or 5; x86-64 walks 4 levels, or 5 with la57");
  return int(levels);
}

u64 max_tables_of(py::handle value) {
  if (value.is_none()) return FrameArena::DEFAULT_LIMIT;
  const u64 limit = word(value, "max_tables");
  if (limit == 0 || limit > FrameArena::DEFAULT_LIMIT)
    raise_invalid("max_tables " + std::to_string(limit) + " is not 1 to " +
                  std::to_string(FrameArena::DEFAULT_LIMIT) + "; leave it out for the largest");
  return limit;
}

Level level_of(py::handle value, int levels) {
  Level level = 0;
  if (PyUnicode_Check(value.ptr())) {
    const auto name = value.cast<std::string>();
    for (std::size_t i = 1; i < LEVEL_NAMES.size(); ++i) {
      if (name == LEVEL_NAMES[i]) level = static_cast<Level>(i);
    }
    if (level == 5) level = levels;
  } else {
    const u64 number = word(value, "level");
    level = number <= 5 ? static_cast<Level>(number) : 0;
  }
  if (level < PTE_LEVEL || level > levels) raise_level(value, levels);
  return level;
}

void check_range(const char* call, u64 start, u64 length, u64 limit) {
  const std::string prefix = std::string(call) + ": ";
  if (!is_aligned(start, PAGE_SIZE)) {
    raise_invalid(prefix + "start " + hex16(start) +
                  " is not page aligned (4096); round down with ptwalk.page_align_down");
  }
  if (!is_aligned(length, PAGE_SIZE)) {
    raise_invalid(prefix + "length " + hex16(length) +
                  " is not a multiple of the page size (4096); round up with ptwalk.page_align");
  }
  if (start > limit || length > limit - start) {
    raise_invalid(prefix + "start " + hex16(start) + " and length " + hex16(length) +
                  " reach beyond the user address space, which ends at " + hex16(limit) +
                  "; shorten the range");
  }
}

bool is_packed(const py::array& array) {
  constexpr int aligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  return array.ndim() == 1 && (array.flags() & py::array::c_style) && (array.flags() & aligned);
}

py::object done_or_none(const Error& error, const py::object& done) {
  switch (error.cause) {
    case Cause::start_unaligned:
    case Cause::length_unaligned:
    case Cause::length_zero:
    case Cause::length_overflow:
    case Cause::start_below_min:
    case Cause::beyond_task_size:
    case Cause::offset_unaligned:
    case Cause::bad_flags:
    case Cause::bad_prot:
    case Cause::grow_both:
    case Cause::bad_mode:
    case Cause::mmap_changing:
    case Cause::closed:
    case Cause::api_missing:
    case Cause::bad_scan: return py::none();
    default: return done;
  }
}

namespace {

const char* vma_kind_name(VmaKind kind) {
  switch (kind) {
    case VmaKind::anon: return "anon";
    case VmaKind::shmem: return "shmem";
    case VmaKind::regular: return "regular";
    case VmaKind::hugetlb: return "hugetlb";
    case VmaKind::dax: return "dax";
    case VmaKind::other: return "other";
  }
  return "unknown";
}

}  // namespace

std::optional<NamedVma> named_vma(const AddressSpace& mm, u64 addr) {
  const Vma* vma = mm.vmas.find(addr);
  if (vma == nullptr) return std::nullopt;
  return NamedVma{*vma, mm.names[vma->name]};
}

py::tuple vma_tuple(const NamedVma& named) {
  const Vma& v = named.vma;
  return py::make_tuple(v.start, v.end, v.flags, v.page_prot, v.pgoff, v.file, v.uffd,
                        vma_kind_name(v.kind), named.name);
}

BoundProtectResult finish_protect(Result<ProtectResult>&& result, int levels) {
  BoundProtectResult account{std::move(result.value), levels};
  if (!result.ok()) raise(result.error, done_or_none(result.error, py::cast(std::move(account))));
  return account;
}

BoundProtectResult finish_ranges(Result<RangesResult>&& result, u64 nr, int levels) {
  BoundProtectResult sum{std::move(result.value.result), levels};
  if (result.ok()) return sum;
  const u64 done = result.value.done;
  raise(result.error, py::make_tuple(done, std::move(sum)),
        " (range " + std::to_string(done) + " of " + std::to_string(nr) + ", counted from 0)");
}

}  // namespace ptwalk::bindings
