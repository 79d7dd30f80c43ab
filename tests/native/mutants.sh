#!/usr/bin/env bash
# Breaks the kernels on purpose, one fault at a time, and asks that the native tests notice each.
#
#   tests/native/mutants.sh [PATTERN]    all faults, or those whose description matches: about 10 s each
#
# A fault that no longer applies to the sources, or that no test notices, is an error.
set -uo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CSRC=$HERE/../../src/w8a16/kernels/cpu/csrc
export OUT=${OUT:-$HERE/../../build/native-tests}
ONLY=${1:-.}

# description | mode | file | sed expression. The modes neon and avx512 are skipped where build.sh skips them.
FAULTS=$(cat <<'END'
avx2 tail mask one lane short | native | vector_avx2.h | s/setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)/setr_epi32(1, 2, 3, 4, 5, 6, 7, 8)/
avx2 tail mask one lane long | native | vector_avx2.h | s/setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)/setr_epi32(-1, 0, 1, 2, 3, 4, 5, 6)/
avx2 tail of codes reads one byte more | native | vector_avx2.h | s/memcpy(&bytes, p, static_cast<size_t>(count));/memcpy(\&bytes, p, static_cast<size_t>(count < 8 ? count + 1 : 8));/
avx2 tail of codes reads whole vectors | native | vector_avx2.h | s/memcpy(&bytes, p, static_cast<size_t>(count));/memcpy(\&bytes, p, 8);/
avx2 loads only aligned rows | native | vector_avx2.h | s/return _mm256_loadu_ps(p);/return _mm256_load_ps(p);/
avx2 bfloat16 rounds halves up | native | vector_avx2.h | s/_mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))/_mm256_set1_epi32(0x8000)/
avx2 bfloat16 NaN becomes infinity | native | vector_avx2.h | s/_mm256_blendv_epi8(rounded, quiet, nan)/rounded/
avx2 float16 is truncated | native | vector_avx2.h | s/_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)/_mm256_cvtps_ph(a, _MM_FROUND_TO_ZERO)/
portable float16 overflows early | native | vector_portable.h | s/rest >= 0x477ff000u/rest >= 0x477fe000u/
portable float16 subnormals truncated | native | vector_portable.h | s/bits_of(float_of(rest) + 0.5f) - bits_of(0.5f)/static_cast<uint32_t>(float_of(rest) * 0x1p24f)/
portable float16 subnormals lost on load | native | vector_portable.h | s/static_cast<float>(rest) \* 0x1p-24f/0.0f/
portable bfloat16 NaN kept by luck | native | vector_portable.h | s/> 0x7f800000u) return/> 0xffffffffu) return/
last activation of a row skipped | native | narrow.h | s/  if (k < s.depth)$/  if (k + 1 < s.depth)/
block of K longer than the widened rows | native | narrow.h | s/return left <= kNarrowDepth + kNarrowMerge ?/return left <= kNarrowDepth + kNarrowMerge + 1 ?/
later blocks of K replace the sums | native | narrow.h | s/\*sum = s.first ? /*sum = true ? /
rows of the last group taken from the first | native | narrow.h | s/block + m \* x.stride, x.stride/block, x.stride/
bias left out | native | floats.h | s/v = bias ? fma(v, s, .*) : mul(v, s);/v = mul(v, s);/
bias of the first channels everywhere | native | floats.h | s/whole ? load(bias + i) : load_first(bias + i, lanes)/whole ? load(bias) : load_first(bias, lanes)/
a whole vector stored at the end of a row | native | floats.h | s/^    else store_as_first<D>(y, i, v, lanes);/    else store_as<D>(y, i, v);/
last rows of the wide algorithm left out | native | wide.h | s/^ *wide_rest<kRowsWide - 1>(rows - i, .*/          ;/
a panel counts channels that are not there | native | panel.h | s/if (c + kBlockChannels <= width)/if (c < width)/
a panel reads beyond its depth | native | panel.h | s/d + kBlockDepth <= depth/d < depth/
the panel's spare columns are not zeroed | native | panel.h | s/i < width ? static_cast<float>(q\[i \* stride + d\]) : 0.0f/static_cast<float>(q[i * stride + d])/
scales forgotten in the tail of the gradient | native | panel.h | s/count == kLanes ? load(factors + k) : load_first(factors + k, count)/count == kLanes ? load(factors + k) : splat(1.0f)/
gather takes the scale of another row | native | gather.h | s/advance(p.scales.data, row, p.scales.dtype)/advance(p.scales.data, i > 0 ? p.indices[i - 1] : row, p.scales.dtype)/
gather forgets the scale in the tail | native | gather.h | s/mul(load_codes_first(q + k, left), s)/load_codes_first(q + k, left)/
32-bit row offsets in gather | native | gather.h | s/p.q + row \* p.q_stride/p.q + static_cast<int32_t>(row * p.q_stride)/
quotients near a half are not divided | native | quantize.h | s/splat(0.5f - 0x1p-14f)/splat(0.5f)/
scale by a product instead of a division | native | quantize.h | s:float_of(bits) / 127.0f:float_of(bits) * (1.0f / 127.0f):
smallest scale excluded | native | quantize.h | s/!(scale >= kSmallestScale)/!(scale > kSmallestScale)/
subnormal scales allowed | native | quantize.h | s/0x1p-125f;/0x1p-126f;/
infinity taken for a number | native | quantize.h | s/bits >= 0x7f800000u/bits > 0x7f800000u/
largest magnitude without the tail | native | quantize.h | s/for (; i < k; i += kLanes) {/for (; i + kLanes <= k; i += kLanes) {/
rows with NaN are written | native | quantize.h | s/^      continue;$/      p.scales[n] = 0; continue;/
errors lack the last elements | native | quantize.h | s/^    if (kErrors) found.take(v, code, s, reciprocal);$/    if (kErrors \&\& i + kLanes <= k) found.take(v, code, s, reciprocal);/
slices take the bias from the start | native | parallel_ops.cpp | s/^    p.bias = from(p.bias, j);$//
slices of the gradient take the wrong columns | native | parallel_ops.cpp | s/^    p.q += j;$/    p.q += j > 0 ? j - 1 : 0;/
workspaces of the slots are one | native | workspace.cpp | s/slots\[slot\]/slots[0]/
avx512 tail mask one lane short | avx512-emulated | vector_avx512.h | s/(1u << count) - 1/(1u << (count - 1)) - 1/
avx512 bfloat16 NaN becomes infinity | avx512-emulated | vector_avx512.h | s/_mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000))/rounded/
avx512 sums only the lower half | avx512-emulated | vector_avx512.h | s/_mm512_extractf32x8_ps(a, 1)/_mm256_setzero_ps()/
neon bfloat16 rounds halves up | neon | vector_neon.h | s/vaddq_u32(odd, vdupq_n_u32(0x7fff))/vdupq_n_u32(0x8000)/
neon transposes two channels wrongly | neon | vector_neon.h | s/vget_low_s32(even.val\[1\]), vget_low_s32(odd.val\[1\])/vget_low_s32(odd.val[1]), vget_low_s32(even.val[1])/
neon tail of codes reads four | neon | vector_neon.h | s/memcpy(&bytes, p, static_cast<size_t>(count));/memcpy(\&bytes, p, 4);/
END
)

