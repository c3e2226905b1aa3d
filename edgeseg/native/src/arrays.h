// What every binding needs: array types, and checks that name what arrived and what was expected.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <string>
#include <vector>

namespace edgeseg {

namespace nb = nanobind;

using Input = nb::ndarray<nb::ro, nb::device::cpu>;
using Output = nb::ndarray<nb::device::cpu>;

constexpr int kMaxSide = 32768;

template <class A>
std::string describe(const A& array) {
  std::string text = "(";
  for (size_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
  const auto type = array.dtype();
  const char* kind = type.code == uint8_t(nb::dlpack::dtype_code::Float)  ? "float"
                     : type.code == uint8_t(nb::dlpack::dtype_code::Int)  ? "int"
                     : type.code == uint8_t(nb::dlpack::dtype_code::UInt) ? "uint"
                                                                          : "type";
  return text + ") " + kind + std::to_string(type.bits);
}

[[noreturn]] inline void fail(const std::string& text) { throw nb::value_error(text.c_str()); }

template <class T, class A>
void require_type(const A& array, const char* name, const char* expected) {
  if (array.dtype() != nb::dtype<T>()) fail(std::string(name) + ": got " + describe(array) + "; expected " + expected);
}

template <class A>
bool contiguous(const A& array) {
  if (array.size() == 0) return true;  // its strides mean nothing
  int64_t step = 1;
  for (size_t i = array.ndim(); i-- > 0;) {
    if (array.shape(i) != 1 && array.stride(i) != step) return false;
    step *= (int64_t)array.shape(i);
  }
  return true;
}

template <class T, class A>
void require_shape(const A& array, const char* name, const std::vector<size_t>& shape, const char* expected) {
  require_type<T>(array, name, expected);
  bool good = array.ndim() == shape.size() && contiguous(array);
  for (size_t i = 0; good && i < shape.size(); ++i) good = array.shape(i) == shape[i];
  if (!good) fail(std::string(name) + ": got " + describe(array) + "; expected C-contiguous " + expected);
}

inline int side(size_t n, const char* name) {
  if (n < 1 || n > kMaxSide) fail(std::string(name) + ": a side of " + std::to_string(n) + "; expected 1.." + std::to_string(kMaxSide));
  return (int)n;
}

inline void require_threads(int threads) {
  if (threads < 1) fail("threads: got " + std::to_string(threads) + "; expected 1 or more");
}

template <class T, class A>
T* data(const A& array) {
  return static_cast<T*>(const_cast<void*>(static_cast<const void*>(array.data())));
}

}  // namespace edgeseg
