// What one element of the pools is: which value of a window wins, and which window a place of the unpooled plane belongs to.
// Kernel and CPU twin share every line.
#pragma once

#include "../common/half.h"
#include "max_pool.h"

namespace edgeseg {

// V values that lie side by side; loaded and stored at once.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
};

template <class T, int V>
ES_HD Pack<T, V> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <class T, int V>
ES_HD void store_pack(T* to, const Pack<T, V>& values) {
  *reinterpret_cast<Pack<T, V>*>(to) = values;
}

// Does a later value of a window replace the best so far? Only a greater one, or the window's first NaN. As templates, these serve
// vectors of the host's compiler too.
template <class F>
ES_HD auto wins_as_floats(F value, F best) {
  return !(value <= best) && best == best;
}

// Halves, their bits sign-extended, in their order as integers: both zeros are 0, every NaN is the largest. Exact, and without the
// host's slow conversion.
template <class I>
ES_HD I half_order(I bits) {
  const I magnitude = bits & 0x7fff, sign = bits >> 15;
  return magnitude > 0x7c00 ? I{} + 0x7fff : (magnitude ^ sign) - sign;
}

// Which values win over which; specialised for the host's vectors in max_pool_vectors.h.
template <class T>
struct Order;
template <>
struct Order<float> {
  static ES_HD bool wins(float value, float best) { return wins_as_floats(value, best); }
};
template <>
struct Order<int8_t> {
  static ES_HD bool wins(int8_t value, int8_t best) { return value > best; }
};
template <>
struct Order<Half> {
  static ES_HD bool wins(Half value, Half best) {
#if defined(__CUDA_ARCH__)
    return wins_as_floats(to_float(value), to_float(best));
#else
    return half_order<int32_t>((int16_t)value.bits) > half_order<int32_t>((int16_t)best.bits);
#endif
  }
};

template <class T, class C>
ES_HD void contest(T value, C code, T& best, C& best_code) {
  const auto won = Order<T>::wins(value, best);
  best = won ? value : best;
  best_code = won ? code : best_code;
}

// The window of four that most networks pool with, a b / c d.
template <class T, class C>
ES_HD void pool_four(T a, T b, T c, T d, T& best, C& code) {
  best = a;
  code = C{};
  contest(b, (C)(C{} + 1), best, code);
  contest(c, (C)(C{} + 2), best, code);
  contest(d, (C)(C{} + 3), best, code);
}

// What a pooled value leaves at the place `Code` of its window.
template <int Code, class T, class C>
ES_HD T unpooled(T value, C named) {
  return named == Code ? value : T{};
}

// Kernel sizes that the compiler knows (0: only the arguments know them).
template <int KH, int KW>
struct Kernel {
  static ES_HD int32_t height(const EsWindow& w) { return KH ? KH : w.kernel_h; }
  static ES_HD int32_t width(const EsWindow& w) { return KW ? KW : w.kernel_w; }
};

// First row (or column) of a window inside the plane, counted in the window.
ES_HD int32_t first_inside(int32_t start) { return start < 0 ? -start : 0; }

// Maxima of V channels over window (i, j) and their places in it. `x` is the first channel's plane, `pixel` apart from place to place.
template <class Size, class T, int V>
ES_HD void pool_window(const T* x, int64_t pixel, int32_t h, int32_t w, const EsWindow& window, int32_t i, int32_t j, Pack<T, V>& best,
                       int32_t (&places)[V]) {
  const int32_t kernel_h = Size::height(window), kernel_w = Size::width(window);
  const int32_t top = i * window.stride_h - window.pad_top, left = j * window.stride_w - window.pad_left;
  const int32_t first_y = first_inside(top), first_x = first_inside(left);
  best = load_pack<T, V>(x + ((int64_t)(top + first_y) * w + left + first_x) * pixel);
  for (int v = 0; v < V; ++v) places[v] = first_y * kernel_w + first_x;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int32_t dy = 0; dy < kernel_h; ++dy) {
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
    for (int32_t dx = 0; dx < kernel_w; ++dx) {
      const int32_t y = top + dy, column = left + dx;
      if (y < 0 || y >= h || column < 0 || column >= w) continue;
      const Pack<T, V> value = load_pack<T, V>(x + ((int64_t)y * w + column) * pixel);
      for (int v = 0; v < V; ++v) contest(value.at[v], dy * kernel_w + dx, best.at[v], places[v]);
    }
  }
}

// The windows of one axis that cover `place`: `last`, and those before it down to `first`.
struct Cover {
  int32_t first, last;
};

ES_HD Cover cover_of(int32_t place, int32_t kernel, int32_t stride, int32_t pad, int32_t windows) {
  const int32_t from = place + pad - kernel;  // a window has to start behind this
  const int32_t last = (place + pad) / stride;
  return {from < 0 ? 0 : from / stride + 1, last < windows ? last : windows - 1};
}

// V channels of one place of the unpooled plane: the value of the latest window whose code names it, else 0.
// `values(i, j)` and `codes(i, j)` give packs of V.
template <class Size, class T, int V, class Values, class Codes>
ES_HD Pack<T, V> unpool_place(const Values& values, const Codes& codes, int32_t h, int32_t w, const EsWindow& window, int32_t y,
                              int32_t x) {
  const int32_t kernel_h = Size::height(window), kernel_w = Size::width(window);
  const Cover rows = cover_of(y, kernel_h, window.stride_h, window.pad_top, h);
  const Cover columns = cover_of(x, kernel_w, window.stride_w, window.pad_left, w);
  Pack<T, V> out{};
  for (int32_t i = rows.first; i <= rows.last; ++i) {
    for (int32_t j = columns.first; j <= columns.last; ++j) {
      const int32_t code = (y + window.pad_top - i * window.stride_h) * kernel_w + x + window.pad_left - j * window.stride_w;
      const Pack<T, V> value = values(i, j);
      const Pack<uint8_t, V> named = codes(i, j);
      for (int v = 0; v < V; ++v) out.at[v] = named.at[v] == code ? value.at[v] : out.at[v];
    }
  }
  return out;
}

}  // namespace edgeseg
