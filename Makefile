# Every chore of mxrs. `make help` lists them; each sets up what it needs and does nothing twice.
#
# A fresh machine needs a Rust toolchain (1.95 or later) and Python 3.11 or later, no more. What is made lives in
# target/ (builds), .venv/ (tools and the installed wheel), .oracle/ (MXNet 1.9.1), .torch/ (PyTorch, benches only) and
# .arm64/ (the cross toolchain).

PYTHON  ?= python3
DATA    ?= digits
CTX     ?= cpu
EPOCHS  ?= 10
JOBS    ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Test processes beside each other; each starts its own lanes and its own oracle.
WORKERS ?= $(shell n=$(JOBS); [ $$n -gt 4 ] && n=4; echo $$n)
PYTEST_ARGS ?=

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV     := .venv
PY       := $(VENV)/bin/python
TARGET   := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
WHEELS   := $(TARGET)/wheels
QUICK    := $(TARGET)/quick-site
INSTALLED := $(VENV)/.mxrs-installed

RUST_SOURCES   := $(shell find rust -type f \( -name '*.rs' -o -name '*.wgsl' -o -name Cargo.toml \) 2>/dev/null) Cargo.toml $(wildcard Cargo.lock build.rs)
PYTHON_SOURCES := $(shell find python -type f \( -name '*.py' -o -name '*.pyi' -o -name py.typed \) 2>/dev/null) pyproject.toml README.md
LINTED         := $(wildcard python tests benches tools examples docs)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYO3_PYTHON := $(CURDIR)/$(PY)

.PHONY: help build train test quick bench bench-gpu bench-rust lint format docs stubs wheel wheel-arm64 test-arm64 \
        test-rust test-python oracle torch setup clean distclean

help: ## show this list
	@awk 'BEGIN { FS = ":.*## "; print "make train and make test need nothing before them.\n" } \
	      /^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\n  variables: PYTHON=%s DATA=digits|fashion CTX=cpu|gpu EPOCHS=%s WORKERS=%s PYTEST_ARGS="-k name"\n' \
	      '$(PYTHON)' '$(EPOCHS)' '$(WORKERS)'

# ---- set-up ---------------------------------------------------------------------------------------------------------

$(PY):
	@command -v cargo >/dev/null || { echo "mxrs needs a Rust toolchain (1.95 or later) and found no cargo on PATH"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mxrs needs Python 3.11 or later; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name another: make PYTHON=python3.12 ..."; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make virtual environments (on Debian: install python3-venv)"; rm -rf $(VENV); exit 1; }

$(VENV)/.requirements: requirements-dev.txt requirements-data.txt | $(PY)
	@echo "installing the tools of requirements-dev.txt into $(VENV)"
	@$(PY) -m pip install --quiet --requirement requirements-dev.txt
	@$(PY) -m pip install --quiet --no-deps --requirement requirements-data.txt
	@touch $@

# The release wheel, installed: what users get is what is tested. Cargo and pip are asked only when a source is newer.
$(INSTALLED): $(RUST_SOURCES) $(PYTHON_SOURCES) $(VENV)/.requirements
	@mkdir -p $(WHEELS) && rm -f $(WHEELS)/mxrs-*.whl
	@$(PY) -m maturin build --quiet --release --interpreter $(PYO3_PYTHON) --out $(WHEELS)
	@$(PY) -m pip install --quiet --no-deps --force-reinstall $(WHEELS)/mxrs-*.whl
	@touch $@

setup: $(VENV)/.requirements

build: $(INSTALLED) ## build the release wheel and install it into .venv

wheel: build ## build the release wheel and say where it is
	@ls $(WHEELS)/mxrs-*.whl

# ---- the two commands -----------------------------------------------------------------------------------------------

train: build ## train a small network on real handwritten digits
	@$(PY) examples/train_digits.py --data $(DATA) --ctx $(CTX) --epochs $(EPOCHS)

test: ## run every check: lint, Rust tests, Python tests, comparison with MXNet 1.9.1
	@$(MAKE) lint
	@$(MAKE) test-rust
	@$(MAKE) oracle
	@$(MAKE) test-python

