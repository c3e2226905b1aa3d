// What one thread block of the kernel does, in two phases with a barrier between.
//
// A block takes one box and a part of its output. Phase one writes each sample's rows, columns and weights once into shared memory,
// phase two only multiplies: a thread takes a bin and a group of V channels, reads a sample's weights once for all of them, and has
// 4 * V values in flight.
//
// Linear maps: neighbouring threads take neighbouring bins, so that they write neighbouring elements and read along a row of the
// box, and a thread's V channels are V planes. The grid runs over the boxes before it goes to the next channels: what is in flight
// touches few planes, which stay in the L2 cache (80 of 256 channels of a 1/4 .. 1/32 pyramid of an 800x1333 image in FP16 are 14
// MB, all are 45 MB). Channel-last maps: neighbouring threads take neighbouring channels of one bin, 16 bytes each: whole lines,
// one set of weights a warp.
//
// The limit is memory: each map once and the output once. 1,000 boxes, 256 channels, 7x7, FP16 and that pyramid are 25 + 45 MB, 15
// us at an H200's 4.8 TB/s. Above it stand 16 values a bin and channel, 200 million, that come from L1 and L2: linear, 6.3 million
// loads of a warp, each of about five rows of the map; in groups of 16 bytes, 0.8 million. One thread an output, as the usual
// kernel has it, makes as many loads as the linear format here and works out all weights again for each channel.
#pragma once

#include "roi_align_check.h"

namespace edgeseg {
namespace roi {

constexpr int32_t kThreads = 256;
constexpr int32_t kTableSize = 256;  // samples of an axis; boxes with more compute them where they are needed

struct Tap {
  int32_t low, high;  // offsets in the map, in elements; low -1: outside
  float low_weight, high_weight;
};

struct Tables {
  Box box;
  bool complete;
  Tap y[kTableSize], x[kTableSize];
};

// How a block's threads lie over bins and channel groups, and which part of the output is a block's.
struct Mapping {
  bool bins_fast;                    // else groups
  int32_t bins, groups;              // of one box
  int32_t lanes, subs;               // threads along the fast one, and along the other
  int32_t part, parts;               // of the other one: how many a block takes, and how many blocks that is
};

template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T v[V];
};

// Reading through the read-only path, in one instruction.
template <class P>
ES_HD P read(const P* at) {
#if defined(__CUDA_ARCH__)
  P pack;
  if constexpr (sizeof(P) == 16) {
    *reinterpret_cast<uint4*>(&pack) = __ldg(reinterpret_cast<const uint4*>(at));
  } else if constexpr (sizeof(P) == 8) {
    *reinterpret_cast<uint2*>(&pack) = __ldg(reinterpret_cast<const uint2*>(at));
  } else if constexpr (sizeof(P) == 4) {
    *reinterpret_cast<unsigned*>(&pack) = __ldg(reinterpret_cast<const unsigned*>(at));
  } else if constexpr (sizeof(P) == 2) {
    *reinterpret_cast<unsigned short*>(&pack) = __ldg(reinterpret_cast<const unsigned short*>(at));
  } else {
    *reinterpret_cast<unsigned char*>(&pack) = __ldg(reinterpret_cast<const unsigned char*>(at));
  }
  return pack;
#else
  return *at;
#endif
}

// V channels of the map at any pixel. Packed: they lie side by side; else `stride` elements apart.
template <class T, int V, bool Packed>
struct Channels {
  const T* at[Packed ? 1 : V];

