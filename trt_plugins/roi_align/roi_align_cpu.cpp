// The CPU twin. Samples of a bin are a grid, and an average over a grid of bilinear samples is separable: rows are combined first, once for
// all bins that lie side by side, then columns; samples that share a row or a column are merged. Inner loops run along the row of a plane
// (linear) or along the channels of a pixel (all other formats): both are `lanes` values a pixel.
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "../common/parallel.h"
#include "roi_align_block.h"

// One binary, the instruction set chosen when it is loaded; nothing is fused, so every set gives the same numbers.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define ES_CLONES __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512"), flatten))
#else
#define ES_CLONES
#endif

namespace edgeseg {
namespace roi {
namespace {

constexpr int32_t kMostLanes = 128;  // at a time: the combined rows stay in the L1 cache

// What each bin takes of an axis: taps begin[i] .. begin[i + 1] - 1. Of samples that share a row the weights add up (average), or the
// largest and the least are kept (maximum: for values above and below 0).
struct Taps {
  std::vector<int32_t> begin, at, slot;
  std::vector<float> weight, least;
  std::vector<char> partial;  // some samples of the bin lie outside

  void clear() { begin.clear(), at.clear(), slot.clear(), weight.clear(), least.clear(), partial.clear(); }

  void add(int32_t row, float share, bool max) {
    const size_t from = std::max<size_t>((size_t)begin.back(), at.size() >= 2 ? at.size() - 2 : 0);
    for (size_t i = from; i < at.size(); ++i) {
      if (at[i] != row) continue;
      weight[i] = max ? std::max(weight[i], share) : weight[i] + share;
      least[i] = std::min(least[i], share);
      return;
    }
    at.push_back(row), weight.push_back(share), least.push_back(share);
  }

  void set(const Axis& axis, int32_t bins, bool max) {
    clear();
    for (int32_t bin = 0; bin < bins; ++bin) {
      begin.push_back((int32_t)at.size());
      const Range range = inside_range(axis, bin);
      for (int32_t i = range.begin; i < range.end; ++i) {
        const Sample s = sample_at(axis, position(axis, bin, i));
        add(s.low, s.low_weight, max), add(s.high, s.high_weight, max);
      }
      partial.push_back(roi::partial(range, axis));
    }
    begin.push_back((int32_t)at.size());
  }
};

// The columns that a box needs, each once where they lie close together.
struct Columns {
  std::vector<int32_t> at;
  bool dense;  // at[0], at[0] + 1, ...

  void set(Taps& x) {
    const auto range = std::minmax_element(x.at.begin(), x.at.end());
    const int32_t first = x.at.empty() ? 0 : *range.first, span = x.at.empty() ? 0 : *range.second - first + 1;
    dense = span <= 4 * (int64_t)x.at.size();
    x.slot = x.at, at = x.at;
    if (!dense) {
      for (size_t i = 0; i < x.slot.size(); ++i) x.slot[i] = (int32_t)i;
      return;
    }
    at.resize((size_t)span);
    for (int32_t i = 0; i < span; ++i) at[(size_t)i] = first + i;
    for (int32_t& slot : x.slot) slot -= first;
  }
};

// Memory of one thread, used again for every box.
struct Scratch {
  Taps y, x;
  Columns columns;
  std::vector<float> rows, out;
};

// One box and `lanes` channels from c on, which lie side by side.
struct Part {
  const Plan* plan;
  const Box* box;
  Scratch* scratch;
  int64_t k;
  int32_t c, lanes, live;  // live: the rest are padding

  template <class T>
  const T* map() const {
    const Layout& l = plan->features[box->level];
    return static_cast<const T*>(plan->args.features[box->level].data) + offset_of(l, box->image, c, 0);
  }
  int64_t pixel() const { return plan->features[box->level].pixel; }
  int64_t pitch() const { return pixel() * plan->args.features[box->level].w; }

