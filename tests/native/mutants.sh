#!/usr/bin/env bash
# Breaks the kernels on purpose, one fault at a time, and asks that the native tests notice each.
#
#   tests/native/mutants.sh [PATTERN]    all faults, or those whose description matches: about 10 s each
#
# The faults are in faults.txt. One that no longer applies to the sources, or that no test notices, is an error.
set -uo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CSRC=$HERE/../../src/w8a16/kernels/cpu/csrc
export OUT=${OUT:-$HERE/../../build/native-tests}
ONLY=${1:-.}

caught=0 missed=0 skipped=0
work=$OUT/mutants
mkdir -p "$work"
rm -rf "$work/csrc"
cp -r "$CSRC" "$work/csrc"  # all files new: objects of an earlier run are stale
export CSRC=$work/csrc OUT=$work OPTIMIZE=-O1
log=$work/log
sound=""

while IFS='|' read -r description mode file expression; do
  [[ $description == '#'* ]] && continue
  read -r description <<<"$description"
  read -r mode <<<"$mode"
  read -r file <<<"$file"
  [[ $description =~ $ONLY ]] || continue
  # What fails without a fault would "notice" any.
  if [[ $sound != *" $mode "* ]]; then
    if ! "$HERE/build.sh" "$mode" --quick >"$log" 2>&1; then
      echo "the tests fail without any fault in mode $mode: see $log"
      exit 1
    fi
    sound+=" $mode "
  fi
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
done <"$HERE/faults.txt"
echo "$caught passed, $missed failed, $skipped skipped"
[ $missed -eq 0 ]
