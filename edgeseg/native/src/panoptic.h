// Panoptic FPN's merging of instances and a label map into one partition of the picture (Kirillov et al., CVPR 2019,
// "Panoptic Feature Pyramid Networks", section 4, "Panoptic inference").
#pragma once

#include <cstdint>
#include <vector>

#include "paste_masks.h"

namespace edgeseg {

struct MergeArgs {
  BoxMasks things;          // best first
  const uint8_t* semantic;  // (H, W): 0 is no stuff, s > 0 the s-th stuff class; null: there is no stuff
  int stuff;                // number of stuff classes
  double overlap;           // a thing is dropped when a smaller share of its mask is still free
  int64_t stuff_area;       // stuff with fewer free pixels is dropped
  int32_t* ids;             // (H, W), written in full; 0 is void
};

// Segment ids, 0 for what was dropped: things count from 1 in order, stuff follows.
struct Merged {
  std::vector<int32_t> things;  // (count)
  std::vector<int32_t> stuff;   // (stuff)
};

Merged merge_panoptic(const MergeArgs& args, int threads);

}  // namespace edgeseg
