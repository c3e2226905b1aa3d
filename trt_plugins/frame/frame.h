/* What a frame passes on the device before and after the network: preprocess and overlay, one launch each. Not plugins: they are no part
   of the network. edgeseg/native holds the CPU versions that run live on machines without a GPU; both give the same pictures. */
#ifndef EDGESEG_FRAME_H
#define EDGESEG_FRAME_H

#include "../common/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* BGR: (h, w, 3) uint8. NV12: (h, w) uint8 luma, then (h / 2, w) interleaved U and V, both with the same stride; BT.601 limited range.
   DEPTH16: (h, w) uint16; 0 is unknown. The resize is bilinear with half-pixel centres, edges replicated, no antialiasing.
   NV12: each source pixel takes the U and V of its 2x2 block, becomes B, G, R clamped to 0..255, and these are blended; h and w even.
   DEPTH16: of the four neighbours only the known ones are blended, their weights divided by their sum; where that sum is zero the output
   pixel is 0, unknown (and is scaled and offset like any other). */
enum { ES_FRAME_BGR = 0, ES_FRAME_NV12 = 1, ES_FRAME_DEPTH16 = 2 };

typedef struct EsPreprocess {
  const void* frame;
  const void* chroma; /* NV12's second plane; null: it follows the first */
  int64_t stride;     /* bytes between rows; may be negative; of DEPTH16 a multiple of 2 */
  int32_t kind, h, w;
  EsTensor output;       /* (1, C, H, W) float32, float16 or int8, linear or channel-last; C 3 or 1 (luma of BGR and NV12; depth) */
  float mul[3], add[3];  /* output = pixel * mul + add, in the order of the output's channels; for int8 divided by the scale already */
  int32_t swap_rb;       /* 1: channel 0 is red */
} EsPreprocess;

/* out = (frame * (256 - alpha) + colour * alpha + 128) >> 8 for labels other than 255, which leaves the frame; out may be the frame. */
typedef struct EsOverlay {
  const uint8_t* frame; /* (h, w, 3) BGR */
  int64_t frame_stride;
  uint8_t* out;
  int64_t out_stride;
  const uint8_t* labels;      /* (h, w) contiguous */
  const uint8_t* palette_bgr; /* (256, 3) */
  int32_t h, w;
  int32_t alpha; /* 0..256 */
} EsOverlay;

EsStatus edgeseg_preprocess_cuda(const EsPreprocess* args, void* stream);
EsStatus edgeseg_preprocess_cpu(const EsPreprocess* args, int32_t threads);
EsStatus edgeseg_overlay_cuda(const EsOverlay* args, void* stream);
EsStatus edgeseg_overlay_cpu(const EsOverlay* args, int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
