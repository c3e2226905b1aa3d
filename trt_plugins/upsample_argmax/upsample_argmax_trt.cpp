// EdgesegUpsampleArgmax: logits (N, C, h, w) -> labels (N, H, W), uint8 carried as int8 [, probability (N, H, W) float32].
#include "../plugin/plugin.h"
#include "upsample_argmax.h"

namespace edgeseg::trt {
namespace {

struct UpsampleArgmax : Operator {
  static constexpr char kName[] = "EdgesegUpsampleArgmax";
  static constexpr FieldSpec kFields[] = {
      {"size", FieldKind::kInt, 2, 2, true},
      {"align_corners", FieldKind::kInt, 1, 1, false},
      {"threshold", FieldKind::kFloat, 1, 1, false},
      {"logit_scale", FieldKind::kFloat, 1, 1, false},
      {"probability", FieldKind::kInt, 1, 1, false},  // 1: the node has its second output
  };

  Status set(const Fields& fields) {
    height_ = fields.integer("size", 0, 0), width_ = fields.integer("size", 1, 0);
    args_.align_corners = fields.integer("align_corners", 0, 0);
    args_.threshold = fields.real("threshold", 0, 0.0f);
    args_.logit_scale = fields.real("logit_scale", 0, 1.0f);
    probability_ = fields.integer("probability", 0, 0);
    if (height_ < 1 || width_ < 1) return "size must be at least 1 by 1";
    if (args_.align_corners != 0 && args_.align_corners != 1) return "align_corners must be 0 or 1";
    if (probability_ != 0 && probability_ != 1) return "probability must be 0 or 1";
    return args_.logit_scale > 0 ? nullptr : "logit_scale must be above 0";
  }

  int32_t outputs() const { return 1 + probability_; }

  Status types(const DataType*, int32_t count, DataType* out) const {
    if (count != 1) return "there must be one input, the logits";
    out[0] = DataType::kINT8;
    if (probability_) out[1] = DataType::kFLOAT;
    return nullptr;
  }

  template <class Make, class E>
  Status shapes(const Make& make, const Shape<E>* in, int32_t count, Shape<E>* out) const {
    if (count != 1 || in[0].rank != 4) return "there must be one input, logits (N, C, h, w)";
    for (int32_t i = 0; i < outputs(); ++i) out[i] = {3, {in[0].d[0], make.constant(height_), make.constant(width_)}};
    return nullptr;
  }

  bool supports(int32_t at, const Slot* slots) const {
    if (at == 0) return features(slots[0]);
    return linear(slots[at], at == 1 ? DataType::kINT8 : DataType::kFLOAT);
  }

  Status enqueue(const Call& call) const {
    EsUpsampleArgmax args = args_;
    args.logits = call.input(0);
    args.labels = call.output(0);
    args.probability = probability_ ? static_cast<float*>(call.outputs[1]) : nullptr;
    return edgeseg_upsample_argmax_cuda(&args, call.stream);
  }

  EsUpsampleArgmax args_{};
  int32_t height_ = 0, width_ = 0, probability_ = 0;
};

}  // namespace

nvinfer1::IPluginCreatorInterface* upsample_argmax_creator() { return creator<UpsampleArgmax>(); }

}  // namespace edgeseg::trt
