#include "drive.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>

namespace harness {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IPluginCreatorV3One;
using nvinfer1::IPluginV3;
using nvinfer1::IPluginV3OneBuild;
using nvinfer1::IPluginV3OneCore;
using nvinfer1::IPluginV3OneRuntime;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using nvinfer1::TensorRTPhase;

void Count::check(bool good, const std::string& what) {
  (good ? passed : failed) += 1;
  if (!good) std::printf("FAIL  %s\n", what.c_str());
}

namespace {

using Owned = std::unique_ptr<IPluginV3>;

constexpr TensorRTPhase kBuild = TensorRTPhase::kBUILD, kRun = TensorRTPhase::kRUNTIME;

Owned create(IPluginCreatorV3One& creator, const std::vector<Field>& fields, TensorRTPhase phase = kBuild) {
  return Owned(creator.createPlugin("some/layer", Collection(fields).get(), phase));
}

template <class Interface>
Interface* face(IPluginV3& plugin, PluginCapabilityType type) {
  return static_cast<Interface*>(plugin.getCapabilityInterface(type));
}
IPluginV3OneBuild& build_of(IPluginV3& plugin) { return *face<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD); }
IPluginV3OneRuntime& runtime_of(IPluginV3& plugin) { return *face<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME); }

// Is one plugin as good as another: the same fields and the same identity in the timing cache?
bool same(IPluginV3& a, IPluginV3& b) {
  return contents(runtime_of(a).getFieldsToSerialize()) == contents(runtime_of(b).getFieldsToSerialize()) &&
         std::string(build_of(a).getTimingCacheID()) == build_of(b).getTimingCacheID();
}

class Driver {
 public:
  Driver(const Case& c, IPluginCreatorV3One& creator, const Options& options, Count& count)
      : case_(c), creator_(creator), options_(options), count_(count) {}

  void run() {
    creation();
    plugin_ = create(creator_, case_.fields);
    check(plugin_ != nullptr, "createPlugin takes its own fields");
    if (!plugin_) return;
    identity();
    types();
    shapes();
    formats();
    configuration();
    serialisation();
    copies();
    shape_changes();
    if (options_.enqueue) numbers();
  }

 private:
  void check(bool good, const std::string& what) { count_.check(good, case_.title + ": " + what); }

  // A refusal comes with a sentence in the log, which here is stderr, a file (main.cpp).
  template <class Try>
  void refused(const Try& attempt, const std::string& what) {
    const auto before = lseek(STDERR_FILENO, 0, SEEK_CUR);
    const bool no = attempt();
    check(no, what);
    check(lseek(STDERR_FILENO, 0, SEEK_CUR) > before, what + ": a sentence says why");
  }

