/* What every operator is handed: memory with a type, a shape and a format. Plain C: nothing of CUDA or TensorRT, so that the CPU twins,
   the kernels, the plugins and ctypes (edgeseg/ops/launch.py) share one description. */
#ifndef EDGESEG_TENSOR_H
#define EDGESEG_TENSOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ES_FLOAT32 = 0, ES_FLOAT16 = 1, ES_INT8 = 2, ES_UINT8 = 3, ES_INT32 = 4, ES_INT64 = 5 };

/* Memory formats under TensorRT's names. CHWv: v channels of a pixel lie side by side, blocks of v follow each other as planes.
   HWCv: all channels of a pixel lie side by side, padded to a multiple of v. Padding channels are never read; what is written there is 0. */
enum { ES_LINEAR = 0, ES_HWC = 1, ES_HWC8 = 2, ES_HWC16 = 3, ES_CHW4 = 4, ES_CHW16 = 5, ES_CHW32 = 6 };

typedef struct EsTensor {
  void* data; /* device memory for the *_cuda launchers, host memory for the *_cpu twins */
  int32_t type;
  int32_t format;
  int32_t n, c, h, w;
} EsTensor;

/* A pooling window: output (i, j) covers rows i * stride_h - pad_top .. + kernel_h - 1 and the same for columns, clipped to the plane. */
typedef struct EsWindow {
  int32_t kernel_h, kernel_w;
  int32_t stride_h, stride_w;
  int32_t pad_top, pad_left;
} EsWindow;

/* Launchers and twins return null, or a static sentence that says what was wrong; nothing is written then.
   `stream` is a cudaStream_t; launches are asynchronous, allocate nothing and may be captured into a CUDA graph. */
typedef const char* EsStatus;

#ifdef __cplusplus
}
#endif
#endif
