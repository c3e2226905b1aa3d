// What TensorRT hands to a plugin, made without TensorRT: expressions of sizes, and collections of fields.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace harness {

// A constant, the value of an unknown (`unknown` >= 0), or an operation on two expressions.
class Expression final : public nvinfer1::IDimensionExpr, private nvinfer1::apiv::VDimensionExpr {
 public:
  Expression(int64_t value, int32_t unknown) : value_(value), unknown_(unknown) { mImpl = this; }
  Expression(nvinfer1::DimensionOperation operation, const Expression& a, const Expression& b)
      : operation_(operation), a_(&a), b_(&b) {
    mImpl = this;
  }
  ~Expression() noexcept override = default;

  int64_t value(const std::vector<int64_t>& unknowns) const {
    if (!a_) return unknown_ < 0 ? value_ : unknowns.at((size_t)unknown_);
    const int64_t a = a_->value(unknowns), b = b_->value(unknowns);
    const int64_t floor = b ? a / b - (a % b != 0 && (a < 0) != (b < 0)) : 0;
    switch (operation_) {
      case nvinfer1::DimensionOperation::kSUM: return a + b;
      case nvinfer1::DimensionOperation::kPROD: return a * b;
      case nvinfer1::DimensionOperation::kMAX: return a > b ? a : b;
      case nvinfer1::DimensionOperation::kMIN: return a < b ? a : b;
      case nvinfer1::DimensionOperation::kSUB: return a - b;
      case nvinfer1::DimensionOperation::kEQUAL: return a == b;
      case nvinfer1::DimensionOperation::kLESS: return a < b;
      case nvinfer1::DimensionOperation::kFLOOR_DIV: return floor;
      case nvinfer1::DimensionOperation::kCEIL_DIV: return b ? floor + (a % b != 0) : 0;
    }
    return std::numeric_limits<int64_t>::min();
  }

  bool isConstant() const override { return a_ ? a_->isConstant() && b_->isConstant() : unknown_ < 0; }
  int64_t getConstantValue() const override { return isConstant() ? value({}) : std::numeric_limits<int64_t>::min(); }
  bool isSizeTensor() const override { return false; }

 private:
  int64_t value_ = 0;
  int32_t unknown_ = -1;
  nvinfer1::DimensionOperation operation_{};
  const Expression *a_ = nullptr, *b_ = nullptr;
};

class ExprBuilder final : public nvinfer1::IExprBuilder, private nvinfer1::apiv::VExprBuilder {
 public:
  ExprBuilder() { mImpl = this; }
  ~ExprBuilder() noexcept override = default;

  const Expression* unknown(int32_t index) { return keep(std::make_unique<Expression>(0, index)); }
  const nvinfer1::IDimensionExpr* constant(int64_t value) override { return keep(std::make_unique<Expression>(value, -1)); }
  const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation operation, const nvinfer1::IDimensionExpr& a,
                                            const nvinfer1::IDimensionExpr& b) override {
    return keep(std::make_unique<Expression>(operation, static_cast<const Expression&>(a), static_cast<const Expression&>(b)));
  }
  const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr&,
                                                    const nvinfer1::IDimensionExpr&) override {
    return nullptr;
  }
  nvinfer1::IExprBuilder& face() { return *this; }

 private:
  const Expression* keep(std::unique_ptr<Expression> made) {
    made_.push_back(std::move(made));
    return made_.back().get();
  }
  std::vector<std::unique_ptr<Expression>> made_;
};

// Fields as TensorRT's ONNX parser fills them.
struct Field {
  std::string name;
  nvinfer1::PluginFieldType type;
  int32_t length;
  std::vector<char> data;
};

template <class T>
Field field(const char* name, nvinfer1::PluginFieldType type, const std::vector<T>& values) {
  Field made{name, type, (int32_t)values.size(), std::vector<char>(values.size() * sizeof(T))};
  if (!values.empty()) std::memcpy(made.data.data(), values.data(), made.data.size());
  return made;
}
inline Field ints(const char* name, const std::vector<int32_t>& v) { return field(name, nvinfer1::PluginFieldType::kINT32, v); }
inline Field longs(const char* name, const std::vector<int64_t>& v) { return field(name, nvinfer1::PluginFieldType::kINT64, v); }
inline Field floats(const char* name, const std::vector<float>& v) { return field(name, nvinfer1::PluginFieldType::kFLOAT32, v); }
inline Field text(const char* name, const std::string& v) {
  return field(name, nvinfer1::PluginFieldType::kCHAR, std::vector<char>(v.c_str(), v.c_str() + v.size() + 1));
}

class Collection {
 public:
  explicit Collection(const std::vector<Field>& fields) : fields_(fields) {
    for (const Field& f : fields_) views_.emplace_back(f.name.c_str(), f.data.data(), f.type, f.length);
    collection_ = {(int32_t)views_.size(), views_.data()};
  }
  Collection(const Collection&) = delete;
  const nvinfer1::PluginFieldCollection* get() const { return &collection_; }

 private:
  std::vector<Field> fields_;
  std::vector<nvinfer1::PluginField> views_;
  nvinfer1::PluginFieldCollection collection_{};
};

// The plugin's own account of its fields, sorted by name.
inline std::map<std::string, std::string> contents(const nvinfer1::PluginFieldCollection* fields) {
  std::map<std::string, std::string> found;
  for (int32_t i = 0; fields && i < fields->nbFields; ++i) {
    const nvinfer1::PluginField& f = fields->fields[i];
    const int32_t size = f.type == nvinfer1::PluginFieldType::kCHAR ? 1 : 4;
    found[f.name] = std::to_string((int)f.type) + ":" + std::string(static_cast<const char*>(f.data), (size_t)(f.length * size));
  }
  return found;
}

inline std::vector<Field> copy_of(const nvinfer1::PluginFieldCollection* fields) {
  std::vector<Field> copied;
  for (int32_t i = 0; fields && i < fields->nbFields; ++i) {
    const nvinfer1::PluginField& f = fields->fields[i];
    const int32_t size = f.type == nvinfer1::PluginFieldType::kCHAR ? 1 : 4;
    const char* data = static_cast<const char*>(f.data);
    copied.push_back({f.name, f.type, f.length, std::vector<char>(data, data + f.length * size)});
  }
  return copied;
}

}  // namespace harness
