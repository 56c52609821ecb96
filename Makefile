# Both `make demo` and `make test` set up everything they need; when that is done already, they begin at once.

PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test bench install clean
.DEFAULT_GOAL := test

demo: .venv/installed
	$(BIN)/micraframe demo --output demo

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

bench: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed

install: .venv/installed

# Made anew whenever a pyproject.toml changes; pip leaves alone what is there already.
.venv/installed: pyproject.toml $(PLUGINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "micraframe needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' $(foreach plugin,$(PLUGINS),--editable $(dir $(plugin)))
	touch $@

clean:
	rm -rf .venv
