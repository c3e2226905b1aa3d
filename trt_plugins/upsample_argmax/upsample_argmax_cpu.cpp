// The CPU twin: the kernel's arithmetic in plain loops, its oracle on machines with no GPU. Live code takes edgeseg/native.
#include <new>
#include <vector>

#include "../common/parallel.h"
#include "upsample_argmax_core.h"

namespace edgeseg {
namespace upsample_argmax {
namespace {

template <class T, bool Probability>
void label_row(const EsUpsampleArgmax& a, const Source<T>& source, int64_t n, Tap row, const std::vector<Tap>& columns, int64_t place) {
  uint8_t* labels = static_cast<uint8_t*>(a.labels.data) + place;
  for (size_t x = 0; x < columns.size(); ++x) {
    const Winner winner = contest<T, Probability>(source, n, row, columns[x]);
    const Verdict told = verdict(winner, source.classes, a.threshold, source.scale);
    labels[x] = (uint8_t)told.label;
    if (Probability) a.probability[place + (int64_t)x] = told.probability;
  }
}

template <class T, bool Probability>
void label_all(const EsUpsampleArgmax& a, int32_t threads) {
  const Source<T> source = source_of<T>(a);
  const int32_t h = a.labels.h, w = a.labels.w;
  const Axis rows = axis_of(source.h, h, a.align_corners != 0), columns = axis_of(source.w, w, a.align_corners != 0);
  std::vector<Tap> taps((size_t)w);
  for (int32_t x = 0; x < w; ++x) taps[(size_t)x] = tap_of(columns, x);
  parallel_for((int64_t)a.labels.n * h, 4, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) label_row<T, Probability>(a, source, i / h, tap_of(rows, (int32_t)(i % h)), taps, i * w);
  });
}

template <class T>
void label_type(const EsUpsampleArgmax& a, int32_t threads) {
  if (a.probability)
    label_all<T, true>(a, threads);
  else
    label_all<T, false>(a, threads);
}

}  // namespace
}  // namespace upsample_argmax
}  // namespace edgeseg

ES_EXPORT EsStatus edgeseg_upsample_argmax_cpu(const EsUpsampleArgmax* args, int32_t threads) {
  using namespace edgeseg;
  using namespace edgeseg::upsample_argmax;
  if (EsStatus problem = check(args)) return problem;
  if (threads < 1) return "threads: expected 1 or more";
  try {
    switch (args->logits.type) {
      case ES_FLOAT32: label_type<float>(*args, threads); break;
      case ES_FLOAT16: label_type<Half>(*args, threads); break;
      default: label_type<int8_t>(*args, threads); break;
    }
  } catch (const std::bad_alloc&) {
    return "out of memory";
  }
  return nullptr;
}
