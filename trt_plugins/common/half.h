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

// Round to nearest even, as IEEE 754 and the device's own conversion do.
inline uint16_t half_bits_on_host(float value) {
  uint32_t f;
  std::memcpy(&f, &value, 4);
  const uint32_t sign = (f >> 16) & 0x8000u;
  f &= 0x7fffffffu;
  if (f >= 0x47800000u) return (uint16_t)(sign | (f > 0x7f800000u ? 0x7e00u : 0x7c00u));  // NaN; infinity, or too large
  if (f < 0x38800000u) {                                                                  // subnormal or zero
    float magnitude;
    std::memcpy(&magnitude, &f, 4);
    magnitude += 0.5f;  // the sum's last bit is 2^-24, half's smallest step: the addition rounds
    uint32_t bits;
    std::memcpy(&bits, &magnitude, 4);
    return (uint16_t)(sign | (bits - 0x3f000000u));
  }
  f += 0xc8000fffu + ((f >> 13) & 1);
  return (uint16_t)(sign | (f >> 13));
}

inline float half_value_on_host(uint16_t bits) {
  const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, mantissa = bits & 0x3ffu;
  float value;
  if (exponent == 0) {
    value = (float)mantissa * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -value : value;
  }
  const uint32_t f = sign | (exponent == 31 ? 0x7f800000u | (mantissa << 13) : ((exponent + 112) << 23) | (mantissa << 13));
  std::memcpy(&value, &f, 4);
  return value;
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
