# Every target first makes the environment that it needs; all that must be there is Python >= 3.10
# with pip and venv, make and a C compiler. `make PYTHON=python3.12 ...` picks another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCHMARK ?= routing
ARGS ?=

# More threads than one slow torch down on small networks, and collapse on a busy machine.
export OMP_NUM_THREADS ?= 1

.PHONY: install benchmark test lint check format clean
.DEFAULT_GOAL := install

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "ServeGym needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; say make PYTHON=/path/to/python3")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[agents,forecast,predictors,render,dev]'
	touch $@

# The comparison of policies in the README; a first look: make benchmark ARGS=--quick
benchmark: $(INSTALLED)
	$(BIN)/servegym benchmark $(BENCHMARK) $(ARGS)

# Without the slow tests; make test ARGS="-m slow" runs those.
test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The compiled code in __pycache__ goes, too (it is tied to the sources: envs/simulator/jit.py), so the
# next run compiles anew. Elsewhere than beside the sources it is kept where NUMBA_CACHE_DIR says.
clean:
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache \
	    .hypothesis .benchmarks .coverage htmlcov
