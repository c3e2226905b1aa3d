// Tensors of the harness: linear on the host, packed for the plugin, in device memory where --cuda asks for it.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "../common/tensor.h"

namespace harness {

using Dims = std::vector<int64_t>;

struct Slot {
  nvinfer1::DataType type;
  nvinfer1::TensorFormat format;
};
inline bool operator==(const Slot& a, const Slot& b) { return a.type == b.type && a.format == b.format; }
inline bool operator<(const Slot& a, const Slot& b) { return a.type != b.type ? a.type < b.type : a.format < b.format; }

std::string name_of(const Slot& slot);
int32_t bytes_of(nvinfer1::DataType type);
int64_t count_of(const Dims& dims);

// A tensor as the launchers see it; ranks other than 4 and 3 become a row.
EsTensor es_tensor(const Dims& dims, const Slot& slot, void* data);

// As TensorRT describes it; `open`: the first size is not known yet.
nvinfer1::PluginTensorDesc desc_of(const Dims& dims, const Slot& slot);
nvinfer1::DynamicPluginTensorDesc dynamic_of(const Dims& dims, const Slot& slot, bool open);

// Are two tensors the same? Not `exact`: within the type's tolerance; one in a thousand int8 values may differ where halves round.
bool close(const std::vector<uint8_t>& got, const std::vector<uint8_t>& want, nvinfer1::DataType type, bool exact);

// Linear bytes in the slot's format, padding 0.
std::vector<uint8_t> pack(const std::vector<uint8_t>& linear, const Dims& dims, const Slot& slot);

// Memory where the plugins compute.
class Memory {
 public:
  Memory(const std::vector<uint8_t>& content, bool cuda);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory(const Memory&) = delete;
  void* get() { return device_ ? device_ : host_.data(); }
  std::vector<uint8_t> read() const;

 private:
  std::vector<uint8_t> host_;
  void* device_ = nullptr;
};

}  // namespace harness
