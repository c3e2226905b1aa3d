// TensorRT's descriptions of tensors as ours, and which types and formats a plane of features may have.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <limits>

#include "../common/tensor.h"

namespace edgeseg::trt {

using nvinfer1::DataType;
using nvinfer1::TensorFormat;

struct Slot {
  DataType type;
  TensorFormat format;
};

inline bool operator==(const Slot& a, const Slot& b) { return a.type == b.type && a.format == b.format; }

// ES_* of a type or format, -1 where there is none. kUINT8 and kBOOL never reach a plugin: codes and labels travel as kINT8.
inline int32_t es_type(DataType type) {
  switch (type) {
    case DataType::kFLOAT: return ES_FLOAT32;
    case DataType::kHALF: return ES_FLOAT16;
    case DataType::kINT8: return ES_INT8;
    case DataType::kINT32: return ES_INT32;
    case DataType::kINT64: return ES_INT64;
    default: return -1;
  }
}

inline int32_t es_format(TensorFormat format) {
  switch (format) {
    case TensorFormat::kLINEAR: return ES_LINEAR;
    case TensorFormat::kHWC: return ES_HWC;
    case TensorFormat::kHWC8: return ES_HWC8;
    case TensorFormat::kHWC16: return ES_HWC16;
    case TensorFormat::kCHW4: return ES_CHW4;
    case TensorFormat::kCHW16: return ES_CHW16;
    case TensorFormat::kCHW32: return ES_CHW32;
    default: return -1;
  }
}

inline bool linear(const Slot& slot, DataType type) { return slot == Slot{type, TensorFormat::kLINEAR}; }

inline bool channel_last(const Slot& slot) {
  return slot.format == TensorFormat::kHWC || slot.format == TensorFormat::kHWC8 || slot.format == TensorFormat::kHWC16;
}

// Features (N, C, H, W): the formats of the GPU that TensorRT's headers allow in each precision (int8 channel-last: from 11 on).
inline bool features(const Slot& slot) {
  const bool fp32 = slot.type == DataType::kFLOAT, fp16 = slot.type == DataType::kHALF, int8 = slot.type == DataType::kINT8;
  switch (slot.format) {
    case TensorFormat::kLINEAR:
    case TensorFormat::kCHW32: return fp32 || fp16 || int8;
    case TensorFormat::kHWC: return fp32;
    case TensorFormat::kHWC8: return fp16;
    case TensorFormat::kHWC16: return fp16 || int8;
    case TensorFormat::kCHW4: return int8;
    default: return false;
  }
}

// (N, C, H, W), or (N, H, W) as one channel.
inline EsTensor tensor_of(const nvinfer1::Dims& dims, DataType type, TensorFormat format, void* data) {
  const auto at = [&](int32_t i) { return i < dims.nbDims ? (int32_t)dims.d[i] : 0; };
  EsTensor tensor{data, es_type(type), es_format(format), at(0), at(1), at(2), at(3)};
  if (dims.nbDims == 3) tensor.c = 1, tensor.h = at(1), tensor.w = at(2);
  return tensor;
}

inline EsTensor tensor_of(const nvinfer1::PluginTensorDesc& desc, void* data) {
  return tensor_of(desc.dims, desc.type, desc.format, data);
}

// Sizes are int32 in the launchers.
inline bool fits(const nvinfer1::Dims& dims) {
  for (int32_t i = 0; i < dims.nbDims; ++i) {
    if (dims.d[i] < 0 || dims.d[i] > std::numeric_limits<int32_t>::max()) return false;
  }
  return dims.nbDims >= 0;
}

}  // namespace edgeseg::trt
