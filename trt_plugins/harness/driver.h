// What drive_building.cpp and drive_running.cpp share: a plugin under test, and how it is asked and checked.
#pragma once

#include <unistd.h>

#include <memory>
#include <utility>

#include "drive.h"

namespace harness {

using Owned = std::unique_ptr<nvinfer1::IPluginV3>;

template <class Interface>
Interface* face(nvinfer1::IPluginV3& plugin, nvinfer1::PluginCapabilityType type) {
  return static_cast<Interface*>(plugin.getCapabilityInterface(type));
}
inline nvinfer1::IPluginV3OneBuild& build_of(nvinfer1::IPluginV3& plugin) {
  return *face<nvinfer1::IPluginV3OneBuild>(plugin, nvinfer1::PluginCapabilityType::kBUILD);
}
inline nvinfer1::IPluginV3OneRuntime& runtime_of(nvinfer1::IPluginV3& plugin) {
  return *face<nvinfer1::IPluginV3OneRuntime>(plugin, nvinfer1::PluginCapabilityType::kRUNTIME);
}

class Driver {
 public:
  Driver(const Case& c, const Options& options, Count& count, Owned plugin = nullptr)
      : case_(c), options_(options), count_(count), plugin_(std::move(plugin)) {}

 protected:
  void check(bool good, const std::string& what) { count_.check(good, case_.title + ": " + what); }

  // A refusal comes with a sentence in the log, which here is stderr, a file (main.cpp).
  template <class Try>
  void refused(const Try& attempt, const std::string& what) {
    const auto before = lseek(STDERR_FILENO, 0, SEEK_CUR);
    const bool no = attempt();
    check(no, what);
    check(lseek(STDERR_FILENO, 0, SEEK_CUR) > before, what + ": a sentence says why");
  }

  static std::string describe(const Combination& combination) {
    std::string out;
    for (const Slot& slot : combination) out += (out.empty() ? "(" : ", ") + name_of(slot);
    return out + ")";
  }

  int32_t configure(const Combination& combination, const std::vector<Dims>& inputs, const std::vector<Dims>& outputs, bool open) {
    std::vector<nvinfer1::DynamicPluginTensorDesc> in, out;
    for (size_t i = 0; i < combination.size(); ++i) {
      const bool input = i < inputs.size();
      (input ? in : out).push_back(dynamic_of(input ? inputs[i] : outputs[i - inputs.size()], combination[i], open));
    }
    workspace_ = build_of(*plugin_).getWorkspaceSize(in.data(), (int32_t)in.size(), out.data(), (int32_t)out.size());
    return build_of(*plugin_).configurePlugin(in.data(), (int32_t)in.size(), out.data(), (int32_t)out.size());
  }

  const Case& case_;
  const Options& options_;
  Count& count_;
  Owned plugin_;
  size_t workspace_ = 0;
};

// Everything that a plugin is asked before an engine exists; gives a copy of the plugin, or none where the creator gave none.
Owned drive_building(const Case& c, nvinfer1::IPluginCreatorV3One& creator, const Options& options, Count& count);

// What a plugin is asked while an engine runs.
void drive_running(const Case& c, Owned plugin, const Options& options, Count& count);

}  // namespace harness
