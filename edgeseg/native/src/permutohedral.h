// The permutohedral lattice in five dimensions (Adams, Baek and Davis, Eurographics 2010): the sparse set of vertices around the
// pixels of one picture, each pixel's simplex, and the chains along which vertices are blurred.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "crf.h"

namespace edgeseg {

class Permutohedral {
 public:
  // Of the features (x / position, y / position, b / colour, g / colour, r / colour) of a packed (h, w, 3) picture.
  // Memory of an earlier picture is used again.
  void build(const uint8_t* frame, int h, int w, double position, double colour, int threads);

  int vertices() const { return vertices_; }
  const int32_t* vertex() const { return vertex_.data(); }
  const float* weight() const { return weight_.data(); }
  // By vertex for several threads, null for one.
  const int32_t* first() const { return shared_ ? first_.data() : nullptr; }
  const CrfShare* shares() const { return shares_.data(); }
  // Direction d's chains: vertices with a neighbour, in order, the first of each chain as ~vertex. `count` entries, then padding.
  const int32_t* chains(int d) const { return chains_[d].data(); }
  int count(int d) const { return static_cast<int>(chains_[d].size()) - kReadAhead - 1; }

 private:
  // Five coordinates of 21 bits, biased; the sixth is minus their sum.
  struct Key {
    uint64_t low = 0, high = 0;
    bool operator==(const Key& other) const { return low == other.low && high == other.high; }
    Key operator+(const Key& other) const { return {low + other.low, high + other.high}; }
  };
  static Key unit(int coordinate, int64_t factor);
  static Key step(int d);
  class Table;

  void locate(const uint8_t* frame, int h, int w, double position, double colour, int threads);
  void number(Table& table);
  void link(int d, const Table& table);
  void share();
  void normalise();

  int vertices_ = 0;
  bool shared_ = false;
  std::vector<Key> keys_;
  std::vector<int32_t> slots_, origin_, next_;
  std::vector<uint8_t> rank_, follows_;
  std::vector<float> sums_;
  std::vector<int32_t> vertex_;
  std::vector<float> weight_;
  std::vector<int32_t> first_;
  std::vector<CrfShare> shares_;
  std::array<std::vector<int32_t>, kCorners> chains_;
};

}  // namespace edgeseg
