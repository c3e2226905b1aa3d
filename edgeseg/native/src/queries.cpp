#include "queries.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace edgeseg {

namespace {

// exp(x) for x in -87..88, to 2 units in the last place; plain operations only, so that loops over it become vectors.
inline float exponential(float x) {
  constexpr float kLog2e = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f, kRound = 12582912.0f;
  const float shifted = x * kLog2e + kRound;  // the sum's last bits are the nearest whole number
  const float whole = shifted - kRound;
  const float r = x - whole * kLn2High - whole * kLn2Low;
  // The series of exp(r) on -ln2/2 .. ln2/2 is exact to float32 after the seventh power.
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = (bits - 0x4B400000 + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return p * power;
}

inline float sigmoid(float x) {
  // Beyond +-87 float32 has no other value than 0 and 1 for it, or none that matters.
  const float z = x > -87.0f ? (x < 87.0f ? x : 87.0f) : -87.0f;
  return 1.0f / (1.0f + exponential(-z));
}

// Infinity times a tap's weight of 0 would be NaN; NaN is taken for the least.
inline float bounded(float x) {
  constexpr float kHuge = 1e30f;
  return x > -kHuge ? (x < kHuge ? x : kHuge) : -kHuge;
}

// One query's logits at one row of the picture.
class Row {
 public:
  explicit Row(const QueryMaps& maps) : maps_(maps), cells_(maps.w), values_(maps.W) {}

  // The cells at the height of row y; returns the greatest of them.
  float cells(int query, int y) {
    const float* plane = maps_.logits + (size_t)query * maps_.h * maps_.w;
    const float* a = plane + (size_t)maps_.rows.lo[y] * maps_.w;
    const float* b = plane + (size_t)maps_.rows.hi[y] * maps_.w;
    const float frac = maps_.rows.frac[y], rest = 1 - frac;
    float most = -std::numeric_limits<float>::infinity();
    for (int c = 0; c < maps_.w; ++c) cells_[c] = bounded(a[c]) * rest + bounded(b[c]) * frac;
    for (int c = 0; c < maps_.w; ++c) most = cells_[c] > most ? cells_[c] : most;
    return most;
  }

  // What cells() found, at the picture's columns (W).
  const float* upsample() {
    const AxisView& at = maps_.columns;
    for (int x = 0; x < maps_.W; ++x) values_[x] = cells_[at.lo[x]] * (1 - at.frac[x]) + cells_[at.hi[x]] * at.frac[x];
    return values_.data();
  }

 private:
  const QueryMaps& maps_;
  std::vector<float> cells_, values_;
};

// out = weight * the probability of each of n logits.
void probabilities(const float* __restrict values, int n, float weight, float* __restrict out) {
  for (int x = 0; x < n; ++x) out[x] = weight * sigmoid(values[x]);
}

// Sum of the probabilities of what exceeds the cut; eight sums at a time, in an order that does not depend on the machine.
double sum_above(const float* __restrict values, const float* __restrict p, int n, float cut) {
  float part[8] = {};
  int x = 0;
  for (; x + 8 <= n; x += 8)
    for (int i = 0; i < 8; ++i) part[i] += values[x + i] > cut ? p[x + i] : 0.0f;
  double sum = 0;
  for (; x < n; ++x) sum += values[x] > cut ? p[x] : 0.0f;
  for (const float each : part) sum += each;
  return sum;
}

// The contest for the pixels of a row.
struct Contest {
  std::vector<float> best;
  std::vector<int32_t> inside;
  explicit Contest(int n) : best(n), inside(n) {}

  void start(int32_t* win) {
    std::fill(best.begin(), best.end(), -1.0f);
    std::fill(inside.begin(), inside.end(), 0);
    std::fill(win, win + best.size(), 0);
  }

  // Query q claims pixels with p; returns how many are in its mask.
  int32_t claim(int32_t q, const float* __restrict values, const float* __restrict p, float cut, int32_t* __restrict win) {
    float* __restrict most = best.data();
    int32_t* __restrict in = inside.data();
    const int n = (int)best.size();
    int32_t covered = 0;
    for (int x = 0; x < n; ++x) covered += values[x] > cut;
    for (int x = 0; x < n; ++x) {
      const int32_t mine = values[x] > cut;
      const bool better = p[x] > most[x];
      most[x] = better ? p[x] : most[x];
      win[x] = better ? q : win[x];
      in[x] = better ? mine : in[x];
    }
    return covered;
  }
};

}  // namespace

void query_masks(const QueryMaps& maps, int begin, int end, uint8_t* masks, const RowFacts& facts) {
  Row row(maps);
  std::vector<float> p(maps.W);
  const int W = maps.W;
  for (int q = 0; q < maps.count; ++q)
    for (int y = begin; y < end; ++y) {
      const size_t at = (size_t)q * maps.H + y;
      uint8_t* out = masks + at * W;
      facts.areas[at] = facts.spans[2 * at] = facts.spans[2 * at + 1] = 0;
      facts.sums[at] = 0;
      if (!(row.cells(q, y) > maps.cut)) {  // nothing between cells exceeds them all
        std::memset(out, 0, W);
        continue;
      }
      const float* values = row.upsample();
      int area = 0;
      for (int x = 0; x < W; ++x) out[x] = values[x] > maps.cut;
      for (int x = 0; x < W; ++x) area += out[x];
      if (!area) continue;
      facts.areas[at] = area;
      int first = 0, after = W;
      while (!out[first]) ++first;
      while (!out[after - 1]) --after;
      facts.spans[2 * at] = first, facts.spans[2 * at + 1] = after;
      probabilities(values + first, after - first, 1.0f, p.data());
      facts.sums[at] = sum_above(values + first, p.data(), after - first, maps.cut);
    }
}

void query_argmax(const QueryMaps& maps, const float* scores, int begin, int end, int32_t* winners, QueryAreas& areas) {
  const int W = maps.W;
  Row row(maps);
  Contest contest(W);
  std::vector<float> p(W);
  for (int y = begin; y < end; ++y) {
    int32_t* win = winners + (size_t)y * W;
    contest.start(win);
    for (int q = 0; q < maps.count; ++q) {
      row.cells(q, y);
      const float* values = row.upsample();
      probabilities(values, W, scores[q], p.data());
      areas.covered[q] += contest.claim(q, values, p.data(), maps.cut, win);
    }
    for (int x = 0; x < W; ++x) {
      const int32_t q = win[x];
      ++areas.won[q];
      areas.kept[q] += contest.inside[x];
      win[x] = contest.inside[x] ? q + 1 : 0;
    }
  }
}

}  // namespace edgeseg
