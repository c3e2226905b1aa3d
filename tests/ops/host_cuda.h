// CUDA's execution model on one host thread, enough of it to run a kernel of trt_plugins: a block's threads are fibers that take turns
// at barriers and exchanges, always in the same order: it shows that a kernel computes what it should, not that it is free of races.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaSuccess = 0;
inline int cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(int) { return "an error"; }

namespace host_cuda {

struct Barrier {
  int members = 0, arrived = 0, generation = 0;
  void open() { arrived = 0, ++generation; }
};

struct Warp {
  Barrier barrier;
  uint32_t slot[32];
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  dim3 index;
  Warp* warp;
  bool done = false;
};

inline ucontext_t scheduler;
inline Barrier block;
inline Fiber* current = nullptr;
inline dim3 block_index, grid_size, block_size;
inline std::function<void()> kernel;

inline void wait(Barrier& barrier) {
  if (++barrier.arrived == barrier.members) return barrier.open();
  for (const int mine = barrier.generation; barrier.generation == mine;) swapcontext(&current->context, &scheduler);
}

inline void leave(Barrier& barrier) {
  if (--barrier.members > 0 && barrier.arrived == barrier.members) barrier.open();
}

inline void run_fiber() {
  kernel();
  leave(block), leave(current->warp->barrier);
  current->done = true;
  swapcontext(&current->context, &scheduler);
}

inline void run_block(unsigned threads) {
  std::vector<Warp> warps((threads + 31) / 32);
  std::vector<Fiber> fibers(threads);
  block = {(int)threads, 0, 0};
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& f = fibers[i];
    f.stack.resize(1 << 16), f.index = dim3(i), f.warp = &warps[i / 32];
    ++f.warp->barrier.members;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data(), f.context.uc_stack.ss_size = f.stack.size(), f.context.uc_link = nullptr;
    makecontext(&f.context, run_fiber, 0);
  }
  for (bool running = true; running;) {
    running = false;
    for (Fiber& f : fibers)
      if (!f.done) current = &f, swapcontext(&scheduler, &f.context), running = true;
  }
}

template <class Kernel>
void launch(dim3 grid, dim3 threads, Kernel run) {
  grid_size = grid, block_size = threads, kernel = run;
  for (block_index.z = 0; block_index.z < grid.z; ++block_index.z)
    for (block_index.y = 0; block_index.y < grid.y; ++block_index.y)
      for (block_index.x = 0; block_index.x < grid.x; ++block_index.x) run_block(threads.x);
}

template <class T>
T exchange(T value, int from) {
  Warp& warp = *current->warp;
  std::memcpy(&warp.slot[current->index.x % 32], &value, 4);
  wait(warp.barrier);
  std::memcpy(&value, &warp.slot[from & 31], 4);
  wait(warp.barrier);
  return value;
}

}  // namespace host_cuda

#define threadIdx (host_cuda::current->index)
#define blockIdx (host_cuda::block_index)
#define gridDim (host_cuda::grid_size)
#define blockDim (host_cuda::block_size)

inline void __syncthreads() { host_cuda::wait(host_cuda::block); }

template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return host_cuda::exchange(value, from);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return host_cuda::exchange(value, (int)(threadIdx.x % 32) ^ mask);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  unsigned all = 0;
  for (int i = 0; i < 32; ++i) all |= (unsigned)host_cuda::exchange((int)vote, i) << i;
  return all;
}
inline int __ffs(int v) { return __builtin_ffs(v); }

template <class A, class B>
std::common_type_t<A, B> min(A a, B b) {
  return a < b ? a : b;
}
template <class A, class B>
std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}
