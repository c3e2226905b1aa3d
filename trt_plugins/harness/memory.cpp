#include "memory.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../common/half.h"
#include "../common/layout.h"
#include "../plugin/tensors.h"
#if defined(EDGESEG_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace harness {

using nvinfer1::DataType;
using nvinfer1::TensorFormat;

std::string name_of(const Slot& slot) {
  static const char* const types[] = {"float", "half", "int8", "int32", "bool", "uint8", "fp8", "bf16", "int64"};
  static const char* const formats[] = {"linear", "chw2",   "hwc8", "chw4", "chw16",    "chw32", "dhwc8",
                                        "cdhw32", "hwc",    "dla",  "dla_hwc4", "hwc16", "dhwc"};
  return std::string(types[(int)slot.type]) + ":" + formats[(int)slot.format];
}

int32_t bytes_of(DataType type) {
  switch (type) {
    case DataType::kINT64: return 8;
    case DataType::kFLOAT:
    case DataType::kINT32: return 4;
    case DataType::kHALF: return 2;
    default: return 1;
  }
}

int64_t count_of(const Dims& dims) {
  int64_t count = 1;
  for (int64_t size : dims) count *= size;
  return count;
}

EsTensor es_tensor(const Dims& dims, const Slot& slot, void* data) {
  nvinfer1::Dims trt{};
  trt.nbDims = (int32_t)dims.size();
  for (size_t i = 0; i < dims.size(); ++i) trt.d[i] = dims[i];
  return edgeseg::trt::tensor_of(trt, slot.type, slot.format, data);
}

nvinfer1::PluginTensorDesc desc_of(const Dims& dims, const Slot& slot) {
  nvinfer1::PluginTensorDesc desc{};
  desc.dims.nbDims = (int32_t)dims.size();
  for (size_t i = 0; i < dims.size(); ++i) desc.dims.d[i] = dims[i];
  desc.type = slot.type, desc.format = slot.format, desc.scale = -1.0f;
  return desc;
}

nvinfer1::DynamicPluginTensorDesc dynamic_of(const Dims& dims, const Slot& slot, bool open) {
  nvinfer1::DynamicPluginTensorDesc desc{};
  desc.desc = desc_of(dims, slot);
  desc.min = desc.opt = desc.max = desc.desc.dims;
  if (open) desc.desc.dims.d[0] = -1;
  return desc;
}

namespace {

template <class T>
float value_of(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return edgeseg::to_float(value);
}

bool near(const uint8_t* got, const uint8_t* want, DataType type) {
  if (type == DataType::kINT8) return *got == *want;
  const bool half = type == DataType::kHALF;
  const float a = half ? value_of<edgeseg::Half>(got) : value_of<float>(got);
  const float b = half ? value_of<edgeseg::Half>(want) : value_of<float>(want);
  return a == b || (a != a && b != b) || std::fabs(a - b) <= (half ? 2e-3f : 1e-5f) * (1 + std::fabs(b));
}

}  // namespace

bool close(const std::vector<uint8_t>& got, const std::vector<uint8_t>& want, DataType type, bool exact) {
  if (exact || got.size() != want.size()) return got == want;
  size_t off = 0;
  for (size_t i = 0; i < got.size(); i += (size_t)bytes_of(type)) off += !near(&got[i], &want[i], type);
  return off <= (type == DataType::kINT8 ? got.size() / 1000 : 0);
}

std::vector<uint8_t> pack(const std::vector<uint8_t>& linear, const Dims& dims, const Slot& slot) {
  if (slot.format == TensorFormat::kLINEAR || dims.size() != 4) return linear;
  const EsTensor tensor = es_tensor(dims, slot, nullptr);
  const edgeseg::Layout layout = edgeseg::layout_of(tensor);
  const int64_t plane = dims[2] * dims[3], size = bytes_of(slot.type);
  std::vector<uint8_t> packed((size_t)(dims[0] * layout.image * size), 0);
  for (int64_t n = 0; n < dims[0]; ++n) {
    for (int64_t c = 0; c < dims[1]; ++c) {
      for (int64_t i = 0; i < plane; ++i) {
        const int64_t from = (n * dims[1] + c) * plane + i, to = edgeseg::offset_of(layout, n, (int32_t)c, i);
        std::memcpy(packed.data() + to * size, linear.data() + from * size, (size_t)size);
      }
    }
  }
  return packed;
}

#if defined(EDGESEG_CUDA)
namespace {
void must(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("CUDA: %s\n", cudaGetErrorString(error));
  std::exit(2);
}
}  // namespace
#endif

// One byte more than asked for, so that an empty tensor has an address too.
Memory::Memory(const std::vector<uint8_t>& content, bool cuda) : host_(content) {
  host_.push_back(0xEE);
  if (!cuda) return;
#if defined(EDGESEG_CUDA)
  must(cudaMalloc(&device_, host_.size()));
  must(cudaMemcpy(device_, host_.data(), host_.size(), cudaMemcpyHostToDevice));
#else
  std::printf("--cuda: this harness was built without EDGESEG_CUDA\n");
  std::exit(2);
#endif
}

Memory::Memory(Memory&& other) noexcept : host_(std::move(other.host_)), device_(other.device_) { other.device_ = nullptr; }

Memory::~Memory() {
#if defined(EDGESEG_CUDA)
  if (device_) cudaFree(device_);
#endif
}

std::vector<uint8_t> Memory::read() const {
  std::vector<uint8_t> content = host_;
#if defined(EDGESEG_CUDA)
  if (device_) must(cudaMemcpy(content.data(), device_, content.size(), cudaMemcpyDeviceToHost));
#endif
  if (content.back() != 0xEE) std::printf("a plugin wrote behind its output\n"), std::exit(1);
  content.pop_back();
  return content;
}

}  // namespace harness
