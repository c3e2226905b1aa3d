// EdgesegRoIAlign: rois (K, 4), batch_indices (K), features (N, C, H_l, W_l) of 1 to 5 levels
// -> (K, C, output_height, output_width).
#include "../plugin/plugin.h"
#include "roi_align.h"

namespace edgeseg::trt {
namespace {

struct RoIAlign : Operator {
  static constexpr char kName[] = "EdgesegRoIAlign";
  static constexpr FieldSpec kFields[] = {
      {"output_height", FieldKind::kInt, 1, 1, true},
      {"output_width", FieldKind::kInt, 1, 1, true},
      {"sampling_ratio", FieldKind::kInt, 1, 1, false},
      {"mode", FieldKind::kText, 1, 1, false},
      {"aligned", FieldKind::kInt, 1, 1, false},
      {"spatial_scales", FieldKind::kFloat, 1, ES_MAX_LEVELS, true},
      {"canonical_size", FieldKind::kFloat, 1, 1, false},
      {"canonical_level", FieldKind::kInt, 1, 1, false},
  };

  Status set(const Fields& fields) {
    args_.output.h = fields.integer("output_height", 0, 0);
    args_.output.w = fields.integer("output_width", 0, 0);
    args_.sampling_ratio = fields.integer("sampling_ratio", 0, 0);
    args_.aligned = fields.integer("aligned", 0, 1);
    args_.canonical_size = fields.real("canonical_size", 0, 224.0f);
    args_.canonical_level = fields.integer("canonical_level", 0, 0);
    args_.levels = fields.count("spatial_scales");
    for (int32_t i = 0; i < args_.levels; ++i) {
      args_.spatial_scales[i] = fields.real("spatial_scales", i, 0);
      if (!(args_.spatial_scales[i] > 0)) return "spatial_scales must be above 0";
    }
    const std::string mode = fields.text("mode", "avg");
    args_.max_mode = mode == "max";
    if (mode != "avg" && mode != "max") return "mode must be avg or max";
    if (args_.output.h < 1 || args_.output.w < 1 || args_.output.h > 1024 || args_.output.w > 1024) {
      return "output_height and output_width must be 1 to 1024";
    }
    if (args_.sampling_ratio < 0 || args_.sampling_ratio > 128) return "sampling_ratio must be 0 to 128";
    if (args_.aligned != 0 && args_.aligned != 1) return "aligned must be 0 or 1";
    return args_.canonical_size > 0 ? nullptr : "canonical_size must be above 0";
  }

  int32_t outputs() const { return 1; }

  Status types(const DataType* in, int32_t count, DataType* out) const {
    if (count != 2 + args_.levels) return "inputs must be rois, batch_indices and one feature map for each of spatial_scales";
    out[0] = in[2];
    return nullptr;
  }

  template <class Make, class E>
  Status shapes(const Make& make, const Shape<E>* in, int32_t count, Shape<E>* out) const {
    if (count != 2 + args_.levels) return "inputs must be rois, batch_indices and one feature map for each of spatial_scales";
    if (in[0].rank != 2 || in[1].rank != 1) return "rois must be (K, 4) and batch_indices (K)";
    for (int32_t i = 2; i < count; ++i) {
      if (in[i].rank != 4) return "features must be (N, C, H, W)";
    }
    out[0] = {4, {in[0].d[0], in[2].d[1], make.constant(args_.output.h), make.constant(args_.output.w)}};
    return nullptr;
  }

  // The launcher is handed bare pointers to both: how much lies behind them is known here alone.
  Status sizes(const Shape<int64_t>* in) const {
    return in[0].d[1] == 4 && in[1].d[0] == in[0].d[0] ? nullptr : "rois must be (K, 4) and batch_indices (K), of one K";
  }

  bool supports(int32_t at, const Slot* slots) const {
    if (at == 0) return linear(slots[0], DataType::kFLOAT);  // coordinates are float32 in every precision
    if (at == 1) return linear(slots[1], DataType::kINT32) || linear(slots[1], DataType::kINT64);
    return at == 2 ? features(slots[2]) : slots[at] == slots[2];
  }

  Status enqueue(const Call& call) const {
    EsRoiAlign args = args_;
    args.rois = static_cast<const float*>(call.inputs[0]);
    args.batch_indices = call.inputs[1];
    args.index_type = es_type(call.input_descs[1].type);
    for (int32_t i = 0; i < args.levels; ++i) args.features[i] = call.input(2 + i);
    args.output = call.output(0);
    return edgeseg_roi_align_cuda(&args, call.stream);
  }

  EsRoiAlign args_{};
};

}  // namespace

nvinfer1::IPluginCreatorInterface* roi_align_creator() { return creator<RoIAlign>(); }

}  // namespace edgeseg::trt
