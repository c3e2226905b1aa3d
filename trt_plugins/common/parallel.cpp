#include "parallel.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

namespace edgeseg {

void parallel_for(int64_t count, int64_t grain, int32_t threads, const std::function<void(int64_t, int64_t)>& work) {
  if (count <= 0) return;
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>({threads, count / std::max<int64_t>(grain, 1), 64}));
  const auto part = [&](int64_t i) { work(count * i / parts, count * (i + 1) / parts); };
  std::vector<std::thread> started;
  started.reserve((size_t)parts);
  for (int64_t i = 1; i < parts; ++i) {
    try {
      started.emplace_back(part, i);
    } catch (const std::system_error&) {
      part(i);  // no thread to be had: do it here
    }
  }
  part(0);
  for (auto& thread : started) thread.join();
}

}  // namespace edgeseg
