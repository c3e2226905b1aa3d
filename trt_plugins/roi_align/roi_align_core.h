// What every face of RoIAlign computes: the level of a box, where its samples lie and what each sample weighs.
//
// Coordinates are float32 whatever the features are, one rounding an operation, so that kernel, twin and reference place every
// sample alike. What is not a sensible box is defined, and none of it reads outside a map or loops longer than the map is large:
//  - a coordinate that is not finite, or a batch index out of range: zeros
//  - scaled coordinates are clamped to kReach pixels beyond the edges of the level's map
//  - sampling_ratio 0 and a bin of no or negative size: no samples, zeros (not aligned: a box has at least one pixel, so never)
//  - samples more than a pixel outside the map count as 0 and are not visited where sampling_ratio is 0: a box covers at most
//    2 * (size + 2) samples of an axis inside the map, however large it is
#pragma once

#include <cmath>

#include "../common/half.h"
#include "../common/layout.h"
#include "roi_align.h"

namespace edgeseg {
namespace roi {

constexpr float kReach = 512.0f;

// The arguments and what follows from them for all boxes: passed to kernels by value.
struct Plan {
  EsRoiAlign args;
  Layout features[ES_MAX_LEVELS], output;
  float least_area[ES_MAX_LEVELS];  // in square image pixels, of the boxes of this level and coarser ones
};

// Bin i of an axis covers start + i * bin .. start + (i + 1) * bin with `count` samples; `size` pixels of the map are there.
struct Axis {
  float start, bin;
  int32_t count, size;
  bool adaptive;
};

struct Box {
  int32_t level;  // -1: nothing to sample, zeros
  int64_t image;
  Axis y, x;
};

// Rows (or columns) on both sides of a sample and the share of each.
struct Sample {
  int32_t low, high;
  float low_weight, high_weight;
};

struct Range {
  int32_t begin, end;
};

// The device's compiler would fuse these, and the CPU's may not.
#if defined(__CUDA_ARCH__)
ES_HD float add(float a, float b) { return __fadd_rn(a, b); }
ES_HD float mul(float a, float b) { return __fmul_rn(a, b); }
ES_HD float div(float a, float b) { return __fdiv_rn(a, b); }
#else
ES_HD float add(float a, float b) { return a + b; }
ES_HD float mul(float a, float b) { return a * b; }
ES_HD float div(float a, float b) { return a / b; }
#endif

ES_HD bool finite(float v) { return v - v == 0.0f; }
ES_HD float clamp(float v, float low, float high) { return v < low ? low : v > high ? high : v; }
ES_HD int32_t clamp(float v, int32_t low, int32_t high) { return v < (float)low ? low : v > (float)high ? high : (int32_t)v; }

// FPN, equation 1, as comparisons. Areas that are not above 0 (NaN: of sides that overflowed) fit the finest level alone.
ES_HD int32_t level_of(const Plan& p, const float* roi) {
  const float area = mul(add(roi[2], -roi[0]), add(roi[3], -roi[1]));
  int32_t level = 0;
  for (int32_t l = 1; l < p.args.levels; ++l) level += area >= p.least_area[l];
  return level;
}

ES_HD Axis axis_of(const Plan& p, float low, float high, float scale, int32_t size, int32_t bins) {
  const float offset = p.args.aligned ? 0.5f : 0.0f, far = add((float)size, kReach);
  const float start = add(clamp(mul(low, scale), -kReach, far), -offset);
  float extent = add(add(clamp(mul(high, scale), -kReach, far), -offset), -start);
  if (!p.args.aligned && extent < 1.0f) extent = 1.0f;
  const float bin = div(extent, (float)bins);
  const bool adaptive = p.args.sampling_ratio == 0;
  return {start, bin, adaptive ? (int32_t)ceilf(bin) : p.args.sampling_ratio, size, adaptive};
}

ES_HD int64_t image_of(const EsRoiAlign& a, int64_t k) {
  return a.index_type == ES_INT64 ? ((const int64_t*)a.batch_indices)[k] : (int64_t)((const int32_t*)a.batch_indices)[k];
}

ES_HD Box box_of(const Plan& p, int64_t k) {
  const EsRoiAlign& a = p.args;
  const float* roi = a.rois + 4 * k;
  Box box{-1, image_of(a, k), {}, {}};
  if (box.image < 0 || box.image >= a.features[0].n) return box;
  if (!finite(roi[0]) || !finite(roi[1]) || !finite(roi[2]) || !finite(roi[3])) return box;
  const int32_t level = level_of(p, roi);
  const EsTensor& map = a.features[level];
  box.x = axis_of(p, roi[0], roi[2], a.spatial_scales[level], map.w, a.output.w);
  box.y = axis_of(p, roi[1], roi[3], a.spatial_scales[level], map.h, a.output.h);
  if (box.x.count > 0 && box.y.count > 0) box.level = level;
  return box;
}

ES_HD float position(const Axis& a, int32_t bin, int32_t i) {
  return add(add(a.start, mul((float)bin, a.bin)), div(mul(add((float)i, 0.5f), a.bin), (float)a.count));
}

ES_HD bool inside(const Axis& a, float at) { return at >= -1.0f && at <= (float)a.size; }

// The samples of a bin that lie inside the map: neighbours, as positions only grow (or, in a reversed box, only fall).
ES_HD Range inside_range(const Axis& a, int32_t bin) {
  Range r{0, a.count};
  if (a.adaptive && a.count > 1) {
    // Steps are at least half a pixel: the guess is off by less than the sample it allows on either side.
    const float step = div(a.bin, (float)a.count), base = add(a.start, mul((float)bin, a.bin));
    r.begin = clamp(floorf((-1.0f - base) / step) - 1.0f, 0, a.count);
    r.end = clamp(ceilf(((float)a.size - base) / step) + 1.0f, r.begin, a.count);
  }
  while (r.begin < r.end && !inside(a, position(a, bin, r.begin))) ++r.begin;
  while (r.end > r.begin && !inside(a, position(a, bin, r.end - 1))) --r.end;
  return r;
}

ES_HD bool is_partial(const Range& r, const Axis& a) { return r.begin > 0 || r.end < a.count; }

// Of a position inside the map: the pixel below and the one above; in the last pixel and beyond, that pixel alone.
ES_HD Sample sample_at(const Axis& a, float at) {
  const float y = at > 0.0f ? at : 0.0f;
  const int32_t last = a.size - 1, low = (int32_t)y;
  if (low >= last) return {last, last, 1.0f, 0.0f};
  const float share = add(y, -(float)low);
  return {low, low + 1, add(1.0f, -share), share};
}

// NaN wins over every number, as in max-pooling.
ES_HD float larger(float best, float v) { return v > best || v != v ? v : best; }

}  // namespace roi
}  // namespace edgeseg