  template <class T>
  void write(int32_t bin, const float* values, float divisor) const {
    T* to = static_cast<T*>(plan->args.output.data) + offset_of(plan->output, k, c, bin);
    for (int32_t i = 0; i < live; ++i) to[i] = from_float<T>(values[i] / divisor);
    for (int32_t i = live; i < lanes; ++i) to[i] = from_float<T>(0.0f);
  }
};

// sum (n) = weights (R) of rows (R, n), on top of what was there unless `first`.
template <int R, class T>
inline void combine(const T* const* rows, const float* weights, bool first, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; ++i) {
    float v = first ? 0.0f : sum[i];
    for (int r = 0; r < R; ++r) v += weights[r] * to_float(rows[r][i]);
    sum[i] = v;
  }
}

template <class T>
inline void combine_rows(const T* base, int64_t pitch, const Taps& y, int32_t bin, int64_t n, float* sum) {
  const int32_t begin = y.begin[(size_t)bin], end = y.begin[(size_t)bin + 1];
  for (int32_t i = begin; i < end;) {
    const T* rows[4];
    const int32_t count = std::min(end - i, 4);
    for (int32_t r = 0; r < count; ++r) rows[r] = base + y.at[(size_t)(i + r)] * pitch;
    const float* weights = &y.weight[(size_t)i];
    switch (count) {
      case 1: combine<1>(rows, weights, i == begin, n, sum); break;
      case 2: combine<2>(rows, weights, i == begin, n, sum); break;
      case 3: combine<3>(rows, weights, i == begin, n, sum); break;
      default: combine<4>(rows, weights, i == begin, n, sum);
    }
    i += count;
  }
}

// A row of bins (output_w, lanes) before the division.
template <class T>
inline void average_row(const Part& part, int32_t bin_y) {
  const Scratch& s = *part.scratch;
  float *sum = part.scratch->rows.data(), *out = part.scratch->out.data();
  const T* base = part.map<T>();
  const int64_t lanes = part.lanes, columns = (int64_t)s.columns.at.size();
  if (s.columns.dense && part.pixel() == lanes) {
    combine_rows(base + s.columns.at[0] * part.pixel(), part.pitch(), s.y, bin_y, columns * lanes, sum);
  } else {
    for (int64_t j = 0; j < columns; ++j)
      combine_rows(base + s.columns.at[(size_t)j] * part.pixel(), part.pitch(), s.y, bin_y, lanes, sum + j * lanes);
  }
  for (int32_t bin = 0; bin + 1 < (int32_t)s.x.begin.size(); ++bin) {
    const int32_t begin = s.x.begin[(size_t)bin], end = s.x.begin[(size_t)bin + 1];
    if (lanes == 1) {
      float v = 0.0f;
      for (int32_t t = begin; t < end; ++t) v += s.x.weight[(size_t)t] * sum[s.x.slot[(size_t)t]];
      out[bin] = v;
      continue;
    }
    float* to = out + bin * lanes;
    std::fill(to, to + lanes, 0.0f);
    for (int32_t t = begin; t < end; ++t) {
      const float weight = s.x.weight[(size_t)t], *from = sum + s.x.slot[(size_t)t] * lanes;
      for (int64_t i = 0; i < lanes; ++i) to[i] += weight * from[i];
    }
  }
}

template <class T>
inline void average(const Part& part) {
  const int32_t width = part.plan->args.output.w;
  const float count = (float)part.box->y.count * (float)part.box->x.count;
  for (int32_t i = 0; i < part.plan->args.output.h; ++i) {
    const bool any = part.scratch->y.begin[(size_t)i] < part.scratch->y.begin[(size_t)i + 1] && !part.scratch->columns.at.empty();
    if (any)
      average_row<T>(part, i);
    else
      std::fill_n(part.scratch->out.data(), (int64_t)width * part.lanes, 0.0f);
    for (int32_t j = 0; j < width; ++j) part.write<T>(i * width + j, part.scratch->out.data() + j * (int64_t)part.lanes, count);
  }
}

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
        const float v = to_float(from[c]);
        best[c] = larger(larger(best[c], most * v), least * v);
      }
    }
}

template <class T>
inline void maximum(const Part& part) {
  const EsTensor& output = part.plan->args.output;
  for (int32_t i = 0; i < output.h; ++i)
    for (int32_t j = 0; j < output.w; ++j) {
      maximum_bin<T>(part, i, j, part.scratch->out.data());
      part.write<T>(i * output.w + j, part.scratch->out.data(), 1.0f);
    }
}

template <class T>
inline void zeros(const Part& part) {
  std::fill_n(part.scratch->out.data(), part.lanes, 0.0f);
  for (int32_t bin = 0; bin < part.plan->args.output.h * part.plan->args.output.w; ++bin) part.write<T>(bin, part.scratch->out.data(), 1.0f);
}

template <class T>
inline void pool_part(const Part& part) {
  if (part.box->level < 0 || part.live <= 0)
    zeros<T>(part);
  else if (part.plan->args.max_mode)
    maximum<T>(part);
  else
    average<T>(part);
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
    scratch.columns.set(scratch.x);
  }
  // Channels side by side: a block's, or in the channel-last formats all, padding included.
  const int32_t vector = p.output.vector, stored = (out.c + vector - 1) / vector * vector;
  const int32_t together = channels_last(out.format) ? stored : vector, step = std::min(together, kMostLanes);
  scratch.rows.resize(scratch.columns.at.size() * (size_t)step);
  scratch.out.resize((size_t)out.w * (size_t)step);
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

// The kernel's blocks and threads, one after the other.
struct Rehearsal {
  template <class T, int V, bool Packed, bool Max>
  EsStatus operator()(const Plan& p, const Mapping& m) const {
    const auto tables = std::make_unique<Tables>();
    for (int64_t k = 0; k < p.args.output.n; ++k)
      for (int32_t part = 0; part < m.parts; ++part) {
        for (int32_t t = 0; t < kThreads; ++t) fill_tables(p, k, *tables, t, kThreads);
        for (int32_t t = 0; t < kThreads; ++t) pool_cells<T, V, Packed, Max>(p, m, *tables, k, part, t);
      }
    return nullptr;
  }
};

}  // namespace
}  // namespace roi
}  // namespace edgeseg

ES_EXPORT EsStatus edgeseg_roi_align_cpu(const EsRoiAlign* args, int32_t threads) {
  using namespace edgeseg::roi;
  if (EsStatus problem = check(args)) return problem;
  return nothing_to_do(*args) ? nullptr : pool_boxes(*args, threads);
}

// For the tests: the kernel's own code on the host. Slow.
ES_EXPORT EsStatus edgeseg_roi_align_block_cpu(const EsRoiAlign* args, int32_t) {
  using namespace edgeseg::roi;
  if (EsStatus problem = check(args)) return problem;
  return nothing_to_do(*args) ? nullptr : dispatch(*args, Rehearsal{});
}
