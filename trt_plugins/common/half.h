// FP16 storage that host and device code share; arithmetic is always in float.
#pragma once

#include <cstdint>
#include <cstring>

#include "layout.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace edgeseg {

struct alignas(2) Half {
  uint16_t bits;
};

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Both conversions choose between results instead of branching, so that loops over them are vectorised.

// Round to nearest even, as IEEE 754 and the device's own conversion do.
inline uint16_t half_bits_on_host(float value) {
  const uint32_t f = bits_of(value), magnitude = f & 0x7fffffffu, sign = (f >> 16) & 0x8000u;
  const uint32_t huge = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;  // NaN; infinity, or too large
  // Subnormal or zero: the last bit of a sum with 0.5 is 2^-24, half's smallest step, so the addition rounds.
  const uint32_t small = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1)) >> 13;
  return (uint16_t)(sign | (magnitude >= 0x47800000u ? huge : magnitude < 0x38800000u ? small : normal));
}

inline float half_value_on_host(uint16_t bits) {
  const uint32_t magnitude = bits & 0x7fffu, sign = (uint32_t)(bits & 0x8000u) << 16;
  const uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);
  const uint32_t small = bits_of((float)(int32_t)magnitude * 5.9604644775390625e-8f);  // 2^-24
  return float_of(sign | (magnitude < 0x400u ? small : normal));
}

ES_HD float to_float(float v) { return v; }
ES_HD float to_float(int8_t v) { return (float)v; }
ES_HD float to_float(Half v) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(v.bits));
#else
  return half_value_on_host(v.bits);
#endif
}

template <class T>
ES_HD T from_float(float v);

template <>
ES_HD float from_float<float>(float v) {
  return v;
}
template <>
ES_HD Half from_float<Half>(float v) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(v))};
#else
  return {half_bits_on_host(v)};
#endif
}
// Codes round half to even and saturate, as QuantizeLinear does; NaN becomes 0.
template <>
ES_HD int8_t from_float<int8_t>(float v) {
  if (!(v > -128.0f)) return v != v ? 0 : -128;
  if (v > 127.0f) return 127;
#if defined(__CUDA_ARCH__)
  return (int8_t)__float2int_rn(v);
#else
  return (int8_t)__builtin_nearbyintf(v);
#endif
}

}  // namespace edgeseg
