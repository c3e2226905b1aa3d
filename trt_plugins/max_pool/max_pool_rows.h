// The pools over rows of linear memory, written so that a compiler makes vectors of them. Only the CPU twins use these; the arithmetic
// is max_pool_core.h's.
#pragma once

#include <algorithm>
#include <cstring>

#include "max_pool_check.h"
#include "max_pool_core.h"

namespace edgeseg {

// Which columns j of the pooled row have column j * stride + offset inside a plane of width w.
struct Columns {
  int64_t begin, end;
};

inline Columns columns_inside(int64_t offset, int64_t stride, int64_t w, int64_t pooled_w) {
  const int64_t begin = offset < 0 ? (-offset + stride - 1) / stride : 0;
  const int64_t last = w - 1 - offset;
  return {begin, last < 0 ? 0 : std::min(pooled_w, last / stride + 1)};
}

// Values and codes of a pooled row become those of each window's first place inside the plane.
template <class T>
void start_row(const T* row, const EsWindow& window, int32_t first_y, int64_t pooled_w, T* __restrict best, uint8_t* __restrict codes) {
  const int64_t inside = std::min<int64_t>(pooled_w, ((int64_t)window.pad_left + window.stride_w - 1) / window.stride_w);
  for (int64_t j = 0; j < inside; ++j) {
    best[j] = row[0];
    codes[j] = (uint8_t)(first_y * window.kernel_w + window.pad_left - j * window.stride_w);
  }
  for (int64_t j = inside; j < pooled_w; ++j) best[j] = row[j * window.stride_w - window.pad_left];
  if (inside < pooled_w) std::memset(codes + inside, first_y * window.kernel_w, (size_t)(pooled_w - inside));
}

// One place of every window of a row against the best so far.
template <int Stride, class T>
inline void contest_row(const T* __restrict from, int64_t stride, int64_t count, uint8_t code, T* __restrict best,
                        uint8_t* __restrict codes) {
  const int64_t step = Stride ? Stride : stride;
  for (int64_t j = 0; j < count; ++j) contest(from[j * step], code, best[j], codes[j]);
}

// Row i of one plane, any window.
template <class T>
inline void pool_row(const T* x, int32_t h, int32_t w, const EsWindow& window, int32_t i, int64_t pooled_w, T* best, uint8_t* codes) {
  const int32_t top = i * window.stride_h - window.pad_top, first_y = first_inside(top);
  start_row(x + (int64_t)(top + first_y) * w, window, first_y, pooled_w, best, codes);
  for (int32_t dy = first_y; dy < window.kernel_h && top + dy < h; ++dy) {
    for (int32_t dx = 0; dx < window.kernel_w; ++dx) {
      const int64_t offset = dx - window.pad_left, stride = window.stride_w;
      const Columns c = columns_inside(offset, stride, w, pooled_w);
      const T* from = x + (int64_t)(top + dy) * w + c.begin * stride + offset;
      const uint8_t code = (uint8_t)(dy * window.kernel_w + dx);
      if (stride == 1) contest_row<1>(from, stride, c.end - c.begin, code, best + c.begin, codes + c.begin);
      else if (stride == 2) contest_row<2>(from, stride, c.end - c.begin, code, best + c.begin, codes + c.begin);
      else contest_row<0>(from, stride, c.end - c.begin, code, best + c.begin, codes + c.begin);
    }
  }
}

// A row of windows of 2x2 at stride 2.
template <class T>
inline void pool_pairs_row(const T* __restrict upper, const T* __restrict lower, int64_t count, T* __restrict best,
                           uint8_t* __restrict codes) {
  for (int64_t j = 0; j < count; ++j) pool_four(upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1], best[j], codes[j]);
}

template <class T>
inline void unpool_pairs_row(const T* __restrict values, const uint8_t* __restrict codes, int64_t count, T* __restrict upper,
                             T* __restrict lower) {
  for (int64_t j = 0; j < count; ++j) {
    const T value = values[j];
    const uint8_t code = codes[j];
    upper[2 * j] = unpooled(value, code, 0);
    upper[2 * j + 1] = unpooled(value, code, 1);
    lower[2 * j] = unpooled(value, code, 2);
    lower[2 * j + 1] = unpooled(value, code, 3);
  }
}

// A whole plane, any window: zeros, then every value in row-major order, so that the later stays.
template <class T>
inline void unpool_plane(const T* values, const uint8_t* codes, int32_t pooled_h, int32_t pooled_w, const EsWindow& window, int32_t h,
                         int32_t w, T* out) {
  std::memset(static_cast<void*>(out), 0, (size_t)h * w * sizeof(T));
  const int32_t places = window.kernel_h * window.kernel_w;
  for (int32_t i = 0; i < pooled_h; ++i) {
    const int64_t top = (int64_t)i * window.stride_h - window.pad_top;
    if (top >= h) return;
    for (int64_t j = 0; j < pooled_w; ++j) {
      const int32_t code = *codes++, dy = code / window.kernel_w;
      const int64_t y = top + dy, x = j * window.stride_w - window.pad_left + code - dy * window.kernel_w;
      const T value = *values++;
      if (code < places && y >= 0 && y < h && x >= 0 && x < w) out[y * w + x] = value;
    }
  }
}

}  // namespace edgeseg
