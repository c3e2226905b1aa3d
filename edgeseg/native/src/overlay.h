// Palette overlay: out = (frame * keep + add[label]) >> 8 in 16-bit integers, 16 pixels at a time.
// Labels come in runs, so the expanded colours of one label are kept until another comes.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace edgeseg {
namespace EDGESEG_ISA {

constexpr int kBlock = 16;

// Colours of 16 pixels, three values each; the four-wide table is copied whole, its padding overwritten by the next pixel.
struct Expanded {
  uint16_t add[kBlock * 3 + 1];
  int label = -1;  // the label of all 16, or -1
};

static inline bool uniform(const uint8_t* labels) {
  const uint64_t first = labels[0] * 0x0101010101010101ull;
  return load<uint64_t>(labels) == first && load<uint64_t>(labels + 8) == first;
}

static inline bool any_ignored(const uint8_t* labels) {
  const uint64_t a = ~load<uint64_t>(labels), b = ~load<uint64_t>(labels + 8), ones = 0x0101010101010101ull;
  return (((a - ones) & ~a) | ((b - ones) & ~b)) & (ones << 7);  // a zero byte in a or b
}

static inline void expand(const OverlayArgs& args, const uint8_t* labels, Expanded& e) {
  const bool same = uniform(labels);
  if (same && e.label == labels[0]) return;
  for (int i = 0; i < kBlock; ++i) memcpy(e.add + 3 * i, args.add + 4 * labels[i], 8);
  e.label = same ? labels[0] : -1;
}

static inline void blend(const OverlayArgs& args, const uint8_t* labels, const uint8_t* frame, const Expanded& e, uint8_t* out) {
  uint8_t result[kBlock * 3];  // a local: the compiler need not fear that out overlaps frame
  for (int i = 0; i < kBlock * 3; ++i) result[i] = (uint16_t)(frame[i] * args.keep + e.add[i]) >> 8;
  if (any_ignored(labels))
    for (int i = 0; i < kBlock; ++i)
      if (labels[i] == kIgnore) memcpy(result + 3 * i, frame + 3 * i, 3);
  memcpy(out, result, sizeof result);
}

static void overlay_row(const OverlayArgs& args, const uint8_t* labels, int y, Expanded& e) {
  const uint8_t* frame = args.frame + y * args.frame_stride;
  uint8_t* out = args.out + y * args.out_stride;
  int x = 0;
  for (; x + kBlock <= args.w; x += kBlock) {
    expand(args, labels + x, e);
    blend(args, labels + x, frame + 3 * x, e, out + 3 * x);
  }
  if (x == args.w) return;
  const int rest = args.w - x;
  uint8_t tail_labels[kBlock] = {}, tail[kBlock * 3] = {};
  memcpy(tail_labels, labels + x, rest);
  memcpy(tail, frame + 3 * x, 3 * rest);
  expand(args, tail_labels, e);
  blend(args, tail_labels, tail, e, tail);
  memcpy(out + 3 * x, tail, 3 * rest);
}

// labels (h, w) contiguous; `labels` points at row 0.
static void overlay(const OverlayArgs& args, const uint8_t* labels, int begin, int end) {
  Expanded e;
  for (int y = begin; y < end; ++y) overlay_row(args, labels + (ptrdiff_t)y * args.w, y, e);
}

}  // namespace EDGESEG_ISA
}  // namespace edgeseg
