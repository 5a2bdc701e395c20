# The steps of gpu_run.sh, which reads this file and runs each of them in a shell of its own, in the root of the
# repository. BASE and PY are Python interpreters: the one that is there, and the one that has all packages.

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
# To build, and to test: with what each of them needs, for pip fetches no dependencies here.
packages |= {"scikit_build_core": "scikit_build_core", "packaging": "packaging", "pathspec": "pathspec"}
packages |= {"pybind11": "pybind11", "pytest": "pytest", "iniconfig": "iniconfig", "pluggy": "pluggy"}
packages |= {"pygments": "pygments", "hypothesis": "hypothesis", "sortedcontainers": "sortedcontainers"}
packages |= {"pytorch_msssim": "pytorch-msssim", "bjontegaard": "bjontegaard", "scipy": "scipy"}
packages |= {"matplotlib": "matplotlib", "contourpy": "contourpy", "cycler": "cycler", "fontTools": "fonttools"}
packages |= {"kiwisolver": "kiwisolver", "pyparsing": "pyparsing"}
packages |= {"dateutil": "python-dateutil tzdata"}  # earlier versions do without the second
packages |= {"skimage": "scikit-image", "imageio": "imageio", "tifffile": "tifffile", "lazy_loader": "lazy-loader"}
packages |= {"networkx": "networkx"}
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
