// What a TensorRT registry looks for in a plugin library.
#include <NvInferRuntime.h>

#include <cstdint>

namespace edgeseg::trt {

using Creator = nvinfer1::IPluginCreatorInterface*;
Creator roi_align_creator();
Creator max_pool_argmax_creator();
Creator max_unpool_creator();
Creator max_pool_indices_creator();
Creator max_unpool_indices_creator();
Creator upsample_argmax_creator();

}  // namespace edgeseg::trt

#define EDGESEG_ENTRY extern "C" __attribute__((visibility("default")))

EDGESEG_ENTRY nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  using namespace edgeseg::trt;
  static const Creator all[] = {roi_align_creator(),        max_pool_argmax_creator(),    max_unpool_creator(),
                                max_pool_indices_creator(), max_unpool_indices_creator(), upsample_argmax_creator()};
  count = (int32_t)(sizeof all / sizeof all[0]);
  return all;
}

// A version-compatible engine that carries this library is not read without this function. The finder itself is of no use: its
// class is laid out differently in TensorRT 10 and 11, and log.cpp finds the logger by itself.
EDGESEG_ENTRY void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
