# The whole workflow. `make` lists the targets; each sets up what it needs and re-uses what is there.

PYTHON    ?= python3
VENV      ?= .venv
IMAGE     ?= samples/kodim23.png
QUALITY   ?= 32
OUT       ?= demo_output
ARGS      ?=
WORKERS   ?= 2
MINUTES   ?= 1
# AUTO builds the CUDA library where nvcc is found, ON insists on it, OFF leaves it out.
AICR_CUDA ?= AUTO

BIN       := $(VENV)/bin
BUILT     := $(VENV)/.stamp-build-$(AICR_CUDA)
BUILD_LOG := build/build.log
NATIVE    := $(shell find csrc cmake -path csrc/fuzz -prune -o -type f -print 2>/dev/null) CMakeLists.txt pyproject.toml
CXX_FILES  = find csrc benchmarks -name '*.cpp' -o -name '*.hpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh'

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup build demo test fuzz bench gpu lint format clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) AICR_CUDA=$(AICR_CUDA) IMAGE=$(IMAGE) QUALITY=$(QUALITY) MINUTES=$(MINUTES) ARGS=..."

setup: $(VENV)/.stamp-packages ## create the virtual environment with the tested versions of everything

build: $(BUILT) ## compile the package into it (editable: Python files are used in place)

demo: $(BUILT) ## compress and decode one photograph: IMAGE=path QUALITY=0..63 OUT=folder
	$(BIN)/python -m aicr_ext.demo '$(IMAGE)' '$(OUT)' --quality $(QUALITY)

test: $(BUILT) ## run all tests in WORKERS=2 processes; ARGS="-k name" goes to pytest
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

fuzz: $(BUILT) ## run each fuzz target (clang, libFuzzer) for MINUTES=n of processor time; fails if one finds something
	PYTHON=$(BIN)/python csrc/fuzz/run.sh $(MINUTES)

bench: $(BUILT) ## run the benchmarks that need no data set; ARGS="coder speed" names some
	$(BIN)/python -m benchmarks $(ARGS)

gpu: ## build, test, benchmark, train on a CUDA machine: ARGS="DATA OUT MINUTES"
	benchmarks/gpu_run.sh $(ARGS)

lint: $(VENV)/.stamp-packages ## check style: ruff and clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(CXX_FILES) | xargs -r $(BIN)/clang-format --dry-run -Werror

format: $(VENV)/.stamp-packages ## apply that style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(CXX_FILES) | xargs -r $(BIN)/clang-format -i

clean: ## remove what was built and cached; the virtual environment stays
	rm -rf build $(OUT) .pytest_cache .ruff_cache .hypothesis $(VENV)/.stamp-build-*
	find aicr_ext benchmarks python_tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV)

$(VENV)/.stamp-venv:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) found; name one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than 3.11, which constraints.txt needs; name another with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot create virtual environments (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-packages: constraints.txt $(VENV)/.stamp-venv
	$(BIN)/python -m pip install -r constraints.txt
	@touch $@

$(BUILT): $(NATIVE) $(VENV)/.stamp-packages
	@command -v $${CXX:-g++} >/dev/null || { echo "make: no C++ compiler (Debian, Ubuntu: apt-get install g++)" >&2; exit 1; }
	@$(BIN)/python -c 'import os, sysconfig; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || \
	  { echo "make: the headers of $(PYTHON) are missing (Debian, Ubuntu: apt-get install python3-dev)" >&2; exit 1; }
	@mkdir -p build && rm -f $(VENV)/.stamp-build-*
	@echo "building the package, CUDA $(AICR_CUDA) (log: $(BUILD_LOG))"
	@AICR_CUDA=$(AICR_CUDA) AICR_EMULATION=ON $(BIN)/python -m pip install -v --no-build-isolation --no-deps -e . >$(BUILD_LOG) 2>&1 || \
	  { tail -n 60 $(BUILD_LOG); echo "make: the build failed; the whole log is in $(BUILD_LOG)" >&2; exit 1; }
	@touch $@
