#include "fields.h"

#include <cmath>
#include <cstring>

namespace edgeseg::trt {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

namespace {

// TensorRT's ONNX parser hands integers over as int32; int64 is taken as well, where it fits.
Status take_integers(const PluginField& field, std::vector<int32_t>& out) {
  out.resize((size_t)field.length);
  if (field.type == PluginFieldType::kINT32) {
    std::memcpy(out.data(), field.data, out.size() * sizeof(int32_t));
    return nullptr;
  }
  if (field.type != PluginFieldType::kINT64) return "is of another type; expected integers";
  for (size_t i = 0; i < out.size(); ++i) {
    int64_t wide;
    std::memcpy(&wide, static_cast<const char*>(field.data) + i * sizeof wide, sizeof wide);
    if (wide != (int32_t)wide) return "does not fit into 32 bits";
    out[i] = (int32_t)wide;
  }
  return nullptr;
}

Status take_reals(const PluginField& field, std::vector<float>& out) {
  if (field.type != PluginFieldType::kFLOAT32) return "is of another type; expected float32";
  out.resize((size_t)field.length);
  std::memcpy(out.data(), field.data, out.size() * sizeof(float));
  for (float value : out) {
    if (!std::isfinite(value)) return "is not finite";
  }
  return nullptr;
}

Status take_text(const PluginField& field, std::string& out) {
  if (field.type != PluginFieldType::kCHAR) return "is of another type; expected text";
  const char* text = static_cast<const char*>(field.data);
  out.assign(text, strnlen(text, (size_t)field.length));
  return nullptr;
}

}  // namespace

Status Fields::take(Value& value, const PluginField& field) {
  if (field.length < 0 || (field.length > 0 && field.data == nullptr)) return "has no data";
  value.integers.clear(), value.reals.clear(), value.text.clear();
  if (field.length == 0) return nullptr;
  if (value.spec.kind == FieldKind::kText) return take_text(field, value.text);
  if (field.length > value.spec.most) return "has too many values";
  return value.spec.kind == FieldKind::kInt ? take_integers(field, value.integers) : take_reals(field, value.reals);
}

Status Fields::read(const PluginFieldCollection* given, const char*& culprit) {
  culprit = nullptr;
  if (given == nullptr || given->nbFields < 0 || (given->nbFields > 0 && given->fields == nullptr)) return "no plugin fields";
  for (int32_t i = 0; i < given->nbFields; ++i) {
    const PluginField& field = given->fields[i];
    if (field.name == nullptr) return "a plugin field has no name";
    for (Value& value : values_) {
      if (std::strcmp(value.spec.name, field.name) != 0) continue;
      culprit = value.spec.name;
      if (const Status problem = take(value, field)) return problem;
    }
  }
  for (const Value& value : values_) {
    culprit = value.spec.name;
    const int32_t found = count(value);
    if (found == 0 && value.spec.required) return "is missing";
    if (found > 0 && found < value.spec.least) return "has too few values";
  }
  culprit = nullptr;
  return nullptr;
}

const Fields::Value* Fields::find(const char* name) const {
  for (const Value& value : values_) {
    if (std::strcmp(value.spec.name, name) == 0) return &value;
  }
  return nullptr;
}

int32_t Fields::count(const Value& value) {
  if (value.spec.kind == FieldKind::kText) return value.text.empty() ? 0 : 1;
  return (int32_t)(value.spec.kind == FieldKind::kInt ? value.integers.size() : value.reals.size());
}

int32_t Fields::count(const char* name) const {
  const Value* value = find(name);
  return value == nullptr ? 0 : count(*value);
}

int32_t Fields::integer(const char* name, int32_t index, int32_t otherwise) const {
  const Value* value = find(name);
  return value != nullptr && index < (int32_t)value->integers.size() ? value->integers[index] : otherwise;
}

float Fields::real(const char* name, int32_t index, float otherwise) const {
  const Value* value = find(name);
  return value != nullptr && index < (int32_t)value->reals.size() ? value->reals[index] : otherwise;
}

std::string Fields::text(const char* name, const char* otherwise) const {
  const Value* value = find(name);
  return value != nullptr && !value->text.empty() ? value->text : otherwise;
}

const PluginFieldCollection* Fields::collection() {
  written_.clear();
  for (const Value& value : values_) {
    const PluginFieldType type = field_type(value.spec.kind);
    if (count(value) == 0) continue;  // an absent field reads back as absent
    if (value.spec.kind == FieldKind::kText) {
      written_.emplace_back(value.spec.name, value.text.c_str(), type, (int32_t)value.text.size() + 1);
    } else if (value.spec.kind == FieldKind::kInt) {
      written_.emplace_back(value.spec.name, value.integers.data(), type, count(value));
    } else {
      written_.emplace_back(value.spec.name, value.reals.data(), type, count(value));
    }
  }
  collection_ = {(int32_t)written_.size(), written_.data()};
  return &collection_;
}

std::string Fields::line() const {
  std::string out;
  for (const Value& value : values_) {
    if (count(value) == 0) continue;
    out += (out.empty() ? "" : " ") + std::string(value.spec.name) + "=" + value.text;
    for (int32_t item : value.integers) out += std::to_string(item) + ",";
    for (float item : value.reals) {
      char exact[32];
      std::snprintf(exact, sizeof exact, "%.9g,", (double)item);
      out += exact;
    }
    if (out.back() == ',') out.pop_back();
  }
  return out;
}

}  // namespace edgeseg::trt
