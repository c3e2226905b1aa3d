// Normals, gravity from them, and the planes; the loops over pixels are in hha_kernels.h.
#include "hha.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <new>
#include <vector>

#include "kernels.h"

namespace edgeseg {
namespace {

constexpr int kSamples = 20000;   // normals that gravity and ground are found from, at most
constexpr double kGround = 0.01;  // share of points that may lie below the ground
constexpr int kBlock = 16;        // columns are padded to full vectors

inline bool known(float z) { return z > 0 && z < kFarthest; }

int sample_step(const DepthFrame& frame) {
  return std::max(1, (int)std::ceil(std::sqrt((double)frame.h * frame.w / kSamples)));
}

// The eigenvector of the smallest eigenvalue of a symmetric matrix, by Jacobi rotations.
std::array<double, 3> smallest_direction(double m[3][3]) {
  double v[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
  for (int sweep = 0; sweep < 12; ++sweep)
    for (int p = 0; p < 2; ++p)
      for (int q = p + 1; q < 3; ++q) {
        if (m[p][q] == 0) continue;
        const double theta = (m[q][q] - m[p][p]) / (2 * m[p][q]);
        const double t = (theta < 0 ? -1 : 1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (int k = 0; k < 3; ++k) {
          const double a = m[k][p], b = m[k][q];
          m[k][p] = c * a - s * b, m[k][q] = s * a + c * b;
        }
        for (int k = 0; k < 3; ++k) {
          const double a = m[p][k], b = m[q][k];
          m[p][k] = c * a - s * b, m[q][k] = s * a + c * b;
        }
        for (int k = 0; k < 3; ++k) {
          const double a = v[k][p], b = v[k][q];
          v[k][p] = c * a - s * b, v[k][q] = s * a + c * b;
        }
      }
  int best = 0;
  for (int i = 1; i < 3; ++i)
    if (m[i][i] < m[best][best]) best = i;
  return {v[0][best], v[1][best], v[2][best]};
}

// The height, relative to the camera, that a share kGround of the sampled points lie below.
float ground_height(const DepthFrame& frame, const double gravity[3]) {
  const Pinhole& camera = frame.camera;
  const int step = sample_step(frame);
  std::vector<float> heights;
  for (int y = step / 2; y < frame.h; y += step)
    for (int x = step / 2; x < frame.w; x += step)
      if (const float z = frame.depth[(size_t)y * frame.w + x]; known(z))
        heights.push_back(-z * (float)(gravity[0] * (x - camera.cx) / camera.fx + gravity[1] * (y - camera.cy) / camera.fy + gravity[2]));
  if (heights.empty()) return 0;
  const auto place = heights.begin() + (ptrdiff_t)(kGround * (double)(heights.size() - 1));
  std::nth_element(heights.begin(), place, heights.end());
  return *place;
}

}  // namespace

void surface_normals(const DepthFrame& frame, int radius, float* normals) {
  HhaArgs args{};
  args.frame = frame, args.radius = radius, args.normals = normals;
  args.width = (frame.w + kBlock - 1) / kBlock * kBlock + 2 * radius;
  std::vector<float> inverse((size_t)frame.h * args.width, 0.0f);
  for (int y = 0; y < frame.h; ++y) {
    const float* in = frame.depth + (size_t)y * frame.w;
    float* out = inverse.data() + (size_t)y * args.width + radius;
    for (int x = 0; x < frame.w; ++x) out[x] = known(in[x]) ? 1.0f / in[x] : 0.0f;
  }
  args.inverse = inverse.data();
  if (!kernels().hha_normals(args, 0, frame.h)) throw std::bad_alloc();
}

void estimate_gravity(const DepthFrame& frame, const float* normals, double gravity[3]) {
  const size_t plane = (size_t)frame.h * frame.w;
  const int step = sample_step(frame);
  std::vector<std::array<float, 3>> found;
  for (int y = step / 2; y < frame.h; y += step)
    for (int x = step / 2; x < frame.w; x += step) {
      const float* n = normals + (size_t)y * frame.w + x;
      if (n[0] != 0 || n[plane] != 0 || n[2 * plane] != 0) found.push_back({n[0], n[plane], n[2 * plane]});
    }
  gravity[0] = gravity[2] = 0, gravity[1] = 1;
  for (int iteration = 0; iteration < 10; ++iteration) {
    const double limit = (iteration < 5 ? 45 : 15) * M_PI / 180;
    const double along = std::cos(limit), across = std::sin(limit);
    double m[3][3] = {};
    for (const auto& n : found) {
      const double cosine = std::fabs(n[0] * gravity[0] + n[1] * gravity[1] + n[2] * gravity[2]);
      const int sign = cosine > along ? -1 : cosine < across ? 1 : 0;
      for (int i = 0; sign && i < 3; ++i)
        for (int j = 0; j < 3; ++j) m[i][j] += sign * (double)n[i] * n[j];
    }
    if (m[0][0] == 0 && m[1][1] == 0 && m[2][2] == 0) break;
    const auto next = smallest_direction(m);
    const double sign = next[0] * gravity[0] + next[1] * gravity[1] + next[2] * gravity[2] < 0 ? -1 : 1;
    for (int i = 0; i < 3; ++i) gravity[i] = sign * next[i];
  }
}

void encode_hha(const DepthFrame& frame, float* normals, const double gravity[3], uint8_t* planes) {
  HhaArgs args{};
  args.frame = frame, args.normals = normals, args.planes = planes;
  for (int i = 0; i < 3; ++i) args.gravity[i] = (float)gravity[i];
  args.ground = ground_height(frame, gravity);
  kernels().hha_planes(args, 0, frame.h);
}

}  // namespace edgeseg
