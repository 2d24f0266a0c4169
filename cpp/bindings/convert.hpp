// What every binding needs: integers from Python, errors to Python, the machine's lock, and the
// handle on an address space. Nothing here models the kernel; only cpp/bindings includes pybind11.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "value_class.hpp"

namespace ptwalk::bindings {

namespace py = pybind11;

/// A packed array; an argument of this type has been made so by the Python side.
template <class T>
using Array = py::array_t<T, py::array::c_style>;

/// Work on more bytes than this releases the GIL at once: below, releasing costs more than the
/// work.
inline constexpr u64 LONG_WORK = 4096 * PAGE_SIZE;

inline constexpr u64 WHOLE_SPACE = ~0ull;

/// Does `work` under the machine's lock. The GIL is released while waiting for the lock and during
/// long work, so `work` must not touch Python objects.
template <class Work>
auto locked(Machine& machine, u64 bytes, Work&& work) {
  std::optional<py::gil_scoped_release> released;
  std::unique_lock lock(machine.mutex, std::defer_lock);  // unlocked before the GIL is taken again
  if (bytes > LONG_WORK || !lock.try_lock()) {
    released.emplace();
    lock.lock();
  }
  return work();
}

/// Thrown by a call on an address space that a restored checkpoint did not have.
struct SpaceGone {};

/// An address space as Python holds it; the last holder destroys it under the machine's lock.
struct Space {
  explicit Space(std::shared_ptr<AddressSpace> space) : mm(std::move(space)) {}
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;
  ~Space() {
    const std::shared_ptr<Machine> machine = mm->machine;
    locked(*machine, WHOLE_SPACE, [this] { mm.reset(); });
  }
  template <class Work>
  auto call(u64 bytes, Work&& work) const {
    return locked(*mm->machine, bytes, [&] {
      if (mm->gone) throw SpaceGone{};
      return work();
    });
  }
  /// The same on at most that many threads; 0: as the machine says.
  template <class Work>
  auto call(u64 bytes, unsigned threads, Work&& work) const {
    return call(bytes, [&] {
      struct Restore {
        unsigned& threads;
        const unsigned before;
        ~Restore() { threads = before; }
      } const restore{mm->machine->threads, mm->machine->threads};
      if (threads) mm->machine->threads = threads;
      return work();
    });
  }
  [[nodiscard]] int levels() const { return mm->machine->levels; }
  /// End of the user half: one page above TASK_SIZE, so that raw stores reach every user entry.
  [[nodiscard]] u64 user_end() const { return task_size(levels()) + PAGE_SIZE; }

  std::shared_ptr<AddressSpace> mm;
};

/// A ProtectResult with the number of levels, which decides what the top level is called.
struct BoundProtectResult : ProtectResult {
  int levels = 4;
};

/// A copy of a VMA and its name, for use without the lock.
struct NamedVma {
  Vma vma;
  std::string name;
};
/// The VMA that holds `addr`.
std::optional<NamedVma> named_vma(const AddressSpace& mm, u64 addr);
/// Its fields in the order of ptwalk.vma.vma_from_core.
py::tuple vma_tuple(const NamedVma& named);

/// "0x00007f0000000000".
std::string hex16(u64 value);
/// "pte" … "pgd"; the top level is the pgd, with 4 levels too.
const char* level_name(Level level, int levels);

/// The profile of that name with `config` applied; InvalidArgument for unknown names.
Profile make_profile(const std::string& name, const py::dict& config);

/// Sets the Python error of a cause, to be raised; `done` is the result so far, `where` ends the
/// text.
void set_error(const Error& error, const py::object& done = py::none(),
               const std::string& where = "");
[[noreturn]] void raise_invalid(const std::string& text);
/// Raises InvalidArgument or KernelError, as the cause says.
[[noreturn]] void raise(const Error& error, const py::object& done = py::none(),
                        const std::string& where = "");
/// `repr(value)`, or its type where that is impossible or too long to read.
std::string shown(py::handle value);

/// A Python integer as an unsigned 64-bit word; InvalidArgument names `name` otherwise.
u64 word(py::handle value, const char* name);
/// The same for the 32-bit arguments of system calls.
u32 word32(py::handle value, const char* name);
/// Whether a value is true, as `if` asks.
inline bool truth(py::handle value) {
  const int result = PyObject_IsTrue(value.ptr());
  if (result < 0) throw py::error_already_set();
  return result;
}
/// A number of threads, 1 to 1024; 0 for None, the machine's default.
unsigned thread_count(py::handle value);
/// A level from its name or number. With 4 levels the p4d is folded into the pgd.
Level level_of(py::handle value, int levels);
/// A number of levels, 4 or 5.
int levels_of(py::handle value);
/// A limit on table frames; the largest for None.
u64 max_tables_of(py::handle value);
/// Refuses a range that is unaligned, or ends above the user address space; for calls that are
/// ours.
void check_range(const char* call, u64 start, u64 length, u64 limit);

/// Whether an array has one dimension, and its elements lie aligned and side by side.
bool is_packed(const py::array& array);

inline void finish(const Error& error) {
  if (error) raise(error);
}
/// The result so far, or None for a cause that is found before anything is done.
py::object done_or_none(const Error& error, const py::object& done);

template <class T>
T finish(Result<T>&& result) {
  if (!result.ok()) raise(result.error);
  return std::move(result.value);
}
/// The same for a call that may stop half-way: its value is then the `done` of the error.
template <class T>
T finish_counted(Result<T>&& result) {
  if (!result.ok()) raise(result.error, done_or_none(result.error, py::cast(result.value)));
  return std::move(result.value);
}
BoundProtectResult finish_protect(Result<ProtectResult>&& result, int levels);
/// The sum for `nr` ranges; `done` of the error is a tuple of the fields of
/// ptwalk.ranges.RangesDone.
BoundProtectResult finish_ranges(Result<RangesResult>&& result, u64 nr, int levels);

using SpaceClass = py::class_<Space>;
void register_results(py::module_& m);
void register_messages(py::module_& m);
void register_profiles(py::module_& m);
void register_machine(py::module_& m);
void register_checkpoint(py::module_& m);
void register_yardstick(py::module_& m);
void register_system_calls(SpaceClass& space);
void register_userfaultfd(py::module_& m, SpaceClass& space);
void register_queries(SpaceClass& space);
void register_raw(SpaceClass& space);
void register_pages(SpaceClass& space);
void register_fuzz(py::module_& m);

}  // namespace ptwalk::bindings
