// Masks of queries (MaskFormer, Mask2Former) at the size of a picture: upsampled row by row, never as a whole stack of scores.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace edgeseg {

// `count` maps (h, w) of logits under a picture (H, W), joined to it by the axes' taps.
struct QueryMaps {
  const float* logits;  // (count, h, w)
  int count, h, w;
  int H, W;
  AxisView rows, columns;
  float cut;  // logits above it belong to the mask
};

// What query_masks tells of every row of every mask.
struct RowFacts {
  int32_t* areas;  // (count, H): pixels
  int32_t* spans;  // (count, H, 2): first pixel and the one after the last; 0, 0 without pixels
  double* sums;    // (count, H): sum of the pixels' probabilities
};

// Rows [begin, end) of the masks (count, H, W) uint8, 0 or 1.
void query_masks(const QueryMaps& maps, int begin, int end, uint8_t* masks, const RowFacts& facts);

// Pixels of each query: where it wins, where its own mask is, and where both hold.
struct QueryAreas {
  std::vector<int64_t> won, covered, kept;
  explicit QueryAreas(int count) : won(count), covered(count), kept(count) {}
};

// Rows [begin, end) of winners (H, W): 1 + the query with the greatest score * probability, the first of equals, or 0 where the
// pixel is not in that query's mask. Adds to `areas`.
void query_argmax(const QueryMaps& maps, const float* scores, int begin, int end, int32_t* winners, QueryAreas& areas);

}  // namespace edgeseg
