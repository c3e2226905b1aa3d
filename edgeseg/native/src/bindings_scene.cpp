// Python face of what makes instances and segments of a network's outputs; edgeseg/native/scene.py documents the calls.
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <mutex>
#include <new>
#include <tuple>

#include "arrays.h"
#include "axis.h"
#include "panoptic.h"
#include "paste_masks.h"
#include "queries.h"

namespace edgeseg {

void bind_scene(nb::module_& m);

namespace {

BoxMasks box_masks(const Input& masks, const Input& boxes, double threshold, int H, int W) {
  require_type<float>(masks, "masks", "(D, h, w) float32");
  if (masks.ndim() != 3 || !contiguous(masks)) fail("masks: got " + describe(masks) + "; expected C-contiguous (D, h, w) float32");
  require_shape<float>(boxes, "boxes", {masks.shape(0), 4}, "(D, 4) float32, one for each mask");
  BoxMasks found{};
  found.masks = data<float>(masks), found.boxes = data<float>(boxes), found.count = (int)masks.shape(0);
  found.h = side(masks.shape(1), "masks"), found.w = side(masks.shape(2), "masks");
  found.H = H, found.W = W;
  if (!(threshold >= 0 && threshold <= 1)) fail("threshold: got " + std::to_string(threshold) + "; expected 0..1");
  found.threshold = (float)threshold;
  return found;
}

void paste(const Input& masks, const Input& boxes, double threshold, const Output& out, int threads) {
  require_threads(threads);
  require_type<uint8_t>(out, "out", "(D, H, W) uint8");
  if (out.ndim() != 3 || !contiguous(out) || (masks.ndim() && out.shape(0) != masks.shape(0)))
    fail("out: got " + describe(out) + "; expected C-contiguous (D, H, W) uint8, one for each mask");
  const BoxMasks args = box_masks(masks, boxes, threshold, side(out.shape(1), "out"), side(out.shape(2), "out"));
  nb::gil_scoped_release release;
  split_rows(args.H, threads, [&](int begin, int end) {
    try {
      paste_masks(args, begin, end, data<uint8_t>(out));
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  });
}

std::tuple<std::vector<int32_t>, std::vector<int32_t>> merge(const Input& masks, const Input& boxes, const Input& semantic, int stuff,
                                                             double threshold, double overlap, int64_t stuff_area, const Output& ids,
                                                             int threads) {
  require_threads(threads);
  require_type<int32_t>(ids, "ids", "(H, W) int32");
  if (ids.ndim() != 2 || !contiguous(ids)) fail("ids: got " + describe(ids) + "; expected C-contiguous (H, W) int32");
  require_shape<uint8_t>(semantic, "semantic", {ids.shape(0), ids.shape(1)}, "(H, W) uint8 of the size of ids");
  if (stuff < 0 || stuff > 255) fail("stuff: got " + std::to_string(stuff) + " classes; expected 0..255");
  MergeArgs args{};
  args.things = box_masks(masks, boxes, threshold, side(ids.shape(0), "ids"), side(ids.shape(1), "ids"));
  args.semantic = data<uint8_t>(semantic), args.stuff = stuff;
  args.overlap = overlap, args.stuff_area = stuff_area;
  args.ids = data<int32_t>(ids);
  Merged merged;
  {
    nb::gil_scoped_release release;
    merged = merge_panoptic(args, threads);
  }
  return {std::move(merged.things), std::move(merged.stuff)};
}

// The maps, and the taps that their views point to.
struct Queries {
  Axis rows, columns;
  QueryMaps maps{};
  Queries(const Input& logits, int H, int W, double step_y, double step_x, double cut)
      : rows(height(logits), H, step_y), columns(side(logits.shape(2), "logits"), W, step_x) {
    maps = {data<float>(logits), (int)logits.shape(0), (int)logits.shape(1), (int)logits.shape(2), H, W,
            rows.view(),         columns.view(),       (float)cut};
  }
  Queries(const Queries&) = delete;

 private:
  static int height(const Input& logits) {
    require_type<float>(logits, "logits", "(Q, h, w) float32");
    if (logits.ndim() != 3 || !contiguous(logits)) fail("logits: got " + describe(logits) + "; expected C-contiguous (Q, h, w) float32");
    return side(logits.shape(1), "logits");
  }
};

void require_step(double step) {
  if (!(step > 0 && step < 1e6)) fail("steps: got " + std::to_string(step) + "; expected cells of the map from pixel to pixel, more than 0");
}

void masks_of_queries(const Input& logits, double step_y, double step_x, double cut, const Output& masks, const Output& areas,
                      const Output& spans, const Output& sums, int threads) {
  require_threads(threads);
  require_step(step_y), require_step(step_x);
  require_type<uint8_t>(masks, "masks", "(Q, H, W) uint8");
  if (masks.ndim() != 3 || !contiguous(masks)) fail("masks: got " + describe(masks) + "; expected C-contiguous (Q, H, W) uint8");
  const int H = side(masks.shape(1), "masks"), W = side(masks.shape(2), "masks");
  const Queries queries(logits, H, W, step_y, step_x, cut);
  const size_t count = logits.shape(0), rows = masks.shape(1);
  if (masks.shape(0) != count) fail("masks: got " + describe(masks) + "; expected one for each query");
  require_shape<int32_t>(areas, "areas", {count, rows}, "(Q, H) int32");
  require_shape<int32_t>(spans, "spans", {count, rows, 2}, "(Q, H, 2) int32");
  require_shape<double>(sums, "sums", {count, rows}, "(Q, H) float64");
  const RowFacts facts{data<int32_t>(areas), data<int32_t>(spans), data<double>(sums)};
  nb::gil_scoped_release release;
  split_rows(H, threads, [&](int begin, int end) {
    try {
      query_masks(queries.maps, begin, end, data<uint8_t>(masks), facts);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  });
}

using Counts = std::vector<int64_t>;

std::tuple<Counts, Counts, Counts> argmax_of_queries(const Input& logits, const Input& scores, double step_y, double step_x, double cut,
                                                     const Output& winners, int threads) {
  require_threads(threads);
  require_step(step_y), require_step(step_x);
  require_type<int32_t>(winners, "winners", "(H, W) int32");
  if (winners.ndim() != 2 || !contiguous(winners)) fail("winners: got " + describe(winners) + "; expected C-contiguous (H, W) int32");
  const int H = side(winners.shape(0), "winners"), W = side(winners.shape(1), "winners");
  const Queries queries(logits, H, W, step_y, step_x, cut);
  if (logits.shape(0) < 1) fail("logits: got " + describe(logits) + "; expected one query or more");
  require_shape<float>(scores, "scores", {logits.shape(0)}, "(Q) float32, one for each query");
  QueryAreas total(queries.maps.count);
  {
    nb::gil_scoped_release release;
    std::mutex mutex;
    split_rows(H, threads, [&](int begin, int end) {
      try {
        QueryAreas part(queries.maps.count);
        query_argmax(queries.maps, data<float>(scores), begin, end, data<int32_t>(winners), part);
        const std::lock_guard<std::mutex> lock(mutex);
        for (int q = 0; q < queries.maps.count; ++q)
          total.won[q] += part.won[q], total.covered[q] += part.covered[q], total.kept[q] += part.kept[q];
        return true;
      } catch (const std::bad_alloc&) {
        return false;
      }
    });
  }
  return {std::move(total.won), std::move(total.covered), std::move(total.kept)};
}

}  // namespace

void bind_scene(nb::module_& m) {
  m.def("paste_masks", &paste, nb::arg("masks"), nb::arg("boxes"), nb::arg("threshold"), nb::arg("out").noconvert(), nb::arg("threads"));
  m.def("merge_panoptic", &merge, nb::arg("masks"), nb::arg("boxes"), nb::arg("semantic"), nb::arg("stuff"), nb::arg("threshold"),
        nb::arg("overlap"), nb::arg("stuff_area"), nb::arg("ids").noconvert(), nb::arg("threads"));
  m.def("query_masks", &masks_of_queries, nb::arg("logits"), nb::arg("step_y"), nb::arg("step_x"), nb::arg("cut"),
        nb::arg("masks").noconvert(), nb::arg("areas").noconvert(), nb::arg("spans").noconvert(), nb::arg("sums").noconvert(),
        nb::arg("threads"));
  m.def("query_argmax", &argmax_of_queries, nb::arg("logits"), nb::arg("scores"), nb::arg("step_y"), nb::arg("step_x"), nb::arg("cut"),
        nb::arg("winners").noconvert(), nb::arg("threads"));
}

}  // namespace edgeseg
