// Eight floats at a time on every instruction set, so that sums have one order and all of them give the same bits.
#pragma once

#include <stdint.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the instruction set's stay inside the files that include this

namespace edgeseg {
namespace EDGESEG_ISA {

typedef float float8 __attribute__((vector_size(32)));
typedef int32_t int8x __attribute__((vector_size(32)));

static inline float8 load8(const float* p) {
  float8 v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void store8(float* p, float8 v) { memcpy(p, &v, sizeof v); }
static inline float8 all(float x) { return x - float8{}; }
static inline float8 larger(float8 a, float8 b) { return a > b ? a : b; }

}  // namespace EDGESEG_ISA
}  // namespace edgeseg

#pragma GCC diagnostic pop
