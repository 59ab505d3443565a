# One environment, made on demand: every target below sets it up first. `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Up to four files of tests at once, the longest first; each process takes about 1 GB.
PYTEST := $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --by-file --durations 10
# Two threads of a small matrix product wait for each other on shared cores; one is faster.
export OMP_NUM_THREADS ?= 1
# Tests start many processes, which find the modules compiled.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo demo-supervised test test-portable test-portable-quick test-faults test-all lint type format bench docs dist-check clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

setup: $(STAMP) ## make .venv and install everything

demo: $(STAMP) ## train on MT10 for about eight minutes, before and after in a table
	$(BIN)/mtrl-imgrad train --preset mt10_demo

demo-supervised: $(STAMP) ## four methods on simulated scenes in two to three minutes: a table and a panel of predictions
	$(BIN)/mtrl-imgrad supervised compare --data demo --methods stl ls cagrad imgrad --seeds 0

test: $(STAMP) ## the fast tests, a few minutes
	$(PYTEST) -m "not slow"

test-portable: $(STAMP) ## numbers and learning under other instruction sets, threads and roundings: a table
	$(BIN)/python tests/portable.py

test-portable-quick: $(STAMP) ## the most telling of these tests under two settings, about three minutes
	$(BIN)/python tests/portable.py --quick

test-faults: $(STAMP) ## what docs/reliability.md promises, in the long versions, up to an hour
	$(PYTEST) --timeout 3600 -m faults

test-all: $(STAMP) ## all tests
	$(PYTEST)

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP) ## mypy
	$(BIN)/mypy

format: $(STAMP) ## rewrite the layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## speed beside Stable-Baselines3 and other solvers, as ratios in one run
	$(BIN)/python -m benchmarks

docs: $(STAMP) ## the documentation as a site, build/site/index.html; a warning is an error
	$(BIN)/python -m tools.pages build
	$(BIN)/python -m zensical build --clean --strict -f build/mkdocs.yml

dist-check: $(STAMP) ## build sdist and wheel into dist, install the wheel by itself, try it
	$(BIN)/python tools/dist_check.py --out dist

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
