// What kernel and twin demand of their arguments, and what both prepare from them.
#pragma once

#include <cmath>

#include "roi_align_core.h"

namespace edgeseg {
namespace roi {

constexpr int32_t kMostSide = 1 << 16, kMostBins = 1 << 10, kMostSamples = 128;

// Of one image of a map, or one box of the output: what 32-bit offsets reach.
inline bool fits(const EsTensor& t) { return ((double)t.c + 31.0) * t.h * t.w <= (double)INT32_MAX; }

inline EsStatus check_map(const EsRoiAlign& a, int32_t level) {
  const EsTensor &map = a.features[level], &first = a.features[0];
  if (map.type != first.type || map.format != first.format) return "features differ in type or format";
  if (map.n != first.n || map.c != first.c) return "features differ in images or channels";
  const float scale = a.spatial_scales[level];
  if (!(scale > 0.0f) || !std::isfinite(scale)) return "a spatial scale is not above 0 and finite";
  if (map.n == 0 || map.c == 0) return nullptr;
  if (map.h < 1 || map.w < 1 || map.h > kMostSide || map.w > kMostSide) return "a feature map's side is outside 1 .. 65536";
  if (!fits(map)) return "an image of one level has about 2^31 elements or more";
  return map.data ? nullptr : "features have no memory";
}

inline EsStatus check_output(const EsRoiAlign& a) {
  const EsTensor &first = a.features[0], &out = a.output;
  if (out.type != first.type || out.format != first.format) return "output and features differ in type or format";
  if (out.n < 0 || out.c < 0 || out.c != first.c) return "output and features differ in channels, or a size is negative";
  if (out.h < 1 || out.w < 1 || out.h > kMostBins || out.w > kMostBins) return "an output side is outside 1 .. 1024";
  if (out.n == 0 || out.c == 0) return nullptr;
  if (!fits(out)) return "the output of one box has about 2^31 elements or more";
  if (!a.rois || !a.batch_indices) return "rois or batch_indices have no memory";
  return out.data ? nullptr : "output has no memory";
}

inline EsStatus check(const EsRoiAlign* args) {
  if (!args) return "no arguments";
  const EsRoiAlign& a = *args;
  const EsTensor& first = a.features[0];
  if (a.levels < 1 || a.levels > ES_MAX_LEVELS) return "levels are outside 1 .. 5";
  if (first.type != ES_FLOAT32 && first.type != ES_FLOAT16 && first.type != ES_INT8) return "features are float32, float16 or int8";
  if (first.format < ES_LINEAR || first.format > ES_CHW32) return "unknown memory format; expected one of ES_LINEAR .. ES_CHW32";
  if (first.n < 0) return "a size is negative";
  if (a.index_type != ES_INT32 && a.index_type != ES_INT64) return "batch_indices are int32 or int64";
  if (a.sampling_ratio < 0 || a.sampling_ratio > kMostSamples) return "sampling_ratio is outside 0 .. 128";
  if (!(a.canonical_size > 0.0f) || !std::isfinite(a.canonical_size)) return "canonical_size is not above 0 and finite";
  for (int32_t l = 0; l < a.levels; ++l)
    if (EsStatus problem = check_map(a, l)) return problem;
  return check_output(a);
}

// level >= l where log2(sqrt(area) / size) + 1e-6 >= l - k0: where area >= size^2 * 2^-2e-6 * 4^(l - k0).
inline float least_area(const EsRoiAlign& a, int32_t level) {
  const double step = 2.0 * ((double)level - a.canonical_level);
  const double bounded = step < -300.0 ? -300.0 : step > 300.0 ? 300.0 : step;
  const double area = std::ldexp((double)a.canonical_size * a.canonical_size * 0.9999986137065998, (int)bounded);
  return area < 1.17549435e-38 ? 1.17549435e-38f : area > 3.4028234e38 ? 3.4028234e38f : (float)area;
}

inline Plan plan_of(const EsRoiAlign& a) {
  Plan p{};
  p.args = a;
  p.output = layout_of(a.output);
  for (int32_t l = 0; l < a.levels; ++l) p.features[l] = layout_of(a.features[l]), p.least_area[l] = least_area(a, l);
  return p;
}

inline bool nothing_to_do(const EsRoiAlign& a) { return a.output.n == 0 || a.output.c == 0; }

}  // namespace roi
}  // namespace edgeseg
