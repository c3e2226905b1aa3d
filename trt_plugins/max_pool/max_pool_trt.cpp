// EdgesegMaxPoolArgmax, EdgesegMaxUnpool: pooled values and one byte of window-local code each, carried as int8.
// EdgesegMaxPoolIndices, EdgesegMaxUnpoolIndices: ONNX's int64 places in the whole tensor.
#include "../plugin/plugin.h"
#include "max_pool.h"

namespace edgeseg::trt {
namespace {

constexpr FieldSpec kKernel{"kernel_shape", FieldKind::kInt, 2, 2, true};
constexpr FieldSpec kStrides{"strides", FieldKind::kInt, 2, 2, false};
constexpr FieldSpec kPads{"pads", FieldKind::kInt, 4, 4, false};
constexpr FieldSpec kOutputSize{"output_size", FieldKind::kInt, 2, 2, false};

struct Window : Operator {
  Status set_window(const Fields& fields) {
    window_ = {fields.integer("kernel_shape", 0, 0), fields.integer("kernel_shape", 1, 0), fields.integer("strides", 0, 1),
               fields.integer("strides", 1, 1),      fields.integer("pads", 0, 0),         fields.integer("pads", 1, 0)};
    const int32_t bottom = fields.integer("pads", 2, 0), right = fields.integer("pads", 3, 0);
    if (window_.kernel_h < 1 || window_.kernel_w < 1) return "kernel_shape must be at least 1 by 1";
    if (window_.stride_h < 1 || window_.stride_w < 1) return "strides must be at least 1";
    if (window_.pad_top < 0 || window_.pad_left < 0 || bottom < 0 || right < 0) return "pads must be at least 0";
    if (window_.pad_top >= window_.kernel_h || bottom >= window_.kernel_h || window_.pad_left >= window_.kernel_w ||
        right >= window_.kernel_w) {
      return "pads must be smaller than kernel_shape";
    }
    pads_h_ = (int64_t)window_.pad_top + bottom, pads_w_ = (int64_t)window_.pad_left + right;
    return nullptr;
  }

  Status one_byte() const {
    const int64_t places = (int64_t)window_.kernel_h * window_.kernel_w;
    return places <= 256 ? nullptr : "kernel_shape has more than 256 places: no byte holds them";
  }

  template <class E>
  Shape<E> pooled(const Shape<E>& in) const {
    return {4,
            {in.d[0], in.d[1], floor_div(in.d[2] + (pads_h_ - window_.kernel_h), window_.stride_h) + 1,
             floor_div(in.d[3] + (pads_w_ - window_.kernel_w), window_.stride_w) + 1}};
  }

  EsWindow window_{};
  int64_t pads_h_ = 0, pads_w_ = 0;
};

// Codes of a pooling (its second output) and for an unpooling (its second input): bytes, packed like the features they belong to
// as nearly as int8 can be.
bool codes(const Slot& slot, const Slot& plane) {
  if (slot.type != DataType::kINT8) return false;
  if (slot.format == TensorFormat::kLINEAR) return true;
  if (slot.format == TensorFormat::kHWC16) return channel_last(plane);
  return slot.format == TensorFormat::kCHW32 && plane.format != TensorFormat::kLINEAR;
}

template <DataType kPlaces>
struct Pool : Window {
  int32_t outputs() const { return 2; }

  Status types(const DataType* in, int32_t count, DataType* out) const {
    if (count != 1) return "there must be one input";
    out[0] = in[0], out[1] = kPlaces;
    return nullptr;
  }

  template <class Make, class E>
  Status shapes(const Make&, const Shape<E>* in, int32_t count, Shape<E>* out) const {
    if (count != 1 || in[0].rank != 4) return "there must be one input (N, C, H, W)";
    out[0] = out[1] = pooled(in[0]);
    return nullptr;
  }
};

template <DataType kPlaces>
struct Unpool : Window {
  int32_t outputs() const { return 1; }

  Status set_unpool(const Fields& fields) {
    sized_ = fields.has("output_size");
    for (int32_t i = 0; i < 2; ++i) size_[i] = fields.integer("output_size", i, 1);
    if (size_[0] < 1 || size_[1] < 1) return "output_size must be at least 1 by 1";
    return set_window(fields);
  }

  Status types(const DataType* in, int32_t count, DataType* out) const {
    if (count != 2) return "there must be two inputs, pooled values and where they came from";
    out[0] = in[0];
    return in[1] == kPlaces ? nullptr : "the second input must have the type of what the pooling gives";
  }

  template <class Make, class E>
  Status shapes(const Make& make, const Shape<E>* in, int32_t count, Shape<E>* out) const {
    if (count != 2 || in[0].rank != 4 || in[1].rank != 4) return "there must be two inputs (N, C, h, w)";
    out[0] = {4, {in[0].d[0], in[0].d[1]}};
    out[0].d[2] = sized_ ? make.constant(size_[0]) : (in[0].d[2] - 1) * window_.stride_h + (window_.kernel_h - pads_h_);
    out[0].d[3] = sized_ ? make.constant(size_[1]) : (in[0].d[3] - 1) * window_.stride_w + (window_.kernel_w - pads_w_);
    return nullptr;
  }

