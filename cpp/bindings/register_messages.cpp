// ptwalk.AccessResult, UffdMsg, Signal and PendingFault: what an access did and whom it told, as
// immutable Python values with the kernel's names.
#include "convert.hpp"

namespace ptwalk::bindings {

namespace {

const char* event_name(UffdEvent event) {
  switch (event) {
    case UffdEvent::pagefault: return "pagefault";
    case UffdEvent::fork: return "fork";
    case UffdEvent::remap: return "remap";
    case UffdEvent::remove: return "remove";
    case UffdEvent::unmap: return "unmap";
  }
  return "unknown";
}

const char* outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::done: return "done";
    case Outcome::blocked: return "blocked";
    case Outcome::signal: return "signal";
  }
  return "unknown";
}

const char* signal_name(int signo) {
  return signo == 7 ? "SIGBUS" : signo == 9 ? "SIGKILL" : "SIGSEGV";
}

std::string flag_names(u64 flags) {
  std::string names;
  const auto add = [&](u64 flag, const char* name) {
    if (flags & flag) names += (names.empty() ? "" : "|") + std::string(name);
  };
  add(UFFD_PAGEFAULT_FLAG_WRITE, "WRITE");
  add(UFFD_PAGEFAULT_FLAG_WP, "WP");
  add(UFFD_PAGEFAULT_FLAG_MINOR, "MINOR");
  return names;
}

std::string message_repr(const UffdMsg& m) {
  std::string text = std::string("UffdMsg(") + event_name(m.event);
  if (m.flags != 0) text += " " + flag_names(m.flags);
  if (m.event == UffdEvent::fork) return text + ", child=" + std::to_string(m.child) + ")";
  text += ", address=" + hex16(m.address);
  if (m.event == UffdEvent::remap) text += ", to=" + hex16(m.to) + ", length=" + hex16(m.length);
  if (m.event == UffdEvent::remove || m.event == UffdEvent::unmap) text += ", end=" + hex16(m.to);
  return text + ")";
}

std::string signal_repr(const Signal& s) {
  return std::string(signal_name(s.signo)) + " code " + std::to_string(s.code);
}

std::string access_repr(const AccessResult& r) {
  std::string text = std::string("AccessResult(") + outcome_name(r.outcome);
  if (r.message) text += ", " + message_repr(*r.message);
  if (r.outcome == Outcome::signal) text += ", " + signal_repr(r.signal);
  return text + ")";
}

std::string pending_repr(const PendingFault& f) {
  return "PendingFault(" + hex16(f.address) + (f.write ? ", write" : ", read") +
         (f.woken ? ", woken)" : ")");
}

/// `value` where the event has that field, None elsewhere.
py::object only_if(bool has, u64 value) { return has ? py::object(py::int_(value)) : py::none(); }

py::object message_to(const UffdMsg& m) { return only_if(m.event == UffdEvent::remap, m.to); }
py::object message_length(const UffdMsg& m) {
  return only_if(m.event == UffdEvent::remap, m.length);
}
py::object message_end(const UffdMsg& m) {
  return only_if(m.event == UffdEvent::remove || m.event == UffdEvent::unmap, m.to);
}
py::object message_child(const UffdMsg& m) {
  return m.event == UffdEvent::fork ? py::object(py::int_(m.child)) : py::none();
}

py::tuple message_state(const UffdMsg& m) {
  return py::make_tuple(static_cast<int>(m.event), m.flags, m.address, m.to, m.length, m.child,
                        m.thread);
}

UffdMsg message_from(const py::tuple& t) {
  return {static_cast<UffdEvent>(t[0].cast<int>()),
          t[1].cast<u64>(),
          t[2].cast<u64>(),
          t[3].cast<u64>(),
          t[4].cast<u64>(),
          t[5].cast<UffdId>(),
          t[6].cast<u32>()};
}

py::dict message_dict(const UffdMsg& m) {
  py::dict d;
  d["event"] = event_name(m.event);
  d["flags"] = m.flags;
  d["address"] = m.address;
  d["to"] = message_to(m);
  d["length"] = message_length(m);
  d["end"] = message_end(m);
  d["child"] = message_child(m);
  d["ptid"] = m.thread;
  return d;
}

py::tuple signal_state(const Signal& s) { return py::make_tuple(s.signo, s.code); }
Signal signal_from(const py::tuple& t) { return {t[0].cast<int>(), t[1].cast<int>()}; }

