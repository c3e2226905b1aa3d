#include <random>

#include "../max_pool/max_pool.h"
#include "cases.h"

namespace harness {

using nvinfer1::DataType;
using nvinfer1::TensorFormat;

namespace {

struct Pooling {
  EsWindow window;
  int32_t pad_bottom, pad_right;

  std::vector<Field> fields() const {
    return {ints("kernel_shape", {window.kernel_h, window.kernel_w}), ints("strides", {window.stride_h, window.stride_w}),
            ints("pads", {window.pad_top, window.pad_left, pad_bottom, pad_right})};
  }
  Dims pooled(const Dims& x) const {
    return {x[0], x[1], (x[2] + window.pad_top + pad_bottom - window.kernel_h) / window.stride_h + 1,
            (x[3] + window.pad_left + pad_right - window.kernel_w) / window.stride_w + 1};
  }
  Dims unpooled(const Dims& y) const {
    return {y[0], y[1], (y[2] - 1) * window.stride_h + window.kernel_h - window.pad_top - pad_bottom,
            (y[3] - 1) * window.stride_w + window.kernel_w - window.pad_left - pad_right};
  }
};

// The second has no two numbers that could stand in for each other.
constexpr Pooling kTwo{{2, 2, 2, 2, 0, 0}, 0, 0}, kUneven{{4, 3, 3, 2, 2, 1}, 1, 0};

std::vector<Field> wrong_windows() {
  return {ints("kernel_shape", {2}),    ints("kernel_shape", {0, 2}), ints("kernel_shape", {2, 2, 2}), text("kernel_shape", "2,2"),
          ints("strides", {2, 0}),      ints("strides", {1}),         ints("pads", {0, 0, 0, -1}),     ints("pads", {5, 0, 0, 0}),
          longs("strides", {1LL << 40, 1}), ints("pads", {1, 1})};
}

std::vector<Slot> code_slots(const Slot& plane) {
  using F = TensorFormat;
  const bool last = plane.format == F::kHWC || plane.format == F::kHWC8 || plane.format == F::kHWC16;
  std::vector<Slot> slots = {linear(DataType::kINT8)};
  if (plane.format != TensorFormat::kLINEAR) slots.push_back({DataType::kINT8, TensorFormat::kCHW32});
  if (last) slots.push_back({DataType::kINT8, TensorFormat::kHWC16});
  return slots;
}

Case base(const char* plugin, const Pooling& pooling) {
  Case c;
  c.plugin = plugin;
  const std::string kernel = std::to_string(pooling.window.kernel_h) + "x" + std::to_string(pooling.window.kernel_w);
  c.title = c.plugin.substr(std::strlen("Edgeseg")) + ", " + kernel;
  c.fields = pooling.fields();
  c.known_fields = {"kernel_shape", "strides", "pads"};
  c.required = {"kernel_shape"};
  c.wrong = wrong_windows();
  c.fill = [](size_t input, const Dims& dims, const Slot& slot) { return random_values(input, dims, slot.type); };
  return c;
}

EsTensor as_codes(EsTensor tensor) {
  tensor.type = ES_UINT8;
  return tensor;
}

Case pool(const Pooling& pooling) {
  Case c = base("EdgesegMaxPoolArgmax", pooling);
  c.wrong.push_back(ints("kernel_shape", {17, 16}));
  c.inputs = {{2, 35, 11, 14}};
  c.output_dims = [=](const std::vector<Dims>& in) { return std::vector<Dims>(2, pooling.pooled(in[0])); };
  for (const Slot& plane : feature_slots()) {
    for (const Slot& code : code_slots(plane)) c.combinations.push_back({plane, plane, code});
  }
  c.twin = [=](const Tensors& in, const Tensors& out) {
    const EsMaxPoolArgmax args{in[0], out[0], as_codes(out[1]), pooling.window};
    return edgeseg_max_pool_argmax_cpu(&args, 1);
  };
  return c;
}

// Codes of every place of the window, and some of none.
std::vector<uint8_t> codes(const Dims& dims, const EsWindow& window) {
  std::mt19937 random(5);
  std::vector<uint8_t> bytes((size_t)count_of(dims));
  for (uint8_t& code : bytes) code = random() % 50 == 0 ? 255 : (uint8_t)(random() % (uint32_t)(window.kernel_h * window.kernel_w));
  return bytes;
}

Case unpool(const Pooling& pooling, const Dims& output_size) {
  Case c = base("EdgesegMaxUnpool", pooling);
  c.fields.push_back(ints("output_size", std::vector<int32_t>(output_size.begin(), output_size.end())));  // may have no values
  c.known_fields.push_back("output_size");
  for (const Field& field : {ints("output_size", {4}), ints("output_size", {4, 0}), ints("kernel_shape", {256, 2})}) {
    c.wrong.push_back(field);
  }
  c.inputs = {{2, 35, 6, 7}, {2, 35, 6, 7}};
  c.tied = {{1, 0}, {1, 3}};
  c.output_dims = [=](const std::vector<Dims>& in) {
    const Dims& y = in[0];
    return std::vector<Dims>{output_size.empty() ? pooling.unpooled(y) : Dims{y[0], y[1], output_size[0], output_size[1]}};
  };
  for (const Slot& plane : feature_slots()) {
    for (const Slot& code : code_slots(plane)) c.combinations.push_back({plane, code, plane});
  }
  c.fill = [=](size_t input, const Dims& dims, const Slot& slot) {
    return input == 1 ? codes(dims, pooling.window) : random_values(input, dims, slot.type);
  };
  c.twin = [=](const Tensors& in, const Tensors& out) {
    const EsMaxUnpool args{in[0], as_codes(in[1]), out[0], pooling.window};
    return edgeseg_max_unpool_cpu(&args, 1);
  };
  return c;
}

Case pool_indices(const Pooling& pooling, int32_t column_major) {
  Case c = base("EdgesegMaxPoolIndices", pooling);
  c.fields.push_back(ints("storage_order", {column_major}));
  c.known_fields.push_back("storage_order");
  c.wrong.push_back(ints("storage_order", {2}));
  c.inputs = {{2, 5, 11, 14}};
  c.output_dims = [=](const std::vector<Dims>& in) { return std::vector<Dims>(2, pooling.pooled(in[0])); };
  for (const Slot& plane : feature_slots()) c.combinations.push_back({plane, plane, linear(DataType::kINT64)});
  c.twin = [=](const Tensors& in, const Tensors& out) {
    const EsMaxPoolIndices args{in[0], out[0], static_cast<int64_t*>(out[1].data), pooling.window, column_major};
    return edgeseg_max_pool_indices_cpu(&args, 1);
  };
  return c;
}

Case unpool_indices(const Pooling& pooling) {
  Case c = base("EdgesegMaxUnpoolIndices", pooling);
  c.known_fields.push_back("output_size");
  c.wrong.push_back(ints("output_size", {4}));
  c.inputs = {{2, 5, 6, 7}, {2, 5, 6, 7}};
  c.tied = {{1, 0}, {1, 3}};
  c.output_dims = [=](const std::vector<Dims>& in) { return std::vector<Dims>{pooling.unpooled(in[0])}; };
  for (DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8}) {
    c.combinations.push_back({linear(type), linear(DataType::kINT64), linear(type)});
  }
  const int64_t places = count_of(pooling.unpooled(c.inputs[0]));
  c.fill = [=](size_t input, const Dims& dims, const Slot& slot) {
    if (input == 0) return random_values(input, dims, slot.type);
    std::mt19937_64 random(9);  // with some places named twice
    std::vector<uint8_t> bytes((size_t)count_of(dims) * 8);
    for (size_t i = 0; i < bytes.size(); i += 8) {
      const int64_t place = (int64_t)(random() % (uint64_t)places);
      std::memcpy(&bytes[i], &place, 8);
    }
    return bytes;
  };
  c.twin = [](const Tensors& in, const Tensors& out) {
    std::vector<uint8_t> workspace((size_t)edgeseg_max_unpool_indices_workspace(&out[0]));
    const EsMaxUnpoolIndices args{in[0], static_cast<const int64_t*>(in[1].data), out[0], workspace.data()};
    return edgeseg_max_unpool_indices_cpu(&args, 1);
  };
  const EsTensor output = es_tensor(pooling.unpooled(c.inputs[0]), linear(DataType::kFLOAT), nullptr);
  c.workspace = (size_t)edgeseg_max_unpool_indices_workspace(&output);
  return c;
}

}  // namespace

std::vector<Case> max_pool_cases() {
  return {pool(kTwo),           pool(kUneven),           unpool(kTwo, {}),   unpool(kUneven, {}),
          unpool(kTwo, {13, 15}), pool_indices(kTwo, 0), pool_indices(kUneven, 1), unpool_indices(kTwo)};
}

}  // namespace harness
