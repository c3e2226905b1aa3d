// The limit. 19x128x256 FP16 -> 1024x2048 reads 1.2 MB and writes 2 MB of labels, which a data-centre GPU moves in about a microsecond.
// What bounds it is arithmetic: 19 classes x 2 M pixels, each a multiplication, an addition, a comparison and two selections, of which
// the last three run at half rate: 6 cycles a warp and class, as counted in the machine code of sm_90. So:
//  staged  for upsampling to twice each side or more. A block owns 128 output columns and the rows that lie between two rows of
//          logits. Their logits of up to 32 classes at a time go to shared memory as clean float once, a thread interpolates a
//          class horizontally once for up to 8 rows of its column, and the running maxima stay in registers.
//          Interpolation is convex: a class whose highest corner of a cell is below the highest of all classes' lowest corners
//          cannot win there. One warp ballots that for a cell, and a warp meets only the classes that its own cells kept;
//          on noise nearly all stay, on a real network's output one or two do.
//  direct  for everything else: a thread is a pixel and reads its four neighbours through the cache. The output is then no
//          larger than four times the input, so reading bounds it.
// Labels are stored a byte a thread: a warp fills a 32-byte sector, which is all that packing could give.
#include <algorithm>

#include <cuda_runtime.h>

#include "upsample_argmax_core.h"

