// Drives the plugin of a case through every method of its interface.
#pragma once

#include <NvInferRuntime.h>

#include "cases.h"

namespace harness {

struct Options {
  bool enqueue = true;  // off for a library whose kernels this machine cannot run
  bool cuda = false;    // tensors in device memory, and tolerances of a GPU
};

// Checks passed and failed; every failure, and every group of checks, is a line on stdout.
struct Count {
  int32_t passed = 0, failed = 0;
  void check(bool good, const std::string& what);
};

void drive(const Case& c, nvinfer1::IPluginCreatorV3One& creator, const Options& options, Count& count);

}  // namespace harness
