#include <algorithm>
#include <cstdio>

#include "driver.h"

namespace harness {

using nvinfer1::DataType;
using nvinfer1::IPluginV3OneRuntime;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

namespace {

class Runner final : public Driver {
 public:
  using Driver::Driver;

  void run() {
    shape_changes();
    if (options_.enqueue) numbers();
  }

 private:
  int32_t change(const Combination& combination, const std::vector<Dims>& inputs, const std::vector<Dims>& outputs) {
    std::vector<PluginTensorDesc> in, out;
    for (size_t i = 0; i < combination.size(); ++i) {
      (i < inputs.size() ? in : out).push_back(desc_of(i < inputs.size() ? inputs[i] : outputs[i - inputs.size()], combination[i]));
    }
    return runtime_of(*plugin_).onShapeChange(in.data(), (int32_t)in.size(), out.data(), (int32_t)out.size());
  }

  void shape_changes() {
    const std::vector<Dims> outputs = case_.output_dims(case_.inputs);
    const Combination& first = case_.combinations[0];
    check(change(first, case_.inputs, outputs) == 0, "onShapeChange");
    for (size_t i = 0; i < outputs.size(); ++i) {
      std::vector<Dims> other = outputs;
      other[i].back() -= 1;
      refused([&] { return change(first, case_.inputs, other) != 0; },
              "onShapeChange refuses another size of output " + std::to_string(i));
    }
    for (const auto& [input, axis] : case_.tied) {
      std::vector<Dims> shorter = case_.inputs;
      shorter[input][axis] -= 1;
      refused([&] { return change(first, shorter, outputs) != 0; },
              "onShapeChange refuses another size of input " + std::to_string(input) + " alone");
    }
    std::vector<Dims> huge = case_.inputs;
    huge[0][0] = 1LL << 31;
    refused([&] { return change(first, huge, case_.output_dims(huge)) != 0; }, "onShapeChange refuses a size beyond int32");
    check(change(case_.combinations.back(), case_.inputs, outputs) == 0, "onShapeChange, another type");
    Combination mixed = first;
    mixed.back() = {DataType::kINT64, TensorFormat::kCHW32};
    refused([&] { return change(mixed, case_.inputs, outputs) != 0; }, "onShapeChange refuses a format");
  }

  // What the direct call gives: linear bytes of each output.
  std::vector<std::vector<uint8_t>> expected(const Combination& combination, const std::vector<Dims>& inputs,
                                             const std::vector<Dims>& outputs, bool& good) {
    std::vector<std::vector<uint8_t>> in, out;
    Tensors from, to;
    for (size_t i = 0; i < inputs.size(); ++i) {
      in.push_back(case_.fill(i, inputs[i], combination[i]));
      in.back().push_back(0);  // an address for tensors without elements
      from.push_back(es_tensor(inputs[i], linear(combination[i].type), in.back().data()));
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Slot slot = linear(combination[inputs.size() + i].type);
      out.emplace_back((size_t)(count_of(outputs[i]) * bytes_of(slot.type)) + 1);
      to.push_back(es_tensor(outputs[i], slot, out.back().data()));
    }
    const EsStatus problem = case_.twin(from, to);
    if (problem) std::printf("      twin: %s\n", problem);
    good = problem == nullptr;
    for (auto& bytes : out) bytes.pop_back();
    return out;
  }

  // What the plugin gives, packed; the outputs are full of rubbish before.
  std::vector<std::vector<uint8_t>> enqueue(const Combination& combination, const std::vector<Dims>& inputs,
                                            const std::vector<Dims>& outputs, int32_t& code) {
    std::vector<PluginTensorDesc> in_descs, out_descs;
    std::vector<Memory> in, out;
    std::vector<const void*> from;
    std::vector<void*> to;
    for (size_t i = 0; i < combination.size(); ++i) {
      const bool input = i < inputs.size();
      const Dims& dims = input ? inputs[i] : outputs[i - inputs.size()];
      (input ? in_descs : out_descs).push_back(desc_of(dims, combination[i]));
      std::vector<uint8_t> content(input ? case_.fill(i, dims, combination[i])
                                         : std::vector<uint8_t>((size_t)(count_of(dims) * bytes_of(combination[i].type))));
      content = pack(content, dims, combination[i]);
      if (!input) std::fill(content.begin(), content.end(), (uint8_t)0xAA);
      (input ? in : out).emplace_back(content, options_.cuda);
    }
    for (Memory& memory : in) from.push_back(memory.get());
    for (Memory& memory : out) to.push_back(memory.get());
    configure(combination, inputs, outputs, false);
    Memory workspace(std::vector<uint8_t>(workspace_), options_.cuda);
    code = runtime_of(*plugin_).enqueue(in_descs.data(), out_descs.data(), from.data(), to.data(), workspace.get(), nullptr);
    std::vector<std::vector<uint8_t>> results;
    for (const Memory& memory : out) results.push_back(memory.read());
    return results;
  }

  void compare(const Combination& combination, const std::vector<Dims>& inputs, const char* what) {
    const std::vector<Dims> outputs = case_.output_dims(inputs);
    bool good = true;
    int32_t code = 0;
    const auto want = expected(combination, inputs, outputs, good);
    const std::string told = std::string(what) + " " + describe(combination);
    check(change(combination, inputs, outputs) == 0, "onShapeChange before enqueue, " + told);
    const auto got = enqueue(combination, inputs, outputs, code);
    check(good && code == 0, "enqueue, " + told);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Slot& slot = combination[inputs.size() + i];
      check(close(got[i], pack(want[i], outputs[i], slot), slot.type, !options_.cuda || case_.exact),
            "numbers of output " + std::to_string(i) + ", " + told);
    }
  }

  void numbers() {
    std::vector<Dims> empty = case_.inputs;
    const bool rois = empty[0].size() == 2;
    for (size_t i = 0; i < (rois ? 2 : empty.size()); ++i) empty[i][0] = 0;
    for (const Combination& combination : case_.combinations) {
      compare(combination, case_.inputs, "as given");
      compare(combination, empty, "empty batch");
    }
    std::vector<PluginTensorDesc> in, out;
    const std::vector<Dims> outputs = case_.output_dims(case_.inputs);
    for (size_t i = 0; i < case_.inputs.size(); ++i) in.push_back(desc_of(case_.inputs[i], case_.combinations[0][i]));
    for (size_t i = 0; i < outputs.size(); ++i) out.push_back(desc_of(outputs[i], case_.combinations[0][in.size() + i]));
    const std::vector<const void*> nowhere(in.size());
    const std::vector<void*> nothing(out.size());
    IPluginV3OneRuntime& runtime = runtime_of(*plugin_);
    refused([&] { return runtime.enqueue(in.data(), out.data(), nowhere.data(), nothing.data(), nullptr, nullptr) != 0; },
            "enqueue without memory is an error");
  }
};

}  // namespace

void drive_running(const Case& c, Owned plugin, const Options& options, Count& count) {
  Runner(c, options, count, std::move(plugin)).run();
}

}  // namespace harness
