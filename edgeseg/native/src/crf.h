// Mean field of a fully connected CRF (Kraehenbuehl and Koltun, NIPS 2011): what its kernels read and write.
// A pixel's or lattice vertex's row holds one float per class, padded to a multiple of 8 with values that stay 0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace edgeseg {

constexpr int kCorners = 6;    // of a simplex in five dimensions: x, y and three colours
constexpr int kSpareTaps = 3;  // zeros on both sides of each row of taps
constexpr int kReadAhead = 8;  // entries that may be read, and ignored, past the end of a list

// What one pixel gives to a vertex of the lattice.
struct CrfShare {
  int32_t pixel;
  float weight;
};

struct CrfArgs {
  int h, w, classes, stride;  // stride: floats of a row

  const float* scores;  // (classes, score_h, score_w)
  int score_h, score_w;
  AxisView rows, columns;
  bool probabilities;    // else logits
  float least;           // probabilities below it count as it
  float* unary;          // (h, w, stride): log probabilities
  const float* q;        // (h, w, stride): marginals before a step
  float* next;           // and after it

  const int32_t* vertex;  // (h, w, kCorners), null without an appearance kernel
  const float* weight;    // barycentric, times the square root of the normalisation
  const int32_t* first;   // (vertices + 1): shares of each vertex, null for one thread
  const CrfShare* shares;
  float* values;  // (vertices, stride)
  float* after;   // (vertices, stride): what the next marginals give to the vertices, or null; one thread
  float w1;

  const float *taps_x, *taps_y;  // (w, kSpareTaps + 2 * radius_x + 1 + kSpareTaps), (h, ...), null without a smoothness kernel
  int radius_x, radius_y;
};

// Pixels to simplices of the lattice.
struct CrfPoints {
  const uint8_t* frame;  // (h, w, 3)
  int h, w;
  float position, colour, factor[kCorners - 1];  // features = pixels * position, colours * colour; elevated by factor
  int32_t* origin;                               // (h, w, kCorners): the simplex' vertex of remainder 0
  uint8_t* rank;                                 // (h, w, kCorners): the order of the coordinates' rests, largest first
  float* weight;                                 // (h, w, kCorners): barycentric, by remainder
};

}  // namespace edgeseg
