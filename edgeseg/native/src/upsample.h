// Bilinear upsampling fused with argmax: the full-resolution logits never exist.
//
// Output pixels between four neighbouring logits form a cell. Bilinear interpolation is a convex combination, so a class
// whose largest corner is below the largest of the other classes' smallest corners cannot win in that cell: exact pruning.
//  1. candidates: per cell, one bit per class that may win (most cells of a real network keep one or two)
//  2. per tile of kLanes output pixels: the union of its cells' bits; one bit left -> fill
//  3. else: horizontal interpolation by register permutes, then vertical interpolation and a running maximum
//     for up to kRows output rows at once
// NaN counts as -inf; values are clamped to +-1e30 so that infinity times weight zero is zero. Ties: the lowest class.
#pragma once

#include "kernels.h"
#include "overlay.h"
#include "simd.h"

namespace edgeseg {
namespace EDGESEG_ISA {

constexpr int kRows = 4;
constexpr int kMaxWords = 8;  // 256 classes, 32 to a word
constexpr float kHuge = 1e30f;

// Column indices of the tiles: tile t reads logit columns start[t] + left[...] and start[t] + right[...].
struct Tiles {
  int count;
  bool in_register;  // every tile's columns fit one vector, so a permute fetches them
  int32_t *start, *first, *last;  // per tile; first and last: the cells it touches
  int32_t *left, *right;          // per output column, relative to start
  float* frac;
};

static inline int padded(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

static size_t tiles_bytes(int out_w) { return (size_t)padded(out_w) * 12 + (size_t)padded(out_w) / kLanes * 12; }

static void make_tiles(const AxisView& axis, int out_w, int32_t* memory, Tiles& t) {
  const int n = padded(out_w);
  t.count = n / kLanes;
  t.left = memory, t.right = memory + n, t.frac = reinterpret_cast<float*>(memory + 2 * n);
  t.start = memory + 3 * n, t.first = t.start + t.count, t.last = t.first + t.count;
  t.in_register = true;
  for (int tile = 0; tile < t.count; ++tile) {
    const int x0 = tile * kLanes, x1 = x0 + kLanes < out_w ? x0 + kLanes - 1 : out_w - 1;
    t.start[tile] = t.first[tile] = axis.lo[x0];
    t.last[tile] = axis.lo[x1];
    if (axis.hi[x1] - axis.lo[x0] >= kLanes) t.in_register = false;
    for (int k = 0; k < kLanes; ++k) {
      const int x = x0 + k < out_w ? x0 + k : out_w - 1;
      t.left[x0 + k] = axis.lo[x] - axis.lo[x0];
      t.right[x0 + k] = axis.hi[x] - axis.lo[x0];
      t.frac[x0 + k] = axis.frac[x];
    }
  }
}

// Rows of logits, cleaned of NaN and infinity and padded with their last value so that whole vectors may be read.
// Two slots: a cell lies between two rows, and the next cell row reuses one of them.
struct RowCache {
  float* slot[2];
  int row[2] = {-1, -1};
  ptrdiff_t pitch;  // floats between two classes of a slot
};

static ptrdiff_t row_pitch(int w) { return padded(w) + 2 * kLanes; }

static void clean_row(const float* in, int w, float* out, ptrdiff_t pitch) {
  int x = 0;
  for (; x + kLanes <= w; x += kLanes) store(out + x, vmin(vmax(load<vfloat>(in + x), splat(-kHuge)), splat(kHuge)));
  for (; x < w; ++x) out[x] = in[x] > -kHuge ? (in[x] < kHuge ? in[x] : kHuge) : -kHuge;
  for (; x < pitch; ++x) out[x] = out[w - 1];
}

static const float* cached_row(const UpsampleArgs& a, RowCache& cache, int row, int other) {
  for (int s = 0; s < 2; ++s)
    if (cache.row[s] == row) return cache.slot[s];
  const int s = cache.row[0] == other ? 1 : 0;
  for (int c = 0; c < a.classes; ++c)
    clean_row(a.logits + ((size_t)c * a.h + row) * a.w, a.w, cache.slot[s] + c * cache.pitch, cache.pitch);
  cache.row[s] = row;
  return cache.slot[s];
}

// bits (words, pitch): bit c of word c / 32 is set where class c may win in the cell to the right of column j.
static void find_candidates(int classes, int w, const float* top, const float* bottom, ptrdiff_t pitch, uint32_t* bits, float* highs) {
  for (int j = 0; j < w; j += kLanes) {
    vfloat bar = splat(-2 * kHuge);
    for (int c = 0; c < classes; ++c) {
      const float *p = top + c * pitch + j, *q = bottom + c * pitch + j;
      const vfloat a = load<vfloat>(p), b = load<vfloat>(p + 1), d = load<vfloat>(q), e = load<vfloat>(q + 1);
      bar = vmax(bar, vmin(vmin(a, b), vmin(d, e)));
      store(highs + c * kLanes, vmax(vmax(a, b), vmax(d, e)));
    }
    for (int word = 0; word * 32 < classes; ++word) {
      const int stop = classes < word * 32 + 32 ? classes : word * 32 + 32;
      vint set = splat(0);
      for (int c = word * 32; c < stop; ++c)
        set |= (load<vfloat>(highs + c * kLanes) >= bar) & splat((int32_t)(1u << (c % 32)));
      store(bits + word * pitch + j, set);
    }
  }
}

static int list_candidates(int classes, const uint32_t* bits, ptrdiff_t pitch, int first, int last, int32_t* list) {
  int n = 0;
  for (int word = 0; word * 32 < classes; ++word) {
    uint32_t set = 0;
    for (int j = first; j <= last; ++j) set |= bits[word * pitch + j];
    for (; set; set &= set - 1) list[n++] = word * 32 + __builtin_ctz(set);
  }
  return n;
}

static inline vfloat fetch(const float* row, const int32_t* index, bool in_register) {
  const vint i = load<vint>(index);
  if (in_register) return permute(load<vfloat>(row), i);
  vfloat v;
  for (int k = 0; k < kLanes; ++k) v[k] = row[i[k]];
  return v;
}

static inline vfloat interpolate(const float* row, const Tiles& t, int tile, bool in_register) {
  const float* from = row + t.start[tile];
  const vfloat l = fetch(from, t.left + tile * kLanes, in_register), r = fetch(from, t.right + tile * kLanes, in_register);
  return l + (r - l) * load<vfloat>(t.frac + tile * kLanes);
}

static inline void store_labels(uint8_t* p, vint labels, int n) {
  if (n >= kLanes) return store_bytes(p, labels);
  uint8_t whole[kLanes];
  store_bytes(whole, labels);
  memcpy(p, whole, n);
}

// The classes of `list` against each other in one tile and R output rows starting at y.
template <int R>
static inline void contest(const UpsampleArgs& a, const Tiles& t, int tile, const float* top, const float* bottom, ptrdiff_t pitch,
                           const int32_t* list, int n, int y) {
  vfloat best[R];
  vint label[R];
  for (int r = 0; r < R; ++r) best[r] = splat(-4 * kHuge), label[r] = splat(list[0]);
  for (int i = 0; i < n; ++i) {
    const vint c = splat(list[i]);
    const vfloat upper = interpolate(top + list[i] * pitch, t, tile, t.in_register);
    const vfloat step = interpolate(bottom + list[i] * pitch, t, tile, t.in_register) - upper;
    for (int r = 0; r < R; ++r) {
      const vfloat v = upper + step * splat(a.rows.frac[y + r]);
      label[r] = v > best[r] ? c : label[r];
      best[r] = vmax(v, best[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    const int x = tile * kLanes;
    store_labels(a.labels + (size_t)(y + r) * a.out_w + x, label[r], a.out_w - x);
  }
}

static void fill(const UpsampleArgs& a, int tile, int label, int y, int end) {
  const int x = tile * kLanes, n = a.out_w - x < kLanes ? a.out_w - x : kLanes;
  for (; y < end; ++y) {
    uint8_t* p = a.labels + (size_t)y * a.out_w + x;
    if (n == kLanes)
      memset(p, label, kLanes);
    else
      memset(p, label, n);
  }
}

// Output rows [y, end), all between the same two rows of logits.
static void label_rows(const UpsampleArgs& a, const Tiles& t, const float* top, const float* bottom, ptrdiff_t pitch, uint32_t* bits,
                       float* highs, int y, int end) {
  int32_t list[kMaxWords * 32];
  find_candidates(a.classes, a.w, top, bottom, pitch, bits, highs);
  for (int tile = 0; tile < t.count; ++tile) {
    const int n = list_candidates(a.classes, bits, pitch, t.first[tile], t.last[tile], list);
    if (n == 1) {
      fill(a, tile, list[0], y, end);
      continue;
    }
    int row = y;
    for (; row + kRows <= end; row += kRows) contest<kRows>(a, t, tile, top, bottom, pitch, list, n, row);
    for (; row + 2 <= end; row += 2) contest<2>(a, t, tile, top, bottom, pitch, list, n, row);
    for (; row < end; ++row) contest<1>(a, t, tile, top, bottom, pitch, list, n, row);
  }
}

static void threshold_rows(const UpsampleArgs& a, const Tiles& t, const float* top, const float* bottom, int y, int end) {
  for (int tile = 0; tile < t.count; ++tile) {
    const vfloat upper = interpolate(top, t, tile, t.in_register), step = interpolate(bottom, t, tile, t.in_register) - upper;
    for (int row = y; row < end; ++row) {
      const vint above = (upper + step * splat(a.rows.frac[row])) > splat(a.threshold);
      store_labels(a.labels + (size_t)row * a.out_w + tile * kLanes, above & splat(1), a.out_w - tile * kLanes);
    }
  }
}

static bool upsample(const UpsampleArgs& a, int begin, int end, bool argmax) {
  RowCache cache;
  cache.pitch = row_pitch(a.w);
  const size_t slot = (size_t)a.classes * cache.pitch, words = (size_t)(a.classes + 31) / 32;
  Scratch rows(slot * 2 * 4), bits(words * cache.pitch * 4), highs((size_t)a.classes * kLanes * 4), columns(tiles_bytes(a.out_w));
  if (!rows.get<float>() || !bits.get<float>() || !highs.get<float>() || !columns.get<float>()) return false;
  cache.slot[0] = rows.get<float>(), cache.slot[1] = rows.get<float>() + slot;
  Tiles tiles;
  make_tiles(a.columns, a.out_w, columns.get<int32_t>(), tiles);
  Expanded expanded;
  for (int y = begin, stop; y < end; y = stop) {
    const int lo = a.rows.lo[y], hi = a.rows.hi[y];
    for (stop = y + 1; stop < end && a.rows.lo[stop] == lo;) ++stop;
    const float* top = cached_row(a, cache, lo, hi);
    const float* bottom = cached_row(a, cache, hi, lo);
    if (argmax)
      label_rows(a, tiles, top, bottom, cache.pitch, bits.get<uint32_t>(), highs.get<float>(), y, stop);
    else
      threshold_rows(a, tiles, top, bottom, y, stop);
    for (int row = y; a.overlay && row < stop; ++row)
      overlay_row(*a.overlay, a.labels + (size_t)row * a.out_w, row, expanded);
  }
  return true;
}

static bool upsample_argmax(const UpsampleArgs& a, int begin, int end) { return upsample(a, begin, end, true); }
static bool upsample_threshold(const UpsampleArgs& a, int begin, int end) { return upsample(a, begin, end, false); }

}  // namespace EDGESEG_ISA
}  // namespace edgeseg
