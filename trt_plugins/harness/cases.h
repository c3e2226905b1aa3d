// One configuration of one operator: what its plugin must say of itself, and the direct call that gives the same numbers.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fakes.h"
#include "memory.h"

namespace harness {

using Combination = std::vector<Slot>;
using Tensors = std::vector<EsTensor>;

struct Case {
  std::string title, plugin;
  std::vector<Field> fields;
  std::vector<std::string> known_fields;  // what the creator lists
  std::vector<std::string> required;
  std::vector<Field> wrong;  // each in place of, or besides, the good ones: no plugin is made

  std::vector<Dims> inputs;  // sizes for the numbers
  std::function<std::vector<Dims>(const std::vector<Dims>&)> output_dims;
  std::vector<std::pair<size_t, size_t>> tied;  // (input, axis) whose size follows from other inputs
  std::vector<Combination> combinations;  // every one that is supported: inputs, then outputs
  std::function<std::vector<uint8_t>(size_t input, const Dims&, const Slot&)> fill;
  std::function<EsStatus(const Tensors& inputs, const Tensors& outputs)> twin;  // on linear host memory
  size_t workspace = 0;
  bool exact = true;  // on a GPU as well
};

// Types and formats a plane of features may have.
std::vector<Slot> feature_slots();
Slot linear(nvinfer1::DataType type);

// Random values in -3 .. 3 (int8: all), the same at every call.
std::vector<uint8_t> random_values(size_t seed, const Dims& dims, nvinfer1::DataType type);

std::vector<Case> all_cases();
std::vector<Case> max_pool_cases();

}  // namespace harness
