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
