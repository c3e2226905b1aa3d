// The work cut into items that do not touch each other's results, and which items an argument list asks for. The kernels run one item
// a thread, the CPU twins run the same items in loops where they have nothing faster.
#pragma once

#include <initializer_list>

#include "max_pool_check.h"
#include "max_pool_core.h"

namespace edgeseg {

// --- walking a tensor in packs of channels ---

struct Spot {
  int32_t n, c, y, x;
};

// 64-bit division costs a GPU dozens of instructions and is hardly ever needed.
ES_HD int64_t divide(int64_t value, int32_t by, int32_t& rest) {
  if ((uint64_t)value >> 32 == 0) {
    const uint32_t low = (uint32_t)value, quotient = low / (uint32_t)by;
    rest = (int32_t)(low - quotient * (uint32_t)by);
    return quotient;
  }
  rest = (int32_t)(value % by);
  return value / by;
}

// Items in the order of memory: packs of a block of channels, columns, rows, blocks, images.
struct Walk {
  int64_t count;
  int32_t inner, w, h, blocks, pack;

  ES_HD Spot at(int64_t item) const {
    Spot spot;
    int32_t group, block;
    item = divide(item, inner, group);
    item = divide(item, w, spot.x);
    item = divide(item, h, spot.y);
    spot.n = (int32_t)divide(item, blocks, block);
    spot.c = (block * inner + group) * pack;
    return spot;
  }
};

// `channels`: how many are walked, a multiple of the format's vector.
inline Walk walk_over(const EsTensor& t, int64_t channels, int32_t pack) {
  const int32_t inner = (int32_t)(channels_last(t.format) ? channels / pack : format_vector(t.format) / pack);
  const int32_t blocks = (int32_t)(channels / ((int64_t)inner * pack));
  return {(int64_t)t.n * blocks * t.h * t.w * inner, inner, t.w, t.h, blocks, pack};
}

// A tensor as items see it.
template <class T>
struct Plane {
  T* data;
  Layout layout;
  int32_t c, h, w, stored;

  explicit Plane(const EsTensor& t)
      : data(static_cast<T*>(t.data)), layout(layout_of(t)), c(t.c), h(t.h), w(t.w), stored((int32_t)stored_channels(t)) {}

  ES_HD T* at(int32_t n, int32_t c_, int64_t pixel) const { return data + offset_of(layout, n, c_, pixel); }
  ES_HD int64_t pixel(int32_t y, int32_t x) const { return (int64_t)y * w + x; }
};

// Codes whose format need not be that of the values: one access where V channels lie side by side, else V of them.
template <int V>
struct Codes {
  Plane<uint8_t> plane;
  bool together;

  explicit Codes(const EsTensor& t)
      : plane(t), together(format_vector(t.format) % V == 0 && reinterpret_cast<uintptr_t>(t.data) % V == 0) {}

  ES_HD Pack<uint8_t, V> load(int32_t n, int32_t c, int64_t pixel) const {
    if (together) return load_pack<uint8_t, V>(plane.at(n, c, pixel));
    Pack<uint8_t, V> codes{};
    for (int v = 0; v < V; ++v)
      if (c + v < plane.c) codes.at[v] = *plane.at(n, c + v, pixel);
    return codes;
  }
  ES_HD void store(int32_t n, int32_t c, int64_t pixel, const Pack<uint8_t, V>& codes) const {
    if (together && c < plane.stored) return store_pack(plane.at(n, c, pixel), codes);
    for (int v = 0; v < V; ++v)
      if (c + v < plane.stored) *plane.at(n, c + v, pixel) = codes.at[v];
  }
};

template <class T, int V>
ES_HD void clear_padding(Pack<T, V>& values, int32_t c, int32_t channels) {
  for (int v = 0; v < V; ++v)
    if (c + v >= channels) values.at[v] = T{};
}

// --- codes ---

// V channels of one pooled place, any window and format.
template <class Size, class T, int V>
struct PoolItem {
  Plane<const T> input;
  Plane<T> output;
  Codes<V> codes;
  EsWindow window;
  Walk walk;

