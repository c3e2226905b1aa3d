// Which items an argument list asks for. `run(count, item)` carries them out: a kernel launch, or a loop; `run.fill(memory, bytes)` sets
// all bits. Both return a status.
#pragma once

#include "max_pool_items.h"

namespace edgeseg {

template <class T>
struct Type {
  using type = T;
};

template <class Use>
EsStatus with_type(int32_t type, const Use& use) {
  if (type == ES_FLOAT32) return use(Type<float>{});
  return type == ES_FLOAT16 ? use(Type<Half>{}) : use(Type<int8_t>{});
}

template <class Use>
EsStatus with_kernel(const EsWindow& w, const Use& use) {
  if (w.kernel_h == 2 && w.kernel_w == 2) return use(Kernel<2, 2>{});
  return w.kernel_h == 3 && w.kernel_w == 3 ? use(Kernel<3, 3>{}) : use(Kernel<0, 0>{});
}

inline bool aligned(const void* data, int64_t bytes) { return reinterpret_cast<uintptr_t>(data) % (uintptr_t)bytes == 0; }

// V channels of a pixel lie side by side in both tensors.
template <class T, int V>
bool packs(const EsTensor& a, const EsTensor& b) {
  const bool together = format_vector(a.format) % V == 0 && format_vector(b.format) % V == 0;
  return together && aligned(a.data, V * sizeof(T)) && aligned(b.data, V * sizeof(T));
}

template <int V>
struct Width {
  static constexpr int value = V;
};

// 16 bytes at a time where channels lie so, else 4 channels, else one.
template <class T, class Use>
EsStatus with_pack(const EsTensor& a, const EsTensor& b, const Use& use) {
  constexpr int kMost = 16 / sizeof(T);
  if (packs<T, kMost>(a, b)) return use(Width<kMost>{});
  if (packs<T, 4>(a, b)) return use(Width<4>{});
  return use(Width<1>{});
}

// Windows of 2x2 that tile the plane, everything linear: rows of pairs.
inline bool tiles_in_pairs(const EsTensor& full, const EsTensor& pooled, const EsTensor& codes, const EsWindow& w) {
  const bool twos = w.kernel_h == 2 && w.kernel_w == 2 && w.stride_h == 2 && w.stride_w == 2 && w.pad_top == 0 && w.pad_left == 0;
  const bool linear = full.format == ES_LINEAR && pooled.format == ES_LINEAR && codes.format == ES_LINEAR;
  return twos && linear && full.h == 2 * pooled.h && full.w == 2 * pooled.w;
}

// As many pairs at once as fill 16 bytes, or as rows and pointers permit.
template <template <class, int> class Item, class T, int N, class Args, class Run>
EsStatus run_pairs(const Args& args, const EsTensor& full, const EsTensor& pooled, const Run& run) {
  if constexpr (N > 1) {
    const bool fits = pooled.w % N == 0 && aligned(full.data, 2 * N * sizeof(T)) && aligned(pooled.data, N * sizeof(T));
    if (!fits || !aligned(args.codes.data, N)) return run_pairs<Item, T, N / 2>(args, full, pooled, run);
  }
  const Item<T, N> item(args);
  return run(item.count, item);
}

// Values and codes, pooled or unpooled: pairs of a row where windows tile the plane, else packs of channels.
template <template <class, int> class Pairs, template <class, class, int> class Pack, class Args, class Run>
EsStatus run_with_codes(const Args& args, const EsTensor& full, const EsTensor& pooled, const Run& run) {
  if (is_empty(args.output)) return nullptr;
  return with_type(args.input.type, [&](auto type) -> EsStatus {
    using T = typename decltype(type)::type;
    if (tiles_in_pairs(full, pooled, args.codes, args.window) && aligned(full.data, 2 * sizeof(T)))
      return run_pairs<Pairs, T, 8 / sizeof(T)>(args, full, pooled, run);
    return with_pack<T>(args.input, args.output, [&](auto width) {
      return with_kernel(args.window, [&](auto size) {
        const Pack<decltype(size), T, decltype(width)::value> item(args);
        return run(item.walk.count, item);
      });
    });
  });
}

template <class Run>
EsStatus dispatch(const EsMaxPoolArgmax& args, const Run& run) {
  return run_with_codes<PoolPairs, PoolItem>(args, args.input, args.output, run);
}

template <class Run>
EsStatus dispatch(const EsMaxUnpool& args, const Run& run) {
  return run_with_codes<UnpoolPairs, UnpoolItem>(args, args.output, args.input, run);
}

template <class Run>
EsStatus dispatch(const EsMaxPoolIndices& args, const Run& run) {
  if (is_empty(args.output)) return nullptr;
  return with_type(args.input.type, [&](auto type) {
    return with_kernel(args.window, [&](auto size) {
      const PoolIndicesItem<decltype(size), typename decltype(type)::type> item(args);
      return run(item.walk.count, item);
    });
  });
}

template <class Position, class Run>
EsStatus claim_and_fetch(const EsMaxUnpoolIndices& args, const Run& run) {
  if (EsStatus problem = run.fill(args.workspace, count_of(args.output) * (int64_t)sizeof(Position))) return problem;
  const ClaimItem<Position> claims(args);
  if (claims.count > 0)
    if (EsStatus problem = run(claims.count, claims)) return problem;
  return with_type(args.input.type, [&](auto type) {
    const FetchItem<typename decltype(type)::type, Position> item(args);
    return run(item.walk.count, item);
  });
}

template <class Run>
EsStatus dispatch(const EsMaxUnpoolIndices& args, const Run& run) {
  if (is_empty(args.output)) return nullptr;
  return wide_positions(args.output) ? claim_and_fetch<int64_t>(args, run) : claim_and_fetch<int32_t>(args, run);
}

}  // namespace edgeseg
