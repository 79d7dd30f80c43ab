// The narrow algorithm: few activation rows. Lanes run along K, codes are widened in registers.
//
// A tile of MR rows x NR channels keeps its MR * NR sums in registers; each vector of codes that is
// widened serves all MR rows, and each vector of activations all NR channels. K is cut into blocks so
// that the activations of a tile stay in the first-level cache. Every output is summed in the same
// order whatever the tile, the slice or the number of rows, so its bits depend on K alone.

#pragma once

#include "floats.h"
#include "refine.h"

namespace {

constexpr int64_t kNarrowDepth = 1024;      // K block: 6 rows of it are 24 KiB
constexpr int64_t kNarrowMerge = 256;       // a last block of at most this is joined to the one before
constexpr int64_t kNarrowChannels = 96;     // channels of a chunk at most
constexpr int64_t kNarrowUnit = 24;         // and at least: a multiple of every tile's
constexpr int64_t kNarrowBytes = 96 << 10;  // codes of a chunk: they wait in the second-level cache
constexpr int64_t kNarrowRows = 60;         // rows at most at a time
constexpr int64_t kNarrowWiden = 1 << 20;   // activations widened once a call up to this many, else per block
// Vectors of K between two prefetches: a line of codes, or half a line where reading is all that counts.
template <int MR>
constexpr int kNarrowSteps = static_cast<int>(smaller(8, (MR <= 2 ? 32 : 64) / kLanes));

constexpr bool units_fit() {
  for (int channels : kChannelsNarrow)
    if (kNarrowUnit % channels != 0) return false;
  return kNarrowChannels % kNarrowUnit == 0;
}
static_assert(units_fit(), "only the last channels of a problem may form a smaller tile");

// One vector of K, or the first `lanes` of it, for the whole tile. The smaller side is held in registers
// and the other passes through one, so that a tile fits the registers.
template <int MR, int NR, bool kWhole>
W8A16_INLINE void narrow_step(Vec (&sums)[MR][NR], const float* x, int64_t x_stride, const int8_t* q,
                              int64_t q_stride, int lanes) {
  if constexpr (NR <= MR) {
    Vec w[NR];
    W8A16_UNROLL
    for (int n = 0; n < NR; ++n)
      w[n] = kWhole ? load_codes(q + n * q_stride) : load_codes_first(q + n * q_stride, lanes);
    W8A16_UNROLL
    for (int m = 0; m < MR; ++m) {
      const Vec a = in_register(kWhole ? load(x + m * x_stride) : load_first(x + m * x_stride, lanes));
      W8A16_UNROLL
      for (int n = 0; n < NR; ++n) sums[m][n] = fma(a, w[n], sums[m][n]);
    }
  } else {
    Vec a[MR];
    W8A16_UNROLL
    for (int m = 0; m < MR; ++m)
      a[m] = in_register(kWhole ? load(x + m * x_stride) : load_first(x + m * x_stride, lanes));
    W8A16_UNROLL
    for (int n = 0; n < NR; ++n) {
      const Vec w = kWhole ? load_codes(q + n * q_stride) : load_codes_first(q + n * q_stride, lanes);
      W8A16_UNROLL
      for (int m = 0; m < MR; ++m) sums[m][n] = fma(a[m], w, sums[m][n]);
    }
  }
}

// Where to prefetch while a tile reads: as many lines as it uses itself.
struct Ahead {
  const int8_t* q;
  int64_t depth, channel, tile;  // bytes to the next line for a step along K, a channel, a tile's channel
};

// The groups of columns that share a scale, where a row has several: scales [channels of the chunk, count].
struct Groups {
  const float* scales;  // null: the scales come at the end
  int64_t count, size;
  int64_t column;  // of the block of K

