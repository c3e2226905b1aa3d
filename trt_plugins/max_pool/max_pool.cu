// One thread an item of max_pool_items.h: N pairs of a row, a pack of channels, or one place.
#include <cuda_runtime.h>

#include "max_pool_dispatch.h"

namespace edgeseg {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 24;

template <class Item>
__global__ void __launch_bounds__(kThreads) each(int64_t count, Item item) {
  const int64_t step = (int64_t)gridDim.x * kThreads;
  for (int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x; i < count; i += step) item(i);
}

EsStatus status_of(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

struct Launch {
  cudaStream_t stream;

  template <class Item>
  EsStatus operator()(int64_t count, const Item& item) const {
    const int64_t blocks = (count + kThreads - 1) / kThreads;
    each<<<(unsigned)(blocks < kMostBlocks ? blocks : kMostBlocks), kThreads, 0, stream>>>(count, item);
    return status_of(cudaGetLastError());
  }
  EsStatus fill(void* memory, int64_t bytes) const { return status_of(cudaMemsetAsync(memory, 0xff, (size_t)bytes, stream)); }
};

}  // namespace
}  // namespace edgeseg

using namespace edgeseg;

extern "C" {

EsStatus edgeseg_max_pool_argmax_cuda(const EsMaxPoolArgmax* args, void* stream) {
  if (EsStatus problem = check(args)) return problem;
  return dispatch(*args, Launch{static_cast<cudaStream_t>(stream)});
}

EsStatus edgeseg_max_unpool_cuda(const EsMaxUnpool* args, void* stream) {
  if (EsStatus problem = check(args)) return problem;
  return dispatch(*args, Launch{static_cast<cudaStream_t>(stream)});
}

EsStatus edgeseg_max_pool_indices_cuda(const EsMaxPoolIndices* args, void* stream) {
  if (EsStatus problem = check(args)) return problem;
  return dispatch(*args, Launch{static_cast<cudaStream_t>(stream)});
}

EsStatus edgeseg_max_unpool_indices_cuda(const EsMaxUnpoolIndices* args, void* stream) {
  if (EsStatus problem = check(args, true)) return problem;
  return dispatch(*args, Launch{static_cast<cudaStream_t>(stream)});
}

int64_t edgeseg_max_unpool_indices_workspace(const EsTensor* output) {
  return count_of(*output) * (wide_positions(*output) ? 8 : 4);
}

}  // extern "C"
