# `make demo` and `make test` need Python 3.11 or newer with venv, git and make; they set up the rest in .venv.

SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint format bench kills soak docs clean

demo: .venv/.demo
	@$(BIN)/mlopskit demo $(ARGS)

test: .venv/.dev
	@$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: .venv/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: .venv/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: .venv/.dev
	@for script in benchmarks/*.py; do echo; echo "== $$script"; $(BIN)/python $$script || exit 1; done

# A thousand kills, and a day of runs: minutes each, and `make test` has a little of both.
kills: .venv/.dev
	@$(BIN)/python tests/tracking/kills.py --kills 1000 $(ARGS)
	@$(BIN)/python tests/tracking/transfers.py --runs 10000 --kills 20
	@$(BIN)/python tests/registry/kills.py --kills 500
	@$(BIN)/python tests/registry/damage.py --cases 2000

soak: .venv/.dev
	@$(BIN)/python tests/tracking/soak.py --runs 20000 $(ARGS)
	@$(BIN)/python tests/tracking/sweeps_alike.py --trials 200

docs: .venv/.dev
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf .venv docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "mlopskit needs Python 3.11 or newer with venv (on Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --upgrade pip

.venv/.demo: pyproject.toml | .venv/bin/python
	@echo "Installing mlopskit with what the demo needs (about a minute)"
	@$(PIP) install --editable '.[demo]'
	@touch $@

.venv/.dev: pyproject.toml | .venv/bin/python
	@echo "Installing mlopskit with every tool and the development tools (a few minutes)"
	@$(PIP) install --editable '.[all,dev]'
	@touch $@ .venv/.demo
