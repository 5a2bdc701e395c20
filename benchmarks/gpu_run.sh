#!/usr/bin/env bash
# Everything that is worth doing on a CUDA machine, in one call of limited length:
#
#   benchmarks/gpu_run.sh [options] DATA OUT MINUTES [-- options of the training]
#
# builds for the GPU that is there, runs the tests that need it, benchmarks, runs the other tests while less than half
# of the minutes is over, then trains on DATA for the minutes left. OUT, which must be empty, holds in the end what is
# to be brought back: at most 8 files of 16 MB, 60 MB in all. What does not fit waits in the run folder for a later
# call. A step that fails is written down and the next one starts; the exit code is 0 if all went well, 1 if not, 2 for
# wrong usage.
#
#   --run FOLDER         kept between calls on one machine: training, results, parts that wait (default: runs/gpu)
#   --steps A,B          only these of: report packages build gpu_tests bench_ops bench_coder tests train deliver;
#                        files that wait are delivered in any case
#   --wheels FOLDER      Python packages that python3 lacks there, where no network is (benchmarks/wheels.sh)
#   --python PROGRAM     has all packages already; otherwise .venv-gpu is made on top of those of python3
#   --state FOLDER       parts of the state.pt (and the log.jsonl) of an earlier machine, to resume from
#   --train-minutes N    length of the whole training over several calls (default: it ends with this call)
#   --send-state         bring state.pt back too, after the weights
#   --commit NAME        for the results, where there is no git
#   --device cuda|cpu    (default: cuda)
#   --dry-run            rehearse on the CPU: no build, few tests, two training steps
#
# docs/training_elsewhere.md has examples.
set -euo pipefail

ALL_STEPS="report packages build gpu_tests bench_ops bench_coder tests train deliver"
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

do_report() {
  date -u +'%Y-%m-%d %H:%M UTC'
  echo "commit $AICR_COMMIT"
  uname -a
  lscpu 2>/dev/null | grep -E '^(Model name|CPU\(s\))' || true
  free -g 2>/dev/null || true
  df -h . || true
  nvcc --version || echo "no nvcc on the PATH"
  nvidia-smi || echo "no nvidia-smi"
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

do_gpu_tests() {
  local where=()
  if [ -n "$DRY_RUN" ]; then
    where=(python_tests/test_degradations.py)
  fi
  "$PY" -m pytest -q -m gpu "${where[@]}"
  # Without a usable device every one of them is skipped, which is no success here.
  [ "$DEVICE" = cpu ] || grep -Eq '[0-9]+ passed' "$RESULTS/gpu_tests.log"
}

do_tests() {
  local options=(-m "not gpu and not slow")
  if [ -n "$DRY_RUN" ]; then
    options+=(python_tests/test_tables.py)
  elif "$PY" -c 'import xdist' 2>/dev/null; then
    options+=(-n 8)
  fi
  "$PY" -m pytest -q "${options[@]}"
}

do_bench_ops() {
  local options=()
  if [ -n "$DRY_RUN" ]; then
    options=(--quick --seconds 0 --dtype float32)
  fi
  "$PY" -m benchmarks.ops --device "$DEVICE" --csv "$RESULTS/ops-$DEVICE.csv" "${options[@]}"
}

do_bench_coder() {
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

# Runs do_NAME in a shell of its own until UNTIL (seconds of this script), told to stop then and killed GRACE later.
step() { # NAME UNTIL ARGUMENTS...
  local name=$1 seconds=$(($2 - SECONDS)) start=$SECONDS code=0 status=ok
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
  elif ((code)); then
    status=failed
    ((SECONDS - start < seconds)) || status="stopped at its time limit"
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
  if [ -e "$RUN/train/log.jsonl" ]; then
    cp "$RUN/train/log.jsonl" "$RESULTS/log.jsonl"
  fi
  tar -czf "$OUT/.results.tmp" -C "$RUN" results && mv "$OUT/.results.tmp" "$OUT/results.tar.gz"
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
  cp "$RESULTS/summary.json" "$OUT/.summary.tmp" && mv "$OUT/.summary.tmp" "$OUT/summary.json"
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
    --files $((MOST_FILES - 2)) --total-mb $((MOST_MB - 1 - used / 1000000))
}

parse() {
  local positional=()
  while (($#)); do
    case $1 in
      -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      --run | --steps | --wheels | --python | --state | --train-minutes | --commit | --device)
        (($# > 1)) || fail "$1 needs a value"
        given["$1"]=$2
        shift 2
        ;;
      --send-state) SEND_STATE=yes && shift ;;
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
SEND_STATE="" DRY_RUN=""
parse "$@"
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LIMIT=$(awk -v minutes="$MINUTES" 'BEGIN { print int(60 * minutes) }')
RUN=$(realpath -m "${given[--run]:-$ROOT/runs/gpu}")
RESULTS=$RUN/results
WHEELS=${given[--wheels]:+$(realpath -m "${given[--wheels]}")}
STATE=${given[--state]:+$(realpath -m "${given[--state]}")}
TRAIN_MINUTES=${given[--train-minutes]:-}
DEVICE=${given[--device]:-cuda}
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
  STEPS=${given[--steps]:-report gpu_tests bench_ops tests train}
  TRAIN_OPTIONS+=(--max-steps 2)
fi
STEPS=${STEPS//,/ }
for name in $STEPS; do
  [[ " $ALL_STEPS " == *" $name "* ]] || fail "--steps: $name is none of $ALL_STEPS"
done
[[ $DEVICE == cuda || $DEVICE == cpu ]] || fail "--device must be cuda or cpu, got $DEVICE"
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
export AICR_COMMIT BASE DATA DEVICE DRY_RUN PY RESULTS RUN STARTING STATE TRAIN_MINUTES VENV WHEELS
export PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
for name in $(compgen -A function do_) train_command; do
  export -f "${name?}"
done
rm -rf "$RESULTS"
mkdir -p "$RESULTS" "$OUT" "$RUN/outgoing"

END=$((LIMIT - WRITING - GRACE))
HALF=$END
if wanted train; then
  HALF=$((LIMIT / 2)) # whatever comes before the training may not take more
fi
step report $HALF
step packages $HALF
step build $HALF
step gpu_tests $HALF
step bench_ops $HALF
step bench_coder $HALF
step tests $HALF
step train $END "${TRAIN_OPTIONS[@]}"
if [ -e "$RESULTS/train.log" ]; then
  queue || record queue failed $? 0
fi
deliver || record deliver failed $? 0
publish
cat "$OUT/summary.json"
# The other steps may be left out for lack of time; a call that should have trained and did not has failed.
! grep -Eq $'\t(failed|stopped at its time limit)\t|^train\tskipped' "$RESULTS/steps.tsv"
