// The CPU twins of preprocess and overlay: the kernels' arithmetic in plain loops. Live code takes edgeseg/native.
#include "../common/parallel.h"
#include "frame_core.h"

namespace edgeseg {
namespace frame {
namespace {

template <class T>
void store(const Preprocess& p, T* out, int64_t pixel, const Values& values) {
  const int32_t stored = p.layout.vector > 1 ? p.layout.vector : p.channels;
  for (int32_t c = 0; c < stored; ++c) out[place_of(p.layout, c, pixel)] = from_float<T>(c < p.channels ? values.v[c] : 0.0f);
}

template <class T, int kKind>
void preprocess(const EsPreprocess& a, int32_t threads) {
  const Preprocess p = preprocess_of(a);
  T* out = static_cast<T*>(a.output.data);
  parallel_for(p.rows.out, 8, threads, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) {
      const Tap row = tap_of(p.rows, (int32_t)y);
      for (int32_t x = 0; x < p.columns.out; ++x) store(p, out, y * p.columns.out + x, values_at<kKind>(p, row, tap_of(p.columns, x)));
    }
  });
}

template <class T>
void preprocess_kind(const EsPreprocess& a, int32_t threads) {
  switch (a.kind) {
    case ES_FRAME_BGR: return preprocess<T, ES_FRAME_BGR>(a, threads);
    case ES_FRAME_NV12: return preprocess<T, ES_FRAME_NV12>(a, threads);
    default: return preprocess<T, ES_FRAME_DEPTH16>(a, threads);
  }
}

void overlay_row(const EsOverlay& a, int64_t y) {
  const uint8_t *frame = a.frame + y * a.frame_stride, *labels = a.labels + y * a.w;
  uint8_t* out = a.out + y * a.out_stride;
  for (int32_t i = 0; i < 3 * a.w; ++i) {
    const uint8_t label = labels[i / 3];
    out[i] = label == kIgnore ? frame[i] : blended(frame[i], a.palette_bgr[3 * label + i % 3], a.alpha);
  }
}

}  // namespace
}  // namespace frame
}  // namespace edgeseg

ES_EXPORT EsStatus edgeseg_preprocess_cpu(const EsPreprocess* args, int32_t threads) {
  using namespace edgeseg;
  if (EsStatus problem = frame::check(args)) return problem;
  if (threads < 1) return "threads: expected 1 or more";
  switch (args->output.type) {
    case ES_FLOAT32: frame::preprocess_kind<float>(*args, threads); break;
    case ES_FLOAT16: frame::preprocess_kind<Half>(*args, threads); break;
    default: frame::preprocess_kind<int8_t>(*args, threads); break;
  }
  return nullptr;
}

ES_EXPORT EsStatus edgeseg_overlay_cpu(const EsOverlay* args, int32_t threads) {
  using namespace edgeseg;
  if (EsStatus problem = frame::check(args)) return problem;
  if (threads < 1) return "threads: expected 1 or more";
  if (args->w == 0) return nullptr;
  parallel_for(args->h, 8, threads, [&](int64_t begin, int64_t end) {
    for (int64_t y = begin; y < end; ++y) frame::overlay_row(*args, y);
  });
  return nullptr;
}
