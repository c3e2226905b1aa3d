#include "dense_crf.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "axis.h"
#include "permutohedral.h"

namespace edgeseg {

namespace {

// One axis of the smoothness kernel, cut at three deviations: with zeros around (see kSpareTaps), symmetrically normalised. A Gaussian in x and y is a
// product, and so are its row sums: two passes give the exact sum over all pixels but for the cut.
class Taps {
 public:
  Taps(int n, double sigma) {
    radius_ = static_cast<int>(std::min(std::ceil(3 * sigma), n - 1.0));
    std::vector<double> kernel(radius_ + 1), scale(n);
    for (int i = 0; i <= radius_; ++i) kernel[i] = std::exp(-0.5 * (i / sigma) * (i / sigma));
    for (int x = 0; x < n; ++x) {
      double sum = 0;
      for (int i = std::max(0, x - radius_); i <= std::min(n - 1, x + radius_); ++i) sum += kernel[std::abs(i - x)];
      scale[x] = 1 / std::sqrt(sum);
    }
    const size_t row = 2 * radius_ + 1 + 2 * kSpareTaps;
    taps_.assign(n * row, 0.0f);
    for (int x = 0; x < n; ++x)
      for (int i = std::max(0, x - radius_); i <= std::min(n - 1, x + radius_); ++i)
        taps_[x * row + kSpareTaps + radius_ + i - x] = static_cast<float>(scale[x] * kernel[std::abs(i - x)] * scale[i]);
  }

  void multiply(double factor) {
    for (float& tap : taps_) tap *= static_cast<float>(factor);
  }
  const float* data() const { return taps_.data(); }
  int radius() const { return radius_; }

 private:
  int radius_;
  std::vector<float> taps_;
};

void splat(const CrfArgs& a, const Permutohedral& lattice, int threads) {
  if (!a.first) {
    std::fill(a.values, a.values + static_cast<size_t>(lattice.vertices()) * a.stride, 0.0f);
    kernels().crf_scatter(a);
    return;
  }
  split_rows(lattice.vertices(), threads, [&](int begin, int end) {
    kernels().crf_splat(a, begin, end);
    return true;
  });
}

void blur(const CrfArgs& a, const Permutohedral& lattice, int threads) {
  for (int d = 0; d < kCorners; ++d)
    split_rows(lattice.count(d), threads, [&](int begin, int end) {
      kernels().crf_blur(a, lattice.chains(d), begin, end);
      return true;
    });
}

constexpr size_t kAtHand = size_t(1) << 20;  // floats of a lattice that stays in the second-level cache beside a picture's rows

// One thread gives a row's marginals to the vertices of a small lattice while both are at hand; several threads must keep the order
// of each vertex' sum.
void infer(CrfArgs& a, const Permutohedral* lattice, CrfMemory& memory, int iterations, int threads) {
  const size_t floats = lattice ? static_cast<size_t>(lattice->vertices()) * a.stride : 0;
  const bool fused = lattice && !a.first && floats <= kAtHand;
  float* spare = fused ? memory.spare.reserve(floats) : nullptr;
  for (int i = 0; i < iterations; ++i) {
    if (lattice && !(fused && i > 0)) splat(a, *lattice, threads);
    if (lattice) blur(a, *lattice, threads);
    a.after = fused && i + 1 < iterations ? spare : nullptr;
    if (a.after) std::fill(spare, spare + floats, 0.0f);
    split_rows(a.h, threads, [&](int begin, int end) { return kernels().crf_update(a, begin, end); });
    if (a.after) std::swap(a.values, spare);
    float* filled = a.next;
    a.next = const_cast<float*>(a.q), a.q = filled;
  }
}

void give(const CrfArgs& a, const float* q, uint8_t* labels, float* marginals, int begin, int end) {
  const size_t pixels = static_cast<size_t>(a.h) * a.w;
  for (size_t p = static_cast<size_t>(begin) * a.w; p < static_cast<size_t>(end) * a.w; ++p) {
    const float* row = q + p * a.stride;
    labels[p] = static_cast<uint8_t>(std::max_element(row, row + a.classes) - row);
    if (marginals)
      for (int c = 0; c < a.classes; ++c) marginals[c * pixels + p] = row[c];
  }
}

}  // namespace

float* Rows::reserve(size_t floats) {
  if (floats + 16 > size_) {
    memory_.reset();
    size_ = 0;
    memory_.reset(new float[floats + 16]);
    size_ = floats + 16;
  }
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) / 64 * 64);
}

void dense_crf(const DenseCrf& crf, CrfMemory& memory, uint8_t* labels, float* marginals, int threads) {
  const std::lock_guard<std::mutex> alone(memory.mutex);
  CrfArgs a{};
  a.h = crf.h, a.w = crf.w, a.classes = crf.classes, a.stride = (crf.classes + 7) / 8 * 8;
  a.scores = crf.scores, a.score_h = crf.score_h, a.score_w = crf.score_w;
  a.probabilities = crf.probabilities, a.least = static_cast<float>(crf.least), a.w1 = static_cast<float>(crf.w1);
  const Axis rows(crf.score_h, crf.h), columns(crf.score_w, crf.w);
  a.rows = rows.view(), a.columns = columns.view();
  const size_t floats = static_cast<size_t>(a.h) * a.w * a.stride;
  const bool moves = crf.iterations > 0;
  a.unary = memory.unary.reserve(floats), a.next = memory.first.reserve(floats);
  split_rows(a.h, threads, [&](int begin, int end) { return kernels().crf_unary(a, begin, end); });

  const Permutohedral* lattice = nullptr;
  if (moves && crf.w1 > 0) {
    memory.lattice.build(crf.frame, crf.h, crf.w, crf.sigma_alpha, crf.sigma_beta, threads);
    lattice = &memory.lattice;
    a.vertex = lattice->vertex(), a.weight = lattice->weight(), a.first = lattice->first(), a.shares = lattice->shares();
    a.values = memory.values.reserve(static_cast<size_t>(lattice->vertices()) * a.stride);
  }
  Taps across(moves && crf.w2 > 0 ? crf.w : 1, crf.sigma_gamma), down(moves && crf.w2 > 0 ? crf.h : 1, crf.sigma_gamma);
  if (moves && crf.w2 > 0) {
    across.multiply(crf.w2);
    a.taps_x = across.data(), a.taps_y = down.data(), a.radius_x = across.radius(), a.radius_y = down.radius();
  }
  a.q = a.next, a.next = moves ? memory.second.reserve(floats) : nullptr;
  infer(a, lattice, memory, crf.iterations, threads);
  split_rows(a.h, threads, [&](int begin, int end) {
    give(a, a.q, labels, marginals, begin, end);
    return true;
  });
}

}  // namespace edgeseg
