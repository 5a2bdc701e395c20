#!/usr/bin/env bash
# Everything that is worth doing on a CUDA machine, in one call of limited length:
#
#   benchmarks/gpu_run.sh [options] DATA OUT MINUTES [-- options of the training]
#
# builds for the GPU that is there, tests, looks whether files cross devices, benchmarks, profiles, has NVIDIA's tools
# look at the kernels, runs the other tests, then trains on DATA for the minutes left. Each part has seconds of its own
# (STEPS below), the most valuable ones come first, and with training all of them together have half of the minutes. OUT,
# which must be empty, holds in the end what is to be brought back: at most 8 files of 16 MB, 60 MB in all, summary.md
# among them. What does not fit waits in the run folder for a later call. A step that fails is written down and the next
# one starts; the results so far are in OUT after every step. The exit code is 0 if all went well, 1 if not, 2 for wrong
# usage.
#
#   --run FOLDER         kept between calls on one machine: training, results, parts that wait (default: runs/gpu)
#   --steps A,B          only these of: report packages build resources gpu_tests cross_device speed bench_ops kernels
#                        bench_coder profile sanitize bench_compiled ncu bench_cpu tests train deliver; files that wait
#                        are delivered in any case
#   --no-train           everything but the training, which leaves the other steps all of the minutes
#   --wheels FOLDER      Python packages that python3 lacks there, where no network is (benchmarks/wheels.sh)
#   --python PROGRAM     has all packages already; otherwise .venv-gpu is made on top of those of python3
#   --state FOLDER       parts of the state.pt (and the log.jsonl) of an earlier machine, to resume from
#   --train-minutes N    length of the whole training over several calls (default: it ends with this call)
#   --seed N             of the inputs of the tests (default: the seconds of the clock)
#   --send-state         bring state.pt back too, after the weights
#   --commit NAME        for the results, where there is no git
#   --device cuda|cpu    (default: cuda)
#   --dry-run            rehearse on the CPU: no build, little of everything, two training steps
#
# docs/training_elsewhere.md has examples.
set -euo pipefail

# Steps and the most seconds that each may take; training gets what is left.
declare -A BOX=(
  [report]=30 [packages]=90 [build]=240 [resources]=20 [gpu_tests]=120 [cross_device]=60 [speed]=90 [bench_ops]=90
  [kernels]=30 [bench_coder]=45 [profile]=45 [sanitize]=90 [bench_compiled]=80 [ncu]=60 [bench_cpu]=60 [tests]=300
)
ORDER="report packages build resources gpu_tests cross_device speed bench_ops kernels bench_coder profile sanitize"
ORDER+=" bench_compiled ncu bench_cpu tests"
ALL_STEPS="$ORDER train deliver"
# What these have measured counts also if they are stopped.
IN_PARTS="speed bench_ops kernels bench_coder profile sanitize bench_compiled ncu bench_cpu"
NOT_HERE=77   # what a step answers where the program that it needs is not there
GRACE=25      # seconds in which a training that is told to stop writes its weights and state
WRITING=20    # seconds kept for filling OUT
STARTING=30   # seconds in which the training starts up; its own clock does not count them
MOST_FILES=8 MOST_MB=60 PART_MB=16

fail() {
  printf 'gpu_run.sh: %s (--help shows the usage)\n' "$1" >&2
  exit 2
}

# What the training is called. Its options come last, so that those given by the caller win.
train_command() { # MINUTES OPTIONS...
  local minutes=$1
  shift
  exec "$PY" -m aicr_ext.train "$DATA" "$RUN/train" --minutes "$minutes" --device "$DEVICE" "$@"
}

# Where a program of the CUDA toolkit is, which need not be on the PATH.
tool() { # NAME
  command -v "$1" || { [ -x "/usr/local/cuda/bin/$1" ] && echo "/usr/local/cuda/bin/$1"; }
}

