// Work of the CPU twins, cut over threads.
#pragma once

#include <cstdint>
#include <functional>

namespace edgeseg {

// work(begin, end) over [0, count), in at most `threads` runs of at least `grain` items.
void parallel_for(int64_t count, int64_t grain, int32_t threads, const std::function<void(int64_t, int64_t)>& work);

}  // namespace edgeseg

#define ES_EXPORT extern "C" __attribute__((visibility("default")))
