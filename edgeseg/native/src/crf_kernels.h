// The loops of the dense CRF: all classes of a pixel at once, eight to a vector on every instruction set, so that sums have one
// order and all instruction sets give the same bits.
#pragma once

#include <math.h>

#include "crf.h"
#include "float8.h"
#include "simd.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the instruction set's stay inside this file

namespace edgeseg {
namespace EDGESEG_ISA {

constexpr int kEight = 8;
constexpr int kPanel = 4;     // vectors that are summed in registers together
constexpr int kLine = 16;     // floats of a cache line: rows far apart push each other out, so each line is used up at once
constexpr int kTogether = 4;  // rows or pixels that are smoothed together
static_assert(kTogether - 1 <= kSpareTaps);
constexpr float kNever = -1e30f;

// e^x for x <= 0 within 4 ulp: e^x = 2^n e^r, |r| <= ln 2 / 2, e^r by its Taylor series; 0 below -87.
static inline float8 exp8(float8 x) {
  const float8 safe = larger(x, all(-87.0f));
  const int8x n = __builtin_convertvector(safe * 1.44269504f - 0.5f, int8x);
  const float8 whole = __builtin_convertvector(n, float8);
  const float8 r = safe - whole * 0.693359375f + whole * 2.12194440e-4f;
  float8 e = r * (1.0f / 720) + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const float8 scaled = e * (float8)((n + 127) << 23);
  return x < -87.0f ? float8{} : scaled;
}

// Half a float8, which every instruction set has.
typedef float float4 __attribute__((vector_size(16)));
struct Halves {
  float4 low, high;
};
static inline Halves halves(float8 v) {
  Halves h;
  memcpy(&h, &v, sizeof h);
  return h;
}

static inline float across_max(float8 v) {
  const Halves h = halves(v);
  const float4 m = h.low > h.high ? h.low : h.high;
  const float a = m[0] > m[2] ? m[0] : m[2], b = m[1] > m[3] ? m[1] : m[3];
  return a > b ? a : b;
}

static inline float across_sum(float8 v) {
  const Halves h = halves(v);
  const float4 s = h.low + h.high;
  return (s[0] + s[2]) + (s[1] + s[3]);
}

// out = softmax(in); the rows may be the same. Returns max(in) and the sum of e^(in - max).
struct Softmax {
  float max, sum;
};

static inline Softmax softmax_row(const float* in, float* out, int stride) {
  float8 m = all(kNever);
  for (int c = 0; c < stride; c += kEight) m = larger(m, load8(in + c));
  const float top = across_max(m);
  float8 sum = {};
  for (int c = 0; c < stride; c += kEight) {
    const float8 e = exp8(load8(in + c) - top);
    sum += e;
    store8(out + c, e);
  }
  const float total = across_sum(sum), scale = 1.0f / total;
  for (int c = 0; c < stride; c += kEight) store8(out + c, load8(out + c) * scale);
  return {top, total};
}

static inline float clean_score(float v) { return v > kNever ? (v < -kNever ? v : -kNever) : kNever; }

// Row y of the scores, class by class for each pixel: (score_w, stride), the padding kNever.
static void transpose_scores(const CrfArgs& a, int y, float* out) {
  for (int x = 0; x < a.score_w; ++x)
    for (int c = a.classes; c < a.stride; ++c) out[(size_t)x * a.stride + c] = kNever;
  for (int c = 0; c < a.classes; ++c) {
    const float* in = a.scores + ((size_t)c * a.score_h + y) * a.score_w;
    for (int x = 0; x < a.score_w; ++x) out[(size_t)x * a.stride + c] = clean_score(in[x]);
  }
}

// Two rows of scores in class order; going down the picture each is transposed once.
struct ScoreRows {
  float* line[2];
  int row[2] = {-1, -1};

