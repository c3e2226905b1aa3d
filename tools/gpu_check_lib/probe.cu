// Shows that compute-sanitizer sees what it is asked to see: `probe good` is clean, `probe memory` writes one element too far,
// `probe race` lets two warps write one place of shared memory.
#include <cstdio>
#include <cstring>

__global__ void fill(int* out, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = i;
}

__global__ void race(int* out) {
  __shared__ volatile int place;
  place = threadIdx.x;
  out[threadIdx.x] = place;
}

int main(int count, char** words) {
  const char* mode = count > 1 ? words[1] : "good";
  int* memory = nullptr;
  if (cudaMalloc(&memory, 256 * sizeof(int)) != cudaSuccess) return 2;
  if (!strcmp(mode, "race"))
    race<<<1, 256>>>(memory);
  else
    fill<<<1, 256>>>(memory, !strcmp(mode, "memory") ? 4096 : 256);
  const cudaError_t status = cudaDeviceSynchronize();
  printf("probe %s: %s\n", mode, cudaGetErrorString(status));
  cudaFree(memory);
  return status == cudaSuccess ? 0 : 3;
}
