# Every recipe starts from nothing: `make demo` and `make test` set up what they need, on a machine
# with Python 3.11 (venv included), Rust and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_FLAGS ?=
# As many at a time as there are processors. The slow ones take the machine's measure: one by one.
PYTEST = $(BIN)/python -m pytest
PYTEST_QUICK = $(PYTEST) -m "not slow" -n auto --maxprocesses 4 --dist worksteal $(PYTEST_FLAGS)

# What the compiled module is made of: a change in any of it builds anew.
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name '*.h' -o -name Cargo.toml)

# pyo3 is compiled anew whenever what its build script is told differs from the last time. Told what
# maturin told it for the wheel, clippy and the tests share with the wheel what target/ holds.
PYO3_CONFIG = $(firstword $(wildcard $(CURDIR)/target/maturin/pyo3-config-*.txt))
CARGO = env PYO3_BUILD_EXTENSION_MODULE=1 $(addprefix PYO3_CONFIG_FILE=,$(PYO3_CONFIG)) cargo
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: build demo test test-all bench fmt lint oracle dev packages

## build     the command at .venv/bin/vaio-bench, optimised
build: $(VENV)/ready

## demo      build, then the whole story on the bundled trace
demo: build
	$(BIN)/vaio-bench demo

## test      every check and every test but the slow ones, with their set-up
test: packages dev lint
	$(CARGO) test --release --locked --workspace
	$(PYTEST_QUICK)

## test-all  the same, with the slow tests
test-all: packages dev lint
	$(CARGO) test --release --locked --workspace -- --include-ignored
	$(PYTEST_QUICK)
	$(PYTEST) -m slow $(PYTEST_FLAGS)

## oracle    installs libCacheSim (GPL; `make test-all` and `make bench` compare with it), and runs
##           its tests
oracle: dev
	$(BIN)/python -m pip install --quiet "libcachesim>=0.3.5"
	$(BIN)/python -m pytest tests/eviction/test_libcachesim.py $(PYTEST_FLAGS)

## lint      formatting, lints and types of both languages
lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/stubtest --mypy-config-file pyproject.toml --allowlist tests/stubtest_allowlist.txt vaio_bench._core
	cargo fmt --all --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

## bench     timed comparisons with peers, side by side in one run
bench: packages dev
	set -e; for script in scripts/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done

## fmt       formats both languages
fmt: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --all

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11: name another, PYTHON=python3.x"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: pyproject.toml $(RUST_SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# The packages of the `dev` extra alone: installing `.[dev]` would build the module a second time.
dev: $(VENV)/ready-dev build
$(VENV)/ready-dev: pyproject.toml scripts/dev_requirements.py | $(BIN)/python
	$(BIN)/python scripts/dev_requirements.py > $(VENV)/dev.txt
	$(BIN)/python -m pip install --quiet --requirement $(VENV)/dev.txt
	touch $@

# Programs that only tests need. Never fails: a test without its program skips by name.
packages:
	@scripts/system_packages.sh
