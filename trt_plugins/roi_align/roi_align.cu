// The whole pyramid in one launch: a block a box and part of its output; roi_align_block.h says how and why.
#include <cuda_runtime.h>

#include "roi_align_block.h"

namespace edgeseg {
namespace roi {
namespace {

template <class T, int V, bool Packed, bool Max>
__global__ void __launch_bounds__(kThreads) roi_align(const Plan plan, const Mapping mapping) {
  __shared__ Tables tables;
  fill_tables(plan, blockIdx.x, tables, (int32_t)threadIdx.x, kThreads);
  __syncthreads();
  pool_cells<T, V, Packed, Max>(plan, mapping, tables, blockIdx.x, (int32_t)blockIdx.y, (int32_t)threadIdx.x);
}

struct Launch {
  cudaStream_t stream;

  template <class T, int V, bool Packed, bool Max>
  EsStatus operator()(const Plan& p, const Mapping& m) const {
    const dim3 grid((unsigned)p.args.output.n, (unsigned)m.parts);
    roi_align<T, V, Packed, Max><<<grid, kThreads, 0, stream>>>(p, m);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
  }
};

}  // namespace
}  // namespace roi
}  // namespace edgeseg

extern "C" EsStatus edgeseg_roi_align_cuda(const EsRoiAlign* args, void* stream) {
  using namespace edgeseg::roi;
  if (EsStatus problem = check(args)) return problem;
  if (nothing_to_do(*args)) return nullptr;
  return dispatch(*args, Launch{static_cast<cudaStream_t>(stream)});
}
