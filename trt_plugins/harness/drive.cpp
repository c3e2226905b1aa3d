#include <cstdio>

#include "driver.h"

namespace harness {

void Count::check(bool good, const std::string& what) {
  (good ? passed : failed) += 1;
  if (!good) std::printf("FAIL  %s\n", what.c_str());
}

void drive(const Case& c, nvinfer1::IPluginCreatorV3One& creator, const Options& options, Count& count) {
  const Count before = count;
  if (Owned plugin = drive_building(c, creator, options, count)) drive_running(c, std::move(plugin), options, count);
  std::printf("%s  %s: %d checks\n", count.failed == before.failed ? "ok  " : "FAIL", c.title.c_str(),
              count.passed + count.failed - before.passed - before.failed);
  std::fflush(stdout);
}

}  // namespace harness
