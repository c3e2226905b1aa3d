// The logger is found at run time: the plugins link against no TensorRT library, and the one in the process may be 10.x or 11.x.
// ILogger became a versioned interface in 11, which moved log() in its table; so each major has its own view of it here.
#include "log.h"

#include <NvInferRuntime.h>

#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace edgeseg::trt {

namespace {

constexpr int32_t kError = 1;  // ILogger::Severity::kERROR

class Logger10 {
 public:
  virtual void log(int32_t severity, const char* message) noexcept = 0;
  virtual ~Logger10() = default;
};

class Logger11 {
 public:
  virtual nvinfer1::APILanguage getAPILanguage() const noexcept = 0;
  virtual nvinfer1::InterfaceInfo getInterfaceInfo() const noexcept = 0;
  virtual ~Logger11() noexcept = default;
  virtual void log(int32_t severity, const char* message) noexcept = 0;
};

// Names of libnvinfer.so.10, libnvinfer_lean.so.11, libnvinfer_dispatch.so.11, but not of libnvinfer_plugin.
int match(dl_phdr_info* info, size_t, void* found) {
  const char* slash = std::strrchr(info->dlpi_name, '/');
  const char* name = slash ? slash + 1 : info->dlpi_name;
  for (const char* stem : {"libnvinfer.so", "libnvinfer_lean.so", "libnvinfer_dispatch.so"}) {
    if (std::strncmp(name, stem, std::strlen(stem)) == 0) {
      *static_cast<std::string*>(found) = info->dlpi_name;
      return 1;
    }
  }
  return 0;
}

bool log_to_tensorrt(const char* message) {
  std::string path;
  dl_iterate_phdr(match, &path);
  void* library = path.empty() ? nullptr : dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return false;
  const auto major = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibMajorVersion"));
  const auto get = reinterpret_cast<void* (*)()>(dlsym(library, "getLogger"));
  void* logger = major && get ? get() : nullptr;
  const int32_t version = logger ? major() : 0;
  if (version == 10) static_cast<Logger10*>(logger)->log(kError, message);
  if (version == 11) static_cast<Logger11*>(logger)->log(kError, message);
  dlclose(library);
  return version == 10 || version == 11;
}

}  // namespace

void log_error(const std::string& message) noexcept {
  try {
    if (log_to_tensorrt(message.c_str())) return;
  } catch (...) {  // out of memory: stderr needs none
  }
  std::fprintf(stderr, "%s\n", message.c_str());
}

}  // namespace edgeseg::trt
