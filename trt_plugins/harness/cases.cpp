#include "cases.h"

#include <random>

#include "../common/half.h"
#include "../roi_align/roi_align.h"
#include "../upsample_argmax/upsample_argmax.h"

namespace harness {

using nvinfer1::DataType;
using nvinfer1::TensorFormat;

std::vector<Slot> feature_slots() {
  using F = TensorFormat;
  std::vector<Slot> slots;
  for (F format : {F::kLINEAR, F::kHWC, F::kCHW32}) slots.push_back({DataType::kFLOAT, format});
  for (F format : {F::kLINEAR, F::kHWC8, F::kHWC16, F::kCHW32}) slots.push_back({DataType::kHALF, format});
  for (F format : {F::kLINEAR, F::kCHW4, F::kCHW32, F::kHWC16}) slots.push_back({DataType::kINT8, format});
  return slots;
}

Slot linear(DataType type) { return {type, TensorFormat::kLINEAR}; }

std::vector<uint8_t> random_values(size_t seed, const Dims& dims, DataType type) {
  std::mt19937 random((uint32_t)seed + 7);
  std::uniform_real_distribution<float> real(-3.0f, 3.0f);
  std::vector<uint8_t> bytes((size_t)(count_of(dims) * bytes_of(type)));
  for (size_t i = 0; i < bytes.size(); i += (size_t)bytes_of(type)) {
    const float value = real(random);
    const edgeseg::Half half = edgeseg::from_float<edgeseg::Half>(value);
    if (type == DataType::kFLOAT) std::memcpy(&bytes[i], &value, 4);
    if (type == DataType::kHALF) std::memcpy(&bytes[i], &half, 2);
    if (type == DataType::kINT8) bytes[i] = (uint8_t)random();
  }
  return bytes;
}

namespace {

template <class T>
std::vector<uint8_t> bytes_of_values(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Boxes of all sizes, some out of the picture, one reversed; images 0, 1 and one that is not there.
std::vector<uint8_t> boxes(int64_t count) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> place(-8.0f, 72.0f), side(0.5f, 60.0f);
  std::vector<float> rois;
  for (int64_t i = 0; i < count; ++i) {
    const float x = place(random), y = place(random), w = side(random), h = side(random);
    for (float v : {x, y, i == 1 ? x - w : x + w, y + h}) rois.push_back(v);
  }
  return bytes_of_values(rois);
}

std::vector<uint8_t> images(int64_t count, DataType type) {
  std::vector<int32_t> narrow;
  std::vector<int64_t> wide;
  for (int64_t i = 0; i < count; ++i) wide.push_back(i % 5 == 4 ? 9 : i % 2), narrow.push_back((int32_t)wide.back());
  return type == DataType::kINT64 ? bytes_of_values(wide) : bytes_of_values(narrow);
}

Case roi_align(bool max_mode) {
  Case c;
  c.title = max_mode ? "RoIAlign, max, 2 levels" : "RoIAlign, average, 3 levels";
  c.plugin = "EdgesegRoIAlign";
  const std::vector<float> scales = max_mode ? std::vector<float>{0.25f, 0.125f} : std::vector<float>{0.5f, 0.25f, 0.125f};
  const size_t levels = scales.size();
  const int32_t oh = 3, ow = max_mode ? 2 : 3, ratio = max_mode ? 2 : 0, level = max_mode ? -1 : 1;
  c.fields = {ints("output_height", {oh}),      ints("output_width", {ow}),    ints("sampling_ratio", {ratio}),
              text("mode", max_mode ? "max" : "avg"), ints("aligned", {!max_mode}),  floats("spatial_scales", scales),
              floats("canonical_size", {40}),   ints("canonical_level", {level})};
  c.known_fields = {"output_height", "output_width",   "sampling_ratio", "mode",
                    "aligned",       "spatial_scales", "canonical_size", "canonical_level"};
  c.required = {"output_height", "output_width", "spatial_scales"};
  c.wrong = {ints("output_height", {0}), ints("output_width", {2, 2}), floats("output_height", {3}), ints("sampling_ratio", {-1}),
             text("mode", "median"), ints("mode", {1}), ints("aligned", {2}), floats("spatial_scales", {0.5f, -1}),
             floats("spatial_scales", {0.5f, INFINITY}), floats("spatial_scales", {1, 1, 1, 1, 1, 1}),
             floats("canonical_size", {0}), ints("output_width", {1025}), ints("sampling_ratio", {129})};
  c.inputs = {{7, 4}, {7}};
  c.tied = {{0, 1}, {1, 0}};
  for (size_t i = 0; i < levels; ++i) c.inputs.push_back({2, 35, (int64_t)(32 >> i), (int64_t)(36 >> i)});
  c.output_dims = [=](const std::vector<Dims>& in) { return std::vector<Dims>{{in[0][0], in[2][1], oh, ow}}; };
  for (DataType index : {DataType::kINT32, DataType::kINT64}) {
    for (const Slot& slot : feature_slots()) {
      Combination all = {linear(DataType::kFLOAT), linear(index)};
      all.insert(all.end(), levels + 1, slot);
      c.combinations.push_back(all);
    }
  }
  c.fill = [](size_t input, const Dims& dims, const Slot& slot) {
    if (input == 0) return boxes(dims[0]);
    return input == 1 ? images(dims[0], slot.type) : random_values(input, dims, slot.type);
  };
  c.twin = [=](const Tensors& in, const Tensors& out) {
    EsRoiAlign args{};
    for (size_t i = 0; i < levels; ++i) args.features[i] = in[2 + i], args.spatial_scales[i] = scales[i];
    args.levels = (int32_t)levels, args.output = out[0];
    args.rois = static_cast<const float*>(in[0].data), args.batch_indices = in[1].data, args.index_type = in[1].type;
    args.sampling_ratio = ratio, args.max_mode = max_mode, args.aligned = !max_mode;
    args.canonical_size = 40, args.canonical_level = level;
    return edgeseg_roi_align_cpu(&args, 1);
  };
  c.exact = false;
  return c;
}

Case upsample_argmax(int64_t classes, bool probability, bool corners) {
  Case c;
  c.title = "UpsampleArgmax, " + std::to_string(classes) + " classes" + (probability ? ", probability" : "");
  c.plugin = "EdgesegUpsampleArgmax";
  const float scale = 0.0625f, threshold = classes == 1 ? 0.25f : 0.0f;
  c.fields = {ints("size", {23, 31}), ints("align_corners", {corners}), floats("threshold", {threshold}),
              floats("logit_scale", {scale}), ints("probability", {probability})};
  c.known_fields = {"size", "align_corners", "threshold", "logit_scale", "probability"};
  c.required = {"size"};
  c.wrong = {ints("size", {23}),         ints("size", {23, 0}),          ints("size", {23, 31, 2}),  floats("size", {23, 31}),
             ints("align_corners", {2}), floats("logit_scale", {-0.5f}), ints("probability", {-1}), floats("threshold", {NAN})};
  c.inputs = {{2, classes, 7, 9}};
  c.output_dims = [=](const std::vector<Dims>& in) { return std::vector<Dims>(1 + probability, Dims{in[0][0], 23, 31}); };
  for (const Slot& slot : feature_slots()) {
    c.combinations.push_back({slot, linear(DataType::kINT8)});
    if (probability) c.combinations.back().push_back(linear(DataType::kFLOAT));
  }
  c.fill = [](size_t input, const Dims& dims, const Slot& slot) { return random_values(input, dims, slot.type); };
  c.twin = [=](const Tensors& in, const Tensors& out) {
    EsUpsampleArgmax args{in[0], out[0], probability ? static_cast<float*>(out[1].data) : nullptr, corners, threshold, scale};
    args.labels.type = ES_UINT8;
    return edgeseg_upsample_argmax_cpu(&args, 1);
  };
  c.exact = false;
  return c;
}

}  // namespace

std::vector<Case> all_cases() {
  std::vector<Case> cases = {roi_align(false), roi_align(true), upsample_argmax(19, false, false), upsample_argmax(5, true, true),
                             upsample_argmax(1, true, false)};
  for (Case& c : max_pool_cases()) cases.push_back(std::move(c));
  return cases;
}

}  // namespace harness
