// Output sizes, written once for both of their uses: expressions while an engine is built, numbers when a shape is checked.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>

namespace edgeseg::trt {

template <class E>
struct Shape {
  int32_t rank = 0;
  E d[nvinfer1::Dims::MAX_DIMS] = {};
};

// A size that may depend on sizes known only at run time.
class Expr {
 public:
  Expr() = default;
  Expr(nvinfer1::IExprBuilder& builder, const nvinfer1::IDimensionExpr* node) : builder_(&builder), node_(node) {}

  Expr then(nvinfer1::DimensionOperation operation, int64_t value) const {
    const auto* other = node_ ? builder_->constant(value) : nullptr;
    return {*builder_, other ? builder_->operation(operation, *node_, *other) : nullptr};
  }
  const nvinfer1::IDimensionExpr* node() const { return node_; }

 private:
  nvinfer1::IExprBuilder* builder_ = nullptr;
  const nvinfer1::IDimensionExpr* node_ = nullptr;
};

inline Expr operator+(Expr a, int64_t b) { return a.then(nvinfer1::DimensionOperation::kSUM, b); }
inline Expr operator-(Expr a, int64_t b) { return a.then(nvinfer1::DimensionOperation::kSUM, -b); }
inline Expr operator*(Expr a, int64_t b) { return a.then(nvinfer1::DimensionOperation::kPROD, b); }
inline Expr floor_div(Expr a, int64_t b) { return a.then(nvinfer1::DimensionOperation::kFLOOR_DIV, b); }
inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

// Makes constants of either kind.
struct Symbols {
  nvinfer1::IExprBuilder& builder;
  Expr constant(int64_t value) const { return {builder, builder.constant(value)}; }
};
struct Numbers {
  int64_t constant(int64_t value) const { return value; }
};

inline Shape<int64_t> shape_of(const nvinfer1::Dims& dims) {
  Shape<int64_t> shape;
  shape.rank = dims.nbDims;
  for (int32_t i = 0; i < dims.nbDims; ++i) shape.d[i] = dims.d[i];
  return shape;
}

inline Shape<Expr> shape_of(const nvinfer1::DimsExprs& dims, nvinfer1::IExprBuilder& builder) {
  Shape<Expr> shape;
  shape.rank = dims.nbDims;
  for (int32_t i = 0; i < dims.nbDims; ++i) shape.d[i] = Expr(builder, dims.d[i]);
  return shape;
}

}  // namespace edgeseg::trt