# ---- parts of them --------------------------------------------------------------------------------------------------

lint: $(VENV)/.requirements ## formatting, clippy, ruff, mypy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features mxrs/python -- -D warnings
	$(PY) -m ruff check $(LINTED)
	$(PY) -m ruff format --check $(LINTED)
	$(PY) -m mypy

format: $(VENV)/.requirements ## lay out Rust and Python sources
	cargo fmt --all
	$(PY) -m ruff check --fix-only --quiet $(LINTED)
	$(PY) -m ruff format $(LINTED)

# nextest runs the test binaries side by side; plain cargo does where it is not installed. Doc tests are cargo's alone.
test-rust:
	@if cargo nextest --version >/dev/null 2>&1; then \
	  MXRS_ALLOW_SOFTWARE_GPU=1 NODEVICE_SELECT=1 cargo nextest run --workspace --no-default-features --no-tests pass --status-level fail --final-status-level slow && \
	  cargo test --workspace --no-default-features --doc --quiet; \
	else MXRS_ALLOW_SOFTWARE_GPU=1 NODEVICE_SELECT=1 cargo test --workspace --no-default-features --quiet; fi

oracle: ## set up MXNet 1.9.1 in .oracle for the comparison tests
	@tools/make-oracle "$(PYTHON)" .oracle

test-python: build
	@$(PY) -m pytest --numprocesses $(WORKERS) --dist worksteal $(PYTEST_ARGS)

quick: $(VENV)/.requirements ## the core tests alone, on an incremental build (minutes, not a quarter of an hour)
	@mkdir -p $(TARGET)/quick-wheel && rm -f $(TARGET)/quick-wheel/*.whl
	@$(PY) -m maturin build --quiet --profile quick --interpreter $(PYO3_PYTHON) --out $(TARGET)/quick-wheel
	@rm -rf $(QUICK) && $(PY) -m zipfile -e $(TARGET)/quick-wheel/mxrs-*.whl $(QUICK)
	@PYTHONPATH=$(QUICK) $(PY) -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not slow and not oracle" $(PYTEST_ARGS)

# ---- measuring ------------------------------------------------------------------------------------------------------

bench: build ## measure against MXNet 1.9.1 and PyTorch, side by side
	@$(MAKE) oracle
	@$(MAKE) torch
	@$(PY) benches/bench.py $(BENCH_ARGS)

bench-gpu: build ## measure kernels on a GPU, beside PyTorch where .torch has CUDA (BENCH_ARGS=--quick for a software adapter)
	@$(PY) benches/gpu_bench.py $(BENCH_ARGS)
	@$(PY) benches/gpu_counts.py

bench-rust: ## measure the kernels alone
	cargo bench --workspace --no-default-features

torch:
	@tools/make-torch "$(PYTHON)" .torch

# ---- what is generated ----------------------------------------------------------------------------------------------

stubs: build ## write the .pyi stubs from the operator registry
	@$(PY) tools/gen_stubs.py

docs: build ## write the operator pages from the operator registry
	@$(PY) tools/gen_docs.py

# ---- arm64 ----------------------------------------------------------------------------------------------------------

# First among the needs, so that a machine that cannot have the toolchain says so at once.
.arm64/env: tools/arm64-toolchain
	@tools/arm64-toolchain .arm64

wheel-arm64: .arm64/env $(VENV)/.requirements ## cross-build the wheel for aarch64 Linux
	@tools/arm64-wheel .arm64 $(PYO3_PYTHON) $(TARGET)/wheels-arm64

test-arm64: wheel-arm64 ## the quick tests and the kernels' tests under qemu, as cortex-a72 and as max
	@tools/arm64-test .arm64 $(PYO3_PYTHON) $(TARGET)/wheels-arm64

# ---- tidying --------------------------------------------------------------------------------------------------------

clean: ## remove builds and caches; environments stay
	rm -rf $(TARGET) .pytest_cache .mypy_cache .ruff_cache .hypothesis $(INSTALLED)
	find python tests benches tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## remove everything that make has made
	rm -rf $(VENV) .oracle .torch .arm64
