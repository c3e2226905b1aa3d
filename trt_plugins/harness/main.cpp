// edgeseg_plugin_harness LIBRARY [--no-enqueue | --cuda]
//
// Loads a plugin library as a TensorRT registry does, by getCreators, and drives every plugin in it. Needs no TensorRT
// library, and no GPU where the library is libedgeseg_trt_host.so. With libedgeseg_trt.so --cuda computes on the GPU, --no-enqueue
// leaves that out.
// Prints a line a case and a count; exit code 0 well, 1 a check failed, 2 the library cannot be driven.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "drive.h"

namespace {

using nvinfer1::IPluginCreatorInterface;
using nvinfer1::IPluginCreatorV3One;

IPluginCreatorV3One* find(IPluginCreatorInterface* const* creators, int32_t count, const std::string& name) {
  for (int32_t i = 0; i < count; ++i) {
    if (std::string(creators[i]->getInterfaceInfo().kind) != "PLUGIN CREATOR_V3ONE") continue;
    auto* creator = static_cast<IPluginCreatorV3One*>(creators[i]);
    const bool ours = creator->getPluginVersion() == std::string("1") && creator->getPluginNamespace() == std::string("edgeseg");
    if (ours && creator->getPluginName() == name) return creator;
  }
  return nullptr;
}

int usage(const char* program) {
  std::fprintf(stderr, "usage: %s LIBRARY [--no-enqueue | --cuda]\n", program);
  return 2;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2 || count > 3) return usage(arguments[0]);
  harness::Options options;
  if (count == 3) {
    options.enqueue = std::strcmp(arguments[2], "--no-enqueue") != 0;
    options.cuda = std::strcmp(arguments[2], "--cuda") == 0;
    if (options.enqueue && !options.cuda) return usage(arguments[0]);
  }
  void* library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 2;
  const auto get = reinterpret_cast<IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(library, "getCreators"));
  if (!get) return std::fprintf(stderr, "%s: no getCreators\n", arguments[1]), 2;

  // Without TensorRT the plugins' sentences go to stderr: into a file, so that the checks see that they came.
  FILE* log = std::tmpfile();
  if (!log || dup2(fileno(log), STDERR_FILENO) < 0) return std::perror("temporary file"), 2;

  harness::Count total;
  int32_t creators = 0;
  IPluginCreatorInterface* const* all = get(creators);
  total.check(creators == 6, "six creators");
  for (const harness::Case& c : harness::all_cases()) {
    IPluginCreatorV3One* creator = find(all, creators, c.plugin);
    total.check(creator != nullptr, c.plugin + " is among the creators");
    if (creator) harness::drive(c, *creator, options, total);
  }
  std::printf("%d checks passed, %d failed\n", total.passed, total.failed);
  return total.failed ? 1 : 0;
}