  Groups from(int64_t channel, int64_t k) const {
    return {scales == nullptr ? nullptr : scales + channel * count, count, size, k};
  }
};

// MR rows against the channels of a chunk, over one block of K.
struct Strip {
  const float* x;
  int64_t x_stride;
  const int8_t* q;
  int64_t q_stride;
  int64_t depth;
  float* sums;
  int64_t sums_stride;
  bool first;  // block of K: sums are set, not added to
  Ahead ahead;
  Groups groups;
};

template <int MR, int NR>
W8A16_INLINE void set_to_zero(Vec (&sums)[MR][NR]) {
  W8A16_UNROLL
  for (int m = 0; m < MR; ++m)
    W8A16_UNROLL
    for (int n = 0; n < NR; ++n) sums[m][n] = zero();
}

// A block of K, or, where columns share scales in groups, group by group of it: lane by lane, the sums of a group
// times its scale. A group has no vector that is not whole.
template <int MR, int NR, bool kGroups>
void narrow_tile(const Strip& s, int64_t channel) {
  const int8_t* q = s.q + channel * s.q_stride;
  const int8_t* ahead = s.ahead.q + channel * s.ahead.tile;
  const Groups& groups = s.groups;
  const float* scale = kGroups ? groups.scales + channel * groups.count + groups.column / groups.size : nullptr;
  int64_t end = kGroups ? smaller(s.depth, groups.size - groups.column % groups.size) : s.depth;
  Vec acc[MR][NR], total[MR][NR];
  if constexpr (kGroups) {
    set_to_zero(total);
    W8A16_UNROLL
    for (int n = 0; n < NR; ++n) prefetch(scale + (NR + n) * groups.count);  // of the next tile
  }
  for (int64_t k = 0;;) {
    set_to_zero(acc);
    for (; k + kNarrowSteps<MR> * kLanes <= end; k += kNarrowSteps<MR> * kLanes) {
      W8A16_UNROLL
      for (int n = 0; n < NR; ++n) prefetch(ahead + k * s.ahead.depth + n * s.ahead.channel);
      W8A16_UNROLL_STEPS
      for (int i = 0; i < kNarrowSteps<MR>; ++i)
        narrow_step<MR, NR, true>(acc, s.x + k + i * kLanes, s.x_stride, q + k + i * kLanes, s.q_stride, kLanes);
    }
    for (; k + kLanes <= end; k += kLanes)
      narrow_step<MR, NR, true>(acc, s.x + k, s.x_stride, q + k, s.q_stride, kLanes);
    if constexpr (!kGroups) {
      if (k < s.depth)
        narrow_step<MR, NR, false>(acc, s.x + k, s.x_stride, q + k, s.q_stride, static_cast<int>(s.depth - k));
      break;
    }
    W8A16_UNROLL
    for (int n = 0; n < NR; ++n) {
      const Vec factor = splat(w8a16::element(scale, n * groups.count));
      W8A16_UNROLL
      for (int m = 0; m < MR; ++m) total[m][n] = fma(acc[m][n], factor, total[m][n]);
    }
    if (k == s.depth) break;
    ++scale;
    end = smaller(s.depth, end + groups.size);
  }
  W8A16_UNROLL
  for (int m = 0; m < MR; ++m)
    W8A16_UNROLL
    for (int n = 0; n < NR; ++n) {
      const float part = sum_lanes(kGroups ? total[m][n] : acc[m][n]);
      float* sum = s.sums + m * s.sums_stride + channel + n;
      *sum = s.first ? part : *sum + part;
    }
}

template <int MR, int NR, bool kGroups>
void narrow_rest(const Strip& s, int64_t channel, int64_t left) {
  if constexpr (NR > 0) {
    if (left == NR) return narrow_tile<MR, NR, kGroups>(s, channel);
    narrow_rest<MR, NR - 1, kGroups>(s, channel, left);
  }
}

template <int MR, bool kGroups>
void narrow_rows(const Strip& s, int64_t channels) {
  constexpr int NR = kChannelsNarrow[MR - 1];
  int64_t n = 0;
  for (; n + NR <= channels; n += NR) narrow_tile<MR, NR, kGroups>(s, n);
  narrow_rest<MR, NR - 1, kGroups>(s, n, channels - n);
}

// The strip of `rows` rows, 1 to MR.
template <bool kGroups, int MR = kRowsNarrow>
inline void narrow_strip(int64_t rows, const Strip& s, int64_t channels) {
  if constexpr (MR > 1)
    if (rows < MR) return narrow_strip<kGroups, MR - 1>(rows, s, channels);
  narrow_rows<MR, kGroups>(s, channels);
}

// Rows in groups of nearly the same size: 7 is 4 + 3, not 6 + 1.
inline int64_t narrow_group(int64_t rows_left) {
  const int64_t groups = (rows_left + kRowsNarrow - 1) / kRowsNarrow;
  return (rows_left + groups - 1) / groups;
}

inline int64_t narrow_depth(int64_t left) { return left <= kNarrowDepth + kNarrowMerge ? left : kNarrowDepth; }

inline int64_t narrow_chunk(int64_t k) {
  const int64_t units = kNarrowBytes / (k + 1) / kNarrowUnit;
  return kNarrowUnit * (units < 1 ? 1 : smaller(units, kNarrowChannels / kNarrowUnit));
}

inline bool is_aligned(const void* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % (4 * kLanes) == 0 && stride % kLanes == 0;
}

// The activations as float32 rows: in place where they are that already, else widened.
struct Activations {
  const w8a16::Linear& p;
  bool direct, once;
  int64_t stride;
  float* widened;

