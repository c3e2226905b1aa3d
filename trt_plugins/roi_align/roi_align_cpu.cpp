// The CPU twin. Samples of a bin are a grid, and an average over a grid of bilinear samples is separable: rows are combined first,
// once for all bins that lie side by side, then columns; samples that share a row or a column are merged. Inner loops run along the
// row of a plane (linear) or along the channels of a pixel (all other formats): both are `lanes` values a pixel.
#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "../common/parallel.h"
#include "roi_align_check.h"
#include "roi_align_taps.h"

// One binary, the instruction set chosen when it is loaded; nothing is fused, so every set gives the same numbers. By level, not by
// the name of a CPU: that would leave out the CPUs of other makers.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#if __GNUC__ >= 12
#define ES_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), flatten))
#else
#define ES_CLONES __attribute__((target_clones("default", "avx2"), flatten))
#endif
#else
#define ES_CLONES
#endif

namespace edgeseg {
namespace roi {
namespace {

constexpr int32_t kMostLanes = 128;  // at a time: the combined rows stay in the L1 cache
constexpr int32_t kPlanes = 8;

// Memory of one thread, used again for every box.
struct Scratch {
  Taps y, x;
  Columns columns;
  std::vector<float> rows, out;
};

// One box and some channels from c on: side by side in a pixel, or planes.
struct Part {
  const Plan* plan;
  const Box* box;
  Scratch* scratch;
  int64_t k;
  int32_t c, lanes, live;  // lanes - live: padding

