PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
# Quotes for the command line's grammar, so that a folder may be called anything; the shell reads it from a variable.
export RUNS
export QUOTED_RUNS := '$(subst ',\',$(RUNS))'
TASKS ?=
# One thread per test process: pytest-xdist runs as many of them as there are cores, each on files of its own, so that
# what a file's tests share is made once, until one has nothing left.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

.PHONY: search test test-slow test-all test-engines check-versions check format claims dashboard clean

search: $(VENV)/ready  ## search all shipped tasks on the shipped model
	$(BIN)/vtw-search "runs=$$QUOTED_RUNS"

test: $(VENV)/ready  ## the fast tests
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/ready  ## the other tests
	$(PYTEST) -m slow

test-all: test test-slow  ## every test, once

test-engines: check-versions  ## what needs environments of its own

check-versions: $(VENV)/ready  ## the core on the releases of transformers that engines pin
	$(BIN)/python -m experiments.engine_versions.run

check: $(VENV)/ready  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/ready  ## rewrite files in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

claims: $(VENV)/ready  ## one table of everything that the experiments claim
	$(BIN)/python -m experiments.claims

dashboard: $(VENV)/ready  ## MLflow on the store that `make search` filled
	$(BIN)/python -m vtw_search.commands.dashboard "$$RUNS"

clean:  ## remove the environment and caches; runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; set PYTHON=..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[search,dev]' -c constraints.txt
	touch $@
