// The arithmetic of UpsampleArgmax, element by element: the kernels and the CPU twin call the same functions. Nothing may be contracted
// to a fused multiply-add (the build says so to both compilers): a GPU, the twin and edgeseg/native then give equal labels.
#pragma once

#include <cmath>

#include "../common/half.h"
#include "upsample_argmax.h"

namespace edgeseg {
namespace upsample_argmax {

constexpr float kHuge = 1e30f;  // logits are clamped to it, so that infinity times weight zero is zero; NaN counts as -kHuge

// One axis: output i samples the input at (i + shift) * step - shift, clamped to the first and last element.
struct Axis {
  double step, shift;
  int32_t in, out;
  bool in_float;  // float gives every source coordinate exactly; many devices have few double units
};

// Output reads elements lo and min(lo + 1, in - 1) with weights 1 - frac and frac.
struct Tap {
  int32_t lo;
  float frac;
};

inline bool power_of_two(int64_t v) { return v > 0 && (v & (v - 1)) == 0; }

inline Axis axis_of(int32_t in, int32_t out, bool align_corners) {
  const int64_t from = align_corners ? in - 1 : in, to = align_corners ? out - 1 : out;
  const double step = to > 0 ? (double)from / (double)to : 0.0;
  // from / to = 2^-k: coordinates are multiples of 2^-(k + 1) below in, of less than 24 bits.
  const bool exact = from > 0 && to % from == 0 && power_of_two(to / from) && out < (1 << 22);
  return {step, align_corners ? 0.0 : 0.5, in, out, exact};
}

template <class Real>
ES_HD Tap tap_in(const Axis& a, int32_t i) {
  const Real shift = (Real)a.shift, last = (Real)(a.in - 1);
  Real s = ((Real)i + shift) * (Real)a.step - shift;
  s = s > Real(0) ? (s < last ? s : last) : Real(0);
  const int32_t lo = (int32_t)s;
  return {lo, (float)(s - (Real)lo)};
}

ES_HD Tap tap_of(const Axis& a, int32_t i) { return a.in_float ? tap_in<float>(a, i) : tap_in<double>(a, i); }

// The first output whose tap's lo is k or more; a.out if there is none.
ES_HD int32_t first_output(const Axis& a, int32_t k) {
  if (k <= 0) return 0;
  if (k >= a.in || a.step <= 0.0) return a.out;
  const float guess = ((float)k + (float)a.shift) / (float)a.step - (float)a.shift;
  int32_t i = guess < (float)a.out ? (int32_t)guess : a.out;
  while (i > 0 && tap_of(a, i - 1).lo >= k) --i;
  while (i < a.out && tap_of(a, i).lo < k) ++i;
  return i;
}

template <class T>
ES_HD float clean(T stored) {
  const float v = to_float(stored);
  return v > -kHuge ? (v < kHuge ? v : kHuge) : -kHuge;
}

ES_HD float between(float from, float to, float frac) { return from + (to - from) * frac; }

// The best class so far, and the softmax's denominator relative to it.
struct Winner {
  float best, sum;
  int32_t label;
};

ES_HD Winner nobody() { return {-4 * kHuge, 0.0f, 0}; }

ES_HD void contend(Winner& w, float v, int32_t c) {
  w.label = v > w.best ? c : w.label;
  w.best = v > w.best ? v : w.best;
}

// The same, and one exponential a class keeps the denominator.
ES_HD void contend_summing(Winner& w, float v, int32_t c, float scale) {
  const float e = expf(-fabsf(v - w.best) * scale);
  w.sum = v > w.best ? w.sum * e + 1.0f : w.sum + e;
  contend(w, v, c);
}

// What is told of a pixel once all classes were met.
struct Verdict {
  int32_t label;
  float probability;
};

ES_HD Verdict verdict(const Winner& w, int32_t classes, float threshold, float scale) {
  if (classes > 1) return {w.label, 1.0f / w.sum};
  const float logit = w.best * scale;
  return {logit > threshold ? 1 : 0, 1.0f / (1.0f + expf(-logit))};
}

template <class T>
struct Source {
  const T* data;
  Layout layout;
  int32_t shift;  // layout.vector = 2^shift: a division less for each logit read
  int32_t classes, h, w;
  float scale;
};

template <class T>
ES_HD float logit_at(const Source<T>& s, int64_t n, int32_t c, int32_t y, int32_t x) {
  const Layout& l = s.layout;
  return clean(s.data[n * l.image + (c >> s.shift) * l.block + ((int64_t)y * s.w + x) * l.pixel + (c & (l.vector - 1))]);
}

template <class T>
ES_HD float upsampled(const Source<T>& s, int64_t n, int32_t c, Tap row, Tap column) {
  const int32_t below = row.lo + 1 < s.h ? row.lo + 1 : row.lo, right = column.lo + 1 < s.w ? column.lo + 1 : column.lo;
  const float upper = between(logit_at(s, n, c, row.lo, column.lo), logit_at(s, n, c, row.lo, right), column.frac);
  const float lower = between(logit_at(s, n, c, below, column.lo), logit_at(s, n, c, below, right), column.frac);
  return between(upper, lower, row.frac);
}

// One output pixel from memory alone.
template <class T, bool Probability>
ES_HD Winner contest(const Source<T>& s, int64_t n, Tap row, Tap column) {
  Winner w = nobody();
  for (int32_t c = 0; c < s.classes; ++c) {
    const float v = upsampled(s, n, c, row, column);
    if (Probability)
      contend_summing(w, v, c, s.scale);
    else
      contend(w, v, c);
  }
  return w;
}

inline EsStatus check(const EsUpsampleArgmax* a) {
  if (!a) return "no arguments";
  const EsTensor &in = a->logits, &out = a->labels;
  if (in.type != ES_FLOAT32 && in.type != ES_FLOAT16 && in.type != ES_INT8) return "logits: expected float32, float16 or int8";
  if (in.format < ES_LINEAR || in.format > ES_CHW32) return "logits: unknown format";
  if (out.type != ES_UINT8 && out.type != ES_INT8) return "labels: expected uint8";
  if (out.format != ES_LINEAR || out.c != 1) return "labels: expected (N, 1, H, W) in the linear format";
  if (in.n < 0 || in.n != out.n) return "labels: expected as many images as the logits have";
  if (in.c < 1 || in.c > 256) return "logits: expected 1 to 256 classes";
  if (in.h < 1 || in.w < 1 || out.h < 1 || out.w < 1) return "logits, labels: expected sides of 1 or more";
  if (in.type == ES_INT8 && !(a->logit_scale > 0.0f && a->logit_scale < kHuge)) return "logit_scale: expected a positive number";
  if (in.n > 0 && (!in.data || !out.data)) return "logits, labels: no memory";
  return nullptr;
}

template <class T>
inline Source<T> source_of(const EsUpsampleArgmax& a) {
  const EsTensor& t = a.logits;
  const Layout layout = layout_of(t);
  int32_t shift = 0;
  while ((1 << shift) < layout.vector) ++shift;
  return {static_cast<const T*>(t.data), layout, shift, t.c, t.h, t.w, t.type == ES_INT8 ? a.logit_scale : 1.0f};
}

}  // namespace upsample_argmax
}  // namespace edgeseg
