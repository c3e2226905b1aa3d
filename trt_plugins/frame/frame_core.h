// The arithmetic of preprocess and overlay, pixel by pixel: the kernels and the CPU twins call the same functions.
#pragma once

#include "../common/half.h"
#include "frame.h"

namespace edgeseg {
namespace frame {

constexpr int32_t kMaxSide = 32768, kIgnore = 255;

// --- one axis of the half-pixel resize ---

struct Axis {
  int32_t in, out;
  float step, inverse;  // in / out, 1 / (2 out)
};

struct Tap {
  int32_t lo, hi;
  float frac;
};

inline Axis axis_of(int32_t in, int32_t out) { return {in, out, (float)in / (float)out, 0.5f / (float)out}; }

// Output i samples the input at ((2 i + 1) in - out) / (2 out). Float alone would be off by up to a thousandth of a pixel in a wide
// frame, and few devices are fast in double: so a float estimate of the quotient, corrected by the integer remainder.
ES_HD Tap tap_of(const Axis& a, int32_t i) {
  const int64_t numerator = (2 * (int64_t)i + 1) * a.in - a.out, denominator = 2 * (int64_t)a.out;
  int32_t lo = (int32_t)(((float)i + 0.5f) * a.step - 0.5f);
  int64_t rest = numerator - lo * denominator;
  while (rest < 0 && lo > 0) --lo, rest += denominator;
  while (rest >= denominator) ++lo, rest -= denominator;
  if (rest < 0) return {0, 0, 0.0f};  // before the first element's centre
  if (lo >= a.in - 1) return {a.in - 1, a.in - 1, 0.0f};
  return {lo, lo + 1, (float)rest * a.inverse};
}

// --- pixels ---

struct Source {
  const uint8_t *frame, *chroma;
  int64_t stride;
};

struct Colour {
  float b, g, r;
};

ES_HD float clamp_grey(float v) { return v > 0.0f ? (v < 255.0f ? v : 255.0f) : 0.0f; }

ES_HD Colour bgr_at(const Source& s, int32_t y, int32_t x) {
  const uint8_t* p = s.frame + y * s.stride + 3 * (int64_t)x;
  return {(float)p[0], (float)p[1], (float)p[2]};
}

// ITU-R BT.601, limited range: Y 16..235, U and V 16..240 around 128.
ES_HD Colour nv12_at(const Source& s, int32_t y, int32_t x) {
  const uint8_t* uv = s.chroma + (y / 2) * s.stride + (x & ~1);
  const float u = (float)uv[0] - 128.0f, v = (float)uv[1] - 128.0f, above = (float)s.frame[y * s.stride + x] - 16.0f;
  const float luma = 1.16438356f * (above > 0.0f ? above : 0.0f);
  return {clamp_grey(luma + 2.01723214f * u), clamp_grey(luma - 0.39176229f * u - 0.81296765f * v), clamp_grey(luma + 1.59602679f * v)};
}

ES_HD float between(float from, float to, float frac) { return from + (to - from) * frac; }

ES_HD Colour between(const Colour& from, const Colour& to, float frac) {
  return {between(from.b, to.b, frac), between(from.g, to.g, frac), between(from.r, to.r, frac)};
}

template <int kKind>
ES_HD Colour colour_at(const Source& s, int32_t y, int32_t x) {
  return kKind == ES_FRAME_NV12 ? nv12_at(s, y, x) : bgr_at(s, y, x);
}

template <int kKind>
ES_HD Colour resized(const Source& s, const Tap& row, const Tap& column) {
  const Colour upper = between(colour_at<kKind>(s, row.lo, column.lo), colour_at<kKind>(s, row.lo, column.hi), column.frac);
  const Colour lower = between(colour_at<kKind>(s, row.hi, column.lo), colour_at<kKind>(s, row.hi, column.hi), column.frac);
  return between(upper, lower, row.frac);
}

struct Weighed {
  float sum, weight;
};

ES_HD void weigh(Weighed& w, const Source& s, int32_t y, int32_t x, float weight) {
  const float depth = (float)reinterpret_cast<const uint16_t*>(s.frame + y * s.stride)[x];
  w.sum += depth * weight;
  w.weight += depth > 0.0f ? weight : 0.0f;
}

ES_HD float resized_depth(const Source& s, const Tap& row, const Tap& column) {
  Weighed w = {0.0f, 0.0f};
  weigh(w, s, row.lo, column.lo, (1.0f - row.frac) * (1.0f - column.frac));
  weigh(w, s, row.lo, column.hi, (1.0f - row.frac) * column.frac);
  weigh(w, s, row.hi, column.lo, row.frac * (1.0f - column.frac));
  weigh(w, s, row.hi, column.hi, row.frac * column.frac);
  return w.weight > 0.0f ? w.sum / w.weight : 0.0f;
}

// --- preprocess ---

struct Preprocess {
  Source source;
  Axis rows, columns;
  Layout layout;
  int32_t channels;
  float mul[3], add[3];
  bool swap_rb;
};

inline Preprocess preprocess_of(const EsPreprocess& a) {
  const auto* frame = static_cast<const uint8_t*>(a.frame);
  const auto* chroma = a.chroma ? static_cast<const uint8_t*>(a.chroma) : frame + a.h * a.stride;
  return {{frame, chroma, a.stride},
          axis_of(a.h, a.output.h),
          axis_of(a.w, a.output.w),
          layout_of(a.output),
          a.output.c,
          {a.mul[0], a.mul[1], a.mul[2]},
          {a.add[0], a.add[1], a.add[2]},
          a.swap_rb != 0};
}

struct Values {
  float v[3];
};

// The output's channels of one pixel, scaled and offset.
template <int kKind>
ES_HD Values values_at(const Preprocess& p, const Tap& row, const Tap& column) {
  if (kKind == ES_FRAME_DEPTH16) return {{resized_depth(p.source, row, column) * p.mul[0] + p.add[0], 0.0f, 0.0f}};
  const Colour c = resized<kKind>(p.source, row, column);
  if (p.channels == 1) return {{(0.114f * c.b + 0.587f * c.g + 0.299f * c.r) * p.mul[0] + p.add[0], 0.0f, 0.0f}};
  const float first = p.swap_rb ? c.r : c.b, last = p.swap_rb ? c.b : c.r;
  return {{first * p.mul[0] + p.add[0], c.g * p.mul[1] + p.add[1], last * p.mul[2] + p.add[2]}};
}

// Three channels or fewer fit one vector, so a pixel's padding lies behind its values.
ES_HD int64_t place_of(const Layout& l, int32_t c, int64_t pixel) { return pixel * l.pixel + (l.vector > 1 ? c : c * l.block); }

inline EsStatus check_memory(const EsPreprocess& a) {
  if (!a.frame || !a.output.data) return "frame, output: no memory";
  if (a.kind == ES_FRAME_DEPTH16 && ((a.stride | (int64_t)(uintptr_t)a.frame) & 1)) return "frame: expected rows of depth at even addresses";
  return nullptr;
}

inline EsStatus check(const EsPreprocess* a) {
  if (!a) return "no arguments";
  const EsTensor& out = a->output;
  if (a->kind < ES_FRAME_BGR || a->kind > ES_FRAME_DEPTH16) return "kind: expected BGR, NV12 or DEPTH16";
  if (a->h < 1 || a->w < 1 || a->h > kMaxSide || a->w > kMaxSide) return "frame: expected sides of 1 to 32768";
  if (a->kind == ES_FRAME_NV12 && ((a->h | a->w) & 1)) return "frame: expected even sides for NV12";
  if (out.type != ES_FLOAT32 && out.type != ES_FLOAT16 && out.type != ES_INT8) return "output: expected float32, float16 or int8";
  if (out.format < ES_LINEAR || out.format > ES_CHW32) return "output: unknown format";
  if (out.n != 1) return "output: expected one image";
  if (out.h < 1 || out.w < 1 || out.h > kMaxSide || out.w > kMaxSide) return "output: expected sides of 1 to 32768";
  if (out.c != 1 && (out.c != 3 || a->kind == ES_FRAME_DEPTH16)) return "output: expected 3 channels or 1, and 1 of depth";
  return check_memory(*a);
}

// --- overlay ---

ES_HD uint8_t blended(uint8_t frame, uint8_t colour, int32_t alpha) {
  return (uint8_t)((frame * (256 - alpha) + colour * alpha + 128) >> 8);
}

inline EsStatus check(const EsOverlay* a) {
  if (!a) return "no arguments";
  if (a->h < 0 || a->w < 0 || a->h > kMaxSide || a->w > kMaxSide) return "frame: expected sides of at most 32768";
  if (a->alpha < 0 || a->alpha > 256) return "alpha: expected 0 to 256";
  const int64_t step = a->out_stride < 0 ? -a->out_stride : a->out_stride;
  if (a->h > 1 && step < 3 * (int64_t)a->w) return "out: rows overlap; expected a stride of 3 bytes a pixel or more";
  if (a->h > 0 && a->w > 0 && (!a->frame || !a->out || !a->labels || !a->palette_bgr)) return "frame, out, labels, palette: no memory";
  return nullptr;
}

}  // namespace frame
}  // namespace edgeseg