do_report() {
  local name
  date -u +'%Y-%m-%d %H:%M UTC'
  echo "commit $AICR_COMMIT"
  uname -a
  lscpu 2>/dev/null | grep -E '^(Model name|CPU\(s\))' || true
  free -g 2>/dev/null || true
  df -h . || true
  nvcc --version || echo "no nvcc on the PATH"
  nvidia-smi || echo "no nvidia-smi"
  for name in compute-sanitizer ncu nsys; do
    tool "$name" || echo "no $name"
  done
  "$BASE" - "$DEVICE" "$RESULTS/facts.json" <<'PYTHON'
import json, platform, sys
import torch

device, path = sys.argv[1:]
facts = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda, "gpu": None}
if device == "cuda":
    assert torch.cuda.is_available(), f"torch {torch.__version__} sees no CUDA device"
    facts["gpu"] = torch.cuda.get_device_name()
print(facts)
with open(path, "w") as file:
    json.dump(facts, file)
PYTHON
}

do_packages() {
  if [ "$PY" != "$BASE" ] && [ ! -e "$PY" ]; then
    "$BASE" -c 'import torch' || { echo "$BASE has no torch, and this script installs none"; return 1; }
    rm -rf "$VENV"
    "$BASE" -m venv --without-pip "$VENV"
    # Its own packages come first. Editable installs of the other interpreter are not lent: they need their .pth files.
    "$BASE" -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
      >"$("$PY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lent.pth"
  fi
  if [ -n "$WHEELS" ]; then
    "$PY" -m pip install --no-index --no-deps --no-cache-dir "$WHEELS"/*.whl
  fi
  local missing specs=() name
  missing=$("$PY" - <<'PYTHON'
from importlib.util import find_spec

packages = {"torch": "torch", "numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors", "tqdm": "tqdm"}
packages |= {"pytest": "pytest", "hypothesis": "hypothesis", "pytorch_msssim": "pytorch-msssim"}
packages |= {"scikit_build_core": "scikit_build_core", "pybind11": "pybind11"}
print(*(package for module, package in packages.items() if find_spec(module) is None))
PYTHON
  )
  for name in $missing; do
    specs+=("$(grep -i "^$name==" constraints.txt)")
  done
  if ((${#specs[@]})); then
    echo "missing: ${specs[*]}"
    "$PY" -m pip install --no-deps "${specs[@]}"
  fi
}

do_build() {
  if [ "$DEVICE" = cpu ]; then
    export AICR_CUDA=OFF
  else
    export AICR_CUDA=ON
    if [ -z "${AICR_CUDA_ARCHS:-}" ]; then # only for the GPU that is here: several take several times as long
      AICR_CUDA_ARCHS=$("$PY" -c 'import torch; print("{}{}-real".format(*torch.cuda.get_device_capability()))')
      export AICR_CUDA_ARCHS
    fi
    if ! command -v nvcc >/dev/null && [ -x /usr/local/cuda/bin/nvcc ]; then
      export CUDACXX=/usr/local/cuda/bin/nvcc
    fi
  fi
  "$PY" -m pip install -v --no-build-isolation --no-deps -e .
  "$PY" - "$DEVICE" <<'PYTHON'
import sys

from aicr_ext import _native

print(_native.native_status())
assert _native.HAS_OPS, "the operators do not load"
assert sys.argv[1] == "cpu" or _native.HAS_CUDA_OPS, "the CUDA operators do not load"
PYTHON
}

do_resources() {
  if [ "$DEVICE" = cpu ] || [ ! -e "$RESULTS/build.log" ]; then
    echo "no build with CUDA in this run"
    return "$NOT_HERE"
  fi
  "$PY" -m aicr_ext profile --dry-run "$RESULTS/build.log" --csv "$RESULTS/resources.csv"
}

# How many processes tests run in, where pytest can.
workers() { # NUMBER
  if [ -z "$DRY_RUN" ] && "$PY" -c 'import xdist' 2>/dev/null; then
    echo "-n $1"
  fi
}

do_gpu_tests() {
  local where=()
  echo "AICR_TEST_SEED=$AICR_TEST_SEED"
  if [ -n "$DRY_RUN" ]; then
    where=(python_tests/test_degradations.py)
  fi
  # shellcheck disable=SC2046
  "$PY" -m pytest -q $(workers 4) -m gpu "${where[@]}"
  # Without a usable device every one of them is skipped, which is no success here.
  [ "$DEVICE" = cpu ] || grep -Eq '[0-9]+ passed' "$RESULTS/gpu_tests.log"
}

do_tests() {
  local options=(-m "not gpu and not slow")
  if [ -n "$DRY_RUN" ]; then
    options+=(python_tests/test_tables.py)
  fi
  # shellcheck disable=SC2046
  "$PY" -m pytest -q $(workers 8) "${options[@]}"
}

do_cross_device() {
  local options=(--device "$DEVICE" --seed "$AICR_TEST_SEED")
  if [ -n "$DRY_RUN" ]; then
    options+=(--models aicr-t --precision float32 --qualities 32 --drawn-only)
  fi
  "$PY" -m benchmarks.cross_device --csv "$RESULTS/cross-device.csv" "${options[@]}"
}

do_speed() {
  local options=()
  if [ -n "$DRY_RUN" ]; then
    options=(--models aicr-t --batch 2 --precision float32 --size 64 64 --seconds 0)
  fi
  "$PY" -m benchmarks.speed --device "$DEVICE" --csv "$RESULTS/speed-$DEVICE.csv" "${options[@]}"
}

do_bench_ops() {
  local options=(--seconds 0.04)
  if [ -n "$DRY_RUN" ]; then
    options=(--quick --seconds 0 --dtype float32 --ops layer_norm2d spatial_attention)
  fi
  "$PY" -m benchmarks.ops --device "$DEVICE" --csv "$RESULTS/ops-$DEVICE.csv" "${options[@]}"
}

do_kernels() {
  local options=()
  if [ -n "$DRY_RUN" ]; then
    options=(--seconds 0 --kernels fold_channel_attention)
  fi
  "$PY" -m benchmarks.predictions --device "$DEVICE" --csv "$RESULTS/kernels.csv" "${options[@]}"
}

do_bench_coder() {
  local options=(--rounds 3)
  if [ -n "$DRY_RUN" ]; then
    options=(--symbols 2000 --rounds 1 --streams 1 4)
  fi
  "$PY" -m benchmarks.coder --device "$DEVICE" --csv "$RESULTS/coder-streams.csv" "${options[@]}"
}

do_profile() {
  local options=(--precision bfloat16)
  if [ -n "$DRY_RUN" ]; then
    options=(--size 64x64 --rounds 1)
  fi
  # What the codec calls its operators with is kept, to run them one by one.
  "$PY" -m aicr_ext profile --device "$DEVICE" --capture "$RUN/calls.pt" --csv "$RESULTS/profile-codec.csv" \
    --trace "$RESULTS/trace-codec.json" "${options[@]}"
  [ -n "$DRY_RUN" ] || "$PY" -m aicr_ext profile "$RUN/calls.pt" --device "$DEVICE" --csv "$RESULTS/profile-operators.csv"
}

do_sanitize() {
  local program what code errors=0 each=30
  local tests=(-m gpu -k "two_runs or on_a_gpu or cuda_equals" python_tests/test_cuda_kernels.py python_tests/test_channel_operators.py)
  tests+=(python_tests/test_decoupled_attention.py python_tests/test_decoupled_attention_backward.py)
  tests+=(python_tests/test_integer_ops.py python_tests/test_emulation_rans.py)
  [ -z "$DRY_RUN" ] || tests=(python_tests/test_framing.py)
  program=$(tool compute-sanitizer) || return "$NOT_HERE"
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1 # else it sees few large allocations, and nothing that leaves a tensor
  for what in memcheck racecheck synccheck; do
    code=0
    timeout --signal=INT --kill-after=5 $each "$program" --tool $what --error-exitcode 99 \
      "$PY" -m pytest -q -p no:cacheprovider "${tests[@]}" || code=$?
    case $code in
      0) echo "$what: clean" ;;
      99) echo "$what: ERRORS" ;;
      124 | 137) echo "$what: stopped after $each s" ;;
      *) echo "$what: the tests failed or could not run, exit code $code" ;;
    esac | tee -a "$RESULTS/sanitize.txt"
    case $code in 0 | 124 | 137) ;; *) errors=1 ;; esac
  done
  return $errors
}

do_bench_compiled() {
  local options=(--ops transposed_attention spatial_attention gated_convolutions --compiled --channels 64 128 192)
  options+=(--dtype bfloat16 --seconds 0.05)
  if [ -n "$DRY_RUN" ]; then
    options=(--quick --seconds 0 --dtype float32 --ops spatial_attention) # to compile takes too long for a rehearsal
  fi
  "$PY" -m benchmarks.ops --device "$DEVICE" --csv "$RESULTS/ops-compiled-$DEVICE.csv" "${options[@]}"
}

do_ncu() {
  local program operator call=(--shape 1x64x128x192 --dtype bfloat16 --device "$DEVICE" --repeat 8) report code
  local kernels="decoupled_attention|depthwise_gram|fold_channel|gated_depthwise|gelu_gate|layer_norm2d|layer_norm_conv1x1"
  [ -z "$DRY_RUN" ] || call=(--shape 1x8x6x5 --repeat 1)
  program=$(tool ncu) || return "$NOT_HERE"
  for operator in transposed_attention spatial_attention gated_convolutions gelu_gate; do
    report="$RESULTS/ncu-$operator.txt" code=0
    timeout --signal=INT --kill-after=5 25 "$program" --clock-control none --kernel-name "regex:$kernels" \
      --launch-skip 6 --launch-count 6 --section SpeedOfLight --section Occupancy --section LaunchStats \
      --section MemoryWorkloadAnalysis --log-file "$report" \
      "$PY" -m aicr_ext profile "$operator" "${call[@]}" || code=$?
    if grep -Eqs 'ERR_NVGPUCTRPERM|LibraryNotLoaded' "$report"; then
      echo "the counters of this GPU may not be read"
      return "$NOT_HERE"
    fi
    ((code == 0 || code == 124 || code == 137)) || return $code
    [ -z "$DRY_RUN" ] || break
  done
}

do_bench_cpu() {
  local options=()
  if [ -n "$DRY_RUN" ]; then
    options=(--symbols 20000 --rounds 1)
  fi
  "$PY" -m benchmarks.coder --csv "$RESULTS/coder.csv" "${options[@]}"
}

do_train() { # SECONDS OPTIONS...
  local seconds=$1 minutes
  shift
  mkdir -p "$RUN/train"
  if [ -n "$STATE" ] && [ ! -e "$RUN/train/state.pt" ]; then
    "$BASE" -m aicr_ext.train.parts join "$STATE" "$RUN/train/state.pt" --name state.pt
    if [ -e "$STATE/log.jsonl" ]; then
      cp "$STATE/log.jsonl" "$RUN/train/log.jsonl"
    fi
  fi
  # A run that resumes counts the minutes it has had: what they were is in its log.
  minutes=$("$PY" - "$RUN/train" "$seconds" "$STARTING" "$TRAIN_MINUTES" <<'PYTHON'
import json, sys
from pathlib import Path

run, left, starting, given = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
log = run / "log.jsonl"
lines = log.read_text().splitlines() if log.exists() and (run / "state.pt").exists() else []
spent = max((json.loads(line)["seconds"] for line in lines if line.endswith("}")), default=0)
print(given or f"{(spent + max(left - starting, left / 2)) / 60:.2f}")
PYTHON
  )
  echo "training to minute $minutes of its run"
  train_command "$minutes" "$@"
}

# From here on: the machinery.

wanted() { [[ " $STEPS " == *" $1 "* ]]; }

# Runs do_NAME in a shell of its own until UNTIL (seconds of this script) or its own time is over, told to stop then and
# killed GRACE later.
step() { # NAME UNTIL ARGUMENTS...
  local name=$1 seconds=$(($2 - SECONDS)) start=$SECONDS code=0 status=ok
  local box=${BOX[$name]:-$seconds}
  ((seconds <= box)) || seconds=$box
  shift 2
  wanted "$name" || return 0
  if ((seconds < 5)); then
    record "$name" skipped 0 0
    return 0
  fi
  printf '== %s, at most %d s (%d s)\n' "$name" "$seconds" "$SECONDS"
  [ "$name" != train ] || set -- "$seconds" "$@"
  timeout --preserve-status --signal=INT --kill-after=$GRACE "$seconds" \
    "$BASH" -euo pipefail -c "do_$name \"\$@\"" "$name" "$@" >"$RESULTS/$name.log" 2>&1 </dev/null || code=$?
  if [ "$name" = train ] && ((code == 130)); then # told to stop: its state is written, and a later call goes on
    status="stopped, to go on" code=0
  elif ((code == NOT_HERE)); then
    status="not here" code=0
  elif ((code)); then
    status=failed
    ((SECONDS - start < seconds)) || status="stopped at its time limit"
    [[ $status == failed || " $IN_PARTS " != *" $name "* ]] || status="stopped, done in part" code=0
    tail -n 15 "$RESULTS/$name.log" | sed 's/^/   /'
  fi
  record "$name" "$status" "$code" $((SECONDS - start))
}

record() { # NAME STATUS CODE SECONDS
  printf '%s\t%s\t%s\t%s\n' "$@" >>"$RESULTS/steps.tsv"
  printf '   %s: %s\n' "$1" "$2"
  publish
}

# The results so far, in case the machine goes away before the end.
publish() {
  local file
  if [ -e "$RUN/train/log.jsonl" ]; then
    cp "$RUN/train/log.jsonl" "$RESULTS/log.jsonl"
  fi
  "$BASE" - "$RESULTS" "$OUT" "$RUN/outgoing" "$AICR_COMMIT" "$DEVICE" "$MINUTES" "$SECONDS" <<'PYTHON'
import json, os, sys
from pathlib import Path

results, out, outgoing = (Path(p) for p in sys.argv[1:4])
commit, device, minutes, seconds = sys.argv[4:]


def sizes(folder):
    return {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()} if folder.is_dir() else {}


facts, log, steps = results / "facts.json", results / "log.jsonl", results / "steps.tsv"
rows = [line.split("\t") for line in steps.read_text().splitlines()] if steps.exists() else []
lines = log.read_text().splitlines() if log.exists() else []
summary = {
    "commit": commit,
    "device": device,
    **(json.loads(facts.read_text()) if facts.exists() else {}),
    "minutes": float(minutes),
    "seconds_used": int(seconds),
    "steps": {name: {"status": s, "exit_code": int(c), "seconds": int(t)} for name, s, c, t in rows},
    "last_line_of_the_training_log": json.loads(lines[-1]) if lines else None,
    "files": {name: size for name, size in sizes(out).items() if name != "summary.json"},
    "waiting": sizes(outgoing),
}
temporary = results / "summary.tmp"
temporary.write_text(json.dumps(summary, indent=1) + "\n")
os.replace(temporary, results / "summary.json")
PYTHON
  "$BASE" "$ROOT/benchmarks/gpu_summary.py" "$RESULTS" || echo "gpu_summary.py failed" >"$RESULTS/summary.md"
  for file in summary.json summary.md; do
    cp "$RESULTS/$file" "$OUT/.summary.tmp" && mv "$OUT/.summary.tmp" "$OUT/$file"
  done
  tar -czf "$OUT/.results.tmp" -C "$RUN" results && mv "$OUT/.results.tmp" "$OUT/results.tar.gz"
}

# Weights, and the state if it is wanted, as files that are small enough to be brought back.
queue() {
  local file
  rm -rf "$RUN/outgoing"
  mkdir -p "$RUN/outgoing" || return
  for file in "$RUN"/train/*.safetensors ${SEND_STATE:+"$RUN/train/state.pt"}; do
    [ -e "$file" ] || continue
    if (($(stat -c %s "$file") <= PART_MB * 1000000)); then
      cp "$file" "$RUN/outgoing/" || return
    else
      "$BASE" -m aicr_ext.train.parts split "$file" "$RUN/outgoing" --part-mb $PART_MB || return
    fi
  done
}

deliver() {
  local used
  used=$(du -sb --apparent-size "$OUT" | cut -f1)
  "$BASE" -m aicr_ext.train.parts move "$RUN/outgoing" "$OUT" \
    --files $((MOST_FILES - 3)) --total-mb $((MOST_MB - 1 - used / 1000000))
}

parse() {
  local positional=()
  while (($#)); do
    case $1 in
      -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --run | --steps | --wheels | --python | --state | --train-minutes | --commit | --device | --seed)
        (($# > 1)) || fail "$1 needs a value"
        given["$1"]=$2
        shift 2
        ;;
      --send-state) SEND_STATE=yes && shift ;;
      --no-train) NO_TRAIN=yes && shift ;;
      --dry-run) DRY_RUN=yes && shift ;;
      --) shift && break ;;
      -*) fail "unknown option $1" ;;
      *) positional+=("$1") && shift ;;
    esac
  done
  TRAIN_OPTIONS=("$@")
  ((${#positional[@]} == 3)) || fail "expected DATA OUT MINUTES, got: ${positional[*]:-nothing}"
  DATA=$(realpath -m "${positional[0]}")
  OUT=$(realpath -m "${positional[1]}")
  MINUTES=${positional[2]}
  [[ $MINUTES =~ ^[0-9]+([.][0-9]+)?$ ]] || fail "MINUTES must be a number, got $MINUTES"
}

declare -A given=()
SEND_STATE="" NO_TRAIN="" DRY_RUN=""
parse "$@"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LIMIT=$(awk -v minutes="$MINUTES" 'BEGIN { print int(60 * minutes) }')
RUN=$(realpath -m "${given[--run]:-$ROOT/runs/gpu}")
RESULTS=$RUN/results
WHEELS=${given[--wheels]:+$(realpath -m "${given[--wheels]}")}
STATE=${given[--state]:+$(realpath -m "${given[--state]}")}
TRAIN_MINUTES=${given[--train-minutes]:-}
DEVICE=${given[--device]:-cuda}
AICR_TEST_SEED=${given[--seed]:-$(date +%s)}
VENV=$ROOT/.venv-gpu
if [ -n "${given[--python]:-}" ]; then
  BASE=$(command -v "${given[--python]}") || fail "--python: no such program: ${given[--python]}"
  [[ $BASE == /* ]] || BASE=$PWD/$BASE
  PY=$BASE
else
  BASE=$(command -v python3) || fail "no python3 on the PATH; name another with --python"
  PY=$VENV/bin/python
fi
STEPS=${given[--steps]:-$ALL_STEPS}
if [ -n "$DRY_RUN" ]; then
  DEVICE=cpu
  STEPS=${given[--steps]:-report ${ORDER#*build } train}
  TRAIN_OPTIONS+=(--max-steps 2)
fi
STEPS=" ${STEPS//,/ } "
[ -z "$NO_TRAIN" ] || STEPS=${STEPS/ train / }
for name in $STEPS; do
  [[ " $ALL_STEPS " == *" $name "* ]] || fail "--steps: $name is none of $ALL_STEPS"
done
[[ $DEVICE == cuda || $DEVICE == cpu ]] || fail "--device must be cuda or cpu, got $DEVICE"
[[ $AICR_TEST_SEED =~ ^[0-9]{1,18}$ ]] || fail "--seed must be a number, got $AICR_TEST_SEED"
[[ $TRAIN_MINUTES =~ ^([0-9]+([.][0-9]+)?)?$ ]] || fail "--train-minutes must be a number, got $TRAIN_MINUTES"
if [ ! -e "$PY" ] && ! wanted packages; then
  PY=$BASE
fi
for folder in "$WHEELS" "$STATE"; do
  [ -z "$folder" ] || [ -d "$folder" ] || fail "no such folder: $folder"
done
if [ -e "$OUT" ] && [ -n "$(ls -A "$OUT")" ]; then
  fail "OUT must be empty: $OUT"
fi
cd "$ROOT"
AICR_COMMIT=${given[--commit]:-$(git describe --always --dirty '--exclude=*' 2>/dev/null || echo unknown)}
export AICR_COMMIT AICR_TEST_SEED BASE DATA DEVICE DRY_RUN NOT_HERE PY RESULTS RUN STARTING STATE TRAIN_MINUTES VENV WHEELS
export PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
for name in $(compgen -A function do_) tool train_command workers; do
  export -f "${name?}"
done
rm -rf "$RESULTS"
mkdir -p "$RESULTS" "$OUT" "$RUN/outgoing"

END=$((LIMIT - WRITING - GRACE))
HALF=$END
if wanted train; then
  HALF=$((LIMIT / 2)) # whatever comes before the training may not take more
fi
for name in $ORDER; do
  step "$name" $HALF
done
step train $END "${TRAIN_OPTIONS[@]}"
if [ -e "$RESULTS/train.log" ]; then
  queue || record queue failed $? 0
fi
deliver || record deliver failed $? 0
publish
cat "$OUT/summary.json"
# The other steps may be left out for lack of time; a call that should have trained and did not has failed.
! grep -Eq $'\t(failed|stopped at its time limit)\t|^train\tskipped' "$RESULTS/steps.tsv"
