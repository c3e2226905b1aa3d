// Python face of the HHA encoding; edgeseg/native/hha.py allocates outputs and documents the calls.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>

#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include "arrays.h"
#include "hha.h"

namespace edgeseg {
namespace {

using Four = std::array<double, 4>;
using Vec3 = std::array<double, 3>;

DepthFrame depth_frame(const Input& depth, const Four& camera) {
  require_type<float>(depth, "depth", "(H, W) float32");
  if (depth.ndim() != 2 || !contiguous(depth)) fail("depth: got " + describe(depth) + "; expected C-contiguous (H, W) float32");
  for (double value : camera)
    if (!std::isfinite(value)) fail("intrinsics: not finite; expected fx, fy, cx, cy in pixels");
  if (!(camera[0] > 0 && camera[1] > 0)) fail("intrinsics: a focal length that is not positive; expected fx, fy, cx, cy in pixels");
  DepthFrame frame{};
  frame.depth = data<float>(depth), frame.h = side(depth.shape(0), "depth"), frame.w = side(depth.shape(1), "depth");
  frame.camera = {(float)camera[0], (float)camera[1], (float)camera[2], (float)camera[3]};
  return frame;
}

void require_radius(int radius) {
  if (radius < 1 || radius > 64) fail("radius: got " + std::to_string(radius) + "; expected 1..64 px");
}

void depth_normals(const Input& depth, const Four& camera, int radius, const Output& normals) {
  const DepthFrame frame = depth_frame(depth, camera);
  require_radius(radius);
  require_shape<float>(normals, "normals", {3, (size_t)frame.h, (size_t)frame.w}, "(3, H, W) float32 of the depth's size");
  nb::gil_scoped_release release;
  surface_normals(frame, radius, data<float>(normals));
}

Vec3 hha(const Input& depth, const Four& camera, const std::optional<Vec3>& gravity, int radius, const Output& planes) {
  const DepthFrame frame = depth_frame(depth, camera);
  require_radius(radius);
  require_shape<uint8_t>(planes, "planes", {(size_t)frame.h, (size_t)frame.w, 3}, "(H, W, 3) uint8 of the depth's size");
  Vec3 down = gravity.value_or(Vec3{0, 1, 0});
  const double length = std::sqrt(down[0] * down[0] + down[1] * down[1] + down[2] * down[2]);
  if (!(std::isfinite(length) && length > 1e-6)) fail("gravity: no direction; expected a vector (x, y, z) that is not 0");
  for (double& value : down) value /= length;
  nb::gil_scoped_release release;
  const std::unique_ptr<float[]> normals(new float[(size_t)frame.h * frame.w * 3]);  // not worth zeroing
  surface_normals(frame, radius, normals.get());
  if (!gravity) estimate_gravity(frame, normals.get(), down.data());
  encode_hha(frame, normals.get(), down.data(), data<uint8_t>(planes));
  return down;
}

}  // namespace

void bind_hha(nb::module_& m);
void bind_hha(nb::module_& m) {
  m.def("depth_normals", &depth_normals, nb::arg("depth"), nb::arg("intrinsics"), nb::arg("radius"), nb::arg("normals").noconvert());
  m.def("hha", &hha, nb::arg("depth"), nb::arg("intrinsics"), nb::arg("gravity").none(), nb::arg("radius"), nb::arg("planes").noconvert());
}

}  // namespace edgeseg
