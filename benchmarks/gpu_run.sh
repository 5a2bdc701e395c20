#!/usr/bin/env bash
# Everything that is worth doing on a CUDA machine, in one call of limited length:
#
#   benchmarks/gpu_run.sh [options] DATA OUT MINUTES [-- options of the training]
#
# builds for the GPU that is there, tests, looks whether files cross devices, benchmarks, profiles, has NVIDIA's tools
# look at the kernels, runs the other tests, then trains on DATA for the minutes left. Each part has seconds of its own
# (STEPS below), the most valuable ones come first, and with training all of them together have half of the minutes. OUT,
# which must be empty, holds in the end what is to be brought back: at most 8 files of 16 MiB, 60 MB in all, summary.md
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
MOST_FILES=8 MOST_MB=60 PART_MB=16.777216 # 16 MiB

fail() {
  printf 'gpu_run.sh: %s (--help shows the usage)\n' "$1" >&2
  exit 2
}

# The steps themselves.
# shellcheck source=benchmarks/gpu_steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/gpu_steps.sh"

wanted() { [[ " $STEPS " == *" $1 "* ]]; }

# Runs do_NAME in a shell of its own until UNTIL (seconds of this script) or its own time is over, told to stop then and
# killed GRACE later.
step() { # NAME UNTIL ARGUMENTS...
  local name=$1 seconds=$(($2 - SECONDS)) start=$SECONDS code=0 status=ok
  local box=${BOX[$name]:-$seconds}
  [ -z "$DRY_RUN" ] || box=$((5 * box)) # a rehearsal may be on a machine with other work
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
    if (($(stat -c %s "$file") <= 16 << 20)); then
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
