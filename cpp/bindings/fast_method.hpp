// Methods that CPython calls without pybind11's dispatcher, which takes longer than a short call
// needs for its work. Arguments are positional; whoever passes others is told by a TypeError.
#pragma once

#include <array>

#include "convert.hpp"

namespace ptwalk::bindings {

/// Does `body`, which returns a new reference; an exception becomes Python's.
template <class Body>
PyObject* guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (...) {
    py::detail::try_translate_exceptions();
  }
  return nullptr;
}

/// The T in an object of its pybind11 class; PyDescr_NewMethod has checked the class.
template <class T>
T& self_of(PyObject* self) {
  auto* value = static_cast<T*>(
      reinterpret_cast<py::detail::instance*>(self)->get_value_and_holder().value_ptr());
  if (!value) throw py::type_error("the object was never initialised");
  return *value;
}

/// The call of a function of a T and handles.
template <auto function>
struct FastMethod;

template <class R, class T, class... Handles, R (*function)(T&, Handles...)>
struct FastMethod<function> {
  using Self = T;
  static PyObject* call(PyObject* self, PyObject* const* args, Py_ssize_t nr) {
    return guarded([&] {
      if (nr != static_cast<Py_ssize_t>(sizeof...(Handles)))
        throw py::type_error("expected " + std::to_string(sizeof...(Handles)) + " arguments, got " +
                             std::to_string(nr));
      R result = apply(self_of<T>(self), args, std::index_sequence_for<Handles...>());
      if constexpr (std::is_base_of_v<py::object, R>)
        return result.release().ptr();
      else
        return py::cast(std::move(result)).release().ptr();
    });
  }

 private:
  template <std::size_t... I>
  static R apply(T& self, PyObject* const* args, std::index_sequence<I...>) {
    return function(self, py::handle(args[I])...);
  }
};

/// Adds a method; `definition` lives as long as the process.
inline void add_method(py::handle cls, PyMethodDef& definition) {
  PyObject* method = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(cls.ptr()), &definition);
  if (!method) throw py::error_already_set();
  cls.attr(definition.ml_name) = py::reinterpret_steal<py::object>(method);
}

template <auto function>
void def_fast(py::class_<typename FastMethod<function>::Self>& cls, const char* name) {
  static PyMethodDef definition{
      name, reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(FastMethod<function>::call)),
      METH_FASTCALL, nullptr};
  add_method(cls, definition);
}

/// The arguments of a call by position and keyword, in the order of `names`; nullptr where one is
/// left out. The first `positional` may be given by position, and none of them left out.
template <std::size_t N>
std::array<PyObject*, N> arguments(const std::array<const char*, N>& names, std::size_t positional,
                                   PyObject* const* args, Py_ssize_t nr, PyObject* keywords) {
  std::array<PyObject*, N> found{};
  const auto given = static_cast<std::size_t>(nr);
  if (given > positional)
    throw py::type_error("takes " + std::to_string(positional) + " positional arguments but " +
                         std::to_string(given) + " were given");
  for (std::size_t i = 0; i < given; ++i) found[i] = args[i];
  const Py_ssize_t nr_keywords = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < nr_keywords; ++k) {
    PyObject* keyword = PyTuple_GET_ITEM(keywords, k);
    std::size_t i = 0;
    while (i < N && PyUnicode_CompareWithASCIIString(keyword, names[i]) != 0) ++i;
    if (i == N) throw py::type_error("got an unexpected keyword argument " + shown(keyword));
    if (found[i]) throw py::type_error("got multiple values for argument " + shown(keyword));
    found[i] = args[nr + k];
  }
  for (std::size_t i = 0; i < positional; ++i)
    if (!found[i])
      throw py::type_error(std::string("missing required argument '") + names[i] + "'");
  return found;
}

}  // namespace ptwalk::bindings
