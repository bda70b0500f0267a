# `make demo` and `make test` set up their own environment on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-cuda check format bench coverage docs clean

demo: $(VENV)/.run
	$(BIN)/attrib demo --out out

test: $(VENV)/.dev
	ATTRIB_EXTRAS=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov=attrib --cov-report=term:skip-covered

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-cuda: $(VENV)/.dev
	$(BIN)/python -m pytest -m cuda

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.run

coverage: $(VENV)/.dev
	$(BIN)/python benchmarks/coverage.py

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) out site build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Each stamp is an installed set of extras; editable, so that source changes need no reinstall.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	touch $@
