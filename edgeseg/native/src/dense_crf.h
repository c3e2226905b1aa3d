// A fully connected CRF over one picture: memory, lattice and mean-field steps.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "permutohedral.h"

namespace edgeseg {

struct DenseCrf {
  const uint8_t* frame;  // (h, w, 3), packed
  int h, w;
  const float* scores;  // (classes, score_h, score_w)
  int classes, score_h, score_w;
  bool probabilities;
  double least;  // probabilities below it count as it
  double w1, sigma_alpha, sigma_beta, w2, sigma_gamma;
  int iterations;
};

// Floats without a value yet, from the start of a cache line.
class Rows {
 public:
  float* reserve(size_t floats);

 private:
  std::unique_ptr<float[]> memory_;
  size_t size_ = 0;
};

// What one call leaves for the next: fresh pages cost as much as a mean-field step. One call at a time uses it.
struct CrfMemory {
  std::mutex mutex;
  Rows unary, first, second, values, spare;
  Permutohedral lattice;
};

// labels: (h, w). marginals: (classes, h, w), or null. The same for any number of threads.
void dense_crf(const DenseCrf& crf, CrfMemory& memory, uint8_t* labels, float* marginals, int threads);

}  // namespace edgeseg
