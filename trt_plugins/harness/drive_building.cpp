#include <algorithm>
#include <set>

#include "driver.h"

namespace harness {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IPluginCreatorV3One;
using nvinfer1::IPluginV3;
using nvinfer1::IPluginV3OneBuild;
using nvinfer1::IPluginV3OneCore;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginFieldCollection;
using nvinfer1::TensorFormat;
using nvinfer1::TensorRTPhase;

namespace {

constexpr TensorRTPhase kBuild = TensorRTPhase::kBUILD, kRun = TensorRTPhase::kRUNTIME;

Owned create(IPluginCreatorV3One& creator, const std::vector<Field>& fields, TensorRTPhase phase = kBuild) {
  return Owned(creator.createPlugin("some/layer", Collection(fields).get(), phase));
}

// Is one plugin as good as another: the same fields and the same identity in the timing cache?
bool same(IPluginV3& a, IPluginV3& b) {
  return contents(runtime_of(a).getFieldsToSerialize()) == contents(runtime_of(b).getFieldsToSerialize()) &&
         std::string(build_of(a).getTimingCacheID()) == build_of(b).getTimingCacheID();
}

class Builder final : public Driver {
 public:
  Builder(const Case& c, IPluginCreatorV3One& creator, const Options& options, Count& count)
      : Driver(c, options, count), creator_(creator) {}

  Owned run() {
    creation();
    plugin_ = create(creator_, case_.fields);
    check(plugin_ != nullptr, "createPlugin takes its own fields");
    if (!plugin_) return nullptr;
    identity();
    types();
    shapes();
    formats();
    configuration();
    serialisation();
    copies();
    return std::move(plugin_);
  }

 private:
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

  IPluginCreatorV3One& creator_;
};

}  // namespace

Owned drive_building(const Case& c, IPluginCreatorV3One& creator, const Options& options, Count& count) {
  return Builder(c, creator, options, count).run();
}

}  // namespace harness
