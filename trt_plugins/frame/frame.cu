// The limits. Preprocess reads at most four neighbours of each output pixel and writes it once: at 720p -> 3x512x512 float that is
// 2.8 MB at most and 3.1 MB, and some hundred operations a pixel, which take about as long. One thread is one output pixel:
// a warp's stores to a plane are then whole sectors in every type, and in the vector formats a pixel is one store of 4 to 16 bytes.
// Overlay moves 7 bytes a pixel and computes little: a thread takes four pixels, 12 bytes in three words where rows lie at multiples
// of four bytes, and a block keeps the palette in shared memory, one word a colour.
#include <cuda_runtime.h>

#include "frame_core.h"

namespace edgeseg {
namespace frame {
namespace {

constexpr int kThreads = 256, kQuadsPerThread = 4;

// --- preprocess ---

constexpr int kWide = 16;  // bytes of the widest store

template <class T>
union Chunk {
  T value[kWide / sizeof(T)];
  uint4 whole;
  uint2 half;
  uint32_t quarter;
};

// One pixel of a vector format, padding included. Its bytes: 4, 8 or a multiple of 16, aligned to as many, at most 16.
template <class T>
__device__ __forceinline__ void store_vector(T* to, int vector, const Values& values, int channels) {
  Chunk<T> chunk;
#pragma unroll
  for (int i = 0; i < kWide / (int)sizeof(T); ++i) chunk.value[i] = from_float<T>(i < 3 && i < channels ? values.v[i < 3 ? i : 0] : 0.0f);
  const int bytes = vector * (int)sizeof(T);
  if (bytes == 4) {
    *reinterpret_cast<uint32_t*>(to) = chunk.quarter;
  } else if (bytes == 8) {
    *reinterpret_cast<uint2*>(to) = chunk.half;
  } else {
    auto* p = reinterpret_cast<uint4*>(to);
    p[0] = chunk.whole;
    for (int i = 1; i < bytes / kWide; ++i) p[i] = make_uint4(0, 0, 0, 0);
  }
}

template <class T>
__device__ __forceinline__ void store_scalars(const Preprocess& p, T* out, int64_t pixel, const Values& values) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
    if (c < p.channels) out[place_of(p.layout, c, pixel)] = from_float<T>(values.v[c]);
  for (int c = p.channels; c < p.layout.vector; ++c) out[place_of(p.layout, c, pixel)] = from_float<T>(0.0f);
}

template <class T, int kKind>
__global__ void __launch_bounds__(kThreads) preprocess(Preprocess p, T* out, bool aligned) {
  const int32_t pixel = (int32_t)(blockIdx.x * kThreads + threadIdx.x);
  if (pixel >= p.rows.out * p.columns.out) return;
  const int32_t y = pixel / p.columns.out, x = pixel - y * p.columns.out;
  const Values values = values_at<kKind>(p, tap_of(p.rows, y), tap_of(p.columns, x));
  if (aligned)
    store_vector(out + pixel * p.layout.pixel, p.layout.vector, values, p.channels);
  else
    store_scalars(p, out, pixel, values);
}

EsStatus launched() {
  const cudaError_t failed = cudaGetLastError();
  return failed == cudaSuccess ? nullptr : cudaGetErrorString(failed);
}

template <class T, int kKind>
EsStatus launch(const EsPreprocess& a, cudaStream_t stream) {
  const Preprocess p = preprocess_of(a);
  const int bytes = p.layout.vector * (int)sizeof(T), unit = bytes < kWide ? bytes : kWide;
  const bool aligned = p.layout.vector > 1 && reinterpret_cast<uintptr_t>(a.output.data) % (unsigned)unit == 0;
  const int32_t pixels = a.output.h * a.output.w;
  preprocess<T, kKind><<<(pixels - 1) / kThreads + 1, kThreads, 0, stream>>>(p, static_cast<T*>(a.output.data), aligned);
  return launched();
}

template <class T>
EsStatus launch_kind(const EsPreprocess& a, cudaStream_t stream) {
  switch (a.kind) {
    case ES_FRAME_BGR: return launch<T, ES_FRAME_BGR>(a, stream);
    case ES_FRAME_NV12: return launch<T, ES_FRAME_NV12>(a, stream);
    default: return launch<T, ES_FRAME_DEPTH16>(a, stream);
  }
}

// --- overlay ---

__device__ __forceinline__ uint32_t byte_of(uint32_t word, int i) { return word >> (8 * i) & 255u; }

__device__ __forceinline__ bool word_aligned(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 3) == 0; }

// Byte i of a quad is channel i % 3 of pixel i / 3.
__device__ __forceinline__ uint32_t blended_word(uint32_t frame, int word, const uint32_t (&labels)[4], const uint32_t* palette, int alpha) {
  uint32_t result = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int k = 4 * word + i;
    const auto was = (uint8_t)byte_of(frame, i), colour = (uint8_t)byte_of(palette[labels[k / 3]], k % 3);
    const uint8_t now = labels[k / 3] == kIgnore ? was : blended(was, colour, alpha);
    result |= (uint32_t)now << (8 * i);
  }
  return result;
}

