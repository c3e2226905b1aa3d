// The kernels' plain interface: pointers and sizes only, so that one source can be compiled per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

constexpr int kIgnore = 255;  // a label that leaves the frame as it is

// One axis of a half-pixel bilinear resize: output i reads lo[i] and hi[i] with weights 1 - frac[i] and frac[i].
struct AxisView {
  const int32_t* lo;
  const int32_t* hi;
  const float* frac;
};

struct PreprocessArgs {
  const uint8_t* frame;  // (h, w, 3) BGR, rows row_stride bytes apart
  ptrdiff_t row_stride;
  int h, w;
  float* out;  // (channels, out_h, out_w)
  int channels, out_h, out_w;
  float mul[3], add[3];  // out = pixel * mul + add, in the order of the output's channels
  bool swap_rb;
  AxisView rows, columns;
};

struct OverlayArgs {
  const uint8_t* frame;  // (h, w, 3) BGR
  ptrdiff_t frame_stride;
  uint8_t* out;  // (h, w, 3)
  ptrdiff_t out_stride;
  int w;
  const uint16_t* add;  // (256, 4): colour * alpha + 128, alpha in 1/256; the fourth is padding
  uint16_t keep;  // 256 - alpha
};

struct UpsampleArgs {
  const float* logits;  // (classes, h, w)
  int classes, h, w;
  uint8_t* labels;  // (out_h, out_w)
  int out_h, out_w;
  float threshold;  // used with one class
  AxisView rows, columns;
  const OverlayArgs* overlay;  // null, or drawn over each finished row
};

struct CrfArgs;  // crf.h
struct CrfPoints;

struct HhaArgs;  // hha.h

// What every instruction set offers. Each works on rows [begin, end) of its output.
// false: out of memory.
struct Kernels {
  const char* name;
  bool (*preprocess)(const PreprocessArgs&, int begin, int end);
  bool (*upsample_argmax)(const UpsampleArgs&, int begin, int end);
  bool (*upsample_threshold)(const UpsampleArgs&, int begin, int end);
  void (*overlay)(const OverlayArgs&, const uint8_t* labels, int begin, int end);
  bool (*crf_locate)(const CrfPoints&, int begin, int end);  // pixels
  bool (*crf_unary)(const CrfArgs&, int begin, int end);
  void (*crf_splat)(const CrfArgs&, int begin, int end);  // vertices
  void (*crf_scatter)(const CrfArgs&);                    // the same as crf_splat of all vertices
  void (*crf_blur)(const CrfArgs&, const int32_t* chains, int begin, int end);  // entries of the chains
  bool (*crf_update)(const CrfArgs&, int begin, int end);
  bool (*hha_normals)(const HhaArgs&, int begin, int end);
  void (*hha_planes)(const HhaArgs&, int begin, int end);
};

// The best set for this CPU, or the one chosen by select().
const Kernels& kernels();
// Names of the sets this CPU runs, worst first; the rest of the array is null.
void supported(const char* names[4]);
// false: no such set, or this CPU lacks it.
bool select(const char* name);

}  // namespace edgeseg
