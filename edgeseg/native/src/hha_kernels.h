// The loops of HHA: normals by a fit of inverse depth over a square window, and the three planes, eight pixels at a time on every
// instruction set, so that all give the same bits.
#pragma once

#include <math.h>

#include "hha.h"
#include "float8.h"
#include "simd.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the instruction set's stay inside this file

namespace edgeseg {
namespace EDGESEG_ISA {
namespace hha {

constexpr int kLanes = 8;
constexpr float kNear = 1.0f, kTall = 3.0f;

static inline float8 smaller(float8 a, float8 b) { return a < b ? a : b; }
static inline float8 roots(float8 v) {
  float lanes[kLanes];
  store8(lanes, v);
  for (float& lane : lanes) lane = sqrtf(lane);
  return load8(lanes);
}
static inline float8 columns_from(float x) { return float8{x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7}; }

// Sums over the 2 radius + 1 rows around one: count, inverse depth q, and their moments in dy. Padded by radius on both sides.
struct ColumnSums {
  float *count, *y, *yy, *q, *qy;
};

static void add_columns(const HhaArgs& a, int row, const ColumnSums& sums) {
  memset(sums.count, 0, 5 * sizeof(float) * (size_t)a.width);
  float *__restrict count = sums.count, *__restrict y = sums.y, *__restrict yy = sums.yy, *__restrict q = sums.q, *__restrict qy = sums.qy;
  for (int dy = -a.radius; dy <= a.radius; ++dy) {
    if (row + dy < 0 || row + dy >= a.frame.h) continue;
    const float* __restrict in = a.inverse + (size_t)(row + dy) * a.width;
    const float d = (float)dy;
    for (int x = 0; x < a.width; ++x) {
      const float value = in[x], one = value > 0 ? 1.0f : 0.0f;
      count[x] += one, y[x] += one * d, yy[x] += one * d * d;
      q[x] += value, qy[x] += value * d;
    }
  }
}

// The plane q = q0 + a dx + b dy through the window around eight pixels, as unit normals of the surface that q stands for.
static inline void fit(const HhaArgs& args, const ColumnSums& s, int x, int row, float normals[3][kLanes]) {
  float8 n{}, u{}, v{}, uu{}, uv{}, vv{}, q{}, qu{}, qv{};
  for (int i = 0; i <= 2 * args.radius; ++i) {
    const float d = (float)(i - args.radius);
    const float8 count = load8(s.count + x + i), y = load8(s.y + x + i), value = load8(s.q + x + i);
    n += count, v += y, vv += load8(s.yy + x + i), q += value, qv += load8(s.qy + x + i);
    u += count * d, uu += count * (d * d), uv += y * d, qu += value * d;
  }
  const float8 mean = 1.0f / larger(n, all(1)), mu = u * mean, mv = v * mean;
  const float8 suu = uu - u * mu, svv = vv - v * mv, suv = uv - u * mv, suq = qu - q * mu, svq = qv - q * mv;
  const float8 det = suu * svv - suv * suv;
  // Less than a corner of a whole picture has, or pixels in one line, make no plane.
  const float least = (float)((args.radius + 1) * (args.radius + 1));
  const int8x good = (load8(args.inverse + (size_t)row * args.width + args.radius + x) > 0) & (n >= least) & (det > 0.05f * n * n);
  const float8 scale = 1.0f / (good ? det : all(1));
  const float8 a = (suq * svv - svq * suv) * scale, b = (svq * suu - suq * suv) * scale;
  const float8 q0 = q * mean - a * mu - b * mv;
  const Pinhole& camera = args.frame.camera;
  const float8 column = columns_from((float)x - camera.cx);
  const float8 nx = a * camera.fx, ny = b * camera.fy, nz = q0 - a * column - b * ((float)row - camera.cy);
  const float8 square = nx * nx + ny * ny + nz * nz;
  const int8x fine = good & (square > 0);
  const float8 unit = fine ? 1.0f / roots(fine ? square : all(1)) : float8{};
  store8(normals[0], nx * unit), store8(normals[1], ny * unit), store8(normals[2], nz * unit);
}

// arccos within 1e-6 (Abramowitz and Stegun, 4.4.46).
static inline float8 arc_cosine(float8 x) {
  const float8 t = smaller(x < 0 ? -x : x, all(1));
  float8 p = t * -0.0012624911f + 0.0066700901f;
  p = p * t - 0.0170881256f;
  p = p * t + 0.0308918810f;
  p = p * t - 0.0501743046f;
  p = p * t + 0.0889789874f;
  p = p * t - 0.2145988016f;
  p = p * t + 1.5707963050f;
  const float8 angle = p * roots(1.0f - t);
  return x < 0 ? (float)M_PI - angle : angle;
}

// Rows of a.normals.
static bool normal_rows(const HhaArgs& a, int begin, int end) {
  const size_t wide = (size_t)a.width, plane = (size_t)a.frame.h * a.frame.w;
  const Scratch memory(5 * wide * sizeof(float));
  float *p = memory.get<float>(), eight[3][kLanes];
  if (!p) return false;
  const ColumnSums sums{p, p + wide, p + 2 * wide, p + 3 * wide, p + 4 * wide};
  for (int y = begin; y < end; ++y) {
    add_columns(a, y, sums);
    for (int x = 0; x < a.frame.w; x += kLanes) {
      fit(a, sums, x, y, eight);
      const size_t bytes = sizeof(float) * (size_t)(a.frame.w - x < kLanes ? a.frame.w - x : kLanes);
      for (int c = 0; c < 3; ++c) memcpy(a.normals + c * plane + (size_t)y * a.frame.w + x, eight[c], bytes);
    }
  }
  return true;
}

// Rows of a.planes, from a.normals, a.gravity and a.ground.
static void plane_rows(const HhaArgs& a, int begin, int end) {
  const Pinhole& camera = a.frame.camera;
  const size_t plane = (size_t)a.frame.h * a.frame.w;
  const float gx = a.gravity[0], gy = a.gravity[1], gz = a.gravity[2];
  float lanes[3][kLanes], line[4][kLanes] = {};
  for (int y = begin; y < end; ++y) {
    const float fixed = gy * ((float)y - camera.cy) / camera.fy + gz;
    for (int x = 0; x < a.frame.w; x += kLanes) {
      const int count = a.frame.w - x < kLanes ? a.frame.w - x : kLanes;
      const size_t at = (size_t)y * a.frame.w + x, bytes = sizeof(float) * (size_t)count;
      memcpy(line[0], a.frame.depth + at, bytes);
      for (int c = 0; c < 3; ++c) memcpy(line[c + 1], a.normals + c * plane + at, bytes);
      const float8 depth = load8(line[0]), nx = load8(line[1]), ny = load8(line[2]), nz = load8(line[3]);
      const int8x seen = (depth > 0) & (depth < kFarthest), flat = (nx != 0) | (ny != 0) | (nz != 0);
      const float8 z = seen ? depth : all(1);
      const float8 column = columns_from((float)x - camera.cx);
      const float8 height = -z * (column * (gx / camera.fx) + fixed) - a.ground;
      const float8 disparity = smaller(kNear / z, all(1)), rise = smaller(larger(height * (1 / kTall), float8{}), all(1));
      const float8 angle = arc_cosine(nx * gx + ny * gy + nz * gz) * (float)(1 / M_PI);
      store8(lanes[0], seen ? disparity * 254 + 1.5f : float8{});
      store8(lanes[1], seen ? rise * 254 + 1.5f : float8{});
      store8(lanes[2], seen & flat ? angle * 254 + 1.5f : float8{});
      for (int i = 0; i < count; ++i)
        for (int c = 0; c < 3; ++c) a.planes[3 * (at + i) + c] = (uint8_t)lanes[c][i];
    }
  }
}

}  // namespace hha

static bool hha_normals(const HhaArgs& a, int begin, int end) { return hha::normal_rows(a, begin, end); }
static void hha_planes(const HhaArgs& a, int begin, int end) { hha::plane_rows(a, begin, end); }

}  // namespace EDGESEG_ISA
}  // namespace edgeseg

#pragma GCC diagnostic pop