  const float* get(const CrfArgs& a, int y, int other) {
    for (int i = 0; i < 2; ++i)
      if (row[i] == y) return line[i];
    const int i = row[0] == other ? 1 : 0;
    row[i] = y;
    transpose_scores(a, y, line[i]);
    return line[i];
  }
};

static inline void mix(const float* from, const float* to, float f, float* out, int count) {
  for (int i = 0; i < count; i += kEight) store8(out + i, load8(from + i) * (1 - f) + load8(to + i) * f);
}

// Upsampled probabilities that add up to something, to probabilities in out and their logarithms in row.
static void from_probabilities(const CrfArgs& a, float* row, float* out) {
  float total = 0;
  for (int c = 0; c < a.classes; ++c) total += row[c] = row[c] > 0 ? row[c] : 0;
  for (int c = 0; c < a.classes; ++c) {
    const float p = total > 0 ? row[c] / total : 1.0f / a.classes;
    row[c] = logf(p > a.least ? p : a.least);
  }
  softmax_row(row, out, a.stride);
}

// Upsampled logits, likewise: log p = logit - log sum e^logit, and what is below the least probability is raised to it.
static void from_logits(const CrfArgs& a, const float* least, float log_least, float* row, float* out) {
  const Softmax s = softmax_row(row, out, a.stride);
  const float shift = s.max + logf(s.sum);
  float8 sum = {};
  for (int c = 0; c < a.stride; c += kEight) {
    store8(row + c, larger(load8(row + c) - shift, all(log_least)));
    const float8 p = larger(load8(out + c), load8(least + c));
    store8(out + c, p);
    sum += p;
  }
  for (int c = a.classes; c < a.stride; ++c) row[c] = kNever;
  const float scale = 1 / across_sum(sum);
  for (int c = 0; c < a.stride; c += kEight) store8(out + c, load8(out + c) * scale);
}

// unary: the logarithm of the upsampled scores' probabilities; next: the probabilities that follow from it.
static bool crf_unary(const CrfArgs& a, int begin, int end) {
  const size_t wide = (size_t)a.score_w * a.stride;
  const Scratch memory((3 * wide + a.stride) * sizeof(float));
  float* line = memory.get<float>();
  if (!line) return false;
  ScoreRows scores{{line, line + wide}};
  float *mixed = line + 2 * wide, *least = line + 3 * wide;
  for (int c = 0; c < a.stride; ++c) least[c] = c < a.classes ? a.least : 0;
  const float log_least = logf(a.least);
  for (int y = begin; y < end; ++y) {
    const int top = a.rows.lo[y], bottom = a.rows.hi[y];
    const float* upper = scores.get(a, top, bottom);
    const float* line_y = upper;
    if (a.rows.frac[y] != 0) {
      mix(upper, scores.get(a, bottom, top), a.rows.frac[y], mixed, (int)wide);
      line_y = mixed;
    }
    for (int x = 0; x < a.w; ++x) {
      const size_t at = ((size_t)y * a.w + x) * a.stride;
      float *row = a.unary + at, *out = a.next + at;
      mix(line_y + (size_t)a.columns.lo[x] * a.stride, line_y + (size_t)a.columns.hi[x] * a.stride, a.columns.frac[x], row, a.stride);
      if (a.probabilities)
        from_probabilities(a, row, out);
      else
        from_logits(a, least, log_least, row, out);
    }
  }
  return true;
}

// Eight pixels on the lattice's hyperplane, see permutohedral.h.
struct Point8 {
  float8 rest[kCorners];
  int8x origin[kCorners], rank[kCorners];
};

static inline void round8(const CrfPoints& p, const float8* features, Point8& out) {
  float8 elevated[kCorners], sum = {};
  for (int i = kCorners - 1; i > 0; --i) {
    const float8 f = features[i - 1] * p.factor[i - 1];
    elevated[i] = sum - f * (float)i;
    sum += f;
  }
  elevated[0] = sum;
  int8x off = {};
  for (int i = 0; i < kCorners; ++i) {
    // Half up: the bias makes it positive, and truncation is what the processor has.
    const float8 sixth = elevated[i] * (1.0f / kCorners);
    int8x turns = __builtin_convertvector(sixth, int8x);
    float8 whole = __builtin_convertvector(turns, float8);
    const float8 rest = sixth - whole;
    const int8x up = rest >= 0.5f, down = rest < -0.5f;  // -1 where true
    turns = turns - up + down;
    whole = __builtin_convertvector(turns, float8);
    out.rest[i] = sixth - whole;
    out.origin[i] = turns;
    off += turns;
    out.rank[i] = int8x{};
  }
  for (int i = 0; i < kCorners; ++i)
    for (int j = i + 1; j < kCorners; ++j) {
      const int8x behind = out.rest[i] < out.rest[j];
      out.rank[i] -= behind, out.rank[j] += behind + 1;
    }
  // Rounding left the hyperplane by `off` steps; the coordinates that were rounded furthest go back.
  for (int i = 0; i < kCorners; ++i) {
    int8x rank = out.rank[i] + off;
    const int8x low = rank < 0, high = rank > kCorners - 1;
    const int8x back = high - low;  // 1 where too low, -1 where too high
    out.rank[i] = rank + back * kCorners;
    out.origin[i] = (out.origin[i] + back) * kCorners;
    out.rest[i] -= __builtin_convertvector(back, float8);
  }
}

// Pixels [begin, end): origin, rank and barycentric weights of each one's simplex.
static bool crf_locate(const CrfPoints& p, int begin, int end) {
  for (int i = begin; i < end; i += kEight) {
    const int count = end - i < kEight ? end - i : kEight;
    float8 features[kCorners - 1] = {};
    for (int l = 0; l < count; ++l) {
      const uint8_t* pixel = p.frame + (size_t)(i + l) * 3;
      const int y = (i + l) / p.w, x = (i + l) - y * p.w;
      features[0][l] = (float)(x - p.w / 2), features[1][l] = (float)(y - p.h / 2);
      for (int c = 0; c < 3; ++c) features[2 + c][l] = (float)(pixel[c] - 128);
    }
    for (int f = 0; f < kCorners - 1; ++f) features[f] *= f < 2 ? p.position : p.colour;
    Point8 point;
    round8(p, features, point);
    float8 weight[kCorners];
    for (int r = 0; r < kCorners; ++r) {
      weight[r] = r ? float8{} : all(1.0f);
      for (int k = 0; k < kCorners; ++k) {
        const float8 v = point.rest[k];
        weight[r] += point.rank[k] == kCorners - 1 - r ? v : float8{};
        weight[r] -= point.rank[k] == (r ? kCorners - r : 0) ? v : float8{};
      }
    }
    for (int l = 0; l < count; ++l) {
      const size_t at = (size_t)(i + l) * kCorners;
      for (int k = 0; k < kCorners; ++k) {
        p.origin[at + k] = point.origin[k][l], p.rank[at + k] = (uint8_t)point.rank[k][l], p.weight[at + k] = weight[k][l];
      }
    }
  }
  return true;
}

template <int K>
static void splat_panel(const CrfArgs& a, int offset, int begin, int end) {
  for (int v = begin; v < end; ++v) {
    float8 sum[K] = {};
    for (int i = a.first[v]; i < a.first[v + 1]; ++i) {
      __builtin_prefetch(a.q + (size_t)a.shares[i + kReadAhead].pixel * a.stride + offset);
      const float* q = a.q + (size_t)a.shares[i].pixel * a.stride + offset;
      const float weight = a.shares[i].weight;
      for (int k = 0; k < K; ++k) sum[k] += load8(q + k * kEight) * weight;
    }
    float* out = a.values + (size_t)v * a.stride + offset;
    for (int k = 0; k < K; ++k) store8(out + k * kEight, sum[k]);
  }
}

// The same sums for one thread, which may add pixel by pixel: each vertex still hears its pixels in their order. `values` starts at 0.
template <int K>
static void scatter_panel(const CrfArgs& a, int offset, const float* q, size_t begin, size_t end, float* values) {
  for (size_t p = begin; p < end; ++p, q += a.stride) {
    float8 own[K];
    for (int k = 0; k < K; ++k) own[k] = load8(q + offset + k * kEight);
    for (size_t i = p * kCorners; i < (p + 1) * kCorners; ++i) {
      float* out = values + (size_t)a.vertex[i] * a.stride + offset;
      for (int k = 0; k < K; ++k) store8(out + k * kEight, load8(out + k * kEight) + own[k] * a.weight[i]);
    }
  }
}

// Chains of neighbouring vertices along one direction, each entry after its predecessor; the first of a chain is stored as ~vertex.
// Works on the chains that start in [begin, end). order[count] is negative.
template <int K>
static void blur_panel(const CrfArgs& a, int offset, const int32_t* order, int begin, int end) {
  int i = begin;
  while (i < end && order[i] >= 0) ++i;
  while (i < end) {
    float* row = a.values + (size_t)~order[i] * a.stride + offset;
    float8 before[K] = {}, here[K];
    for (int k = 0; k < K; ++k) here[k] = load8(row + k * kEight);
    while (order[++i] >= 0) {
      float* after = a.values + (size_t)order[i] * a.stride + offset;
      const int32_t soon = order[i + kReadAhead];
      __builtin_prefetch(a.values + (size_t)(soon < 0 ? ~soon : soon) * a.stride + offset, 1);
      for (int k = 0; k < K; ++k) {
        const float8 next = load8(after + k * kEight);
        store8(row + k * kEight, here[k] + (before[k] + next) * 0.5f);
        before[k] = here[k], here[k] = next;
      }
      row = after;
    }
    for (int k = 0; k < K; ++k) store8(row + k * kEight, here[k] + before[k] * 0.5f);
  }
}

// Output o of N is the sum of the sources s in [low, high] times weight[o * row_taps + s - o]: each is read once for all outputs.
// Where a source is out of an output's reach its weight is 0 (see kSpareTaps).
template <int N, int K>
static inline void sum_taps(const float* source, ptrdiff_t pitch, const float* weight, int row_taps, int low, int high, float8 (*sum)[K]) {
  for (int o = 0; o < N; ++o)
    for (int k = 0; k < K; ++k) sum[o][k] = float8{};
  for (int s = low; s <= high; ++s) {
    float8 value[K];
    for (int k = 0; k < K; ++k) value[k] = load8(source + pitch * s + k * kEight);
    for (int o = 0; o < N; ++o)
      for (int k = 0; k < K; ++k) sum[o][k] += value[k] * weight[o * row_taps + s - o];
  }
}

// The vertical half of the smoothness kernel for rows y to y + N - 1, all columns and classes.
template <int N>
static void smooth_columns(const CrfArgs& a, int y, float* out) {
  const int reach = a.radius_y, low = y < reach ? -y : -reach, high = y + N - 1 + reach >= a.h ? a.h - 1 - y : N - 1 + reach;
  const int row_taps = 2 * reach + 1 + 2 * kSpareTaps;
  const float* weight = a.taps_y + (size_t)y * row_taps + kSpareTaps + reach;
  const ptrdiff_t pitch = (ptrdiff_t)a.w * a.stride;
  ptrdiff_t i = 0;
  for (; i + kLine <= pitch; i += kLine) {
    float8 sum[N][2];
    sum_taps<N, 2>(a.q + y * pitch + i, pitch, weight, row_taps, low, high, sum);
    for (int o = 0; o < N; ++o) store8(out + o * pitch + i, sum[o][0]), store8(out + o * pitch + i + kEight, sum[o][1]);
  }
  if (i < pitch) {
    float8 sum[N][1];
    sum_taps<N, 1>(a.q + y * pitch + i, pitch, weight, row_taps, low, high, sum);
    for (int o = 0; o < N; ++o) store8(out + o * pitch + i, sum[o][0]);
  }
}

// out = unary + the horizontal half of the smoothness kernel for pixels x to x + N - 1.
template <int N, int K>
static inline void smooth_pixels(const CrfArgs& a, int offset, int x, const float* columns, const float* unary, float* out) {
  const int reach = a.radius_x, low = x < reach ? -x : -reach, high = x + N - 1 + reach >= a.w ? a.w - 1 - x : N - 1 + reach;
  const int row_taps = 2 * reach + 1 + 2 * kSpareTaps;
  float8 sum[N][K];
  sum_taps<N, K>(columns + (size_t)x * a.stride + offset, a.stride, a.taps_x + (size_t)x * row_taps + kSpareTaps + reach, row_taps, low,
                 high, sum);
  for (int o = 0; o < N; ++o)
    for (int k = 0; k < K; ++k) {
      const size_t at = (size_t)(x + o) * a.stride + offset + k * kEight;
      store8(out + at, load8(unary + at) + sum[o][k]);
    }
}

template <int K>
static void smooth_panel(const CrfArgs& a, int offset, const float* columns, const float* unary, float* out) {
  int x = 0;
  for (; x + kTogether <= a.w; x += kTogether) smooth_pixels<kTogether, K>(a, offset, x, columns, unary, out);
  for (; x < a.w; ++x) smooth_pixels<1, K>(a, offset, x, columns, unary, out);
}

// out = base + what the appearance kernel sends to each pixel of row y; the rows may be the same.
template <int K>
static void appearance_panel(const CrfArgs& a, int offset, int y, const float* base, float* out) {
  const int32_t* vertex = a.vertex + (size_t)y * a.w * kCorners;
  const float* weight = a.weight + (size_t)y * a.w * kCorners;
  for (int x = 0; x < a.w; ++x, vertex += kCorners, weight += kCorners) {
    float8 sum[K] = {};
    for (int j = 0; j < kCorners; ++j) {
      const float* value = a.values + (size_t)vertex[j] * a.stride + offset;
      for (int k = 0; k < K; ++k) sum[k] += load8(value + k * kEight) * weight[j];
    }
    const size_t at = (size_t)x * a.stride + offset;
    for (int k = 0; k < K; ++k) store8(out + at + k * kEight, load8(base + at + k * kEight) + sum[k] * a.w1);
  }
}

// Calls a panel template for each group of at most kPanel vectors of a row.
#define EDGESEG_PANELS(name, a, ...)                                        \
  for (int offset = 0; offset < a.stride; offset += kPanel * kEight) {     \
    const int vectors = (a.stride - offset) / kEight;                       \
    if (vectors >= kPanel) name<kPanel>(a, offset, __VA_ARGS__);            \
    else if (vectors == 3) name<3>(a, offset, __VA_ARGS__);                 \
    else if (vectors == 2) name<2>(a, offset, __VA_ARGS__);                 \
    else name<1>(a, offset, __VA_ARGS__);                                   \
  }

static void crf_splat(const CrfArgs& a, int begin, int end) { EDGESEG_PANELS(splat_panel, a, begin, end) }

static void crf_scatter(const CrfArgs& a) { EDGESEG_PANELS(scatter_panel, a, a.q, (size_t)0, (size_t)a.h * a.w, a.values) }

static void crf_blur(const CrfArgs& a, const int32_t* order, int begin, int end) {
  EDGESEG_PANELS(blur_panel, a, order, begin, end)
}

static void update_row(const CrfArgs& a, int y, const float* columns) {
  const size_t at = (size_t)y * a.w * a.stride;
  const float* base = a.unary + at;
  float* out = a.next + at;
  if (columns) {
    EDGESEG_PANELS(smooth_panel, a, columns, base, out)
    base = out;
  }
  if (a.vertex) {
    EDGESEG_PANELS(appearance_panel, a, y, base, out)
    base = out;
  }
  for (int x = 0; x < a.w; ++x) softmax_row(base + (size_t)x * a.stride, out + (size_t)x * a.stride, a.stride);
  if (a.after) {
    const size_t pixel = (size_t)y * a.w;
    EDGESEG_PANELS(scatter_panel, a, out, pixel, pixel + a.w, a.after)
  }
}

// Rows [begin, end) of one mean-field step, after splat and blur.
static bool crf_update(const CrfArgs& a, int begin, int end) {
  const size_t pitch = (size_t)a.w * a.stride;
  const Scratch memory(a.taps_x ? kTogether * pitch * sizeof(float) : 0);
  float* columns = memory.get<float>();
  if (!columns) return false;
  for (int y = begin; y < end;) {
    const int rows = end - y >= kTogether ? kTogether : 1;
    if (a.taps_x) rows > 1 ? smooth_columns<kTogether>(a, y, columns) : smooth_columns<1>(a, y, columns);
    for (int o = 0; o < rows; ++o, ++y) update_row(a, y, a.taps_x ? columns + o * pitch : nullptr);
  }
  return true;
}

#undef EDGESEG_PANELS

}  // namespace EDGESEG_ISA
}  // namespace edgeseg

#pragma GCC diagnostic pop
