# `make demo` and `make test` first install everything they need, if that has not been done yet.

PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test bench docs install clean
.DEFAULT_GOAL := test

demo: .venv/installed
	$(BIN)/micraframe demo --output demo --workers 2

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

bench: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed

# Nothing is fetched while building; warnings are errors.
docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/python -m sphinx -W -n --keep-going -q docs docs/_build/html
	@echo 'Site: docs/_build/html/index.html'

install: .venv/installed

# Rebuilt whenever a pyproject.toml changes; pip skips what is installed.
.venv/installed: pyproject.toml $(PLUGINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "micraframe needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' $(foreach plugin,$(PLUGINS),--editable $(dir $(plugin)))
	touch $@

clean:
	rm -rf .venv
