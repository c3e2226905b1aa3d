#include "permutohedral.h"

#include <algorithm>
#include <cmath>

#include "axis.h"

namespace edgeseg {

namespace {

constexpr int kDimensions = kCorners - 1;
constexpr int kBits = 21;
constexpr int64_t kBias = int64_t(1) << (kBits - 1);
// A deviation may be smaller than this share of the feature's range and changes nothing then: neighbours are strangers already.
constexpr double kFinest = 1.0 / 70000;

}  // namespace

// Open addressing; indices count up in the order of insertion.
class Permutohedral::Table {
 public:
  Table(std::vector<Key>& keys, std::vector<int32_t>& slots, size_t pixels) : keys_(keys), slots_(slots) {
    size_t size = 1 << 10;
    while (size < 2 * pixels) size *= 2;
    slots_.assign(size, -1);
  }

  int32_t insert(const Key& key) {
    size_t slot = start(key);
    for (; slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1))
      if (keys_[slots_[slot]] == key) return slots_[slot];
    const int32_t index = slots_[slot] = static_cast<int32_t>(keys_.size());
    keys_.push_back(key);
    if (keys_.size() * 2 > slots_.size()) grow();
    return index;
  }

  int32_t find(const Key& key) const {
    for (size_t slot = start(key); slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1))
      if (keys_[slots_[slot]] == key) return slots_[slot];
    return -1;
  }

 private:
  size_t start(const Key& key) const {
    uint64_t hash = key.low * 0x9E3779B97F4A7C15u ^ (key.high * 0xC2B2AE3D27D4EB4Fu + (key.low >> 32));
    hash *= 0xD6E8FEB86659FD93u;
    return (hash >> 24) & (slots_.size() - 1);
  }

  void grow() {
    slots_.assign(slots_.size() * 2, -1);
    for (size_t i = 0; i < keys_.size(); ++i) {
      size_t slot = start(keys_[i]);
      while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = static_cast<int32_t>(i);
    }
  }

  std::vector<Key>& keys_;
  std::vector<int32_t>& slots_;
};

// `factor` in one coordinate's field, 0 for the sixth coordinate; sums of keys wrap, and are right where every field is in range.
Permutohedral::Key Permutohedral::unit(int coordinate, int64_t factor) {
  const uint64_t value = static_cast<uint64_t>(factor);
  if (coordinate < 3) return {value << (kBits * coordinate), 0};
  if (coordinate < kDimensions) return {0, value << (kBits * (coordinate - 3))};
  return {};
}

// To the next vertex along direction d: one up in every coordinate, six down in d.
Permutohedral::Key Permutohedral::step(int d) {
  Key key = unit(d, -kCorners);
  for (int i = 0; i < kDimensions; ++i) key = key + unit(i, 1);
  return key;
}

void Permutohedral::build(const uint8_t* frame, int h, int w, double position, double colour, int threads) {
  locate(frame, h, w, position, colour, threads);
  normalise();
  shared_ = threads > 1;
  if (shared_) share();
}

void Permutohedral::locate(const uint8_t* frame, int h, int w, double position, double colour, int threads) {
  const size_t pixels = static_cast<size_t>(h) * w;
  origin_.resize(pixels * kCorners), rank_.resize(pixels * kCorners), weight_.resize(pixels * kCorners);
  CrfPoints points{frame, h, w, static_cast<float>(1 / std::max(position, std::max(h, w) * kFinest)),
                   static_cast<float>(1 / std::max(colour, 255 * kFinest)), {}, origin_.data(), rank_.data(), weight_.data()};
  // To the hyperplane of the lattice by 1 / sqrt((i + 1) (i + 2)), in units of which the blur's deviation is 6 sqrt(2/3).
  for (int i = 0; i < kDimensions; ++i) points.factor[i] = static_cast<float>(kCorners * std::sqrt(2.0 / 3 / ((i + 1.0) * (i + 2.0))));
  split_rows(static_cast<int>(pixels), threads, [&](int begin, int end) { return kernels().crf_locate(points, begin, end); });
  keys_.clear();
  Table table(keys_, slots_, pixels);
  number(table);
  for (int d = 0; d < kCorners; ++d) link(d, table);
}