  explicit PoolItem(const EsMaxPoolArgmax& a)
      : input(a.input), output(a.output), codes(a.codes), window(a.window),
        walk(walk_over(a.output, output.stored > codes.plane.stored ? output.stored : codes.plane.stored, V)) {}

  ES_HD void operator()(int64_t item) const {
    const Spot s = walk.at(item);
    Pack<T, V> best{};
    Pack<uint8_t, V> named{};
    if (s.c < input.c) {
      int32_t places[V];
      pool_window<Size>(input.at(s.n, s.c, 0), input.layout.pixel, input.h, input.w, window, s.y, s.x, best, places);
      for (int v = 0; v < V; ++v) named.at[v] = (uint8_t)places[v];
      clear_padding(best, s.c, input.c);
      clear_padding(named, s.c, input.c);
    }
    const int64_t pixel = output.pixel(s.y, s.x);
    if (s.c < output.stored) store_pack(output.at(s.n, s.c, pixel), best);
    codes.store(s.n, s.c, pixel, named);
  }
};

// V channels of one place of the unpooled plane, any window and format.
template <class Size, class T, int V>
struct UnpoolItem {
  Plane<const T> input;
  Codes<V> codes;
  Plane<T> output;
  EsWindow window;
  Walk walk;

  explicit UnpoolItem(const EsMaxUnpool& a)
      : input(a.input), codes(a.codes), output(a.output), window(a.window), walk(walk_over(a.output, output.stored, V)) {}

  ES_HD void operator()(int64_t item) const {
    const Spot s = walk.at(item);
    Pack<T, V> out{};
    if (s.c < output.c) {
      const auto values = [&](int32_t i, int32_t j) { return load_pack<T, V>(input.at(s.n, s.c, input.pixel(i, j))); };
      const auto named = [&](int32_t i, int32_t j) { return codes.load(s.n, s.c, input.pixel(i, j)); };
      out = unpool_place<Size, T, V>(values, named, input.h, input.w, window, s.y, s.x);
      clear_padding(out, s.c, output.c);
    }
    store_pack(output.at(s.n, s.c, output.pixel(s.y, s.x)), out);
  }
};

// N pooled places side by side, windows of 2x2 at stride 2 that tile the plane: wide loads, wide stores.
template <class T, int N>
struct PoolPairs {
  const T* input;
  T* output;
  uint8_t* codes;
  int64_t count;
  int32_t w, groups;  // w: of the input

  explicit PoolPairs(const EsMaxPoolArgmax& a)
      : input(static_cast<const T*>(a.input.data)), output(static_cast<T*>(a.output.data)),
        codes(static_cast<uint8_t*>(a.codes.data)), count((int64_t)a.output.n * a.output.c * a.output.h * (a.output.w / N)),
        w(a.input.w), groups(a.output.w / N) {}

  ES_HD void operator()(int64_t item) const {
    int32_t group;
    const T* top = input + divide(item, groups, group) * 2 * w + (int64_t)group * 2 * N;
    const Pack<T, 2 * N> upper = load_pack<T, 2 * N>(top), lower = load_pack<T, 2 * N>(top + w);
    Pack<T, N> best;
    Pack<uint8_t, N> named;
    for (int k = 0; k < N; ++k)
      pool_four(upper.at[2 * k], upper.at[2 * k + 1], lower.at[2 * k], lower.at[2 * k + 1], best.at[k], named.at[k]);
    store_pack(output + item * N, best);
    store_pack(codes + item * N, named);
  }
};

template <class T, int N>
struct UnpoolPairs {
  const T* input;
  const uint8_t* codes;
  T* output;
  int64_t count;
  int32_t w, groups;  // w: of the output

  explicit UnpoolPairs(const EsMaxUnpool& a)
      : input(static_cast<const T*>(a.input.data)), codes(static_cast<const uint8_t*>(a.codes.data)),
        output(static_cast<T*>(a.output.data)), count((int64_t)a.input.n * a.input.c * a.input.h * (a.input.w / N)),
        w(a.output.w), groups(a.input.w / N) {}

