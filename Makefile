# The two commands of this project are "make demo" and "make test"; each sets itself up in .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETTINGS := setup.cfg pyproject.toml constraints.txt
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
INTEROP := tests/interop/node_modules/.package-lock.json

.PHONY: help demo test lint types unit bench interop constraints clean

help:
	@echo "make demo         a whole overlay network on this machine that checks itself"
	@echo "make test         ruff, mypy and the whole test suite"
	@echo "make lint types   what make test does first"
	@echo "make bench        benchmarks, as ratios"
	@echo "make clean        remove what these made"

demo: $(VENV)/.runtime
	$(BIN)/stellar-overlay demo

test: lint types unit

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

unit: $(VENV)/.test interop
	$(BIN)/python -m pytest

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

# The tests against a foreign implementation need node and npm; without, they are skipped.
interop:
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(INTEROP); \
	else \
		echo "node and npm are not here: the tests against a foreign peer will be skipped"; \
	fi

$(INTEROP): tests/interop/package-lock.json
	@echo "Installing the foreign peer into tests/interop/node_modules"
	cd tests/interop && npm ci --silent
	@touch $@

$(VENV)/.base:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3 ..."; exit 1; }
	@echo "Making $(VENV)"
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.base $(SETTINGS)
	@echo "Installing stellar-overlay and what it needs into $(VENV)"
	$(INSTALL) setuptools wheel
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	@echo "Installing what the tests need into $(VENV)"
	$(INSTALL) --no-build-isolation --editable '.[test]'
	@touch $@

# Pin the newest versions of everything, to be tested and committed.
constraints: $(VENV)/.base
	rm -rf $(VENV)/fresh && $(PYTHON) -m venv $(VENV)/fresh
	$(VENV)/fresh/bin/pip install --quiet --upgrade setuptools wheel
	$(VENV)/fresh/bin/pip install --quiet --no-build-isolation '.[test,rich]'
	$(VENV)/fresh/bin/pip freeze --all --exclude pip --exclude stellar-overlay > constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	rm -rf _trial_temp* tests/interop/node_modules
