// Checkpoints of a machine. python/ptwalk/machine.py documents them.
#include "convert.hpp"

namespace ptwalk::bindings {

namespace {

/// A checkpoint as Python holds it; it is released under the machine's lock.
struct BoundCheckpoint {
  explicit BoundCheckpoint(std::shared_ptr<Machine> of)
      : machine(std::move(of)),
        made(locked(*machine, 0, [this] { return machine->checkpoint(); })) {}
  BoundCheckpoint(const BoundCheckpoint&) = delete;
  BoundCheckpoint& operator=(const BoundCheckpoint&) = delete;
  ~BoundCheckpoint() {
    locked(*machine, WHOLE_SPACE, [this] { made.reset(); });
  }

  const std::shared_ptr<Machine> machine;
  std::shared_ptr<const Checkpoint> made;
};

/// Restores; how many files and userfaultfds there are then.
py::tuple restore(Machine& machine, const BoundCheckpoint& to) {
  const auto done = locked(machine, WHOLE_SPACE, [&] {
    const Error error = machine.restore(*to.made);
    return std::tuple{error, machine.files.size(), machine.uffds.size()};
  });
  finish(std::get<0>(done));
  return py::make_tuple(std::get<1>(done), std::get<2>(done));
}

}  // namespace

void register_checkpoint(py::module_& m) {
  py::class_<BoundCheckpoint>(m, "Checkpoint").def(py::init([](std::shared_ptr<Machine> machine) {
    return std::make_unique<BoundCheckpoint>(std::move(machine));
  }));
  m.def("restore", restore);
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(std::move(thrown));
    } catch (const SpaceGone&) {
      set_error({Cause::space_gone, "address space"});
    }
  });
}

}  // namespace ptwalk::bindings
