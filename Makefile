# `make demo` and `make test` set up their own environment on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-cuda test-browser test-quantus check format bench coverage docs clean

demo: $(VENV)/.run
	$(BIN)/attrib demo --out out

test: $(VENV)/.dev
	ATTRIB_EXTRAS=required OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov=attrib --cov-report=term:skip-covered

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

test-cuda: $(VENV)/.dev
	$(BIN)/python -m pytest -m cuda

# What `make test` skips for want of a browser or of Quantus, in an environment of its own.
test-browser: .venv-browser/.dev
	@command -v chromedriver || { echo "install Chromium and its driver, as in: apt install chromium-driver"; exit 1; }
	OMP_NUM_THREADS=1 .venv-browser/bin/python -m pytest -rs tests/test_app.py tests/test_page.py

test-quantus: .venv-quantus/.dev
	OMP_NUM_THREADS=1 .venv-quantus/bin/python -m pytest -rs tests/test_faithfulness.py -k Quantus

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
	rm -rf $(VENV) .venv-browser .venv-quantus out site build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.venv-%/.dev: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --editable '.[dev,$*]'
	touch $@

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