py::dict signal_dict(const Signal& s) {
  py::dict d;
  d["signo"] = s.signo;
  d["code"] = s.code;
  return d;
}

py::object access_message(const AccessResult& r) {
  return r.message ? py::cast(*r.message) : py::none();
}
py::object access_signal(const AccessResult& r) {
  return r.outcome == Outcome::signal ? py::cast(r.signal) : py::none();
}

py::tuple access_state(const AccessResult& r) {
  return py::make_tuple(static_cast<int>(r.outcome), r.address, r.before, r.after,
                        signal_state(r.signal),
                        r.message ? py::object(message_state(*r.message)) : py::none());
}

AccessResult access_from(const py::tuple& t) {
  AccessResult r{
      static_cast<Outcome>(t[0].cast<int>()), t[1].cast<u64>(), t[2].cast<u64>(), t[3].cast<u64>(),
      signal_from(t[4].cast<py::tuple>()),    std::nullopt};
  if (!t[5].is_none()) r.message = message_from(t[5].cast<py::tuple>());
  return r;
}

py::dict access_dict(const AccessResult& r) {
  py::dict d;
  d["outcome"] = outcome_name(r.outcome);
  d["address"] = r.address;
  d["before"] = r.before;
  d["after"] = r.after;
  d["message"] = access_message(r);
  d["signal"] = access_signal(r);
  return d;
}

py::tuple pending_state(const PendingFault& f) {
  return py::make_tuple(f.address, f.write, f.uffd, message_state(f.message), f.woken);
}

PendingFault pending_from(const py::tuple& t) {
  return {t[0].cast<u64>(), t[1].cast<bool>(), t[2].cast<UffdId>(),
          message_from(t[3].cast<py::tuple>()), t[4].cast<bool>()};
}

py::dict pending_dict(const PendingFault& f) {
  py::dict d;
  d["address"] = f.address;
  d["write"] = f.write;
  d["uffd"] = f.uffd;
  d["message"] = f.message;
  d["woken"] = f.woken;
  return d;
}

}  // namespace

void register_messages(py::module_& m) {
  ValueClass<UffdMsg>(m, {"ptwalk.UffdMsg", "One message of a userfaultfd, as read(2) returns it.",
                          message_dict, message_state, message_from, message_repr})
      .def_property_readonly("event", [](const UffdMsg& v) { return event_name(v.event); })
      .def_property_readonly("flags", [](const UffdMsg& v) { return v.flags; })
      .def_property_readonly("address", [](const UffdMsg& v) { return v.address; })
      .def_property_readonly("ptid", [](const UffdMsg& v) { return v.thread; })
      .def_property_readonly("to", message_to)
      .def_property_readonly("length", message_length)
      .def_property_readonly("end", message_end)
      .def_property_readonly("child", message_child);
  ValueClass<Signal>(m, {"ptwalk.Signal", "A signal with the code that siginfo gives.", signal_dict,
                         signal_state, signal_from, signal_repr})
      .def_property_readonly("signo", [](const Signal& s) { return s.signo; })
      .def_property_readonly("code", [](const Signal& s) { return s.code; })
      .def_property_readonly("name", [](const Signal& s) { return signal_name(s.signo); });
  ValueClass<AccessResult>(m, {"ptwalk.AccessResult", "What one load or store did.", access_dict,
                               access_state, access_from, access_repr})
      .def_property_readonly("outcome",
                             [](const AccessResult& r) { return outcome_name(r.outcome); })
      .def_property_readonly("address", [](const AccessResult& r) { return r.address; })
      .def_property_readonly("before", [](const AccessResult& r) { return r.before; })
      .def_property_readonly("after", [](const AccessResult& r) { return r.after; })
      .def_property_readonly("message", access_message)
      .def_property_readonly("signal", access_signal);
  ValueClass<PendingFault>(m, {"ptwalk.PendingFault", "A fault that waits in handle_userfault().",
                               pending_dict, pending_state, pending_from, pending_repr})
      .def_property_readonly("address", [](const PendingFault& f) { return f.address; })
      .def_property_readonly("write", [](const PendingFault& f) { return f.write; })
      .def_property_readonly("uffd", [](const PendingFault& f) { return f.uffd; })
      .def_property_readonly("message", [](const PendingFault& f) { return f.message; })
      .def_property_readonly("woken", [](const PendingFault& f) { return f.woken; });
}

}  // namespace ptwalk::bindings