__device__ __forceinline__ void load_labels(const uint8_t* from, uint32_t (&labels)[4]) {
  if (word_aligned(from)) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) labels[i] = byte_of(word, i);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) labels[i] = from[i];
  }
}

// Loads before stores: `out` may be `frame`.
__device__ __forceinline__ void overlay_quad(const uint8_t* frame, uint8_t* out, const uint8_t* from, const uint32_t* palette, int alpha) {
  uint32_t labels[4], words[3];
  load_labels(from, labels);
#pragma unroll
  for (int i = 0; i < 3; ++i) words[i] = reinterpret_cast<const uint32_t*>(frame)[i];
#pragma unroll
  for (int i = 0; i < 3; ++i) reinterpret_cast<uint32_t*>(out)[i] = blended_word(words[i], i, labels, palette, alpha);
}

__device__ __forceinline__ void overlay_pixels(const uint8_t* frame, uint8_t* out, const uint8_t* labels, const uint32_t* palette, int alpha,
                                               int count) {
  for (int i = 0; i < 3 * count; ++i) {
    const uint8_t label = labels[i / 3], was = frame[i];
    out[i] = label == kIgnore ? was : blended(was, (uint8_t)byte_of(palette[label], i % 3), alpha);
  }
}

__global__ void __launch_bounds__(kThreads) overlay(EsOverlay a, int32_t quads) {
  __shared__ uint32_t palette[256];
  const uint8_t* colour = a.palette_bgr + 3 * threadIdx.x;
  palette[threadIdx.x] = colour[0] | colour[1] << 8 | colour[2] << 16;
  __syncthreads();
  for (int32_t i = (int32_t)(blockIdx.x * kThreads + threadIdx.x); i < quads * a.h; i += (int32_t)(gridDim.x * kThreads)) {
    const int32_t y = i / quads, x = 4 * (i - y * quads);
    const uint8_t *frame = a.frame + y * a.frame_stride + 3 * x, *labels = a.labels + (int64_t)y * a.w + x;
    uint8_t* out = a.out + y * a.out_stride + 3 * x;
    if (x + 4 <= a.w && word_aligned(frame) && word_aligned(out))
      overlay_quad(frame, out, labels, palette, a.alpha);
    else
      overlay_pixels(frame, out, labels, palette, a.alpha, min(4, a.w - x));
  }
}

}  // namespace
}  // namespace frame
}  // namespace edgeseg

extern "C" EsStatus edgeseg_preprocess_cuda(const EsPreprocess* args, void* stream) {
  using namespace edgeseg;
  if (EsStatus problem = frame::check(args)) return problem;
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (args->output.type) {
    case ES_FLOAT32: return frame::launch_kind<float>(*args, queue);
    case ES_FLOAT16: return frame::launch_kind<Half>(*args, queue);
    default: return frame::launch_kind<int8_t>(*args, queue);
  }
}

extern "C" EsStatus edgeseg_overlay_cuda(const EsOverlay* args, void* stream) {
  using namespace edgeseg::frame;
  if (EsStatus problem = check(args)) return problem;
  if (args->h == 0 || args->w == 0) return nullptr;
  const int32_t quads = (args->w + 3) / 4, blocks = (quads * args->h - 1) / (kThreads * kQuadsPerThread) + 1;
  overlay<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(*args, quads);
  return launched();
}
