// Where an element lies, for every format in one formula, on the host and on the device.
#pragma once

#include "tensor.h"

#if defined(__CUDACC__)
#define ES_HD __host__ __device__ __forceinline__
#else
#define ES_HD inline
#endif

namespace edgeseg {

// Element (n, c, y, x) lies at n * image + (c / vector) * block + (y * w + x) * pixel + c % vector.
struct Layout {
  int64_t image, block, pixel;
  int32_t vector;
};

ES_HD int32_t format_vector(int32_t format) {
  switch (format) {
    case ES_HWC8: return 8;
    case ES_HWC16: return 16;
    case ES_CHW4: return 4;
    case ES_CHW16: return 16;
    case ES_CHW32: return 32;
    default: return 1;
  }
}

ES_HD bool channels_last(int32_t format) { return format == ES_HWC || format == ES_HWC8 || format == ES_HWC16; }

ES_HD Layout layout_of(const EsTensor& t) {
  const int64_t vector = format_vector(t.format), blocks = (t.c + vector - 1) / vector, plane = (int64_t)t.h * t.w;
  if (channels_last(t.format)) return {plane * blocks * vector, vector, blocks * vector, (int32_t)vector};
  return {plane * blocks * vector, plane * vector, vector, (int32_t)vector};
}

ES_HD int64_t offset_of(const Layout& l, int64_t n, int32_t c, int64_t pixel) {
  return n * l.image + (c / l.vector) * l.block + pixel * l.pixel + c % l.vector;
}

}  // namespace edgeseg