  // The launcher is handed a bare pointer to indices.
  Status sizes(const Shape<int64_t>* in) const {
    for (int32_t i = 0; i < 4; ++i) {
      if (in[0].d[i] != in[1].d[i]) return "the second input must have the size of the first";
    }
    return nullptr;
  }

  bool sized_ = false;
  int32_t size_[2] = {};
};

struct MaxPoolArgmax : Pool<DataType::kINT8> {
  static constexpr char kName[] = "EdgesegMaxPoolArgmax";
  static constexpr FieldSpec kFields[] = {kKernel, kStrides, kPads};

  Status set(const Fields& fields) {
    const Status problem = set_window(fields);
    return problem ? problem : one_byte();
  }

  bool supports(int32_t at, const Slot* slots) const {
    if (at == 0) return features(slots[0]);
    return at == 1 ? slots[1] == slots[0] : codes(slots[2], slots[0]);
  }

  Status enqueue(const Call& call) const {
    const EsMaxPoolArgmax args{call.input(0), call.output(0), call.output(1), window_};
    return edgeseg_max_pool_argmax_cuda(&args, call.stream);
  }
};

struct MaxUnpool : Unpool<DataType::kINT8> {
  static constexpr char kName[] = "EdgesegMaxUnpool";
  static constexpr FieldSpec kFields[] = {kKernel, kStrides, kPads, kOutputSize};

  Status set(const Fields& fields) {
    const Status problem = set_unpool(fields);
    return problem ? problem : one_byte();
  }

  bool supports(int32_t at, const Slot* slots) const {
    if (at == 0) return features(slots[0]);
    return at == 1 ? codes(slots[1], slots[0]) : slots[2] == slots[0];
  }

  Status enqueue(const Call& call) const {
    const EsMaxUnpool args{call.input(0), call.input(1), call.output(0), window_};
    return edgeseg_max_unpool_cuda(&args, call.stream);
  }
};

struct MaxPoolIndices : Pool<DataType::kINT64> {
  static constexpr char kName[] = "EdgesegMaxPoolIndices";
  static constexpr FieldSpec kFields[] = {kKernel, kStrides, kPads, {"storage_order", FieldKind::kInt, 1, 1, false}};

  Status set(const Fields& fields) {
    column_major_ = fields.integer("storage_order", 0, 0);
    return column_major_ == 0 || column_major_ == 1 ? set_window(fields) : "storage_order must be 0 or 1";
  }

  bool supports(int32_t at, const Slot* slots) const {
    if (at == 0) return features(slots[0]);
    return at == 1 ? slots[1] == slots[0] : linear(slots[2], DataType::kINT64);
  }

  Status enqueue(const Call& call) const {
    const EsMaxPoolIndices args{call.input(0), call.output(0), static_cast<int64_t*>(call.outputs[1]), window_, column_major_};
    return edgeseg_max_pool_indices_cuda(&args, call.stream);
  }

  int32_t column_major_ = 0;
};

struct MaxUnpoolIndices : Unpool<DataType::kINT64> {
  static constexpr char kName[] = "EdgesegMaxUnpoolIndices";
  static constexpr FieldSpec kFields[] = {kKernel, kStrides, kPads, kOutputSize};

  Status set(const Fields& fields) { return set_unpool(fields); }

  bool supports(int32_t at, const Slot* slots) const {
    if (at == 0) return features(slots[0]) && slots[0].format == TensorFormat::kLINEAR;  // as the indices count
    return at == 1 ? linear(slots[1], DataType::kINT64) : slots[2] == slots[0];
  }

  size_t workspace(const EsTensor* outputs) const {
    const int64_t bytes = edgeseg_max_unpool_indices_workspace(&outputs[0]);
    return bytes > 0 ? (size_t)bytes : 0;
  }

  Status enqueue(const Call& call) const {
    const EsMaxUnpoolIndices args{call.input(0), static_cast<const int64_t*>(call.inputs[1]), call.output(0), call.workspace};
    return edgeseg_max_unpool_indices_cuda(&args, call.stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* max_pool_argmax_creator() { return creator<MaxPoolArgmax>(); }
nvinfer1::IPluginCreatorInterface* max_unpool_creator() { return creator<MaxUnpool>(); }
nvinfer1::IPluginCreatorInterface* max_pool_indices_creator() { return creator<MaxPoolIndices>(); }
nvinfer1::IPluginCreatorInterface* max_unpool_indices_creator() { return creator<MaxUnpoolIndices>(); }

}  // namespace edgeseg::trt
