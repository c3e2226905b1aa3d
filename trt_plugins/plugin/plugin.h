// Everything of TensorRT's plugin interface that our operators have in common. An operator is a struct with
//   kName, kFields                              its name and its settings
//   Status set(const Fields&)                   takes and checks the settings
//   int32_t outputs() const
//   Status types(in, count, out) const          output types from input types; also checks how many inputs there are
//   Status shapes(make, in, count, out) const   output shapes, for Expr and int64_t alike (shapes.h)
//   Status sizes(in) const                      input sizes that must agree, once they are known; optional
//   bool supports(at, slots) const              whether slots[at] goes with slots[0..at-1]; inputs first, then outputs
//   size_t workspace(outputs) const             bytes, of outputs at their largest; optional
//   Status enqueue(const Call&) const           one launch
// A Status is null or a sentence; it ends in TensorRT's log with the operator's and the layer's name.
// The interface level is TensorRT 10.3's (V3OneBuild version 1): a binary of these headers registers in every later registry.
#pragma once

#include <array>
#include <iterator>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "fields.h"
#include "log.h"
#include "shapes.h"
#include "tensors.h"

namespace edgeseg::trt {

constexpr char kNamespace[] = "edgeseg";
constexpr char kVersion[] = "1";
constexpr int32_t kMaxTensors = 16;

// What enqueue is handed.
struct Call {
  const nvinfer1::PluginTensorDesc* input_descs;
  const nvinfer1::PluginTensorDesc* output_descs;
  const void* const* inputs;
  void* const* outputs;
  void* workspace;
  void* stream;

  // The launchers never write where their `input`s point, though EsTensor has one pointer for both.
  EsTensor input(int32_t i) const { return tensor_of(input_descs[i], const_cast<void*>(inputs[i])); }
  EsTensor output(int32_t i) const { return tensor_of(output_descs[i], outputs[i]); }
};

// What an operator need not say.
struct Operator {
  Status sizes(const Shape<int64_t>*) const { return nullptr; }
  size_t workspace(const EsTensor*) const { return 0; }
};

template <class Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
  using Dims = nvinfer1::Dims;
  using Desc = nvinfer1::PluginTensorDesc;
  using DynamicDesc = nvinfer1::DynamicPluginTensorDesc;
  using DimsExprs = nvinfer1::DimsExprs;

 public:
  // Null, and a line in the log, where the fields are not what the operator takes.
  static Plugin* make(const char* layer, const nvinfer1::PluginFieldCollection* fields) noexcept try {
    Plugin draft(layer);
    const char* culprit = nullptr;
    Status problem = draft.fields_.read(fields, culprit);
    if (!problem) problem = draft.op_.set(draft.fields_);
    if (problem) {
      draft.fail((culprit ? "field " + std::string(culprit) + " " : std::string()) + problem);
      return nullptr;
    }
    draft.id_ = draft.fields_.line();
    return new Plugin(draft);
  } catch (...) {
    return nullptr;  // out of memory
  }

