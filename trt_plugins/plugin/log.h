// Where the plugins' sentences go.
#pragma once

#include <string>

namespace edgeseg::trt {

// An error on the logger of the TensorRT library in this process, else on stderr.
void log_error(const std::string& message) noexcept;

}  // namespace edgeseg::trt