  template <class T>
  const T* map() const {
    const Layout& l = plan->features[box->level];
    return static_cast<const T*>(plan->args.features[box->level].data) + offset_of(l, box->image, c, 0);
  }
  template <class T>
  T* output(int32_t bin) const {
    return static_cast<T*>(plan->args.output.data) + offset_of(plan->output, k, c, bin);
  }
  int32_t width() const { return plan->args.output.w; }
  int32_t height() const { return plan->args.output.h; }
  int64_t pixel() const { return plan->features[box->level].pixel; }
  int64_t pitch() const { return pixel() * plan->args.features[box->level].w; }
  float count() const { return (float)box->y.count * (float)box->x.count; }
};

template <class T>
inline void store(const float* values, float divisor, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from_float<T>(values[i] / divisor);
}

// --- channels side by side: the channels of a pixel are the inner loop ----------------------------------------------

template <class T>
inline void store_pixel(const Part& part, int32_t bin, const float* values, float divisor) {
  T* to = part.output<T>(bin);
  store(values, divisor, part.live, to);
  std::fill_n(to + part.live, part.lanes - part.live, from_float<T>(0.0f));
}

template <class T>
inline void average_row(const Part& part, int32_t bin_y, float* sum, float* out) {
  const Scratch& s = *part.scratch;
  const T* base = part.map<T>();
  const int64_t lanes = part.lanes, columns = (int64_t)s.columns.at.size();
  if (s.columns.dense && part.pixel() == lanes && columns) {
    combine_rows(base + s.columns.at[0] * lanes, part.pitch(), s.y, bin_y, nullptr, columns * lanes, sum);
  } else {
    for (int64_t j = 0; j < columns; ++j)
      combine_rows(base + s.columns.at[(size_t)j] * part.pixel(), part.pitch(), s.y, bin_y, nullptr, lanes, sum + j * lanes);
  }
  for (int32_t bin = 0; bin < part.width(); ++bin) {
    std::fill_n(out, lanes, 0.0f);
    for (int32_t t = s.x.begin[(size_t)bin]; t < s.x.begin[(size_t)bin + 1]; ++t) {
      const float weight = s.x.weight[(size_t)t], *from = sum + s.x.slot[(size_t)t] * lanes;
      for (int64_t i = 0; i < lanes; ++i) out[i] += weight * from[i];
    }
    store_pixel<T>(part, bin_y * part.width() + bin, out, part.count());
  }
}

template <class T>
inline void average_pixels(const Part& part) {
  for (int32_t i = 0; i < part.height(); ++i) average_row<T>(part, i, part.scratch->rows.data(), part.scratch->out.data());
}

// --- planes: the columns of a row are the inner loop, then kPlanes channels at once ---------------------------------

template <class T>
inline void average_planes(const Part& part) {
  const Scratch& s = *part.scratch;
  const EsTensor& map = part.plan->args.features[part.box->level];
  const int64_t columns = (int64_t)s.columns.at.size(), plane = (int64_t)map.h * map.w;
  const int64_t bins = (int64_t)part.height() * part.width();
  const int32_t* at = s.columns.dense ? nullptr : s.columns.at.data();
  const T* base = part.map<T>() + (s.columns.dense && columns ? s.columns.at[0] : 0);
  float *sum = part.scratch->rows.data(), *out = part.scratch->out.data();
  for (int32_t i = 0; i < part.height(); ++i) {
    for (int32_t c = 0; c < part.live; ++c) combine_rows(base + c * plane, part.pitch(), s.y, i, at, columns, sum + c * columns);
    for (int32_t j = 0; j < part.width(); ++j) {
      float values[kPlanes] = {};
      for (int32_t t = s.x.begin[(size_t)j]; t < s.x.begin[(size_t)j + 1]; ++t) {
        const float weight = s.x.weight[(size_t)t], *from = sum + s.x.slot[(size_t)t];
        for (int32_t c = 0; c < kPlanes; ++c) values[c] += weight * from[c * columns];
      }
      for (int32_t c = 0; c < part.live; ++c) out[c * bins + (int64_t)i * part.width() + j] = values[c];
    }
  }
  store(out, part.count(), part.live * bins, part.output<T>(0));
}

// --- ONNX's maximum --------------------------------------------------------------------------------------------------

template <class T>
inline void maximum_bin(const Part& part, int32_t i, int32_t j, float* best) {
  const Taps &y = part.scratch->y, &x = part.scratch->x;
  const float start = y.partial[(size_t)i] || x.partial[(size_t)j] ? 0.0f : -INFINITY;
  std::fill_n(best, part.lanes, start);
  const T* base = part.map<T>();
  for (int32_t r = y.begin[(size_t)i]; r < y.begin[(size_t)i + 1]; ++r)
    for (int32_t t = x.begin[(size_t)j]; t < x.begin[(size_t)j + 1]; ++t) {
      const T* from = base + y.at[(size_t)r] * part.pitch() + x.at[(size_t)t] * part.pixel();
      const float most = y.weight[(size_t)r] * x.weight[(size_t)t], least = y.least[(size_t)r] * x.least[(size_t)t];
      for (int32_t c = 0; c < part.lanes; ++c) {
        const float v = value_at(from, c);
        best[c] = larger(larger(best[c], most * v), least * v);
      }
    }
}

template <class T>
inline void maximum(const Part& part) {
  for (int32_t i = 0; i < part.height(); ++i)
    for (int32_t j = 0; j < part.width(); ++j) {
      maximum_bin<T>(part, i, j, part.scratch->out.data());
      store_pixel<T>(part, i * part.width() + j, part.scratch->out.data(), 1.0f);
    }
}

// --- which of them ---------------------------------------------------------------------------------------------------

template <class T>
inline void pool_pixels(const Part& part) {
  if (part.plan->args.max_mode && part.box->level >= 0) return maximum<T>(part);
  if (part.box->level >= 0) return average_pixels<T>(part);
  for (int32_t bin = 0; bin < part.height() * part.width(); ++bin)
    std::fill_n(part.output<T>(bin), part.lanes, from_float<T>(0.0f));
}

template <class T>
inline void pool_planes(const Part& part) {
  if (part.box->level < 0)
    std::fill_n(part.output<T>(0), (int64_t)part.live * part.height() * part.width(), from_float<T>(0.0f));
  else if (!part.plan->args.max_mode)
    average_planes<T>(part);
  else
    for (int32_t c = part.c; c < part.c + part.live; ++c) maximum<T>({part.plan, part.box, part.scratch, part.k, c, 1, 1});
}

template <class T>
inline void pool_part(const Part& part) {
  part.plan->args.output.format == ES_LINEAR ? pool_planes<T>(part) : pool_pixels<T>(part);
}

ES_CLONES void pool_float(const Part& part) { pool_part<float>(part); }
ES_CLONES void pool_half(const Part& part) { pool_part<Half>(part); }
ES_CLONES void pool_int8(const Part& part) { pool_part<int8_t>(part); }

void pool_any(const Part& part) {
  switch (part.plan->args.output.type) {
    case ES_FLOAT32: return pool_float(part);
    case ES_FLOAT16: return pool_half(part);
    default: return pool_int8(part);
  }
}

void pool_box(const Plan& p, int64_t k, Scratch& scratch) {
  const EsTensor& out = p.args.output;
  const Box box = box_of(p, k);
  if (box.level >= 0) {
    scratch.y.set(box.y, out.h, p.args.max_mode != 0), scratch.x.set(box.x, out.w, p.args.max_mode != 0);
    scratch.columns.set(scratch.x, p.args.features[box.level].w);
  }
  // Channels side by side: a block's, or in the channel-last formats all, padding included.
  const int32_t vector = p.output.vector, stored = (out.c + vector - 1) / vector * vector;
  const int32_t together = channels_last(out.format) ? std::min(stored, kMostLanes) : vector;
  const int32_t step = out.format == ES_LINEAR ? kPlanes : together;
  scratch.rows.resize(scratch.columns.at.size() * (size_t)step);
  scratch.out.resize((size_t)step * (out.format == ES_LINEAR ? (size_t)out.h * (size_t)out.w : 1));
  for (int32_t c = 0; c < stored; c += step) {
    const int32_t lanes = std::min(step, stored - c);
    pool_any({&p, &box, &scratch, k, c, lanes, std::min(lanes, out.c - c)});
  }
}

EsStatus pool_boxes(const EsRoiAlign& args, int32_t threads) {
  const Plan p = plan_of(args);
  std::atomic<bool> starved{false};
  parallel_for(args.output.n, 4, threads, [&](int64_t begin, int64_t end) {
    try {
      Scratch scratch;
      for (int64_t k = begin; k < end; ++k) pool_box(p, k, scratch);
    } catch (const std::bad_alloc&) {
      starved = true;
    }
  });
  return starved ? "out of memory; the output is not complete" : nullptr;
}

}  // namespace
}  // namespace roi
}  // namespace edgeseg

ES_EXPORT EsStatus edgeseg_roi_align_cpu(const EsRoiAlign* args, int32_t threads) {
  using namespace edgeseg::roi;
  if (EsStatus problem = check(args)) return problem;
  return nothing_to_do(*args) ? nullptr : pool_boxes(*args, threads);
}
