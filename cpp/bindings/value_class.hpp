// Python classes of immutable values that lie in the objects themselves. pybind11 keeps a value
// apart from its instance and both in tables; for what every call returns, that costs more than the
// call. A type is one of these classes where IS_VALUE says so, and pybind11 then converts it.
#pragma once

#include <pybind11/pybind11.h>

#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "ptwalk/address_space.hpp"

namespace ptwalk::bindings {

namespace py = pybind11;

struct BoundProtectResult;

template <class T>
inline constexpr bool IS_VALUE =
    std::is_same_v<T, BoundProtectResult> || std::is_same_v<T, AccessResult> ||
    std::is_same_v<T, UffdMsg> || std::is_same_v<T, Signal> || std::is_same_v<T, PendingFault>;

template <class T>
struct ValueObject {
  PyObject_HEAD;
  T value;
};

/// What Python's protocols need to know about a T.
template <class T>
struct ValueTraits {
  const char* name;  ///< with its module
  const char* doc;
  py::dict (*dict)(const T&);
  py::tuple (*state)(const T&);
  T (*from)(const py::tuple& state);
  std::string (*repr)(const T&);
};

/// The class of T, made once, and how it was made.
template <class T>
inline PyTypeObject* value_type = nullptr;
template <class T>
inline ValueTraits<T> value_traits{};

template <class T>
PyObject* make_value(T value) {
  auto* object = PyObject_New(ValueObject<T>, value_type<T>);
  if (!object) throw py::error_already_set();
  new (&object->value) T(std::move(value));
  return reinterpret_cast<PyObject*>(object);
}

template <class T>
void destroy_value(PyObject* self) {
  PyTypeObject* const type = Py_TYPE(self);
  reinterpret_cast<ValueObject<T>*>(self)->value.~T();
  PyObject_Free(self);
  Py_DECREF(type);
}

/// The way back of __reduce__; a class method, so that pickle finds it by the name of the class.
template <class T>
PyObject* value_from_state(PyObject*, PyObject* state) {
  try {
    return make_value(value_traits<T>.from(py::handle(state).cast<py::tuple>()));
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  }
  return nullptr;
}

/// Adds the class of T to a module: asdict(), equality and hash by state, repr, pickling.
template <class T>
class ValueClass {
 public:
  ValueClass(py::module_& m, const ValueTraits<T>& traits) {
    static PyMethodDef methods[] = {
        {"_from_state", value_from_state<T>, METH_O | METH_CLASS, nullptr}, {}};
    PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(destroy_value<T>)},
                           {Py_tp_doc, const_cast<char*>(traits.doc)},
                           {Py_tp_methods, methods},
                           {0, nullptr}};
    PyType_Spec spec{traits.name, sizeof(ValueObject<T>), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    cls_ = py::reinterpret_steal<py::object>(PyType_FromSpec(&spec));
    if (!cls_) throw py::error_already_set();
    value_type<T> = reinterpret_cast<PyTypeObject*>(cls_.inc_ref().ptr());
    value_traits<T> = traits;
    m.attr(cls_.attr("__name__")) = cls_;
    def("asdict", traits.dict);
    def("__repr__", traits.repr);
    def("__hash__", [](const T& value) { return py::hash(value_traits<T>.state(value)); });
    def(
        "__eq__",
        [](const T& a, const T& b) {
          return value_traits<T>.state(a).equal(value_traits<T>.state(b));
        },
        py::is_operator());
    def("__reduce__", [cls = py::handle(cls_)](const T& value) {
      return py::make_tuple(cls.attr("_from_state"), py::make_tuple(value_traits<T>.state(value)));
    });
  }

  template <class Get>
  ValueClass& def_property_readonly(const char* name, Get&& get) {
    const py::handle property(reinterpret_cast<PyObject*>(&PyProperty_Type));
    cls_.attr(name) = property(py::cpp_function(std::forward<Get>(get), py::is_method(cls_)));
    return *this;
  }

 private:
  template <class Function, class... Extra>
  void def(const char* name, Function&& function, const Extra&... extra) {
    cls_.attr(name) = py::cpp_function(std::forward<Function>(function), py::name(name),
                                       py::is_method(cls_), extra...);
  }

  py::object cls_;
};

}  // namespace ptwalk::bindings

namespace pybind11::detail {

template <class T>
class type_caster<T, std::enable_if_t<ptwalk::bindings::IS_VALUE<T>>> {
 public:
  static constexpr auto name = const_name("object");
  template <class>
  using cast_op_type = const T&;

  bool load(handle source, bool) {
    if (!PyObject_TypeCheck(source.ptr(), ptwalk::bindings::value_type<T>)) return false;
    value_ = &reinterpret_cast<ptwalk::bindings::ValueObject<T>*>(source.ptr())->value;
    return true;
  }
  static handle cast(T&& value, return_value_policy, handle) {
    return ptwalk::bindings::make_value(std::move(value));
  }
  static handle cast(const T& value, return_value_policy, handle) {
    return ptwalk::bindings::make_value(T(value));
  }
  operator const T&() const { return *value_; }

 private:
  const T* value_ = nullptr;
};

}  // namespace pybind11::detail