  ES_HD void operator()(int64_t item) const {
    int32_t group;
    T* top = output + divide(item, groups, group) * 2 * w + (int64_t)group * 2 * N;
    const Pack<T, N> values = load_pack<T, N>(input + item * N);
    const Pack<uint8_t, N> named = load_pack<uint8_t, N>(codes + item * N);
    Pack<T, 2 * N> upper, lower;
    for (int k = 0; k < N; ++k) {
      upper.at[2 * k] = unpooled<0>(values.at[k], named.at[k]);
      upper.at[2 * k + 1] = unpooled<1>(values.at[k], named.at[k]);
      lower.at[2 * k] = unpooled<2>(values.at[k], named.at[k]);
      lower.at[2 * k + 1] = unpooled<3>(values.at[k], named.at[k]);
    }
    store_pack(top, upper);
    store_pack(top + w, lower);
  }
};

// --- ONNX's whole-tensor indices ---

template <class Size, class T>
struct PoolIndicesItem {
  Plane<const T> input;
  Plane<T> output;
  int64_t* indices;
  EsWindow window;
  bool column_major;
  Walk walk;

  explicit PoolIndicesItem(const EsMaxPoolIndices& a)
      : input(a.input), output(a.output), indices(a.indices), window(a.window), column_major(a.column_major != 0),
        walk(walk_over(a.output, output.stored, 1)) {}

  ES_HD void operator()(int64_t item) const {
    const Spot s = walk.at(item);
    Pack<T, 1> best{};
    const int64_t pixel = output.pixel(s.y, s.x), plane = (int64_t)s.n * input.c + s.c;
    if (s.c < input.c) {
      int32_t place[1];
      pool_window<Size>(input.at(s.n, s.c, 0), input.layout.pixel, input.h, input.w, window, s.y, s.x, best, place);
      const int32_t kernel_w = Size::width(window), dy = place[0] / kernel_w;
      const int32_t y = s.y * window.stride_h - window.pad_top + dy;
      const int32_t x = s.x * window.stride_w - window.pad_left + place[0] - dy * kernel_w;
      const int64_t inside = column_major ? (int64_t)x * input.h + y : input.pixel(y, x);
      indices[plane * output.h * output.w + pixel] = plane * input.h * input.w + inside;
    }
    *output.at(s.n, s.c, pixel) = best.at[0];
  }
};

template <class Position>
ES_HD void claim(Position* place, Position position) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Position) == 8)
    atomicMax(reinterpret_cast<long long*>(place), (long long)position);
  else
    atomicMax(place, position);
#else
  if (*place < position) *place = position;
#endif
}

// First pass: each place learns the position of the latest value that names it.
template <class Position>
struct ClaimItem {
  const int64_t* indices;
  Position* claims;
  int64_t count, places;

  explicit ClaimItem(const EsMaxUnpoolIndices& a)
      : indices(a.indices), claims(static_cast<Position*>(a.workspace)), count(count_of(a.input)), places(count_of(a.output)) {}

  ES_HD void operator()(int64_t item) const {
    const int64_t index = indices[item];
    if (index >= 0 && index < places) claim(claims + index, (Position)item);
  }
};

// Second pass: each place fetches that value.
template <class T, class Position>
struct FetchItem {
  Plane<const T> input;
  Plane<T> output;
  const Position* claims;
  Walk walk;

  explicit FetchItem(const EsMaxUnpoolIndices& a)
      : input(a.input), output(a.output), claims(static_cast<const Position*>(a.workspace)),
        walk(walk_over(a.output, output.stored, 1)) {}

  ES_HD void operator()(int64_t item) const {
    const Spot s = walk.at(item);
    const int64_t pixel = output.pixel(s.y, s.x);
    T value{};
    if (s.c < output.c) {
      const int64_t position = claims[((int64_t)s.n * output.c + s.c) * output.h * output.w + pixel];
      if (position >= 0) value = value_at(position);
    }
    *output.at(s.n, s.c, pixel) = value;
  }

  ES_HD T value_at(int64_t position) const {
    int32_t j, i, c;
    position = divide(position, input.w, j);
    position = divide(position, input.h, i);
    const int32_t n = (int32_t)divide(position, input.c, c);
    return *input.at(n, c, input.pixel(i, j));
  }
};

}  // namespace edgeseg
