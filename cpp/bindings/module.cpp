// The extension module ptwalk._core: a thin bridge from Python to the core. Users import ptwalk,
// whose classes hold these; arguments here are positional, and messages are those of ptwalk.errors.
#include "convert.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace ptwalk::bindings;
  m.doc() = "Bridge to the C++ core of ptwalk; not for direct use, import ptwalk.";
  register_checkpoint(m);
  register_profiles(m);
  register_results(m);
  register_messages(m);
  register_machine(m);
  SpaceClass space(m, "AddressSpace");
  register_system_calls(space);
  register_userfaultfd(m, space);
  register_queries(space);
  register_raw(space);
  register_pages(space);
  register_yardstick(m);
  register_fuzz(m);
}
