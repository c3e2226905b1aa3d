#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cmath>
#include <optional>

#include "arrays.h"
#include "dense_crf.h"

namespace edgeseg {

namespace {

constexpr size_t kMaxPixels = size_t(1) << 27;  // six shares of each are counted in 32 bits

void require_number(double value, bool zero, const char* name) {
  if (!std::isfinite(value) || value < 0 || (!zero && value == 0))
    fail(std::string(name) + ": got " + std::to_string(value) + "; expected a finite number " + (zero ? "from 0" : "above 0"));
}

void run(CrfMemory& memory, const Input& frame, const Input& scores, bool probabilities, double least, double w1, double sigma_alpha, double sigma_beta,
         double w2, double sigma_gamma, int iterations, const Output& labels, const std::optional<Output>& marginals, int threads) {
  require_type<uint8_t>(frame, "frame", "(H, W, 3) uint8");
  if (frame.ndim() != 3 || frame.shape(2) != 3 || !contiguous(frame))
    fail("frame: got " + describe(frame) + "; expected C-contiguous (H, W, 3) uint8");
  require_type<float>(scores, "scores", "(C, h, w) float32");
  if (scores.ndim() != 3 || scores.shape(0) < 2 || scores.shape(0) > 256 || !contiguous(scores))
    fail("scores: got " + describe(scores) + "; expected C-contiguous (C, h, w) float32, C in 2..256");
  DenseCrf crf{};
  crf.frame = data<uint8_t>(frame), crf.h = side(frame.shape(0), "frame"), crf.w = side(frame.shape(1), "frame");
  if (frame.shape(0) * frame.shape(1) > kMaxPixels)
    fail("frame: got " + describe(frame) + "; expected at most " + std::to_string(kMaxPixels) + " pixels");
  crf.scores = data<float>(scores), crf.classes = (int)scores.shape(0);
  crf.score_h = side(scores.shape(1), "scores"), crf.score_w = side(scores.shape(2), "scores");
  require_number(w1, true, "w1"), require_number(w2, true, "w2");
  require_number(sigma_alpha, false, "sigma_alpha"), require_number(sigma_beta, false, "sigma_beta");
  require_number(sigma_gamma, false, "sigma_gamma");
  if (!(least >= 1e-30 && least < 1)) fail("least: got " + std::to_string(least) + "; expected 1e-30 or more and less than 1");
  if (iterations < 0) fail("iterations: got " + std::to_string(iterations) + "; expected 0 or more");
  require_threads(threads);
  require_shape<uint8_t>(labels, "labels", {frame.shape(0), frame.shape(1)}, "(H, W) uint8 of the frame's size");
  if (marginals)
    require_shape<float>(*marginals, "marginals", {scores.shape(0), frame.shape(0), frame.shape(1)}, "(C, H, W) float32");
  crf.probabilities = probabilities, crf.least = least;
  crf.w1 = w1, crf.sigma_alpha = sigma_alpha, crf.sigma_beta = sigma_beta, crf.w2 = w2, crf.sigma_gamma = sigma_gamma;
  crf.iterations = iterations;
  uint8_t* out = data<uint8_t>(labels);
  float* all = marginals ? data<float>(*marginals) : nullptr;
  nb::gil_scoped_release release;
  dense_crf(crf, memory, out, all, threads);
}

}  // namespace

void bind_crf(nb::module_& m) {
  nb::class_<CrfMemory>(m, "CrfMemory", "What one call of dense_crf leaves for the next").def(nb::init<>());
  m.def("dense_crf", &run, nb::arg("memory"), nb::arg("frame"), nb::arg("scores"), nb::arg("probabilities"), nb::arg("least"), nb::arg("w1"),
        nb::arg("sigma_alpha"), nb::arg("sigma_beta"), nb::arg("w2"), nb::arg("sigma_gamma"), nb::arg("iterations"),
        nb::arg("labels").noconvert(), nb::arg("marginals").noconvert().none(), nb::arg("threads"));
}

}  // namespace edgeseg