  explicit Activations(const w8a16::Linear& problem) : p(problem) {
    direct = p.dtype == Float::f32 && (p.m == 1 || is_aligned(p.x, p.x_stride));
    once = p.m * p.k <= kNarrowWiden;
    const int64_t width = once ? p.k : kNarrowDepth + kNarrowMerge;
    stride = direct ? p.x_stride : (width + kLanes - 1) / kLanes * kLanes;
    widened = direct ? nullptr : w8a16::workspace(1, p.m * stride);
    if (widened != nullptr && once) widen_block(0, p.k);
  }
  const float* block(int64_t k, int64_t depth) const {
    if (direct) return static_cast<const float*>(p.x) + k;
    if (once) return widened + k;
    widen_block(k, depth);
    return widened;
  }
  // A row, for values at any columns: widened where the whole of it is.
  Row row(int64_t m) const {
    if (!direct && once) return {widened + m * stride, Float::f32};
    return {advance(p.x, m * p.x_stride, p.dtype), p.dtype};
  }

 private:
  void widen_block(int64_t k, int64_t depth) const {
    for (int64_t m = 0; m < p.m; ++m)
      widen(advance(p.x, m * p.x_stride + k, p.dtype), p.dtype, depth, widened + m * stride);
  }
};

// One or two rows: bound by memory, so every tile runs along the whole of K and the codes are read in
// the order in which they lie.
template <bool kGroups>
void narrow_along(const w8a16::Linear& p, const Activations& x, const int8_t* q, int64_t channels, float* sums,
                  const Groups& groups) {
  const int64_t tile = kChannelsNarrow[p.m - 1];
  for (int64_t n = 0; n < channels; n += tile)
    for (int64_t k = 0, depth = 0; k < p.k || k == 0; k += depth + (depth == 0)) {
      depth = narrow_depth(p.k - k);
      const int8_t* codes = q + n * p.q_stride + k;
      const int8_t* ahead = k + depth < p.k ? codes + depth : q + (n + tile) * p.q_stride;
      const Strip strip = {x.block(k, depth), x.stride, codes,  p.q_stride, depth, sums + n, kNarrowChannels, k == 0,
                           {ahead, 1, p.q_stride, 0}, groups.from(n, k)};
      narrow_strip<kGroups>(p.m, strip, smaller(tile, channels - n));
    }
}

// More rows: the chunk is read block by block of K, all rows on each, and meanwhile the next chunk is
// fetched in the order in which it lies.
template <bool kGroups>
void narrow_across(const w8a16::Linear& p, const Activations& x, const int8_t* q, int64_t channels, float* sums,
                   const Groups& groups) {
  for (int64_t k = 0, depth = 0; k < p.k || k == 0; k += depth + (depth == 0)) {
    depth = narrow_depth(p.k - k);
    const float* block = x.block(k, depth);
    for (int64_t m = 0, rows = 0; m < p.m; m += rows) {
      rows = narrow_group(p.m - m);
      Strip strip = {block + m * x.stride, x.stride, q + k, p.q_stride, depth, sums + m * kNarrowChannels,
                     kNarrowChannels, k == 0, {q + k, 1, p.q_stride, p.q_stride}, groups.from(0, k)};
      if (m == 0) strip.ahead = {q + channels * p.q_stride + k * channels, kChannelsNarrow[rows - 1], 64, depth};
      narrow_strip<kGroups>(rows, strip, channels);
    }
  }
}

bool linear_narrow(const w8a16::Linear& p, const w8a16::Refinement* refined) {
  float* sums = w8a16::workspace(0, (p.m + 3) * kNarrowChannels);
  if (sums == nullptr) return false;
  float* scales = sums + p.m * kNarrowChannels;
  float* bias = scales + kNarrowChannels;
  float* terms = bias + kNarrowChannels;
  const Activations x(p);
  if (!x.direct && x.widened == nullptr) return false;
  const bool along = p.m <= 2 && (x.direct || x.once);
  const int64_t chunk = along ? kNarrowChannels : narrow_chunk(p.k);
  const bool grouped = refined != nullptr && refined->groups > 1;
  const bool outliers = refined != nullptr && refined->outliers > 0;
  Groups groups = {};
  if (grouped) groups = {static_cast<const float*>(p.scales.data), refined->groups, refined->group, 0};
  const auto sum_chunk = grouped ? (along ? narrow_along<true> : narrow_across<true>)
                                 : (along ? narrow_along<false> : narrow_across<false>);

  for (int64_t n = 0; n < p.n; n += chunk) {
    const int64_t channels = smaller(chunk, p.n - n);
    sum_chunk(p, x, p.q + n * p.q_stride, channels, sums, groups.from(n, 0));
    if (!grouped) widen(advance(p.scales.data, n, p.scales.dtype), p.scales.dtype, channels, scales);
    if (p.bias.data) widen(advance(p.bias.data, n, p.bias.dtype), p.bias.dtype, channels, bias);
    for (int64_t m = 0; m < p.m; ++m) {
      if (outliers) add_outliers(*refined, n, channels, x.row(m), p.bias.data ? bias : nullptr, terms);
      finish(sums + m * kNarrowChannels, grouped ? nullptr : scales, outliers ? terms : p.bias.data ? bias : nullptr,
             channels, advance(p.y, m * p.y_stride + n, p.dtype), p.dtype);
    }
  }
  return true;
}

}  // namespace
