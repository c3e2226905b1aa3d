// Python face of the kernels: checks every array, releases the GIL, splits rows over threads.
// edgeseg/native/__init__.py allocates outputs and documents the calls.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <string>
#include <vector>

#include "arrays.h"
#include "axis.h"
#include "kernels.h"

using namespace edgeseg;

namespace edgeseg {
void bind_crf(nb::module_& m);  // bindings_crf.cpp
void bind_hha(nb::module_& m);  // bindings_hha.cpp
void bind_scene(nb::module_& m);  // bindings_scene.cpp
}

namespace {

template <class A>
void require_frame(const A& frame, const char* name) {
  require_type<uint8_t>(frame, name, "(H, W, 3) uint8");
  if (frame.ndim() != 3 || frame.shape(2) != 3) fail(std::string(name) + ": got " + describe(frame) + "; expected (H, W, 3) uint8");
  side(frame.shape(0), name), side(frame.shape(1), name);
  if (frame.stride(2) != 1 || (frame.shape(1) > 1 && frame.stride(1) != 3))
    fail(std::string(name) + ": pixels are not packed; expected (H, W, 3) uint8 with contiguous rows (any row stride)");
}

void preprocess(const Input& frame, const Output& out, double scale, const std::vector<double>& mean, const std::vector<double>& std,
                bool swap_rb, int threads) {
  require_frame(frame, "frame");
  require_threads(threads);
  require_type<float>(out, "out", "(1, C, H, W) float32");
  const size_t skip = out.ndim() == 4 ? 1 : 0;
  if (out.ndim() != 3 + skip || (skip && out.shape(0) != 1) || !contiguous(out) || (out.shape(skip) != 1 && out.shape(skip) != 3))
    fail("out: got " + describe(out) + "; expected C-contiguous (1, C, H, W) float32, C 1 or 3");
  PreprocessArgs a{};
  a.frame = data<uint8_t>(frame), a.row_stride = frame.stride(0), a.h = (int)frame.shape(0), a.w = (int)frame.shape(1);
  a.out = data<float>(out), a.channels = (int)out.shape(skip);
  a.out_h = side(out.shape(skip + 1), "out"), a.out_w = side(out.shape(skip + 2), "out");
  a.swap_rb = swap_rb;
  if (mean.size() != (size_t)a.channels || std.size() != (size_t)a.channels)
    fail("mean, std: got " + std::to_string(mean.size()) + " and " + std::to_string(std.size()) + " values; expected one per channel of out");
  for (int c = 0; c < a.channels; ++c) {
    a.mul[c] = (float)(scale / std[c]), a.add[c] = (float)(-mean[c] / std[c]);
    if (!std::isfinite(a.mul[c]) || !std::isfinite(a.add[c])) fail("scale, mean, std: not finite, or std is 0");
  }
  nb::gil_scoped_release release;
  const Axis rows(a.h, a.out_h), columns(a.w, a.out_w);
  a.rows = rows.view(), a.columns = columns.view();
  const Kernels& k = kernels();
  split_rows(a.out_h, threads, [&](int begin, int end) { return k.preprocess(a, begin, end); });
}

UpsampleArgs upsample_args(const Input& logits, const Output& labels) {
  UpsampleArgs a{};
  a.logits = data<float>(logits);
  a.classes = (int)logits.shape(0), a.h = side(logits.shape(1), "logits"), a.w = side(logits.shape(2), "logits");
  a.labels = data<uint8_t>(labels);
  a.out_h = side(labels.shape(0), "labels"), a.out_w = side(labels.shape(1), "labels");
  return a;
}

void require_logits(const Input& logits, const Output& labels, size_t least, size_t most, const char* expected) {
  require_type<float>(logits, "logits", expected);
  if (logits.ndim() != 3 || logits.shape(0) < least || logits.shape(0) > most || !contiguous(logits))
    fail("logits: got " + describe(logits) + "; expected C-contiguous " + expected);
  require_type<uint8_t>(labels, "labels", "(H, W) uint8");
  if (labels.ndim() != 2 || !contiguous(labels)) fail("labels: got " + describe(labels) + "; expected C-contiguous (H, W) uint8");
}

void run_upsample(UpsampleArgs& a, int threads, bool argmax) {
  nb::gil_scoped_release release;
  const Axis rows(a.h, a.out_h), columns(a.w, a.out_w);
  a.rows = rows.view(), a.columns = columns.view();
  const auto kernel = argmax ? kernels().upsample_argmax : kernels().upsample_threshold;
  split_rows(a.out_h, threads, [&](int begin, int end) { return kernel(a, begin, end); });
}

void upsample_argmax(const Input& logits, const Output& labels, int threads) {
  require_logits(logits, labels, 2, 256, "(C, h, w) float32, C in 2..256");
  require_threads(threads);
  UpsampleArgs a = upsample_args(logits, labels);
  run_upsample(a, threads, true);
}

void upsample_threshold(const Input& logits, const Output& labels, double threshold, int threads) {
  require_logits(logits, labels, 1, 1, "(1, h, w) float32");
  require_threads(threads);
  UpsampleArgs a = upsample_args(logits, labels);
  a.threshold = (float)threshold;
  run_upsample(a, threads, false);
}

// The palette, premultiplied: four values per label so that one 8-byte copy brings a pixel's colour.
class Blend {
 public:
  Blend(const Input& frame, const Input& palette, double alpha, const Output& out) {
    require_frame(frame, "frame");
    require_frame(out, "out");
    require_shape<uint8_t>(palette, "palette", {256, 3}, "(256, 3) uint8");
    if (!(alpha >= 0 && alpha <= 1)) fail("alpha: got " + std::to_string(alpha) + "; expected 0..1");
    if (out.shape(0) != frame.shape(0) || out.shape(1) != frame.shape(1)) fail("out: got " + describe(out) + "; expected the shape of frame");
    const int weight = (int)std::lround(alpha * 256);
    const uint8_t* colours = data<uint8_t>(palette);
    for (int i = 0; i < 256; ++i)
      for (int c = 0; c < 3; ++c) add_[4 * i + c] = (uint16_t)(colours[3 * i + c] * weight + 128);
    args_ = {data<uint8_t>(frame), frame.stride(0), data<uint8_t>(out), out.stride(0), (int)frame.shape(1), add_, (uint16_t)(256 - weight)};
  }
  Blend(const Blend&) = delete;
  const OverlayArgs& args() const { return args_; }

