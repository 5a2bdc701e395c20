#!/usr/bin/env bash
# Builds the fuzz targets and runs each of them for MINUTES of processor time (default 1; fractions too):
# csrc/fuzz/run.sh [MINUTES]
#
# build/fuzz/corpus keeps what a run has found worth trying, the next one begins with it. Inputs that break something
# are in build/fuzz/findings; the exit code is 1 if there was one, 2 if the targets cannot be built, or if one had to be
# left out where the variable CI is set.
#
#   CLANG=clang++-14     the compiler (default: clang++, else the newest that is there)
#   PYTHON=python3       an interpreter that has the package, for the target "container" (default: .venv's)
#   TARGETS="tables"     only these of: decoder round_trip tables container
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
  printf 'fuzz: %s\n' "$1" >&2
  exit 2
}

minutes=${1:-1}
PYTHON=${PYTHON:-.venv/bin/python}
build=build/fuzz
seconds=$(awk -v m="$minutes" 'BEGIN { if (m !~ /^[0-9]*[.]?[0-9]+$/ || m <= 0) exit 1; print int(60 * m + 0.999) }') ||
  fail "MINUTES must be a positive number, got '$minutes'"

candidates=("${CLANG:-clang++}")
[ -n "${CLANG:-}" ] || candidates+=(clang++-{24..14})
for name in "${candidates[@]}"; do
  compiler=$(command -v "$name") && break
done
[ -n "${compiler:-}" ] ||
  fail "no ${CLANG:-clang++} found (Debian 12: apt-get install clang-14 libclang-rt-14-dev libstdc++-12-dev)"
command -v ps >/dev/null || fail "no ps found (Debian, Ubuntu: apt-get install procps)"
cmake=$(dirname "$PYTHON")/cmake
[ -x "$cmake" ] || cmake=$(command -v cmake) || fail "no cmake found; 'make setup' installs one"

mkdir -p "$build/findings"
"$cmake" -S . -B "$build" -DAICR_FUZZ=ON -DCMAKE_CXX_COMPILER="$compiler" >"$build/build.log" 2>&1 &&
  "$cmake" --build "$build" --parallel "$(nproc)" >>"$build/build.log" 2>&1 ||
  { tail -n 30 "$build/build.log"; fail "the targets cannot be built; the whole log is in $build/build.log"; }

# Runs a fuzzer until it has used $seconds of processor time, however busy the machine is, and says in $used how many.
run_for_seconds() {
  "$@" &
  local fuzzer=$! now
  used=0
  while now=$(ps -o cputimes= -p "$fuzzer"); do
    used=$((now))
    if ((used >= seconds)); then
      kill -USR1 "$fuzzer" # libFuzzer's request to end well
      break
    fi
    sleep 1
  done
  wait "$fuzzer"
}

# An allocation of more than 64 MB is a finding: streams are at most 2 kB here, pictures 2^16 pixels.
options=(-max_len=2048 -timeout=20 -len_control=20 -malloc_limit_mb=64 -print_final_stats=1)
failed=() left_out=()
for target in ${TARGETS:-decoder round_trip tables container}; do
  memory=1024
  program=("$build/csrc/fuzz/fuzz_$target")
  if [ "$target" = container ]; then
    memory=2048 # with torch
    program=("$PYTHON" python_tests/fuzz_container.py)
    if ! "$PYTHON" -c 'import atheris' 2>/dev/null; then
      echo "container: left out, $PYTHON has no atheris (there are wheels for Linux on x86-64)"
      left_out+=("$target")
      continue
    fi
  fi
  kept=$build/corpus/$target log=$build/$target.log
  mkdir -p "$kept"
  if run_for_seconds "${program[@]}" "${options[@]}" -rss_limit_mb="$memory" -artifact_prefix="$build/findings/$target-" \
    "$kept" "csrc/fuzz/corpus/$target" >"$log" 2>&1; then
    printf '%s: %s inputs in %s s of processor time, %s kept, no finding\n' "$target" \
      "$(awk '/number_of_executed_units/ { print $2 }' "$log")" "$used" "$(find "$kept" -type f | wc -l)"
  else
    failed+=("$target")
    grep -vE '^#[0-9]+' "$log" | tail -n 40
  fi
done
if ((${#failed[@]})); then
  printf 'fuzz: findings of %s in %s (logs: %s/*.log)\n' "${failed[*]}" "$build/findings" "$build" >&2
  exit 1
fi
if [ -n "${CI:-}" ] && ((${#left_out[@]})); then
  fail "left out: ${left_out[*]}, and CI is set"
fi