void Permutohedral::number(Table& table) {
  vertex_.resize(origin_.size());
  Key bias, steps[kCorners], last[kCorners];
  for (int i = 0; i < kDimensions; ++i) bias = bias + unit(i, kBias);
  for (int i = 0; i < kCorners; ++i) steps[i] = step(i);
  for (size_t at = 0; at < origin_.size(); at += kCorners) {
    Key key = bias;
    int coordinate[kCorners];  // by rank
    for (int i = 0; i < kDimensions; ++i) key = key + unit(i, origin_[at + i]);
    for (int i = 0; i < kCorners; ++i) coordinate[rank_[at + i]] = i;
    for (int r = 0; r < kCorners; ++r) {
      vertex_[at + r] = at && key == last[r] ? vertex_[at + r - kCorners] : table.insert(key);
      last[r] = key;
      // From remainder r to r + 1: one up in every coordinate, six down in the one that is largest.
      key = key + steps[coordinate[kDimensions - r]];
    }
  }
  vertices_ = static_cast<int>(keys_.size());
}

void Permutohedral::link(int d, const Table& table) {
  std::vector<int32_t>& next = next_;
  std::vector<uint8_t>& follows = follows_;
  next.resize(vertices_), follows.assign(vertices_, 0);
  const Key along = step(d);
  for (int v = 0; v < vertices_; ++v)
    if ((next[v] = table.find(keys_[v] + along)) >= 0) follows[next[v]] = 1;
  std::vector<int32_t>& chain = chains_[d];
  chain.clear();
  for (int v = 0; v < vertices_; ++v) {
    if (follows[v] || next[v] < 0) continue;
    chain.push_back(~v);
    for (int32_t n = next[v]; n >= 0; n = next[n]) chain.push_back(n);
  }
  chain.resize(chain.size() + kReadAhead + 1, -1);
}

// shares: by vertex, in the order of the pixels, so that a sum over them does not depend on who adds.
void Permutohedral::share() {
  first_.assign(static_cast<size_t>(vertices_) + 1, 0);
  for (const int32_t v : vertex_) ++first_[v + 1];
  for (int v = 0; v < vertices_; ++v) first_[v + 1] += first_[v];
  std::vector<int32_t>& at = next_;
  at.assign(first_.begin(), first_.end() - 1);
  shares_.resize(vertex_.size() + kReadAhead);
  std::fill(shares_.end() - kReadAhead, shares_.end(), CrfShare{0, 0});
  for (size_t i = 0; i < vertex_.size(); ++i)
    shares_[at[vertex_[i]]++] = {static_cast<int32_t>(i / kCorners), weight_[i]};
}

// Symmetric: K becomes N^-1/2 K N^-1/2, N the row sums of K as the lattice computes them.
void Permutohedral::normalise() {
  std::vector<float>& values = sums_;
  values.assign(vertices_, 0.0f);
  for (size_t i = 0; i < vertex_.size(); ++i) values[vertex_[i]] += weight_[i];
  for (int d = 0; d < kCorners; ++d) {
    float before = 0;
    for (int i = 0; i < count(d); ++i) {
      const int32_t* chain = chains(d);
      if (chain[i] < 0) before = 0;
      float& value = values[chain[i] < 0 ? ~chain[i] : chain[i]];
      const float here = value, after = chain[i + 1] < 0 ? 0 : values[chain[i + 1]];
      value = here + 0.5f * (before + after);
      before = here;
    }
  }
  const size_t pixels = vertex_.size() / kCorners;
  for (size_t p = 0; p < pixels; ++p) {
    float sum = 0;
    for (size_t i = p * kCorners; i < (p + 1) * kCorners; ++i) sum += weight_[i] * values[vertex_[i]];
    const float scale = 1 / std::sqrt(sum + 1e-20f);
    for (size_t i = p * kCorners; i < (p + 1) * kCorners; ++i) weight_[i] *= scale;
  }
}

}  // namespace edgeseg
