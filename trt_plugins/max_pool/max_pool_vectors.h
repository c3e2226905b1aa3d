// Sixteen bytes of values at once, on GCC's vector extensions: what SSE2 and NEON both have. With another compiler a vector is one
// value.
#pragma once

#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "max_pool_core.h"

namespace edgeseg {

#if defined(__GNUC__) && !defined(__clang__)

// values: what is compared (halves by their bits); ints: codes and masks of the same width.
template <class T>
struct Vector;
template <>
struct Vector<float> {
  typedef int32_t lane;
  typedef float values __attribute__((vector_size(16)));
  typedef int32_t ints __attribute__((vector_size(16)));
};
template <>
struct Vector<Half> {
  typedef int16_t lane;
  typedef int16_t values __attribute__((vector_size(16)));
  typedef int16_t ints __attribute__((vector_size(16)));
};
template <>
struct Vector<int8_t> {
  typedef int8_t lane;
  typedef int8_t values __attribute__((vector_size(16)));
  typedef int8_t ints __attribute__((vector_size(16)));
};

template <class T>
constexpr int kLanes = 16 / sizeof(T);

template <>
struct Order<Vector<float>::values> {
  static Vector<float>::ints wins(Vector<float>::values value, Vector<float>::values best) { return wins_as_floats(value, best); }
};
template <>
struct Order<Vector<Half>::values> {
  static Vector<Half>::ints wins(Vector<Half>::values value, Vector<Half>::values best) { return half_order(value) > half_order(best); }
};
template <>
struct Order<Vector<int8_t>::values> {
  static Vector<int8_t>::ints wins(Vector<int8_t>::values value, Vector<int8_t>::values best) { return value > best; }
};

template <class T>
inline typename Vector<T>::ints same_code(int32_t code) {
  return typename Vector<T>::ints{} + (typename Vector<T>::lane)code;
}

// from[0], from[2], ...; nothing behind the last of them is read.
template <class T>
inline typename Vector<T>::values load_even(const T* from) {
  typename Vector<T>::values low, high;
  std::memcpy(&low, from, 16);
  std::memcpy(&high, from + kLanes<T> - 1, 16);
  typename Vector<T>::ints lanes{};
  for (int k = 0; k < kLanes<T>; ++k) lanes[k] = 2 * k + (2 * k >= kLanes<T>);
  return __builtin_shuffle(low, high, lanes);
}

template <class T>
inline void load_pairs(const T* from, typename Vector<T>::values& even, typename Vector<T>::values& odd) {
  typename Vector<T>::values low, high;
  std::memcpy(&low, from, 16);
  std::memcpy(&high, from + kLanes<T>, 16);
  typename Vector<T>::ints evens{}, odds{};
  for (int k = 0; k < kLanes<T>; ++k) evens[k] = 2 * k, odds[k] = 2 * k + 1;
  even = __builtin_shuffle(low, high, evens);
  odd = __builtin_shuffle(low, high, odds);
}

// Streamed: past the caches, which saves reading what is overwritten; `to` lies at a multiple of 16.
template <bool Streamed, class T>
inline void store_values(T* to, typename Vector<T>::values values) {
#if defined(__x86_64__)
  if constexpr (Streamed) return _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)values);
#endif
  std::memcpy(static_cast<void*>(to), &values, 16);
}

// What was streamed is there before anything that follows.
inline void end_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

template <bool Streamed, class T>
inline void store_pairs(T* to, typename Vector<T>::values even, typename Vector<T>::values odd) {
  typename Vector<T>::ints low{}, high{};
  for (int k = 0; k < kLanes<T>; ++k) {
    low[k] = k / 2 + k % 2 * kLanes<T>;
    high[k] = low[k] + kLanes<T> / 2;
  }
  const typename Vector<T>::values first = __builtin_shuffle(even, odd, low), second = __builtin_shuffle(even, odd, high);
  store_values<Streamed>(to, first);
  store_values<Streamed>(to + kLanes<T>, second);
}

template <class T>
inline typename Vector<T>::values load_values(const T* from) {
  typename Vector<T>::values values;
  std::memcpy(&values, from, 16);
  return values;
}

// Codes are widened and narrowed by shuffles of bytes: conversions between vectors of different size are taken apart by the compiler.
typedef uint8_t Bytes __attribute__((vector_size(16)));

template <class T>
inline typename Vector<T>::ints load_codes(const uint8_t* from) {
  Bytes codes{}, places{};
  std::memcpy(&codes, from, kLanes<T>);
  for (int k = 0; k < 16; ++k) places[k] = (uint8_t)(k % sizeof(T) ? 16 : k / sizeof(T));
  codes = __builtin_shuffle(codes, Bytes{}, places);
  return (typename Vector<T>::ints)codes;
}

template <class T>
inline void store_codes(uint8_t* to, typename Vector<T>::ints codes) {
  Bytes places{};
  for (int k = 0; k < kLanes<T>; ++k) places[k] = (uint8_t)(k * sizeof(T));
  const Bytes narrow = __builtin_shuffle((Bytes)codes, places);
  std::memcpy(to, &narrow, kLanes<T>);
}

#else

template <class T>
struct Vector {
  typedef T values;
  typedef uint8_t ints;
};

template <class T>
constexpr int kLanes = 1;

inline void end_stream() {}

template <class T>
inline uint8_t same_code(int32_t code) {
  return (uint8_t)code;
}
template <class T>
inline T load_values(const T* from) {
  return *from;
}
template <class T>
inline T load_even(const T* from) {
  return *from;
}
template <class T>
inline void load_pairs(const T* from, T& even, T& odd) {
  even = from[0];
  odd = from[1];
}
template <bool Streamed, class T>
inline void store_pairs(T* to, T even, T odd) {
  to[0] = even;
  to[1] = odd;
}
template <bool Streamed, class T>
inline void store_values(T* to, T value) {
  *to = value;
}
template <class T>
inline uint8_t load_codes(const uint8_t* from) {
  return *from;
}
template <class T>
inline void store_codes(uint8_t* to, uint8_t code) {
  *to = code;
}

#endif

}  // namespace edgeseg
