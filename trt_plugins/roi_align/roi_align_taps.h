// What the bins of a box take of each axis, samples merged: what the CPU twin multiplies by.
#pragma once

#include <algorithm>
#include <vector>

#include "roi_align_core.h"

namespace edgeseg {
namespace roi {

// The rows (or columns) of each bin: taps begin[i] .. begin[i + 1] - 1. Of samples that share a row the weights add up (average),
// or the largest and the least are kept (maximum: for values above and below 0).
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
      partial.push_back(is_partial(range, axis));
    }
    begin.push_back((int32_t)at.size());
  }
};

// The columns whose combined rows are kept, and the slot among them of each tap.
struct Columns {
  std::vector<int32_t> at;
  bool dense;  // at[0], at[0] + 1, ...: wherever that is not many more than are needed

  void set(Taps& x, int32_t width) {
    const auto range = std::minmax_element(x.at.begin(), x.at.end());
    const int32_t span = x.at.empty() ? 0 : *range.second - *range.first + 1;
    dense = span <= 4 * (int64_t)x.at.size();
    x.slot = x.at, at = x.at;
    if (!dense) {
      for (size_t i = 0; i < x.slot.size(); ++i) x.slot[i] = (int32_t)i;
      return;
    }
    // Whole vectors where the map is wide enough.
    const int32_t whole = std::min((span + 7) / 8 * 8, width), first = x.at.empty() ? 0 : std::min(*range.first, width - whole);
    at.resize((size_t)(span ? whole : 0));
    for (size_t i = 0; i < at.size(); ++i) at[i] = first + (int32_t)i;
    for (int32_t& slot : x.slot) slot -= first;
  }
};

// A Half's bits by themselves: loops that copy the structure are not vectorised.
template <class T>
inline float value_at(const T* from, int64_t i) {
  return to_float(from[i]);
}
inline float value_at(const Half* from, int64_t i) { return half_value_on_host(from[i].bits); }

// sum (n) = weights (R) of rows (R, n), unless First on top of what was there. Spelled out for the vectoriser.
template <int R, bool First, class T>
inline void combine(const T* const (&rows)[R], const float (&weights)[R], int64_t n, float* __restrict__ sum) {
  const T *a = rows[0], *b = rows[R > 1 ? 1 : 0], *c = rows[R > 2 ? 2 : 0], *d = rows[R > 3 ? 3 : 0];
  const float wa = weights[0], wb = weights[R > 1 ? 1 : 0], wc = weights[R > 2 ? 2 : 0], wd = weights[R > 3 ? 3 : 0];
  for (int64_t i = 0; i < n; ++i) {
    float v = wa * value_at(a, i);
    if (!First) v += sum[i];
    if (R > 1) v += wb * value_at(b, i);
    if (R > 2) v += wc * value_at(c, i);
    if (R > 3) v += wd * value_at(d, i);
    sum[i] = v;
  }
}

// The same of single columns.
template <int R, bool First, class T>
inline void combine_at(const T* const (&rows)[R], const float (&weights)[R], const int32_t* at, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; ++i) {
    float v = First ? 0.0f : sum[i];
    for (int r = 0; r < R; ++r) v += weights[r] * value_at(rows[r], at[i]);
    sum[i] = v;
  }
}

template <int R, bool First, class T>
inline void combine_taps(const T* base, int64_t pitch, const Taps& y, int32_t tap, const int32_t* at, int64_t n, float* sum) {
  const T* rows[R];
  float weights[R];
  for (int r = 0; r < R; ++r) rows[r] = base + y.at[(size_t)(tap + r)] * pitch, weights[r] = y.weight[(size_t)(tap + r)];
  at ? combine_at<R, First>(rows, weights, at, n, sum) : combine<R, First>(rows, weights, n, sum);
}

// All rows of a bin, n values of each (`at`: where in a row, null: in order); 0 where the bin has none.
template <class T>
inline void combine_rows(const T* base, int64_t pitch, const Taps& y, int32_t bin, const int32_t* at, int64_t n, float* sum) {
  const int32_t begin = y.begin[(size_t)bin], end = y.begin[(size_t)bin + 1];
  switch (end - begin) {
    case 0: std::fill_n(sum, n, 0.0f); return;
    case 1: return combine_taps<1, true>(base, pitch, y, begin, at, n, sum);
    case 2: return combine_taps<2, true>(base, pitch, y, begin, at, n, sum);
    case 3: return combine_taps<3, true>(base, pitch, y, begin, at, n, sum);
    default: combine_taps<4, true>(base, pitch, y, begin, at, n, sum);
  }
  int32_t i = begin + 4;
  for (; end - i >= 4; i += 4) combine_taps<4, false>(base, pitch, y, i, at, n, sum);
  for (; i < end; ++i) combine_taps<1, false>(base, pitch, y, i, at, n, sum);
}

}  // namespace roi
}  // namespace edgeseg
