// CPU twins: rows of linear memory as vectors of whatever the CPU has, every other format by the kernels' own items.
#include <atomic>
#include <vector>

#include "../common/parallel.h"
#include "max_pool_dispatch.h"
#include "max_pool_rows.h"

// One copy of a function per instruction set, chosen at load; everything it calls is compiled into each copy.
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define ES_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), flatten))
#else
#define ES_CLONES
#endif

namespace edgeseg {
namespace {

// --- items in loops ---

struct Loops {
  int32_t threads;

  template <class Item>
  EsStatus operator()(int64_t count, const Item& item) const {
    parallel_for(count, 4096, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) item(i);
    });
    return nullptr;
  }
};

bool linear(std::initializer_list<const EsTensor*> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const EsTensor* t) { return t->format == ES_LINEAR; });
}

int64_t rows_of(const EsTensor& t) { return (int64_t)t.n * t.c * t.h; }

template <class T>
T* memory(const EsTensor& t) {
  return static_cast<T*>(t.data);
}

// --- pooled rows begin .. end - 1, counted over all planes ---

template <class T>
inline void pool_rows(const EsMaxPoolArgmax& a, int64_t begin, int64_t end) {
  const int64_t h = a.output.h, w = a.output.w, plane = (int64_t)a.input.h * a.input.w;
  const bool pairs = tiles_in_pairs(a.input, a.output, a.codes, a.window);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = memory<T>(a.input) + row / h * plane;
    T* best = memory<T>(a.output) + row * w;
    uint8_t* codes = memory<uint8_t>(a.codes) + row * w;
    const T* upper = x + row % h * 2 * a.input.w;
    if (pairs) pool_pairs_row(upper, upper + a.input.w, w, best, codes);
    else pool_row(x, a.input.h, a.input.w, a.window, (int32_t)(row % h), a.output.w, best, codes);
  }
}

ES_CLONES void rows(Type<float>, const EsMaxPoolArgmax& a, int64_t begin, int64_t end) { pool_rows<float>(a, begin, end); }
ES_CLONES void rows(Type<Half>, const EsMaxPoolArgmax& a, int64_t begin, int64_t end) { pool_rows<Half>(a, begin, end); }
ES_CLONES void rows(Type<int8_t>, const EsMaxPoolArgmax& a, int64_t begin, int64_t end) { pool_rows<int8_t>(a, begin, end); }

// --- the same with indices: codes of a row, then each code's place in the tensor ---

template <class T>
inline void index_rows(const EsMaxPoolIndices& a, int64_t begin, int64_t end) {
  const int64_t h = a.output.h, w = a.output.w, plane = (int64_t)a.input.h * a.input.w;
  const int64_t down = a.column_major ? 1 : a.input.w, right = a.column_major ? a.input.h : 1;
  std::vector<uint8_t> codes((size_t)w);
  int64_t places[256];
  for (int32_t code = 0; code < 256; ++code) places[code] = code / a.window.kernel_w * down + code % a.window.kernel_w * right;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t number = row / h, i = row % h;
    pool_row(memory<T>(a.input) + number * plane, a.input.h, a.input.w, a.window, (int32_t)i, a.output.w,
             memory<T>(a.output) + row * w, codes.data());
    const int64_t corner = number * plane + (i * a.window.stride_h - a.window.pad_top) * down - a.window.pad_left * right;
    for (int64_t j = 0; j < w; ++j) a.indices[row * w + j] = corner + j * a.window.stride_w * right + places[codes[(size_t)j]];
  }
}

ES_CLONES void rows(Type<float>, const EsMaxPoolIndices& a, int64_t begin, int64_t end) { index_rows<float>(a, begin, end); }
ES_CLONES void rows(Type<Half>, const EsMaxPoolIndices& a, int64_t begin, int64_t end) { index_rows<Half>(a, begin, end); }
ES_CLONES void rows(Type<int8_t>, const EsMaxPoolIndices& a, int64_t begin, int64_t end) { index_rows<int8_t>(a, begin, end); }

// --- unpooling: rows of pairs, or whole planes ---

template <bool Streamed, class T>
inline void unpool_rows(const EsMaxUnpool& a, int64_t begin, int64_t end) {
  const int64_t w = a.input.w;
  for (int64_t row = begin; row < end; ++row) {
    T* upper = memory<T>(a.output) + row * 2 * a.output.w;
    unpool_pairs_row<Streamed>(memory<T>(a.input) + row * w, memory<uint8_t>(a.codes) + row * w, w, upper, upper + a.output.w);
  }
  if (Streamed) end_stream();
}

// Planes larger than the caches are written past them.
constexpr int64_t kStreamedBytes = 8 << 20;

template <class T>
inline void unpool_rows(const EsMaxUnpool& a, int64_t begin, int64_t end) {
  const bool whole = a.input.w % kLanes<T> == 0 && aligned(a.output.data, 16);
  if (whole && count_of(a.output) * (int64_t)sizeof(T) >= kStreamedBytes) unpool_rows<true, T>(a, begin, end);
  else unpool_rows<false, T>(a, begin, end);
}

ES_CLONES void rows(Type<float>, const EsMaxUnpool& a, int64_t begin, int64_t end) { unpool_rows<float>(a, begin, end); }
ES_CLONES void rows(Type<Half>, const EsMaxUnpool& a, int64_t begin, int64_t end) { unpool_rows<Half>(a, begin, end); }
ES_CLONES void rows(Type<int8_t>, const EsMaxUnpool& a, int64_t begin, int64_t end) { unpool_rows<int8_t>(a, begin, end); }

