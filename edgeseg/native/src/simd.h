// Vectors of floats as wide as the instruction set allows, on the compiler's vector extensions (GCC and clang).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace edgeseg {
namespace EDGESEG_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float vfloat __attribute__((vector_size(kLanes * 4)));
typedef int32_t vint __attribute__((vector_size(kLanes * 4)));

template <class T>
static inline T load(const void* p) {
  T v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
static inline void store(void* p, T v) {
  memcpy(p, &v, sizeof v);
}
static inline vfloat splat(float x) { return x - vfloat{}; }
static inline vint splat(int32_t x) { return x - vint{}; }

// max(x, b) and min(x, b) give b where x is NaN and b is not.
#if defined(__AVX512F__)
static inline vfloat vmax(vfloat a, vfloat b) { return (vfloat)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vfloat vmin(vfloat a, vfloat b) { return (vfloat)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vfloat permute(vfloat v, vint i) { return (vfloat)_mm512_permutexvar_ps((__m512i)i, (__m512)v); }
#elif defined(__AVX2__)
static inline vfloat vmax(vfloat a, vfloat b) { return (vfloat)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vfloat vmin(vfloat a, vfloat b) { return (vfloat)_mm256_min_ps((__m256)a, (__m256)b); }
static inline vfloat permute(vfloat v, vint i) { return (vfloat)_mm256_permutevar8x32_ps((__m256)v, (__m256i)i); }
#elif defined(__aarch64__)
static inline vfloat vmax(vfloat a, vfloat b) { return (vfloat)vmaxnmq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vfloat vmin(vfloat a, vfloat b) { return (vfloat)vminnmq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vfloat permute(vfloat v, vint i) {
  const vint bytes = i * 0x04040404 + 0x03020100;
  return (vfloat)vqtbl1q_u8((uint8x16_t)v, (uint8x16_t)bytes);
}
#else
static inline vfloat vmax(vfloat a, vfloat b) { return a > b ? a : b; }
static inline vfloat vmin(vfloat a, vfloat b) { return a < b ? a : b; }
static inline vfloat permute(vfloat v, vint i) { return vfloat{v[i[0]], v[i[1]], v[i[2]], v[i[3]]}; }
#endif

// 16-bit lanes: pixels in fixed point. A pixel's neighbourhood is 8 of them: left B G R, right B G R, two unused.
constexpr int kShorts = kLanes * 2;
typedef int16_t vshort __attribute__((vector_size(kLanes * 4)));
typedef uint16_t vushort __attribute__((vector_size(kLanes * 4)));

static inline vshort splat16(int16_t x) { return x - vshort{}; }
// load_pixels: 8 bytes from each offset, widened to 16 bits. mulhrs: a * b / 2^15, rounded. right_pixel: each group of 8 lanes moved down by 3.
// first_halves: lanes 0-3 of each group of 8, those of a before those of b.
#if defined(__AVX512BW__)
static inline __m128i load_pair(const uint8_t* row, int32_t i, int32_t j) {
  return _mm_insert_epi64(_mm_loadl_epi64((const __m128i*)(row + i)), load<int64_t>(row + j), 1);
}
static inline vshort load_pixels(const uint8_t* row, const int32_t* at) {
  const __m256i bytes = _mm256_set_m128i(load_pair(row, at[2], at[3]), load_pair(row, at[0], at[1]));
  return (vshort)_mm512_cvtepu8_epi16(bytes);
}
static inline vshort mulhrs(vshort a, vshort b) { return (vshort)_mm512_mulhrs_epi16((__m512i)a, (__m512i)b); }
static inline vshort right_pixel(vshort v) { return (vshort)_mm512_bsrli_epi128((__m512i)v, 6); }
static inline vshort first_halves(vshort a, vshort b) {
  return (vshort)_mm512_permutex2var_epi64((__m512i)a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), (__m512i)b);
}
#elif defined(__AVX2__)
static inline vshort load_pixels(const uint8_t* row, const int32_t* at) {
  const __m128i first = _mm_loadl_epi64((const __m128i*)(row + at[0]));
  return (vshort)_mm256_cvtepu8_epi16(_mm_insert_epi64(first, load<int64_t>(row + at[1]), 1));
}
static inline vshort mulhrs(vshort a, vshort b) { return (vshort)_mm256_mulhrs_epi16((__m256i)a, (__m256i)b); }
static inline vshort right_pixel(vshort v) { return (vshort)_mm256_bsrli_epi128((__m256i)v, 6); }
static inline vshort first_halves(vshort a, vshort b) {
  return (vshort)_mm256_permute4x64_epi64(_mm256_unpacklo_epi64((__m256i)a, (__m256i)b), 0xD8);
}
#elif defined(__aarch64__)
static inline vshort load_pixels(const uint8_t* row, const int32_t* at) { return (vshort)vmovl_u8(vld1_u8(row + at[0])); }
static inline vshort mulhrs(vshort a, vshort b) { return (vshort)vqrdmulhq_s16((int16x8_t)a, (int16x8_t)b); }
static inline vshort right_pixel(vshort v) { return (vshort)vextq_s16((int16x8_t)v, vdupq_n_s16(0), 3); }
static inline vshort first_halves(vshort a, vshort b) { return (vshort)vzip1q_s64((int64x2_t)a, (int64x2_t)b); }
#elif defined(__x86_64__)
static inline vshort load_pixels(const uint8_t* row, const int32_t* at) {
  return (vshort)_mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i*)(row + at[0])), _mm_setzero_si128());
}
static inline vshort mulhrs(vshort a, vshort b) {
  const vshort high = (vshort)_mm_mulhi_epi16((__m128i)a, (__m128i)b);
  return high + high + (vshort)((((vushort)a * (vushort)b >> 14) + 1) >> 1);
}
static inline vshort right_pixel(vshort v) { return (vshort)_mm_bsrli_si128((__m128i)v, 6); }
static inline vshort first_halves(vshort a, vshort b) { return (vshort)_mm_unpacklo_epi64((__m128i)a, (__m128i)b); }
#else
static inline vshort load_pixels(const uint8_t* row, const int32_t* at) {
  vshort v;
  for (int i = 0; i < 8; ++i) v[i] = row[at[0] + i];
  return v;
}
static inline vshort mulhrs(vshort a, vshort b) {
  vshort v;
  for (int i = 0; i < 8; ++i) v[i] = (int16_t)((a[i] * b[i] + 0x4000) >> 15);
  return v;
}
static inline vshort right_pixel(vshort v) { return vshort{v[3], v[4], v[5], v[6], v[7], 0, 0, 0}; }
static inline vshort first_halves(vshort a, vshort b) { return vshort{a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]}; }
#endif

// The low byte of each lane.
static inline void store_bytes(uint8_t* p, vint v) {
  typedef uint8_t vbytes __attribute__((vector_size(kLanes)));
  store(p, __builtin_convertvector(v, vbytes));
}

// Scratch memory, 64-byte aligned, freed with its scope; get() is null when there was none.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : p_(aligned_alloc(64, (bytes + 127) / 64 * 64)) {}
  ~Scratch() { free(p_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* get() const {
    return static_cast<T*>(p_);
  }

 private:
  void* p_;
};

}  // namespace EDGESEG_ISA
}  // namespace edgeseg
