#!/usr/bin/env bash
# Builds and runs the native tests.
#
#   tests/native/build.sh [native | sanitize | neon | avx512-emulated | all] [options of the program]
#
#   native            every variant this machine can run, with the flags of setup.py
#   sanitize          the same with AddressSanitizer and UndefinedBehaviorSanitizer
#   neon              cross-compiled for 64-bit ARM and run in qemu: the neon and the portable variant
#   avx512-emulated   the avx512 variant with its intrinsics written out by SIMDe
#
# A mode whose tools are absent is skipped with a message. CXX chooses the compiler (g++), OUT the folder for
# objects and programs (build/native-tests), CSRC another copy of the kernels, OPTIMIZE another -O for them.
# The modes sanitize and neon run fewer shapes; with FULL=1 all of them (minutes).
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CSRC=${CSRC:-$HERE/../../src/w8a16/kernels/cpu/csrc}
OUT=${OUT:-$HERE/../../build/native-tests}
JOBS=$(nproc 2>/dev/null || echo 2)

# As in setup.py.
KERNEL_FLAGS="-std=c++17 -fno-math-errno -fno-exceptions -fno-rtti"
AVX2_FLAGS="-mavx2 -mfma -mf16c -mpclmul"
AVX512_FLAGS="$AVX2_FLAGS -mavx512f -mavx512bw -mavx512vl -mavx512dq"

skip() {
  echo "skipped: $1 needs $2"
}

# Whether an object is missing, was made by another command, or is older than anything it was made from.
stale() {
  local object=$1 command=$2 source
  [ -e "$object" ] && [ -e "$object.d" ] && [ "$(cat "$object.command" 2>/dev/null)" = "$command" ] || return 0
  for source in $(sed -e 's/^[^:]*://' -e 's/\\$//' "$object.d"); do
    [ "$source" -nt "$object" ] && return 0
  done
  return 1
}

# Adds an object to the program, and its command to those that must run.
add() {
  local object=$1 command=$2
  command="$command -Wall -Wextra -MMD -MF $object.d -o $object"
  objects+=("$object")
  if stale "$object" "$command"; then
    commands+="rm -f $object && $command && echo '$command' > $object.command || exit 255"$'\n'
  fi
}

# build MODE COMPILER OPTIMIZATION EXTRA: compiles what is stale, in parallel, and links MODE/native_test.
build() {
  local mode=$1 cxx=$2 optimize=$3 extra=$4 folder=$OUT/$1 source name flags commands="" objects=()
  mkdir -p "$folder"
  rm -f "$folder/native_test"
  for source in "$CSRC"/*.cpp; do
    name=$(basename "$source" .cpp)
    flags=$KERNEL_FLAGS
    case $("$cxx" -dumpmachine | cut -d- -f1)-$mode-$name in
      # The C interface needs torch's functions; workspace.cpp comes in by shipped_workspace.cpp.
      *-interface | *-torch_ops | *-torch_tensor | *-workspace) continue ;;
      aarch64-*) ;;  # the sources for x86-64 compile to nothing
      *-variant_avx2) flags+=" $AVX2_FLAGS" ;;
      *-avx512-emulated-variant_avx512)
        flags+=" $AVX2_FLAGS -Wno-psabi -I$CSRC -include $HERE/avx512_by_simde.h" ;;
      *-variant_avx512) flags+=" $AVX512_FLAGS" ;;
    esac
    add "$folder/kernel_$name.o" "$cxx ${OPTIMIZE:-$optimize} $extra $flags -c $source"
  done
  for source in "$HERE"/*.cpp; do
    add "$folder/test_$(basename "$source" .cpp).o" \
      "$cxx $optimize $extra -std=c++17 -fopenmp-simd -ffp-contract=off -I$CSRC -I$HERE -c $source"
  done
  printf %s "$commands" | xargs -P "$JOBS" -d '\n' -I{} sh -c '{}'
  # shellcheck disable=SC2086
  $cxx $extra "${objects[@]}" -lpthread -o "$folder/native_test"
}

run_mode() {
  local mode=$1
  shift
  local few=--quick
  [ -n "${FULL:-}" ] && few=
  echo "== $mode"
  case $mode in
    native)
      command -v "$CXX" >/dev/null || { skip "$mode" "$CXX"; return 0; }
      build native "$CXX" -O3 -g1
      "$OUT/native/native_test" "$@" ;;
    sanitize)
      echo 'int main() {}' | "$CXX" -fsanitize=address,undefined -x c++ - -o /dev/null 2>/dev/null ||
        { skip "$mode" "a compiler with -fsanitize=address,undefined"; return 0; }
      build sanitize "$CXX" -O1 "-g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
      ASAN_OPTIONS=detect_leaks=0 "$OUT/sanitize/native_test" $few "$@" ;;
    neon)
      command -v aarch64-linux-gnu-g++ >/dev/null ||
        { skip "$mode" "aarch64-linux-gnu-g++ (g++-aarch64-linux-gnu)"; return 0; }
      command -v qemu-aarch64 >/dev/null || { skip "$mode" "qemu-aarch64 (qemu-user)"; return 0; }
      build neon aarch64-linux-gnu-g++ -O3 -g1
      qemu-aarch64 -L /usr/aarch64-linux-gnu "$OUT/neon/native_test" $few "$@" ;;
    avx512-emulated)
      [ "$(uname -m)" = x86_64 ] || { skip "$mode" "an x86-64 machine"; return 0; }
      grep -qw avx2 /proc/cpuinfo || { skip "$mode" "AVX2, for what the variant shares with the AVX2 one"; return 0; }
      echo '#include <simde/x86/avx512.h>' | g++ -fsyntax-only -x c++ - 2>/dev/null ||
        { skip "$mode" "SIMDe (libsimde-dev)"; return 0; }
      build avx512-emulated g++ -O2 "-g1 -DW8A16_TEST_EMULATED_AVX512"
      "$OUT/avx512-emulated/native_test" "$@" ;;
    all)
      for each in native sanitize neon avx512-emulated; do run_mode "$each" "$@"; done ;;
    *)
      echo "unknown mode: $mode (native, sanitize, neon, avx512-emulated, all)" >&2
      return 2 ;;
  esac
}

CXX=${CXX:-g++}
MODE=${1:-native}
[ $# -gt 0 ] && shift
run_mode "$MODE" "$@"