  ES_HD void load(int32_t offset, float* out) const {
    if constexpr (Packed) {
      const auto pack = read(reinterpret_cast<const Pack<T, V>*>(at[0] + offset));
      for (int v = 0; v < V; ++v) out[v] = to_float(pack.v[v]);
    } else {
      for (int v = 0; v < V; ++v) out[v] = to_float(read(reinterpret_cast<const Pack<T, 1>*>(at[v] + offset)).v[0]);
    }
  }
};

// offset_of() without its divisions where the format has no blocks.
ES_HD int64_t channel_offset(const Layout& l, int64_t n, int32_t c) {
  return l.vector == 1 ? n * l.image + c * l.block : offset_of(l, n, c, 0);
}

ES_HD int64_t channel_stride(const Layout& l) { return l.vector == 1 ? l.block : 1; }

template <class T, int V, bool Packed>
ES_HD Channels<T, V, Packed> channels_of(const Plan& p, const Box& box, int32_t c) {
  const Layout& layout = p.features[box.level];
  const T* base = static_cast<const T*>(p.args.features[box.level].data) + channel_offset(layout, box.image, c);
  Channels<T, V, Packed> channels;
  channels.at[0] = base;
  if constexpr (!Packed) {
    // Beyond the last channel the first of the group is read again: no branch, nothing outside.
    for (int v = 1; v < V; ++v) channels.at[v] = base + (c + v < p.args.output.c ? v * channel_stride(layout) : 0);
  }
  return channels;
}

ES_HD Tap tap_of(const Axis& axis, float at, int32_t pitch) {
  if (!inside(axis, at)) return {-1, -1, 0.0f, 0.0f};
  const Sample s = sample_at(axis, at);
  return {s.low * pitch, s.high * pitch, s.low_weight, s.high_weight};
}

ES_HD void fill_axis(const Axis& axis, int32_t bins, int32_t pitch, Tap* taps, int32_t thread, int32_t threads) {
  for (int32_t i = thread; i < bins * axis.count; i += threads)
    taps[i] = tap_of(axis, position(axis, i / axis.count, i % axis.count), pitch);
}

ES_HD bool fits_table(const Axis& axis, int32_t bins) { return (int64_t)axis.count * bins <= kTableSize; }

// Phase one. Every thread works the box out by itself (they read the same few bytes); one keeps it for phase two.
ES_HD void fill_tables(const Plan& p, int64_t k, Tables& tables, int32_t thread, int32_t threads) {
  const Box box = box_of(p, k);
  const EsTensor& out = p.args.output;
  const bool complete = box.level >= 0 && fits_table(box.y, out.h) && fits_table(box.x, out.w);
  if (thread == 0) tables.box = box, tables.complete = complete;
  if (!complete) return;
  const int32_t pixel = (int32_t)p.features[box.level].pixel;
  fill_axis(box.y, out.h, p.args.features[box.level].w * pixel, tables.y, thread, threads);
  fill_axis(box.x, out.w, pixel, tables.x, thread, threads);
}

// The samples of one bin along an axis, from the table or worked out here.
struct Tabled {
  const Tap* taps;
  Range range;
  ES_HD Tap operator[](int32_t i) const { return taps[i]; }
};

struct Computed {
  Axis axis;
  int32_t bin, pitch;
  Range range;
  ES_HD Tap operator[](int32_t i) const { return tap_of(axis, position(axis, bin, i), pitch); }
};

ES_HD Tabled tabled(const Tap* taps, const Axis& axis, int32_t bin) { return {taps + bin * axis.count, {0, axis.count}}; }
ES_HD Computed computed(const Axis& axis, int32_t bin, int32_t pitch) { return {axis, bin, pitch, inside_range(axis, bin)}; }

// ONNX's maximum: of the four weighted values of a sample, not of their sum.
template <int V, bool Max, class Source>
ES_HD void add_sample(const Source& channels, const Tap& y, const Tap& x, float* best) {
  const int32_t offsets[4] = {y.low + x.low, y.low + x.high, y.high + x.low, y.high + x.high};
  const float weights[4] = {mul(y.low_weight, x.low_weight), mul(y.low_weight, x.high_weight), mul(y.high_weight, x.low_weight),
                            mul(y.high_weight, x.high_weight)};
  float values[4][V];
  for (int i = 0; i < 4; ++i) channels.load(offsets[i], values[i]);
  for (int i = 0; i < 4; ++i)
    for (int v = 0; v < V; ++v) best[v] = Max ? larger(best[v], weights[i] * values[i][v]) : best[v] + weights[i] * values[i][v];
}

template <int V>
ES_HD void at_least_zero(float* best) {
  for (int v = 0; v < V; ++v) best[v] = larger(best[v], 0.0f);
}

template <int V, bool Max, class Source, class Ys, class Xs>
ES_HD void add_bin(const Source& channels, const Ys& ys, const Xs& xs, float* best) {
  for (int32_t i = ys.range.begin; i < ys.range.end; ++i) {
    const Tap y = ys[i];
    if (y.low < 0) {
      if (Max) at_least_zero<V>(best);
      continue;
    }
    for (int32_t j = xs.range.begin; j < xs.range.end; ++j) {
      const Tap x = xs[j];
      if (x.low >= 0)
        add_sample<V, Max>(channels, y, x, best);
      else if (Max)
        at_least_zero<V>(best);
    }
  }
}

template <class T, int V, bool Packed, bool Max>
ES_HD void pool(const Plan& p, const Tables& tables, int32_t bin, int32_t c, float* best) {
  const Box& box = tables.box;
  for (int v = 0; v < V; ++v) best[v] = Max ? -INFINITY : 0.0f;
  const auto channels = channels_of<T, V, Packed>(p, box, c);
  const int32_t i = bin / p.args.output.w, j = bin % p.args.output.w;
  if (tables.complete) {
    add_bin<V, Max>(channels, tabled(tables.y, box.y, i), tabled(tables.x, box.x, j), best);
  } else {
    const int32_t pixel = (int32_t)p.features[box.level].pixel;
    const Computed ys = computed(box.y, i, p.args.features[box.level].w * pixel), xs = computed(box.x, j, pixel);
    if (Max && (is_partial(ys.range, box.y) || is_partial(xs.range, box.x))) at_least_zero<V>(best);
    add_bin<V, Max>(channels, ys, xs, best);
  }
  // Divided, not multiplied by an inverse: sums that are exact stay exact, and so do the ties of int8.
  const float count = mul((float)box.y.count, (float)box.x.count);
  for (int v = 0; v < V && !Max; ++v) best[v] = div(best[v], count);
}

template <class T, int V, bool Packed>
ES_HD void write(const Plan& p, int64_t k, int32_t bin, int32_t c, const float* values) {
  T* at = static_cast<T*>(p.args.output.data) + channel_offset(p.output, k, c) + bin * p.output.pixel;
  const int32_t channels = p.args.output.c;
  if constexpr (Packed) {
    Pack<T, V> pack;
    for (int v = 0; v < V; ++v) pack.v[v] = from_float<T>(c + v < channels ? values[v] : 0.0f);
    *reinterpret_cast<Pack<T, V>*>(at) = pack;
  } else {
    const bool padded = p.output.vector > 1;
    for (int v = 0; v < V; ++v)
      if (padded || c + v < channels) at[v * channel_stride(p.output)] = from_float<T>(c + v < channels ? values[v] : 0.0f);
  }
}

template <class T, int V, bool Packed, bool Max>
ES_HD void cell(const Plan& p, const Tables& tables, int64_t k, int32_t bin, int32_t c) {
  float values[V] = {};
  if (tables.box.level >= 0 && c < p.args.output.c) pool<T, V, Packed, Max>(p, tables, bin, c, values);
  write<T, V, Packed>(p, k, bin, c, values);
}

// Phase two.
template <class T, int V, bool Packed, bool Max>
ES_HD void pool_cells(const Plan& p, const Mapping& m, const Tables& tables, int64_t k, int32_t part, int32_t thread) {
  const int32_t fast = m.bins_fast ? m.bins : m.groups, slow = m.bins_fast ? m.groups : m.bins;
  const int32_t stop = part * (int64_t)m.part + m.part < slow ? part * m.part + m.part : slow;
  if (thread >= m.lanes * m.subs) return;
  for (int32_t i = thread % m.lanes; i < fast; i += m.lanes)
    for (int32_t j = part * m.part + thread / m.lanes; j < stop; j += m.subs)
      cell<T, V, Packed, Max>(p, tables, k, m.bins_fast ? i : j, (m.bins_fast ? j : i) * V);
}

// --- which of these a call needs --------------------------------------------------------------------------------------

inline Mapping mapping_of(const Plan& p, int32_t v) {
  const EsTensor& out = p.args.output;
  const int64_t stored = p.output.vector > 1 ? ((int64_t)out.c + p.output.vector - 1) / p.output.vector * p.output.vector : out.c;
  Mapping m{};
  m.bins_fast = !channels_last(out.format), m.bins = out.h * out.w, m.groups = (int32_t)((stored + v - 1) / v);
  const int32_t fast = m.bins_fast ? m.bins : m.groups, slow = m.bins_fast ? m.groups : m.bins;
  m.lanes = fast < kThreads ? fast : kThreads, m.subs = kThreads / m.lanes;
  // Four turns a thread pay for the tables; a grid has at most 65535 blocks this way.
  for (m.part = 4 * m.subs; (slow + (int64_t)m.part - 1) / m.part > 65535;) m.part *= 2;
  m.parts = (slow + m.part - 1) / m.part;
  return m;
}

// Whether groups of v channels lie side by side, aligned, in every map and in the output.
inline bool packs(const Plan& p, int32_t v, int32_t element) {
  const auto whole = [&](const EsTensor& t, const Layout& l) {
    const bool together = l.vector > 1 ? l.vector % v == 0 : channels_last(t.format) && t.c % v == 0;
    return together && reinterpret_cast<uintptr_t>(t.data) % (size_t)(v * element) == 0;
  };
  for (int32_t l = 0; l < p.args.levels; ++l)
    if (!whole(p.args.features[l], p.features[l])) return false;
  return whole(p.args.output, p.output);
}

// run.operator()<T, V, Packed, Max>(plan, mapping)
template <class T, int V, bool Packed, class Run>
EsStatus with_mode(const Plan& p, const Run& run) {
  const Mapping m = mapping_of(p, V);
  return p.args.max_mode ? run.template operator()<T, V, Packed, true>(p, m) : run.template operator()<T, V, Packed, false>(p, m);
}

// Packs of up to 16 bytes.
template <class T, class Run>
EsStatus with_pack(const Plan& p, const Run& run) {
  const int32_t element = (int32_t)sizeof(T);
  if constexpr (sizeof(T) == 1)
    if (packs(p, 16, element)) return with_mode<T, 16, true>(p, run);
  if constexpr (sizeof(T) <= 2)
    if (packs(p, 8, element)) return with_mode<T, 8, true>(p, run);
  if (packs(p, 4, element)) return with_mode<T, 4, true>(p, run);
  return with_mode<T, 4, false>(p, run);
}

template <class Run>
EsStatus dispatch(const EsRoiAlign& args, const Run& run) {
  const Plan p = plan_of(args);
  switch (args.output.type) {
    case ES_FLOAT32: return with_pack<float>(p, run);
    case ES_FLOAT16: return with_pack<Half>(p, run);
    default: return with_pack<int8_t>(p, run);
  }
}

}  // namespace roi
}  // namespace edgeseg
