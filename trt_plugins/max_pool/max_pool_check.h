// What kernels and twins demand of their arguments. Each function returns null or a sentence.
#pragma once

#include "../common/layout.h"
#include "max_pool.h"

namespace edgeseg {

constexpr int32_t kLargestSide = 1 << 30;  // window arithmetic stays within 32 bits
constexpr int32_t kLargestKernel = 1 << 12;

inline int64_t stored_channels(const EsTensor& t) {
  const int64_t vector = format_vector(t.format);
  return (t.c + vector - 1) / vector * vector;
}

inline bool is_empty(const EsTensor& t) { return t.n == 0 || t.c == 0 || t.h == 0 || t.w == 0; }

inline EsStatus check_tensor(const EsTensor& t) {
  if (t.format < ES_LINEAR || t.format > ES_CHW32) return "unknown memory format; expected one of ES_LINEAR .. ES_CHW32";
  if (t.n < 0 || t.c < 0 || t.h < 0 || t.w < 0) return "a tensor has a negative size";
  if (t.h > kLargestSide || t.w > kLargestSide) return "a plane has more than 2^30 rows or columns";
  if ((double)t.n * (double)stored_channels(t) * t.h * t.w > 1e18) return "a tensor has more than 10^18 elements";
  if (!is_empty(t) && !t.data) return "a tensor has no memory";
  return nullptr;
}

// The pooled and the full tensor have one type and the same images and channels.
inline EsStatus check_pair(const EsTensor& full, const EsTensor& pooled) {
  for (const EsTensor* t : {&full, &pooled}) {
    if (EsStatus problem = check_tensor(*t)) return problem;
    if (t->type != ES_FLOAT32 && t->type != ES_FLOAT16 && t->type != ES_INT8) return "values are float32, float16 or int8";
  }
  if (full.type != pooled.type) return "input and output differ in type";
  if (full.n != pooled.n || full.c != pooled.c) return "input and output differ in images or channels";
  return nullptr;
}

inline EsStatus check_codes(const EsTensor& codes, const EsTensor& pooled) {
  if (EsStatus problem = check_tensor(codes)) return problem;
  if (codes.type != ES_UINT8 && codes.type != ES_INT8) return "codes are uint8";
  if (codes.n != pooled.n || codes.c != pooled.c || codes.h != pooled.h || codes.w != pooled.w)
    return "codes and pooled values differ in shape";
  return nullptr;
}

inline EsStatus check_window(const EsWindow& w, int64_t most_places) {
  if (w.kernel_h < 1 || w.kernel_w < 1 || w.stride_h < 1 || w.stride_w < 1) return "kernel and stride are at least 1";
  if (w.kernel_h > kLargestKernel || w.kernel_w > kLargestKernel || (int64_t)w.kernel_h * w.kernel_w > most_places)
    return "kernel too large: a code is one byte, so at most 256 places";
  if (w.pad_top < 0 || w.pad_left < 0 || w.pad_top >= w.kernel_h || w.pad_left >= w.kernel_w)
    return "padding is at least 0 and less than the kernel";
  return nullptr;
}

// Every window has a place inside the plane, so that there is a maximum.
inline EsStatus check_windows_inside(const EsTensor& full, const EsTensor& pooled, const EsWindow& w) {
  if (is_empty(pooled)) return nullptr;
  const bool rows = (int64_t)(pooled.h - 1) * w.stride_h - w.pad_top < full.h;
  const bool columns = (int64_t)(pooled.w - 1) * w.stride_w - w.pad_left < full.w;
  return rows && columns && !is_empty(full) ? nullptr : "a window lies wholly outside the plane: output too large for this input";
}

inline EsStatus check(const EsMaxPoolArgmax* args) {
  if (EsStatus problem = check_pair(args->input, args->output)) return problem;
  if (EsStatus problem = check_codes(args->codes, args->output)) return problem;
  if (EsStatus problem = check_window(args->window, 256)) return problem;
  return check_windows_inside(args->input, args->output, args->window);
}

inline EsStatus check(const EsMaxUnpool* args) {
  if (EsStatus problem = check_pair(args->output, args->input)) return problem;
  if (EsStatus problem = check_codes(args->codes, args->input)) return problem;
  return check_window(args->window, 256);
}

inline EsStatus check(const EsMaxPoolIndices* args) {
  if (EsStatus problem = check_pair(args->input, args->output)) return problem;
  if (EsStatus problem = check_window(args->window, (int64_t)kLargestKernel * kLargestKernel)) return problem;
  if (!is_empty(args->output) && !args->indices) return "indices have no memory";
  return check_windows_inside(args->input, args->output, args->window);
}

inline int64_t count_of(const EsTensor& t) { return (int64_t)t.n * t.c * t.h * t.w; }

// Positions of pooled values fit 32 bits unless the unpooled tensor is larger than that: then the workspace holds 64.
inline bool wide_positions(const EsTensor& output) { return count_of(output) > INT32_MAX; }

inline EsStatus check(const EsMaxUnpoolIndices* args, bool needs_workspace) {
  if (EsStatus problem = check_pair(args->output, args->input)) return problem;
  if (!is_empty(args->input) && !args->indices) return "indices have no memory";
  if (!needs_workspace || is_empty(args->output)) return nullptr;
  if (!wide_positions(args->output) && count_of(args->input) > INT32_MAX) return "more than 2^31 - 1 values for a smaller output";
  return args->workspace ? nullptr : "no workspace; edgeseg_max_unpool_indices_workspace() tells its size";
}

}  // namespace edgeseg
