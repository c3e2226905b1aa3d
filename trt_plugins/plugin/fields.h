// An operator's settings as plugin fields: read from a creator's collection, checked, written back, and as one line of text.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

namespace edgeseg::trt {

// Null, or a static sentence that says what is wrong (EsStatus means the same).
using Status = const char*;

enum class FieldKind { kInt, kFloat, kText };

// A field as an operator declares it: an ONNX attribute of the same name with `least` to `most` values. A text is one value.
struct FieldSpec {
  const char* name;
  FieldKind kind;
  int32_t least, most;
  bool required;
};

inline nvinfer1::PluginFieldType field_type(FieldKind kind) {
  if (kind == FieldKind::kText) return nvinfer1::PluginFieldType::kCHAR;
  return kind == FieldKind::kInt ? nvinfer1::PluginFieldType::kINT32 : nvinfer1::PluginFieldType::kFLOAT32;
}

// The values of an operator's fields. What is read back from `collection()` equals what was read in.
class Fields {
 public:
  Fields(const FieldSpec* specs, int32_t count) : values_(count) {
    for (int32_t i = 0; i < count; ++i) values_[i].spec = specs[i];
  }

  // The name of the field at fault is in `culprit`, which is null where the collection itself is wrong.
  Status read(const nvinfer1::PluginFieldCollection* given, const char*& culprit);

  bool has(const char* name) const { return count(name) > 0; }
  int32_t count(const char* name) const;
  int32_t integer(const char* name, int32_t index, int32_t otherwise) const;
  float real(const char* name, int32_t index, float otherwise) const;
  std::string text(const char* name, const char* otherwise) const;

  // Points into this object: valid until it changes or dies.
  const nvinfer1::PluginFieldCollection* collection();
  std::string line() const;

 private:
  struct Value {
    FieldSpec spec{};
    std::vector<int32_t> integers;
    std::vector<float> reals;
    std::string text;
  };

  static Status take(Value& value, const nvinfer1::PluginField& field);
  const Value* find(const char* name) const;
  static int32_t count(const Value& value);

  std::vector<Value> values_;
  std::vector<nvinfer1::PluginField> written_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace edgeseg::trt