  void creation() {
    std::vector<std::string> names;
    const PluginFieldCollection* listed = creator_.getFieldNames();
    for (int32_t i = 0; i < listed->nbFields; ++i) names.push_back(listed->fields[i].name);
    check(names == case_.known_fields, "getFieldNames lists the operator's attributes");
    for (const std::string& name : case_.required) {
      std::vector<Field> fewer;
      for (const Field& f : case_.fields) {
        if (f.name != name) fewer.push_back(f);
      }
      refused([&] { return !create(creator_, fewer); }, "no plugin without " + name);
    }
    for (const Field& bad : case_.wrong) {
      std::vector<Field> fields = case_.fields;
      fields.erase(std::remove_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == bad.name; }), fields.end());
      fields.push_back(bad);
      refused([&] { return !create(creator_, fields); }, "no plugin with a wrong " + bad.name);
    }
    refused([&] { return !Owned(creator_.createPlugin("some/layer", nullptr, kBuild)); }, "no plugin without a collection");
  }

  void identity() {
    const auto* core = face<IPluginV3OneCore>(*plugin_, PluginCapabilityType::kCORE);
    auto* build = plugin_->getCapabilityInterface(PluginCapabilityType::kBUILD);
    auto* runtime = plugin_->getCapabilityInterface(PluginCapabilityType::kRUNTIME);
    check(core && build && runtime, "three capabilities");
    check(!plugin_->getCapabilityInterface(static_cast<PluginCapabilityType>(99)), "no fourth capability");
    const auto is = [](const nvinfer1::IVersionedInterface& i, const char* kind) {
      return std::string(i.getInterfaceInfo().kind) == kind && i.getInterfaceInfo().major == 1;
    };
    check(is(*core, "PLUGIN_V3ONE_CORE") && is(*build, "PLUGIN_V3ONE_BUILD") && is(*runtime, "PLUGIN_V3ONE_RUNTIME"),
          "interfaces of version 1");
    check(core->getPluginName() == case_.plugin && core->getPluginVersion() == std::string(creator_.getPluginVersion()) &&
              core->getPluginNamespace() == std::string(creator_.getPluginNamespace()),
          "plugin and creator bear one name");
    const std::string id = build_of(*plugin_).getTimingCacheID();
    check(!id.empty() && id == build_of(*plugin_).getMetadataString(), "an identity for the timing cache: " + id);
    check(build_of(*plugin_).getNbTactics() == 0 && runtime_of(*plugin_).setTactic(0) == 0, "no tactics");
    std::vector<Field> wide = case_.fields;  // as a parser that keeps ONNX's own integers would hand them over
    for (Field& f : wide) {
      if (f.type != nvinfer1::PluginFieldType::kINT32) continue;
      std::vector<int64_t> values((size_t)f.length);
      for (size_t i = 0; i < values.size(); ++i) values[i] = reinterpret_cast<const int32_t*>(f.data.data())[i];
      f = longs(f.name.c_str(), values);
    }
    const Owned twin = create(creator_, wide);
    check(twin && same(*plugin_, *twin), "int64 fields are taken like int32");
  }

  void types() {
    IPluginV3OneBuild& build = build_of(*plugin_);
    const size_t inputs = case_.inputs.size(), outputs = (size_t)build.getNbOutputs();
    check(outputs == case_.output_dims(case_.inputs).size(), "getNbOutputs");
    bool right = true;
    for (const Combination& combination : case_.combinations) {
      std::vector<DataType> in, want, got(outputs);
      for (size_t i = 0; i < combination.size(); ++i) (i < inputs ? in : want).push_back(combination[i].type);
      right = right && build.getOutputDataTypes(got.data(), (int32_t)outputs, in.data(), (int32_t)inputs) == 0 && got == want;
    }
    check(right, "getOutputDataTypes");
    std::vector<DataType> in(inputs + 1, DataType::kFLOAT), got(outputs);
    refused([&] { return build.getOutputDataTypes(got.data(), (int32_t)outputs, in.data(), (int32_t)inputs + 1) != 0; },
            "types: one input too many");
  }

  // The output sizes that the plugin's expressions give; empty where it gave none.
  std::vector<Dims> shapes_of(const std::vector<Dims>& inputs, bool open) {
    ExprBuilder builder;
    std::vector<int64_t> unknowns;
    std::vector<DimsExprs> in, out((size_t)build_of(*plugin_).getNbOutputs());
    for (const Dims& dims : inputs) {
      DimsExprs exprs{};
      exprs.nbDims = (int32_t)dims.size();
      for (size_t i = 0; i < dims.size(); ++i) {
        exprs.d[i] = open ? builder.unknown((int32_t)unknowns.size()) : builder.constant(dims[i]);
        unknowns.push_back(dims[i]);
      }
      in.push_back(exprs);
    }
    IPluginV3OneBuild& build = build_of(*plugin_);
    const int32_t in_count = (int32_t)in.size(), out_count = (int32_t)out.size();
    if (build.getOutputShapes(in.data(), in_count, nullptr, 0, out.data(), out_count, builder.face())) return {};
    std::vector<Dims> found;
    for (const DimsExprs& exprs : out) {
      found.emplace_back();
      for (int32_t i = 0; i < exprs.nbDims; ++i) {
        found.back().push_back(open ? static_cast<const Expression*>(exprs.d[i])->value(unknowns) : exprs.d[i]->getConstantValue());
      }
    }
    return found;
  }

  void shapes() {
    std::vector<Dims> larger = case_.inputs;
    for (Dims& dims : larger) {
      for (size_t i = 0; i < dims.size(); ++i) dims[i] += dims[i] > 4 || i == 0 ? 5 : 0;
    }
    for (const auto& inputs : {case_.inputs, larger}) {
      check(shapes_of(inputs, false) == case_.output_dims(inputs), "getOutputShapes, sizes known");
      check(shapes_of(inputs, true) == case_.output_dims(inputs), "getOutputShapes, sizes open");
    }
    std::vector<Dims> more = case_.inputs;
    more.push_back(more.back());
    refused([&] { return shapes_of(more, false).empty(); }, "shapes: one input too many");
    for (size_t i = 0; i < case_.inputs.size(); ++i) {
      std::vector<Dims> flat = case_.inputs;
      flat[i] = {12, 2, 3};
      refused([&] { return shapes_of(flat, false).empty(); }, "shapes: input " + std::to_string(i) + " with three dimensions");
    }
  }

  // Every combination that the plugin accepts, asked as TensorRT asks: tensor by tensor, with the earlier ones settled.
  void accepted(Combination& chosen, std::set<Combination>& found, size_t inputs, size_t outputs) {
    if (chosen.size() == inputs + outputs) {
      found.insert(chosen);
      return;
    }
    for (int32_t type = 0; type <= (int32_t)DataType::kINT64; ++type) {
      for (int32_t format = 0; format <= (int32_t)TensorFormat::kDHWC; ++format) {
        chosen.push_back({(DataType)type, (TensorFormat)format});
        std::vector<DynamicPluginTensorDesc> descs;
        for (const Slot& slot : chosen) descs.push_back(dynamic_of({1, 1, 1, 1}, slot, true));
        const int32_t at = (int32_t)chosen.size() - 1;
        descs.resize(inputs + outputs);
        if (build_of(*plugin_).supportsFormatCombination(at, descs.data(), (int32_t)inputs, (int32_t)outputs)) {
          accepted(chosen, found, inputs, outputs);
        }
        chosen.pop_back();
      }
    }
  }

  void formats() {
    Combination chosen;
    std::set<Combination> found, wanted(case_.combinations.begin(), case_.combinations.end());
    accepted(chosen, found, case_.inputs.size(), (size_t)build_of(*plugin_).getNbOutputs());
    std::string names;
    for (const Combination& combination : found) {
      if (!wanted.count(combination)) names += " +" + describe(combination);
    }
    for (const Combination& combination : wanted) {
      if (!found.count(combination)) names += " -" + describe(combination);
    }
    check(names.empty(), "supportsFormatCombination, " + std::to_string(found.size()) + " combinations:" + names);
    check((int32_t)found.size() <= build_of(*plugin_).getFormatCombinationLimit(), "no more combinations than TensorRT tries");
  }

  static std::string describe(const Combination& combination) {
    std::string out;
    for (const Slot& slot : combination) out += (out.empty() ? "(" : ", ") + name_of(slot);
    return out + ")";
  }

  int32_t configure(const Combination& combination, const std::vector<Dims>& inputs, const std::vector<Dims>& outputs, bool open) {
    std::vector<DynamicPluginTensorDesc> in, out;
    for (size_t i = 0; i < combination.size(); ++i) {
      const bool input = i < inputs.size();
      (input ? in : out).push_back(dynamic_of(input ? inputs[i] : outputs[i - inputs.size()], combination[i], open));
    }
    workspace_ = build_of(*plugin_).getWorkspaceSize(in.data(), (int32_t)in.size(), out.data(), (int32_t)out.size());
    return build_of(*plugin_).configurePlugin(in.data(), (int32_t)in.size(), out.data(), (int32_t)out.size());
  }

  void configuration() {
    std::vector<Dims> outputs = case_.output_dims(case_.inputs);
    bool open = true, known = true, sized = true;
    for (const Combination& combination : case_.combinations) {
      open = open && configure(combination, case_.inputs, outputs, true) == 0;
      known = known && configure(combination, case_.inputs, outputs, false) == 0;
      sized = sized && workspace_ >= case_.workspace && (workspace_ > 0) == (case_.workspace > 0);
    }
    check(open && known, "configurePlugin, sizes open and known");
    check(sized, "getWorkspaceSize");
    Combination wrong = case_.combinations[0];
    wrong.back().type = DataType::kBOOL;
    refused([&] { return configure(wrong, case_.inputs, outputs, true) != 0; }, "configurePlugin refuses a type");
    outputs[0].back() += 1;
    refused([&] { return configure(case_.combinations[0], case_.inputs, outputs, false) != 0; },
            "configurePlugin refuses an output size");
  }

  void serialisation() {
    const Owned again = create(creator_, copy_of(runtime_of(*plugin_).getFieldsToSerialize()), kRun);
    check(again && same(*plugin_, *again), "an engine gives back the plugin that it was built with");
    const auto stored = contents(runtime_of(*plugin_).getFieldsToSerialize());
    bool all = true;
    for (const Field& f : case_.fields) {
      const std::string want = std::to_string((int)f.type) + ":" + std::string(f.data.begin(), f.data.end());
      all = all && (f.length == 0 ? !stored.count(f.name) : stored.count(f.name) && stored.at(f.name) == want);
    }
    check(all, "every field is stored as it was given");
  }

  void copies() {
    Owned original(plugin_->clone());
    Owned attached(original ? runtime_of(*original).attachToContext(nullptr) : nullptr);
    check(original && attached && original != plugin_ && attached != original, "clone and attachToContext make plugins");
    if (!original || !attached) return;
    original.reset();
    check(same(*plugin_, *attached), "a copy outlives its original");
    plugin_ = std::move(attached);
  }

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

  // --- enqueue

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
    nvinfer1::IPluginV3OneRuntime& runtime = runtime_of(*plugin_);
    refused([&] { return runtime.enqueue(in.data(), out.data(), nowhere.data(), nothing.data(), nullptr, nullptr) != 0; },
            "enqueue without memory is an error");
  }

  const Case& case_;
  IPluginCreatorV3One& creator_;
  const Options& options_;
  Count& count_;
  Owned plugin_;
  size_t workspace_ = 0;
};

}  // namespace

void drive(const Case& c, IPluginCreatorV3One& creator, const Options& options, Count& count) {
  const Count before = count;
  Driver(c, creator, options, count).run();
  std::printf("%s  %s: %d checks\n", count.failed == before.failed ? "ok  " : "FAIL", c.title.c_str(),
              count.passed + count.failed - before.passed - before.failed);
  std::fflush(stdout);
}

}  // namespace harness
