// The pools over rows of linear memory, a vector at a time. Only the CPU twins use these; the arithmetic is max_pool_core.h's.
#pragma once

#include <algorithm>

#include "max_pool_check.h"
#include "max_pool_vectors.h"

namespace edgeseg {

// block(j) for every vector of [begin, end); the last one overlaps the one before, its work done twice. one(j) where none fits.
template <int Lanes, class Block, class One>
inline void in_vectors(int64_t begin, int64_t end, const Block& block, const One& one) {
  if (end - begin < Lanes) {
    for (int64_t j = begin; j < end; ++j) one(j);
    return;
  }
  int64_t j = begin;
  for (; j + Lanes <= end; j += Lanes) block(j);
  if (j < end) block(end - Lanes);
}

// Two pairs of rows ahead: a CPU's own prefetching loses the thread where one pair ends and the next begins.
template <class T>
inline void fetch_ahead(const T* from, int64_t elements) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) + (uintptr_t)elements * sizeof(T)));
}

// A row of windows of 2x2 at stride 2.
template <class T>
inline void pool_pairs_row(const T* upper, const T* lower, int64_t count, T* best, uint8_t* codes) {
  const int64_t ahead = 4 * (lower - upper);
  const auto vector = [&](int64_t j) {
    typename Vector<T>::values a, b, c, d, won;
    typename Vector<T>::ints code;
    fetch_ahead(upper + 2 * j, ahead);
    fetch_ahead(lower + 2 * j, ahead);
    load_pairs(upper + 2 * j, a, b);
    load_pairs(lower + 2 * j, c, d);
    pool_four(a, b, c, d, won, code);
    store_values<false>(best + j, won);
    store_codes<T>(codes + j, code);
  };
  const auto one = [&](int64_t j) {
    pool_four(upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1], best[j], codes[j]);
  };
  in_vectors<kLanes<T>>(0, count, vector, one);
}

// Streamed: see store_values; the row is a whole number of vectors then.
template <bool Streamed, class T>
inline void unpool_pairs_row(const T* values, const uint8_t* codes, int64_t count, T* upper, T* lower) {
  const auto vector = [&](int64_t j) {
    const auto value = load_values(values + j);
    const auto code = load_codes<T>(codes + j);
    store_pairs<Streamed>(upper + 2 * j, unpooled<0>(value, code), unpooled<1>(value, code));
    store_pairs<Streamed>(lower + 2 * j, unpooled<2>(value, code), unpooled<3>(value, code));
  };
  const auto one = [&](int64_t j) {
    upper[2 * j] = unpooled<0>(values[j], codes[j]);
    upper[2 * j + 1] = unpooled<1>(values[j], codes[j]);
    lower[2 * j] = unpooled<2>(values[j], codes[j]);
    lower[2 * j + 1] = unpooled<3>(values[j], codes[j]);
  };
  in_vectors<kLanes<T>>(0, count, vector, one);
}

// --- any window ---

template <int Stride, class T>
inline typename Vector<T>::values load_strided(const T* from) {
  if constexpr (Stride == 1) return load_values(from);
  else return load_even(from);
}

// Windows begin .. end - 1 of row i, none of which reaches over the plane's left or right edge.
template <int Stride, class T, class One>
inline void pool_inside(const T* x, int32_t h, int32_t w, const EsWindow& window, int32_t i, int64_t begin, int64_t end, T* best,
                        uint8_t* codes, const One& one) {
  const int32_t top = i * window.stride_h - window.pad_top, first = first_inside(top), last = std::min(window.kernel_h, h - top);
  in_vectors<kLanes<T>>(begin, end, [&](int64_t j) {
    const T* row = x + (int64_t)(top + first) * w + j * Stride - window.pad_left;
    auto code = same_code<T>(first * window.kernel_w), named = code;
    auto won = load_strided<Stride>(row);
    for (int32_t dy = first; dy < last; ++dy, row += w) {
      for (int32_t dx = 0; dx < window.kernel_w; ++dx, code += 1) contest(load_strided<Stride>(row + dx), code, won, named);
    }
    store_values<false>(best + j, won);
    store_codes<T>(codes + j, named);
  }, one);
}

// Row i of one plane.
template <class T>
inline void pool_row(const T* x, int32_t h, int32_t w, const EsWindow& window, int32_t i, int32_t pooled_w, T* best, uint8_t* codes) {
  const auto one = [&](int64_t j) {
    Pack<T, 1> won;
    int32_t place[1];
    pool_window<Kernel<0, 0>>(x, 1, h, w, window, i, (int32_t)j, won, place);
    best[j] = won.at[0];
    codes[j] = (uint8_t)place[0];
  };
  const int32_t stride = window.stride_w, room = w + window.pad_left - window.kernel_w;
  const int32_t begin = std::min(pooled_w, (window.pad_left + stride - 1) / stride);
  const int32_t end = stride > 2 || room < 0 ? begin : std::max(begin, std::min(pooled_w, room / stride + 1));
  for (int32_t j = 0; j < begin; ++j) one(j);
  if (stride == 1) pool_inside<1>(x, h, w, window, i, begin, end, best, codes, one);
  if (stride == 2) pool_inside<2>(x, h, w, window, i, begin, end, best, codes, one);
  for (int32_t j = end; j < pooled_w; ++j) one(j);
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