template <class T>
void unpool_planes(const EsMaxUnpool& a, int64_t begin, int64_t end) {
  const int64_t pooled = (int64_t)a.input.h * a.input.w, plane = (int64_t)a.output.h * a.output.w;
  for (int64_t p = begin; p < end; ++p)
    unpool_plane(memory<T>(a.input) + p * pooled, memory<uint8_t>(a.codes) + p * pooled, a.input.h, a.input.w, a.window, a.output.h,
                 a.output.w, memory<T>(a.output) + p * plane);
}

// --- unpooling by indices ---

struct Survey {
  std::atomic<bool> outside{false}, strays{false};  // an index outside the tensor; one outside its own value's plane
};

void survey(const EsMaxUnpoolIndices& a, int32_t threads, Survey& found) {
  const int64_t pooled = (int64_t)a.input.h * a.input.w, plane = (int64_t)a.output.h * a.output.w, total = count_of(a.output);
  parallel_for((int64_t)a.input.n * a.input.c, std::max<int64_t>(1, 16384 / std::max<int64_t>(pooled, 1)), threads,
               [&](int64_t begin, int64_t end) {
    bool outside = false, strays = false;
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t k = p * pooled; k < (p + 1) * pooled; ++k) {
        const int64_t index = a.indices[k];
        outside |= index < 0 || index >= total;
        strays |= index < p * plane || index >= (p + 1) * plane;
      }
    }
    if (outside) found.outside = true;
    if (strays) found.strays = true;
  });
}

// The values of planes begin .. end - 1 in row-major order, so that the later of two for one place stays.
template <class T>
void scatter_planes(const EsMaxUnpoolIndices& a, int64_t begin, int64_t end) {
  const int64_t pooled = (int64_t)a.input.h * a.input.w;
  const T* values = memory<T>(a.input);
  T* out = memory<T>(a.output);
  for (int64_t k = begin * pooled; k < end * pooled; ++k) out[a.indices[k]] = values[k];
}

template <class T>
void clear_planes(const EsMaxUnpoolIndices& a, int64_t begin, int64_t end) {
  const int64_t plane = (int64_t)a.output.h * a.output.w;
  std::memset(static_cast<void*>(memory<T>(a.output) + begin * plane), 0, (size_t)((end - begin) * plane) * sizeof(T));
}

template <class T>
void unpool_by_index(const EsMaxUnpoolIndices& a, bool strays, int32_t threads) {
  const int64_t planes = (int64_t)a.output.n * a.output.c;
  parallel_for(planes, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      clear_planes<T>(a, p, p + 1);
      if (!strays) scatter_planes<T>(a, p, p + 1);
    }
  });
  if (strays) scatter_planes<T>(a, 0, planes);  // planes write into each other: one order, one thread
}

}  // namespace
}  // namespace edgeseg

using namespace edgeseg;

ES_EXPORT EsStatus edgeseg_max_pool_argmax_cpu(const EsMaxPoolArgmax* args, int32_t threads) {
  if (EsStatus problem = check(args)) return problem;
  if (is_empty(args->output)) return nullptr;
  if (!linear({&args->input, &args->output, &args->codes})) return dispatch(*args, Loops{threads});
  return with_type(args->input.type, [&](auto type) -> EsStatus {
    parallel_for(rows_of(args->output), 1 + 16384 / args->output.w, threads,
                 [&](int64_t begin, int64_t end) { rows(type, *args, begin, end); });
    return nullptr;
  });
}

ES_EXPORT EsStatus edgeseg_max_unpool_cpu(const EsMaxUnpool* args, int32_t threads) {
  if (EsStatus problem = check(args)) return problem;
  if (is_empty(args->output)) return nullptr;
  if (!linear({&args->input, &args->codes, &args->output})) return dispatch(*args, Loops{threads});
  return with_type(args->input.type, [&](auto type) -> EsStatus {
    using T = typename decltype(type)::type;
    if (tiles_in_pairs(args->output, args->input, args->codes, args->window))
      parallel_for(rows_of(args->input), 1 + 16384 / args->input.w, threads,
                   [&](int64_t begin, int64_t end) { rows(type, *args, begin, end); });
    else
      parallel_for((int64_t)args->output.n * args->output.c, 1, threads,
                   [&](int64_t begin, int64_t end) { unpool_planes<T>(*args, begin, end); });
    return nullptr;
  });
}

ES_EXPORT EsStatus edgeseg_max_pool_indices_cpu(const EsMaxPoolIndices* args, int32_t threads) {
  if (EsStatus problem = check(args)) return problem;
  if (is_empty(args->output)) return nullptr;
  if (!linear({&args->input, &args->output}) || args->window.kernel_h * args->window.kernel_w > 256)
    return dispatch(*args, Loops{threads});
  return with_type(args->input.type, [&](auto type) -> EsStatus {
    parallel_for(rows_of(args->output), 1 + 16384 / args->output.w, threads,
                 [&](int64_t begin, int64_t end) { rows(type, *args, begin, end); });
    return nullptr;
  });
}

ES_EXPORT EsStatus edgeseg_max_unpool_indices_cpu(const EsMaxUnpoolIndices* args, int32_t threads) {
  if (EsStatus problem = check(args, false)) return problem;
  Survey found;
  survey(*args, threads, found);
  if (found.outside) return "an index lies outside the output; expected 0 .. N*C*H*W - 1";
  if (is_empty(args->output)) return nullptr;
  if (!linear({&args->input, &args->output})) return "the CPU twin unpools by index in linear memory only";
  return with_type(args->input.type, [&](auto type) -> EsStatus {
    unpool_by_index<typename decltype(type)::type>(*args, found.strays, threads);
    return nullptr;
  });
}

ES_EXPORT int64_t edgeseg_max_unpool_indices_workspace(const EsTensor* output) {
  return count_of(*output) * (wide_positions(*output) ? 8 : 4);
}
