#include "paste_masks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace edgeseg {

namespace {

bool proper(double low, double high) { return std::isfinite(low) && std::isfinite(high) && high > low; }

// Pixels [begin, end) whose centres are less than one cell away from the centre of one of `cells` cells over low..high.
struct Range {
  int begin, end;
  Range(double low, double high, int cells, int size) {
    const double margin = (high - low) / (2.0 * cells);
    begin = (int)std::min(std::max(std::floor(low - margin), 0.0), (double)size);
    end = (int)std::min(std::max(std::ceil(high + margin), 0.0), (double)size);
  }
};

// Where a pixel's centre lies among the cells' centres: before cell `next` (0 .. cells) by 1 - frac of a cell.
struct Place {
  int next;
  float frac;
  Place(int pixel, double low, double high, int cells) {
    const double at = std::min(std::max((pixel + 0.5 - low) / (high - low) * cells - 0.5, -1.0), (double)cells);
    next = std::min((int)std::floor(at) + 1, cells);
    frac = (float)(at - (next - 1));
  }
};

float between(float a, float b, float frac) { return a * (1 - frac) + b * frac; }

}  // namespace

void Paster::place_columns(double x1, double x2) {
  const Range range(x1, x2, all_.w, all_.W);
  first_.assign(all_.w + 2, range.end);
  frac_.resize(all_.W);
  int known = 0;
  for (int x = range.begin; x < range.end; ++x) {
    const Place place(x, x1, x2, all_.w);
    frac_[x] = place.frac;
    while (known <= place.next) first_[known++] = x;
  }
}

void Paster::scan_row(int y, std::vector<Run>& runs) {
  const float cut = all_.threshold;
  int open = -1;
  for (int k = 0; k <= all_.w; ++k) {
    const int begin = first_[k], end = first_[k + 1];
    if (begin == end) continue;
    const float a = row_[k], b = row_[k + 1];
    if (a > cut && b > cut) {  // so is all between them
      if (open < 0) open = begin;
    } else if (a <= cut && b <= cut) {
      if (open >= 0) runs.push_back({y, open, begin}), open = -1;
    } else {
      for (int x = begin; x < end; ++x) {
        const bool inside = between(a, b, frac_[x]) > cut;
        if (inside && open < 0) open = x;
        if (!inside && open >= 0) runs.push_back({y, open, x}), open = -1;
      }
    }
  }
  if (open >= 0) runs.push_back({y, open, first_[all_.w + 1]});
}

void Paster::find(int index, int begin, int end, std::vector<Run>& runs) {
  const float* box = all_.boxes + 4 * (size_t)index;
  const double x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
  if (!proper(x1, x2) || !proper(y1, y2)) return;
  const int w = all_.w;
  const float* mask = all_.masks + (size_t)index * all_.h * w;
  place_columns(x1, x2);
  row_.assign(w + 2, 0.0f);
  const std::vector<float> zeros(w, 0.0f);
  const Range range(y1, y2, all_.h, all_.H);
  for (int y = std::max(begin, range.begin); y < std::min(end, range.end); ++y) {
    const Place place(y, y1, y2, all_.h);
    const float* above = place.next > 0 ? mask + (size_t)(place.next - 1) * w : zeros.data();
    const float* below = place.next < all_.h ? mask + (size_t)place.next * w : zeros.data();
    for (int c = 0; c < w; ++c) row_[c + 1] = between(above[c], below[c], place.frac);
    scan_row(y, runs);
  }
}

void paste_masks(const BoxMasks& masks, int begin, int end, uint8_t* out) {
  Paster paster(masks);
  std::vector<Run> runs;
  for (int i = 0; i < masks.count; ++i) {
    runs.clear();
    paster.find(i, begin, end, runs);
    uint8_t* plane = out + (size_t)i * masks.H * masks.W;
    for (const Run& run : runs) std::memset(plane + (size_t)run.y * masks.W + run.begin, 1, run.end - run.begin);
  }
}

}  // namespace edgeseg
