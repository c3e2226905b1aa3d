#include "panoptic.h"

#include <algorithm>
#include <mutex>
#include <new>

#include "axis.h"

namespace edgeseg {

namespace {

// The runs of every mask, in bands of rows, one a thread.
using Band = std::vector<std::vector<Run>>;

std::vector<Band> find_runs(const BoxMasks& things, int threads) {
  std::vector<Band> bands;
  std::mutex mutex;
  split_rows(things.H, threads, [&](int begin, int end) {
    try {
      Paster paster(things);
      Band band(things.count);
      for (int i = 0; i < things.count; ++i) paster.find(i, begin, end, band[i]);
      const std::lock_guard<std::mutex> lock(mutex);
      bands.push_back(std::move(band));
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  });
  return bands;
}

template <class Work>
void each_run(const std::vector<Band>& bands, int index, int width, int32_t* ids, const Work& work) {
  for (const Band& band : bands)
    for (const Run& run : band[index]) work(ids + (size_t)run.y * width + run.begin, run.end - run.begin);
}

int32_t place_things(const MergeArgs& args, int threads, std::vector<int32_t>& found) {
  const int width = args.things.W;
  const std::vector<Band> bands = find_runs(args.things, threads);
  int32_t last = 0;
  for (int i = 0; i < args.things.count; ++i) {
    int64_t area = 0, free = 0;
    each_run(bands, i, width, args.ids, [&](const int32_t* ids, int n) {
      area += n;
      free += std::count(ids, ids + n, 0);
    });
    if (free == 0 || (double)free < args.overlap * (double)area) continue;
    const int32_t id = found[i] = ++last;
    each_run(bands, i, width, args.ids, [&](int32_t* ids, int n) { std::replace(ids, ids + n, 0, id); });
  }
  return last;
}

void place_stuff(const MergeArgs& args, int32_t last, std::vector<int32_t>& found) {
  const size_t pixels = (size_t)args.things.H * args.things.W;
  int64_t area[256] = {};
  for (size_t i = 0; i < pixels; ++i) area[args.semantic[i]] += args.ids[i] == 0;
  int32_t id_of[256] = {};
  for (int s = 1; s <= args.stuff; ++s)
    if (area[s] > 0 && area[s] >= args.stuff_area) found[s - 1] = id_of[s] = ++last;
  for (size_t i = 0; i < pixels; ++i)
    if (args.ids[i] == 0) args.ids[i] = id_of[args.semantic[i]];
}

}  // namespace

Merged merge_panoptic(const MergeArgs& args, int threads) {
  Merged merged{std::vector<int32_t>(args.things.count), std::vector<int32_t>(args.stuff)};
  std::fill_n(args.ids, (size_t)args.things.H * args.things.W, 0);
  const int32_t last = place_things(args, threads, merged.things);
  if (args.semantic) place_stuff(args, last, merged.stuff);
  return merged;
}

}  // namespace edgeseg
