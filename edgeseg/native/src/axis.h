// One axis of a half-pixel bilinear resize, and the split of rows over threads.
#pragma once

#include <functional>
#include <vector>

#include "kernels.h"

namespace edgeseg {

class Axis {
 public:
  // Output i samples the input at (i + 0.5) * in / out - 0.5, clamped to the first and last sample.
  Axis(int in, int out) : Axis(in, out, static_cast<double>(in) / out) {}
  // The same where the outputs cover another part of the input: step inputs lie between two outputs.
  Axis(int in, int out, double step);
  AxisView view() const { return {lo_.data(), hi_.data(), frac_.data()}; }

 private:
  std::vector<int32_t> lo_, hi_;
  std::vector<float> frac_;
};

// work(begin, end) over [0, rows), cut into at most `threads` runs; rethrows bad_alloc when one returns false.
void split_rows(int rows, int threads, const std::function<bool(int, int)>& work);

}  // namespace edgeseg
