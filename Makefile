# `make demo` and `make test` do all their own set-up: Python >= 3.11, make and a C++ compiler suffice.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMP  := $(VENV)/.installed

.PHONY: help install demo experiments experiments-strategies test test-deployment test-faults test-trained test-endurance check format clean

help:
	@echo "make demo     a whole federated study on four synthetic hospitals (runs/demo)"
	@echo "make experiments  the paper's tables, reduced: minutes, on made-up data (runs/experiments)"
	@echo "make experiments-strategies  every strategy on uneven hospitals, reduced; docs/strategies.md has the whole (hours)"
	@echo "make test     all tests; HYMATE_PHYSIONET2012=DIR adds the ones on real data, WORKERS=N runs N at once (2)"
	@echo "make test-deployment  coordinator and sites as real processes over TLS (minutes)"
	@echo "make test-faults  what can go wrong in a federation, for real: kills, full disks, outages (minutes)"
	@echo "make test-trained  what trained models show: explanations follow the planted truth"
	@echo "make test-endurance  200 simulated rounds of 32 hospitals: nothing grows (minutes)"
	@echo "make check    ruff, mypy, import rules, doctests"
	@echo "make install  .venv with everything, the native kernel included"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard hymate/ops/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 2 GB, a few minutes the first time) ..."
	$(PIP) -c constraints.txt torch scikit-build-core nanobind cmake ninja
	$(PIP) -c constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/hymate-simulate --config deploy/configs/demo.yaml --out runs/demo

experiments: install
	$(BIN)/python -m benchmarks.experiments all --reduced

# JOBS runs at once; REDUCED= for the tables of docs/strategies.md.
JOBS ?= 1
REDUCED ?= --reduced
experiments-strategies: install
	$(BIN)/python -m benchmarks.strategies --jobs $(JOBS) $(REDUCED)

# 0: one after another; N: in N processes, all tests of a file in one of them, which share its studies.
WORKERS ?= 2
test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-deployment: install
	$(BIN)/python -m pytest -m deployment

test-faults: install
	$(BIN)/python -m pytest -m faults

test-trained: install
	$(BIN)/python -m pytest -m trained

test-endurance: install
	$(BIN)/python -m pytest -m endurance

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules hymate client server strategies

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