caught=0 missed=0 skipped=0
work=$OUT/mutants
mkdir -p "$work"
rm -rf "$work/csrc"
cp -rp "$CSRC" "$work/csrc"
export CSRC=$work/csrc OUT=$work OPTIMIZE=-O1
log=$work/log

while IFS='|' read -r description mode file expression; do
  read -r description <<<"$description"
  read -r mode <<<"$mode"
  read -r file <<<"$file"
  [[ $description =~ $ONLY ]] || continue
  cp "$CSRC/$file" "$work/original"
  sed -i -e "${expression# }" "$CSRC/$file"
  if cmp -s "$CSRC/$file" "$work/original"; then
    echo "STALE   $description: no longer in $file"
    missed=$((missed + 1))
    continue
  fi
  # First the few shapes, then, if those saw nothing, all.
  timeout 900 "$HERE/build.sh" "$mode" --quick >"$log" 2>&1
  status=$? where=quick
  if [ $status -eq 0 ] && [ "$mode" != neon ] && ! grep -q '^skipped' "$log"; then
    timeout 900 "$work/$mode/native_test" >"$log" 2>&1
    status=$? where=full
  fi
  if grep -q '^skipped' "$log"; then
    echo "skipped $description"
    skipped=$((skipped + 1))
  elif [ $status -eq 0 ]; then
    echo "MISSED  $description"
    missed=$((missed + 1))
  elif grep -q -E '^ *FAIL|^CRASH' "$log" || [ $status -eq 124 ]; then
    echo "caught  $description ($where: $(grep -m1 -E '^ *FAIL|^CRASH' "$log" | sed 's/^ *//' | cut -c1-110))"
    caught=$((caught + 1))
  else
    echo "BROKEN  $description: it does not build"
    missed=$((missed + 1))
  fi
  cp "$work/original" "$CSRC/$file"
done <<<"$FAULTS"
echo "$caught passed, $missed failed, $skipped skipped"
[ $missed -eq 0 ]
