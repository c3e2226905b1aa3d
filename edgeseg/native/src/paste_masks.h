// Masks over boxes, such as Mask R-CNN's 28x28, at the size of a picture.
#pragma once

#include <cstdint>
#include <vector>

namespace edgeseg {

// `count` masks (h, w) of probabilities, each stretched over its box x1, y1, x2, y2 in pixel edges of a picture (H, W).
struct BoxMasks {
  const float* masks;  // (count, h, w)
  const float* boxes;  // (count, 4)
  int count, h, w;
  int H, W;
  float threshold;  // pixels above it belong to the mask
};

// Pixels [begin, end) of row y.
struct Run {
  int32_t y, begin, end;
};

// Finds the runs of one mask after another; keeps its buffers.
//
// A pixel's value is the mask at its centre, bilinear between the centres of the mask's cells and 0 outside of them, which is
// Detectron2's rule (grid_sample, align_corners false, padded with zeros). A box that is empty or not finite has no pixels.
class Paster {
 public:
  explicit Paster(const BoxMasks& masks) : all_(masks) {}
  // Appends the runs of mask `index` in rows [begin, end) to `runs`, top to bottom and left to right.
  void find(int index, int begin, int end, std::vector<Run>& runs);

 private:
  void place_columns(double x1, double x2);
  void scan_row(int y, std::vector<Run>& runs);

  const BoxMasks all_;
  // Columns that lie between the centres of cells k - 1 and k are first_[k] .. first_[k + 1] - 1; frac_[x] is their way to k.
  std::vector<int32_t> first_;
  std::vector<float> frac_;
  std::vector<float> row_;  // the mask's cells at the height of one row, with a zero at either side
};

// Writes 1 into the rows [begin, end) of `out`, (count, H, W) uint8 zeros, wherever a mask has a pixel.
void paste_masks(const BoxMasks& masks, int begin, int end, uint8_t* out);

}  // namespace edgeseg
