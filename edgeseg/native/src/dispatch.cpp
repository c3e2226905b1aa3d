// Picks the instruction set once, at load; tests choose another through select().
#include <atomic>
#include <cstring>

#include "kernels.h"

namespace edgeseg {

namespace baseline {
extern const Kernels table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

// Worst first; null after the last one this CPU runs.
struct Sets {
  const Kernels* sets[4] = {&baseline::table, nullptr, nullptr, nullptr};
  int count = 1;
  Sets() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) sets[count++] = &avx2::table;
    if (count == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      sets[count++] = &avx512::table;
#endif
  }
};

const Sets& sets() {
  static const Sets found;
  return found;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  const Kernels* set = chosen.load(std::memory_order_acquire);
  return set ? *set : *sets().sets[sets().count - 1];
}

void supported(const char* names[4]) {
  for (int i = 0; i < 4; ++i) names[i] = i < sets().count ? sets().sets[i]->name : nullptr;
}

bool select(const char* name) {
  for (int i = 0; i < sets().count; ++i)
    if (std::strcmp(sets().sets[i]->name, name) == 0) {
      chosen.store(sets().sets[i], std::memory_order_release);
      return true;
    }
  return false;
}

}  // namespace edgeseg
