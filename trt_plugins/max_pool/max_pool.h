/* Max-pooling that remembers where each maximum was, and its inverse.

   Codes are window-local: dy * kernel_w + dx of the maximum, one byte whatever the size of the plane. Indices are ONNX's: the place in
   the whole (N, C, H, W) tensor, int64. The first of equal maxima in row-major order wins, NaN wins over every number, padding never.
   Where two pooled values name one place of the unpooled plane, the later in row-major order stays; places nobody names are 0. */
#ifndef EDGESEG_MAX_POOL_H
#define EDGESEG_MAX_POOL_H

#include "../common/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct EsMaxPoolArgmax {
  EsTensor input;  /* (N, C, H, W) float32, float16 or int8 */
  EsTensor output; /* (N, C, h, w), type of the input */
  EsTensor codes;  /* (N, C, h, w) uint8 (ES_INT8 is taken as the same bits) */
  EsWindow window; /* kernel_h * kernel_w <= 256 */
} EsMaxPoolArgmax;

typedef struct EsMaxUnpool {
  EsTensor input;  /* (N, C, h, w) float32, float16 or int8 */
  EsTensor codes;  /* (N, C, h, w) uint8; a code outside the window or the plane names no place */
  EsTensor output; /* (N, C, H, W), type of the input */
  EsWindow window;
} EsMaxUnpool;

typedef struct EsMaxPoolIndices {
  EsTensor input;  /* (N, C, H, W) */
  EsTensor output; /* (N, C, h, w) */
  int64_t* indices;
  EsWindow window;
  int32_t column_major; /* ONNX's storage_order: indices count columns first */
} EsMaxPoolIndices;

typedef struct EsMaxUnpoolIndices {
  EsTensor input;         /* (N, C, h, w) */
  const int64_t* indices; /* in the whole output tensor; one outside 0 .. N*C*H*W - 1 is dropped by the kernel and refused by the twin */
  EsTensor output;        /* (N, C, H, W) */
  void* workspace;        /* edgeseg_max_unpool_indices_workspace() bytes */
} EsMaxUnpoolIndices;

EsStatus edgeseg_max_pool_argmax_cuda(const EsMaxPoolArgmax* args, void* stream);
EsStatus edgeseg_max_pool_argmax_cpu(const EsMaxPoolArgmax* args, int32_t threads);
EsStatus edgeseg_max_unpool_cuda(const EsMaxUnpool* args, void* stream);
EsStatus edgeseg_max_unpool_cpu(const EsMaxUnpool* args, int32_t threads);
EsStatus edgeseg_max_pool_indices_cuda(const EsMaxPoolIndices* args, void* stream);
EsStatus edgeseg_max_pool_indices_cpu(const EsMaxPoolIndices* args, int32_t threads);
EsStatus edgeseg_max_unpool_indices_cuda(const EsMaxUnpoolIndices* args, void* stream);
EsStatus edgeseg_max_unpool_indices_cpu(const EsMaxUnpoolIndices* args, int32_t threads);
int64_t edgeseg_max_unpool_indices_workspace(const EsTensor* output);

#ifdef __cplusplus
}
#endif
#endif
