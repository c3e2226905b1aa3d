/* Bilinear upsampling and argmax in one pass: full-resolution logits never exist. Ties go to the lowest class, NaN counts as -infinity. */
#ifndef EDGESEG_UPSAMPLE_ARGMAX_H
#define EDGESEG_UPSAMPLE_ARGMAX_H

#include "../common/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct EsUpsampleArgmax {
  EsTensor logits;      /* (N, C, h, w) float32, float16 or int8; C 1..256 */
  EsTensor labels;      /* (N, 1, H, W) uint8 linear (ES_INT8 is taken as the same bits) */
  float* probability;   /* (N, 1, H, W) float32: softmax of the winning class (C = 1: sigmoid); null: not wanted */
  int32_t align_corners; /* 0: half-pixel centres */
  float threshold;      /* C = 1: label 1 where the upsampled logit exceeds it */
  float logit_scale;    /* of int8 logits; 1 otherwise */
} EsUpsampleArgmax;

EsStatus edgeseg_upsample_argmax_cuda(const EsUpsampleArgmax* args, void* stream);
EsStatus edgeseg_upsample_argmax_cpu(const EsUpsampleArgmax* args, int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