  // --- IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override try {
    return new Plugin(*this);
  } catch (...) {
    return nullptr;
  }

  // --- core
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // --- build
  int32_t getNbOutputs() const noexcept override { return op_.outputs(); }

  int32_t getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in, int32_t inputs) const noexcept override {
    return code(outputs == op_.outputs() ? op_.types(in, inputs, out) : "the number of outputs is not the plugin's");
  }

  int32_t getOutputShapes(const DimsExprs* in, int32_t inputs, const DimsExprs*, int32_t shape_inputs, DimsExprs* out,
                          int32_t outputs, nvinfer1::IExprBuilder& builder) noexcept override {
    if (inputs + outputs > kMaxTensors || shape_inputs != 0 || outputs != op_.outputs()) {
      return code("the numbers of tensors are not the plugin's");
    }
    std::array<Shape<Expr>, kMaxTensors> from, to;
    for (int32_t i = 0; i < inputs; ++i) from[i] = shape_of(in[i], builder);
    if (const Status problem = op_.shapes(Symbols{builder}, from.data(), inputs, to.data())) return code(problem);
    for (int32_t i = 0; i < outputs; ++i) {
      out[i].nbDims = to[i].rank;
      for (int32_t j = 0; j < to[i].rank; ++j) {
        if ((out[i].d[j] = to[i].d[j].node()) == nullptr) return code("TensorRT made no expression of an output size");
      }
    }
    return 0;
  }

  bool supportsFormatCombination(int32_t at, const DynamicDesc* tensors, int32_t inputs, int32_t outputs) noexcept override {
    if (inputs + outputs > kMaxTensors || at >= inputs + outputs) return false;
    std::array<Slot, kMaxTensors> slots{};
    for (int32_t i = 0; i <= at; ++i) slots[i] = {tensors[i].desc.type, tensors[i].desc.format};
    return op_.supports(at, slots.data());
  }

  int32_t configurePlugin(const DynamicDesc* in, int32_t inputs, const DynamicDesc* out, int32_t outputs) noexcept override {
    if (inputs + outputs > kMaxTensors) return code("too many tensors");
    std::array<Desc, kMaxTensors> all{};
    bool known = true;
    for (int32_t i = 0; i < inputs + outputs; ++i) {
      all[i] = (i < inputs ? in[i] : out[i - inputs]).desc;
      for (int32_t j = 0; j < all[i].dims.nbDims; ++j) known = known && all[i].dims.d[j] != -1;
    }
    return code(check(all.data(), inputs, all.data() + inputs, outputs, known));
  }

  size_t getWorkspaceSize(const DynamicDesc*, int32_t, const DynamicDesc* out, int32_t outputs) const noexcept override {
    std::array<EsTensor, kMaxTensors> largest{};
    for (int32_t i = 0; i < outputs && i < kMaxTensors; ++i) {
      largest[i] = tensor_of(out[i].max, out[i].desc.type, out[i].desc.format, nullptr);
    }
    return op_.workspace(largest.data());
  }

  const char* getTimingCacheID() noexcept override { return id_.c_str(); }
  const char* getMetadataString() noexcept override { return id_.c_str(); }

  // --- runtime
  int32_t onShapeChange(const Desc* in, int32_t inputs, const Desc* out, int32_t outputs) noexcept override {
    return code(inputs + outputs > kMaxTensors ? "too many tensors" : check(in, inputs, out, outputs, true));
  }

  int32_t enqueue(const Desc* input_descs, const Desc* output_descs, const void* const* inputs, void* const* outputs,
                  void* workspace, cudaStream_t stream) noexcept override {
    return code(op_.enqueue({input_descs, output_descs, inputs, outputs, workspace, stream}));
  }

  // Nothing is kept per context: kernels need no handles and no memory of their own.
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override try {
    return fields_.collection();
  } catch (...) {
    return nullptr;
  }

 private:
  explicit Plugin(const char* layer) : fields_(Op::kFields, (int32_t)std::size(Op::kFields)), layer_(layer ? layer : "") {}

  // `known`: no size is open any more.
  Status check(const Desc* in, int32_t inputs, const Desc* out, int32_t outputs, bool known) const noexcept {
    std::array<DataType, kMaxTensors> types{};
    std::array<Slot, kMaxTensors> slots{};
    if (outputs != op_.outputs()) return "the number of outputs is not the plugin's";
    for (int32_t i = 0; i < inputs; ++i) types[i] = in[i].type;
    std::array<DataType, kMaxTensors> ignored{};
    if (const Status problem = op_.types(types.data(), inputs, ignored.data())) return problem;
    for (int32_t i = 0; i < inputs + outputs; ++i) {
      const Desc& desc = i < inputs ? in[i] : out[i - inputs];
      slots[i] = {desc.type, desc.format};
      if (!op_.supports(i, slots.data())) return "a tensor has a type or format that supportsFormatCombination refused";
      if (known && !fits(desc.dims)) return "a tensor has a size outside 0 .. 2147483647";
    }
    return known ? check_shapes(in, inputs, out, outputs) : nullptr;
  }

  Status check_shapes(const Desc* in, int32_t inputs, const Desc* out, int32_t outputs) const noexcept {
    std::array<Shape<int64_t>, kMaxTensors> from, to;
    for (int32_t i = 0; i < inputs; ++i) from[i] = shape_of(in[i].dims);
    if (const Status problem = op_.shapes(Numbers{}, from.data(), inputs, to.data())) return problem;
    if (const Status problem = op_.sizes(from.data())) return problem;
    for (int32_t i = 0; i < outputs; ++i) {
      if (to[i].rank != out[i].dims.nbDims) return "an output has another number of dimensions than the inputs ask for";
      for (int32_t j = 0; j < to[i].rank; ++j) {
        if (to[i].d[j] != out[i].dims.d[j]) return "an output has another size than the inputs ask for";
      }
    }
    return nullptr;
  }

  int32_t code(Status problem) const noexcept {
    if (problem) fail(problem);
    return problem ? 1 : 0;
  }

  void fail(const std::string& problem) const noexcept try {
    log_error(std::string(Op::kName) + (layer_.empty() ? "" : " in layer " + layer_) + ": " + problem);
  } catch (...) {
    log_error(Op::kName);
  }

  Fields fields_;
  Op op_{};
  std::string layer_, id_;
};

template <class Op>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator() {
    for (const FieldSpec& spec : Op::kFields) fields_.emplace_back(spec.name, nullptr, field_type(spec.kind), spec.most);
    names_ = {(int32_t)fields_.size(), fields_.data()};
  }

  // An engine stores what getFieldsToSerialize gives, which are the fields that it was built from: both phases are one.
  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    return Plugin<Op>::make(name, fields);
  }
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &names_; }
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection names_{};
};

// One a file of an operator; entry.cpp lists them.
template <class Op>
nvinfer1::IPluginCreatorInterface* creator() {
  static Creator<Op> only;
  return &only;
}

}  // namespace edgeseg::trt
