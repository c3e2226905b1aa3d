/* RoIAlign over a feature pyramid (He et al., Mask R-CNN, 2017, section 3; level assignment: Lin et al., FPN, 2017, equation 1).
   What it gives for boxes that are none is at the top of roi_align_core.h. The maximum is ONNX's: the largest of the four weighted
   values of a sample, over all samples of a bin, not of their sum. NaN among the values gives NaN. */
#ifndef EDGESEG_ROI_ALIGN_H
#define EDGESEG_ROI_ALIGN_H

#include "../common/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ES_MAX_LEVELS = 5 };

typedef struct EsRoiAlign {
  EsTensor features[ES_MAX_LEVELS];    /* (N, C, H_l, W_l), finest first; one type and format; int8 levels share one scale with
                                          the output; sides 1 .. 65536, less than 2^31 elements an image */
  float spatial_scales[ES_MAX_LEVELS]; /* feature pixels per image pixel */
  int32_t levels;
  const float* rois;         /* (K, 4) float32: x1, y1, x2, y2 in image pixels */
  const void* batch_indices; /* (K), int32 or int64; one out of range gives zeros */
  int32_t index_type;        /* ES_INT32 or ES_INT64 */
  EsTensor output;           /* (K, C, output_h, output_w), type and format of the features; sides 1 .. 1024 */
  int32_t sampling_ratio;    /* samples a bin and axis, at most 128; 0: ceil(bin size) */
  int32_t max_mode;          /* 0: average, 1: maximum */
  int32_t aligned;           /* 1: half a pixel is subtracted (half-pixel coordinates); 0: boxes have at least one feature pixel */
  float canonical_size;      /* 224: a box of this side, in image pixels ... */
  int32_t canonical_level;   /* ... goes to features[canonical_level]; may lie outside 0 .. levels - 1 */
} EsRoiAlign;

EsStatus edgeseg_roi_align_cuda(const EsRoiAlign* args, void* stream);
EsStatus edgeseg_roi_align_cpu(const EsRoiAlign* args, int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
