// HHA planes of a depth frame: horizontal disparity, height above ground, angle with gravity (Gupta et al., ECCV 2014).
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

constexpr float kFarthest = 1000.0f;  // m; depth is known within 0..kFarthest

struct Pinhole {
  float fx, fy, cx, cy;  // px; the centre of the first pixel is (0, 0)
};

struct DepthFrame {
  const float* depth;  // (h, w) m along the optical axis
  int h, w;
  Pinhole camera;
};

struct HhaArgs {
  DepthFrame frame;
  int radius;
  const float* inverse;  // (h, width) 1 / depth, 0 unknown; radius columns and more of padding on both sides
  int width;
  float* normals;  // (3, h, w), unit, away from the camera; 0 where there is none
  float gravity[3];  // unit, downwards
  float ground;  // height relative to the camera, m
  uint8_t* planes;  // (h, w, 3)
};

// (3, h, w) normals.
void surface_normals(const DepthFrame& frame, int radius, float* normals);
// Downwards, from the y axis of the camera by Gupta et al., CVPR 2013.
void estimate_gravity(const DepthFrame& frame, const float* normals, double gravity[3]);
// planes: (h, w, 3).
void encode_hha(const DepthFrame& frame, float* normals, const double gravity[3], uint8_t* planes);

}  // namespace edgeseg
