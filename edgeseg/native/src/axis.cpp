#include "axis.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>
#include <system_error>
#include <thread>

namespace edgeseg {

Axis::Axis(int in, int out, double step) : lo_(out), hi_(out), frac_(out) {
  for (int i = 0; i < out; ++i) {
    const double s = std::min(std::max((i + 0.5) * step - 0.5, 0.0), in - 1.0);
    lo_[i] = static_cast<int32_t>(std::floor(s));
    hi_[i] = std::min(lo_[i] + 1, in - 1);
    frac_[i] = static_cast<float>(s - lo_[i]);
  }
}

namespace {

// Joins what was started even when a later thread cannot be.
struct Joiner {
  std::vector<std::thread> threads;
  ~Joiner() {
    for (auto& thread : threads) thread.join();
  }
};

}  // namespace

void split_rows(int rows, int threads, const std::function<bool(int, int)>& work) {
  threads = std::max(1, std::min({threads, rows / 8, 64}));
  std::atomic<bool> good{true};
  const auto part = [&](int i) {
    const int begin = static_cast<int>(static_cast<int64_t>(rows) * i / threads);
    const int end = static_cast<int>(static_cast<int64_t>(rows) * (i + 1) / threads);
    if (!work(begin, end)) good = false;
  };
  {
    Joiner joiner;
    joiner.threads.reserve(threads);
    for (int i = 1; i < threads; ++i) {
      try {
        joiner.threads.emplace_back(part, i);
      } catch (const std::system_error&) {
        part(i);  // no thread to be had: do it here
      }
    }
    part(0);
  }
  if (!good) throw std::bad_alloc();
}

}  // namespace edgeseg