namespace edgeseg {
namespace upsample_argmax {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kClasses = 32, kRows = 8;

struct Target {
  uint8_t* labels;
  float* probability;
  int32_t h, w;
  float threshold;
  unsigned across;  // blocks to a row
};

// How the staged kernel cuts the output: `parts` blocks share the rows between two rows of logits.
struct Plan {
  int32_t parts, pitch;  // pitch: floats of one class and row in shared memory, odd, so that lanes over classes meet no conflict
  bool prune;
};

template <bool Probability>
__device__ __forceinline__ void finish(const Target& t, int32_t n, int32_t y, int32_t x, const Winner& w, int32_t classes, float scale) {
  const int64_t place = ((int64_t)n * t.h + y) * t.w + x;
  const Verdict told = verdict(w, classes, t.threshold, scale);
  t.labels[place] = (uint8_t)told.label;
  if (Probability) t.probability[place] = told.probability;
}

template <class T, bool Probability>
__global__ void __launch_bounds__(kThreads) direct(Source<T> source, Target t, Axis rows, Axis columns) {
  const int32_t line = (int32_t)(blockIdx.x / t.across), x = (int32_t)(blockIdx.x % t.across * kThreads + threadIdx.x);
  const int32_t n = line / t.h, y = line % t.h;
  if (x >= t.w) return;
  const Winner w = contest<T, Probability>(source, n, tap_of(rows, y), tap_of(columns, x));
  finish<Probability>(t, n, y, x, w, source.classes, source.scale);
}

// The logits of up to 32 classes around a block's outputs, and which classes may win in each cell.
struct Stage {
  float *upper, *lower;  // (kClasses, pitch): the two rows
  uint32_t* kept;        // (pitch): bit i of cell j, that to the right of column j: class first + i may win there
  float* bar;            // (pitch): the highest of the lowest corners, over the classes met so far
};

extern __shared__ float shared[];

__device__ __forceinline__ Stage stage_of(int32_t classes, int32_t pitch) {
  float* end = shared + 2 * min(classes, kClasses) * pitch;
  return {shared, shared + min(classes, kClasses) * pitch, reinterpret_cast<uint32_t*>(end), end + pitch};
}

// A block's place: columns first .. first + count - 1 of the logits, rows `row` and the one below.
struct Patch {
  int32_t n, row, first, count;
};

// A lane's own line of logits in both rows: elements 0 .. count - 1 lie `stride` apart, those past `last` repeat it. Warps take turns.
template <class T>
__device__ __forceinline__ void copy(const T* upper, const T* lower, int64_t stride, int last, float* to_upper, float* to_lower,
                                     int to_stride, int count) {
#pragma unroll 2
  for (int k = threadIdx.x / 32; k < count; k += kWarps) {
    const T a = upper[min(k, last) * stride], b = lower[min(k, last) * stride];
    to_upper[k * to_stride] = clean(a), to_lower[k * to_stride] = clean(b);
  }
}

// Neighbouring lanes read neighbouring memory: columns of a plane, or classes of a pixel.
template <class T>
__device__ __forceinline__ void fetch(const Source<T>& s, const Stage& to, const Patch& p, int pitch, int c, int classes) {
  const Layout& l = s.layout;
  const int lane = threadIdx.x % 32, last = s.w - 1 - p.first;
  const T* upper = s.data + p.n * l.image + (int64_t)p.row * s.w * l.pixel;
  const int64_t below = p.row + 1 < s.h ? s.w * l.pixel : 0;
  if (l.pixel > 1) {
    if (lane >= classes) return;
    upper += ((c + lane) >> s.shift) * l.block + ((c + lane) & (l.vector - 1)) + p.first * l.pixel;
    copy(upper, upper + below, l.pixel, last, to.upper + lane * pitch, to.lower + lane * pitch, 1, p.count);
    return;
  }
  for (int j = lane; j < p.count; j += 32) {
    const T* mine = upper + c * l.block + p.first + min(j, last);
    copy(mine, mine + below, l.block, classes, to.upper + j, to.lower + j, pitch, classes);
  }
}

__device__ __forceinline__ float highest_of_warp(float v) {
#pragma unroll
  for (int step = 16; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
  return v;
}

// A warp a cell, a lane a class.
__device__ void find_candidates(const Stage& s, int cells, int pitch, int classes, bool first) {
  const int lane = threadIdx.x % 32, mine = min(lane, classes - 1) * pitch;
  for (int j = threadIdx.x / 32; j < cells; j += kWarps) {
    const float a = s.upper[mine + j], b = s.upper[mine + j + 1], c = s.lower[mine + j], d = s.lower[mine + j + 1];
    const float before = first ? -2 * kHuge : s.bar[j];
    const float bar = fmaxf(before, highest_of_warp(fminf(fminf(a, b), fminf(c, d))));
    const uint32_t kept = __ballot_sync(~0u, lane < classes && fmaxf(fmaxf(a, b), fmaxf(c, d)) >= bar);
    if (lane == 0) s.kept[j] = kept, s.bar[j] = bar;
  }
}

// The logits of classes c .. c + classes - 1 around the block, and who may win.
template <class T>
__device__ __forceinline__ void fill(const Source<T>& s, const Stage& to, const Patch& p, const Plan& plan, int c, int classes) {
  __syncthreads();  // the last classes are no longer read
  fetch(s, to, p, plan.pitch, c, classes);
  __syncthreads();
  if (!plan.prune) return;
  find_candidates(to, p.count - 1, plan.pitch, classes, c == 0);
  __syncthreads();
}

__device__ __forceinline__ uint32_t union_of_warp(uint32_t v) {
#if __CUDA_ARCH__ >= 800
  return __reduce_or_sync(~0u, v);
#else
#pragma unroll
  for (int step = 16; step; step /= 2) v |= __shfl_xor_sync(~0u, v, step);
  return v;
#endif
}

// The classes of `set` against each other in one output column, R rows at once. Lane r holds the weight of row r.
template <int R, bool Probability>
__device__ __forceinline__ void meet(const Stage& s, int pitch, uint32_t set, int c, int cell, float fx, float weight, float scale,
                                     Winner (&w)[kRows]) {
  float fy[R];
#pragma unroll
  for (int r = 0; r < R; ++r) fy[r] = __shfl_sync(~0u, weight, r);
  for (; set; set &= set - 1) {
    const int i = __ffs((int)set) - 1;
    const float *p = s.upper + i * pitch + cell, *q = s.lower + i * pitch + cell;
    const float upper = between(p[0], p[1], fx), step = between(q[0], q[1], fx) - upper;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const float v = upper + step * fy[r];
      if (Probability)
        contend_summing(w[r], v, c + i, scale);
      else
        contend(w[r], v, c + i);
    }
  }
}

// Up to kRows output rows from y on. `staged`: all classes are in shared memory already.
template <class T, bool Probability>
__device__ __forceinline__ void label_rows(const Source<T>& source, const Target& t, const Axis& rows, const Plan& plan, const Patch& p,
                                           Tap column, int32_t x, int32_t y, int32_t count, bool staged) {
  const Stage stage = stage_of(source.classes, plan.pitch);
  const int cell = column.lo - p.first;
  const float weight = tap_of(rows, y + min((int)(threadIdx.x % kRows), count - 1)).frac;
  Winner w[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) w[r] = nobody();
  for (int c = 0; c < source.classes; c += kClasses) {
    const int classes = min(source.classes - c, kClasses);
    if (!staged) fill(source, stage, p, plan, c, classes);
    const uint32_t set = plan.prune ? union_of_warp(stage.kept[cell]) : ~0u >> (32 - classes);
    if (count > 4)
      meet<8, Probability>(stage, plan.pitch, set, c, cell, column.frac, weight, source.scale, w);
    else if (count > 2)
      meet<4, Probability>(stage, plan.pitch, set, c, cell, column.frac, weight, source.scale, w);
    else
      meet<2, Probability>(stage, plan.pitch, set, c, cell, column.frac, weight, source.scale, w);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (x < t.w && r < count) finish<Probability>(t, p.n, y + r, x, w[r], source.classes, source.scale);
}

// How many of `left` rows to take at once: 4 of 5 or 6, so that at most one row in eight is computed in vain.
__device__ __forceinline__ int32_t batch(int32_t left) { return left >= 7 ? min(left, kRows) : left >= 4 ? 4 : left; }

// All output rows between logit rows k and k + 1, or one of `parts` shares of them.
template <class T, bool Probability>
__device__ __forceinline__ void label_patch(const Source<T>& source, const Target& t, const Axis& rows, const Plan& plan, const Patch& p,
                                            Tap column, int32_t x, int part) {
  const int32_t edge = first_output(rows, p.row + (int)(threadIdx.x % 2));
  const int32_t from = __shfl_sync(~0u, edge, 0), whole = __shfl_sync(~0u, edge, 1) - from;
  const int32_t share = (whole + plan.parts - 1) / plan.parts, end = from + min(share * (part + 1), whole);
  int32_t y = from + share * part;
  for (bool staged = false; y < end; staged = source.classes <= kClasses) {
    const int32_t count = batch(end - y);
    label_rows<T, Probability>(source, t, rows, plan, p, column, x, y, count, staged);
    y += count;
  }
}

template <class T, bool Probability>
__global__ void __launch_bounds__(kThreads, 8) staged(Source<T> source, Target t, Axis rows, Axis columns, Plan plan) {
  const int32_t x0 = (int32_t)(blockIdx.x % t.across * kThreads), x = x0 + (int32_t)threadIdx.x, x1 = min(x0 + kThreads, t.w) - 1;
  const int32_t share = (int32_t)(blockIdx.x / t.across), patch = share / plan.parts;
  const Tap column = tap_of(columns, min(x, t.w - 1));
  const int32_t edge = tap_of(columns, threadIdx.x % 2 ? x1 : x0).lo;
  const int32_t first = __shfl_sync(~0u, edge, 0), count = __shfl_sync(~0u, edge, 1) + 2 - first;
  label_patch<T, Probability>(source, t, rows, plan, {patch / source.h, patch % source.h, first, count}, column, x, share % plan.parts);
}

int32_t columns_of_block(const Axis& columns) {
  const int32_t widest = (int32_t)(std::min(kThreads, columns.out) * columns.step) + 4;
  return std::min(widest, columns.in + 1) | 1;
}

Plan plan_of(const EsUpsampleArgmax& a, const Axis& columns) {
  const int32_t between_rows = (a.labels.h + a.logits.h - 1) / a.logits.h, between_columns = a.labels.w / a.logits.w;
  const bool prune = a.logits.c > 1 && !a.probability && (int64_t)between_rows * between_columns >= 16;
  return {(between_rows + kRows - 1) / kRows, columns_of_block(columns), prune};
}

template <class T, bool Probability>
EsStatus launch(const EsUpsampleArgmax& a, cudaStream_t stream) {
  const Source<T> source = source_of<T>(a);
  const int32_t h = a.labels.h, w = a.labels.w;
  const Axis rows = axis_of(source.h, h, a.align_corners != 0), columns = axis_of(source.w, w, a.align_corners != 0);
  const Target t = {static_cast<uint8_t*>(a.labels.data), a.probability, h, w, a.threshold, (unsigned)((w - 1) / kThreads + 1)};
  const Plan plan = plan_of(a, columns);
  const bool twice = h / 2 >= source.h && w / 2 >= source.w;
  const int64_t blocks = (int64_t)a.labels.n * (twice ? (int64_t)source.h * plan.parts : h);
  if (blocks > INT32_MAX / t.across) return "labels: more rows than one launch takes";
  const unsigned grid = (unsigned)blocks * t.across;
  if (twice) {
    const size_t bytes = (size_t)plan.pitch * (2 * std::min(source.classes, kClasses) + 2) * sizeof(float);
    staged<T, Probability><<<grid, kThreads, bytes, stream>>>(source, t, rows, columns, plan);
  } else {
    direct<T, Probability><<<grid, kThreads, 0, stream>>>(source, t, rows, columns);
  }
  const cudaError_t failed = cudaGetLastError();
  return failed == cudaSuccess ? nullptr : cudaGetErrorString(failed);
}

template <class T>
EsStatus launch_type(const EsUpsampleArgmax& a, cudaStream_t stream) {
  return a.probability ? launch<T, true>(a, stream) : launch<T, false>(a, stream);
}

}  // namespace
}  // namespace upsample_argmax
}  // namespace edgeseg

extern "C" EsStatus edgeseg_upsample_argmax_cuda(const EsUpsampleArgmax* args, void* stream) {
  using namespace edgeseg;
  using namespace edgeseg::upsample_argmax;
  if (EsStatus problem = check(args)) return problem;
  if (args->labels.n == 0) return nullptr;
  const auto queue = static_cast<cudaStream_t>(stream);
  switch (args->logits.type) {
    case ES_FLOAT32: return launch_type<float>(*args, queue);
    case ES_FLOAT16: return launch_type<Half>(*args, queue);
    default: return launch_type<int8_t>(*args, queue);
  }
}