 private:
  uint16_t add_[1024] = {};
  OverlayArgs args_;
};

void overlay(const Input& frame, const Input& labels, const Input& palette, double alpha, const Output& out, int threads) {
  const Blend blend(frame, palette, alpha, out);
  require_threads(threads);
  require_shape<uint8_t>(labels, "labels", {frame.shape(0), frame.shape(1)}, "(H, W) uint8 of the frame's size");
  const uint8_t* p = data<uint8_t>(labels);
  nb::gil_scoped_release release;
  const Kernels& k = kernels();
  split_rows((int)frame.shape(0), threads, [&](int begin, int end) {
    k.overlay(blend.args(), p, begin, end);
    return true;
  });
}

void upsample_argmax_overlay(const Input& logits, const Input& frame, const Input& palette, double alpha, const Output& labels,
                             const Output& out, int threads) {
  require_logits(logits, labels, 2, 256, "(C, h, w) float32, C in 2..256");
  require_threads(threads);
  const Blend blend(frame, palette, alpha, out);
  if (labels.shape(0) != frame.shape(0) || labels.shape(1) != frame.shape(1))
    fail("labels: got " + describe(labels) + "; expected (H, W) uint8 of the frame's size");
  UpsampleArgs a = upsample_args(logits, labels);
  a.overlay = &blend.args();
  run_upsample(a, threads, true);
}

template <class T>
void nearest(const T* in, int h, int w, uint8_t* out, int out_h, int out_w) {
  std::vector<int> column(out_w);
  for (int x = 0; x < out_w; ++x) column[x] = (int)((2 * (int64_t)x + 1) * w / (2 * (int64_t)out_w));
  for (int y = 0; y < out_h; ++y) {
    const T* row = in + (size_t)((2 * (int64_t)y + 1) * h / (2 * (int64_t)out_h)) * w;
    uint8_t* to = out + (size_t)y * out_w;
    for (int x = 0; x < out_w; ++x) {
      const T v = row[column[x]];
      to[x] = v < 0 || v > 255 ? 255 : (uint8_t)v;
    }
  }
}

void upsample_nearest(const Input& labels, const Output& out) {
  if (labels.ndim() != 2 || !contiguous(labels)) fail("labels: got " + describe(labels) + "; expected C-contiguous (h, w)");
  require_type<uint8_t>(out, "out", "(H, W) uint8");
  if (out.ndim() != 2 || !contiguous(out)) fail("out: got " + describe(out) + "; expected C-contiguous (H, W) uint8");
  const int h = side(labels.shape(0), "labels"), w = side(labels.shape(1), "labels");
  const int out_h = side(out.shape(0), "out"), out_w = side(out.shape(1), "out");
  const auto type = labels.dtype();
  nb::gil_scoped_release release;
  if (type == nb::dtype<uint8_t>())
    nearest(data<uint8_t>(labels), h, w, data<uint8_t>(out), out_h, out_w);
  else if (type == nb::dtype<int32_t>())
    nearest(data<int32_t>(labels), h, w, data<uint8_t>(out), out_h, out_w);
  else if (type == nb::dtype<int64_t>())
    nearest(data<int64_t>(labels), h, w, data<uint8_t>(out), out_h, out_w);
  else
    fail("labels: got " + describe(labels) + "; expected uint8, int32 or int64");
}

std::vector<std::string> isa_names() {
  const char* names[4];
  supported(names);
  std::vector<std::string> found;
  for (const char* name : names)
    if (name) found.emplace_back(name);
  return found;
}

void select_isa(const std::string& name) {
  if (!select(name.c_str())) fail("instruction set " + name + ": unknown, or not on this CPU");
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.doc() = "C++ kernels of edgeseg; use them through edgeseg.native";
  m.def("preprocess", &preprocess, nb::arg("frame"), nb::arg("out").noconvert(), nb::arg("scale"), nb::arg("mean"), nb::arg("std"),
        nb::arg("swap_rb"), nb::arg("threads"));
  m.def("upsample_argmax", &upsample_argmax, nb::arg("logits"), nb::arg("labels").noconvert(), nb::arg("threads"));
  m.def("upsample_threshold", &upsample_threshold, nb::arg("logits"), nb::arg("labels").noconvert(), nb::arg("threshold"), nb::arg("threads"));
  m.def("upsample_nearest", &upsample_nearest, nb::arg("labels"), nb::arg("out").noconvert());
  m.def("overlay", &overlay, nb::arg("frame"), nb::arg("labels"), nb::arg("palette"), nb::arg("alpha"), nb::arg("out").noconvert(),
        nb::arg("threads"));
  m.def("upsample_argmax_overlay", &upsample_argmax_overlay, nb::arg("logits"), nb::arg("frame"), nb::arg("palette"), nb::arg("alpha"),
        nb::arg("labels").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
  m.def("isa_names", &isa_names, "Instruction sets this CPU runs, best last");
  m.def("isa", [] { return std::string(kernels().name); }, "The instruction set in use");
  m.def("select_isa", &select_isa, nb::arg("name"), "Use another instruction set (tests)");
  bind_crf(m);
  bind_hha(m);
  bind_scene(m);
}
