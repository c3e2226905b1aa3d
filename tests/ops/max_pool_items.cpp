// What the CUDA launchers would launch, item by item on the host: the same choice of items, the same loads and stores.
#include <cstring>

#include "max_pool/max_pool_dispatch.h"

using namespace edgeseg;

namespace {

struct OneByOne {
  template <class Item>
  EsStatus operator()(int64_t count, const Item& item) const {
    for (int64_t i = count - 1; i >= 0; --i) item(i);  // a GPU takes them in any order
    return nullptr;
  }
  EsStatus fill(void* memory, int64_t bytes) const {
    std::memset(memory, 0xff, (size_t)bytes);
    return nullptr;
  }
};

}  // namespace

#define ES_EXPORT extern "C" __attribute__((visibility("default")))

ES_EXPORT EsStatus edgeseg_max_pool_argmax_cpu(const EsMaxPoolArgmax* args, int32_t) {
  EsStatus problem = check(args);
  return problem ? problem : dispatch(*args, OneByOne{});
}

ES_EXPORT EsStatus edgeseg_max_unpool_cpu(const EsMaxUnpool* args, int32_t) {
  EsStatus problem = check(args);
  return problem ? problem : dispatch(*args, OneByOne{});
}

ES_EXPORT EsStatus edgeseg_max_pool_indices_cpu(const EsMaxPoolIndices* args, int32_t) {
  EsStatus problem = check(args);
  return problem ? problem : dispatch(*args, OneByOne{});
}

ES_EXPORT EsStatus edgeseg_max_unpool_indices_cpu(const EsMaxUnpoolIndices* args, int32_t) {
  EsStatus problem = check(args, true);
  return problem ? problem : dispatch(*args, OneByOne{});
}

ES_EXPORT int64_t edgeseg_max_unpool_indices_workspace(const EsTensor* output) {
  return count_of(*output) * (wide_positions(*output) ? 8 : 4);
}

// Every pair of halves: does the order as integers agree with the order as floats that the device compares in?
ES_EXPORT int64_t half_orders_that_differ(int32_t from, int32_t step) {
  int64_t differ = 0;
  for (int32_t a = from; a < 65536; a += step)
    for (int32_t b = 0; b < 65536; ++b)
      differ += Order<Half>::wins(Half{(uint16_t)a}, Half{(uint16_t)b}) !=
                Order<float>::wins(half_value_on_host((uint16_t)a), half_value_on_host((uint16_t)b));
  return differ;
}
