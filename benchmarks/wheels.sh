#!/usr/bin/env bash
# Collects Python packages as wheels, for a machine without a network: benchmarks/wheels.sh FOLDER [NAME ...]
#
# The versions are those of constraints.txt, their dependencies are not fetched: name them. Without names: all that a
# machine with torch, pytest, NumPy and Pillow may lack to build, train, test and benchmark this package, 70 MB. Where
# SciPy, scikit-image and Matplotlib are, 1 MB will do: `benchmarks/wheels.sh FOLDER scikit_build_core pybind11
# pytorch-msssim bjontegaard pytest-xdist execnet`. There, `benchmarks/gpu_run.sh --wheels FOLDER` installs them.
#
#   PYTHON_VERSION=3.12   of that machine, Linux on x86-64 (the default)
#   PYTHON=python3        the interpreter whose pip downloads (the default)
set -euo pipefail

fail() {
  printf 'wheels.sh: %s\n' "$1" >&2
  exit 2
}

(($#)) || fail "usage: benchmarks/wheels.sh FOLDER [NAME ...]"
folder=$1
shift
if ((!$#)); then
  set -- scikit_build_core pathspec packaging pybind11 safetensors tqdm pytest-xdist execnet hypothesis sortedcontainers
  set -- "$@" pytorch-msssim bjontegaard scipy scikit-image imageio tifffile lazy-loader
  set -- "$@" matplotlib contourpy cycler fonttools kiwisolver pyparsing python-dateutil tzdata
fi
constraints=$(dirname "${BASH_SOURCE[0]}")/../constraints.txt

pinned=()
for name in "$@"; do
  line=$(tr '_' '-' <"$constraints" | grep -i "^${name//_/-}==") || fail "$name is not in constraints.txt"
  pinned+=("$line")
done

# pip takes every name for a different platform: it knows no "2.28 or older".
platforms=(--platform linux_x86_64 --platform manylinux1_x86_64 --platform manylinux2010_x86_64)
platforms+=(--platform manylinux2014_x86_64)
for minor in 12 17 24 27 28 31 34 35; do
  platforms+=(--platform "manylinux_2_${minor}_x86_64")
done
"${PYTHON:-python3}" -m pip download --no-deps --only-binary=:all: --implementation cp \
  --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --dest "$folder" "${pinned[@]}"
ls -l "$folder"
