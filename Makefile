# Trimtab's verbs. `make` alone lists them. Needs Python 3.11 or newer with pip; everything else is installed here.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
WORKERS ?= 2
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Compiled files make each start of a program a second shorter.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help up test slow lint types docs bench chromium

help: ## list these verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

up: $(VENV)/.run ## install, fetch the default models, start the server and the web UI
	@$(BIN)/trimtab up

test: $(VENV)/.dev chromium ## set up and run the tests, in two processes (WORKERS=0: in one)
	$(BIN)/pytest -m "not slow" --numprocesses $(WORKERS) --dist loadfile

slow: $(VENV)/.dev chromium ## the long end-to-end and endurance cases
	$(BIN)/pytest -m slow --timeout 1200

lint: $(VENV)/.dev ## formatting, lint, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.dev ## strict types
	$(BIN)/mypy

docs: $(VENV)/.dev ## run the code blocks of the documentation
	$(BIN)/pytest tests/docs

bench: $(VENV)/.bench ## print the benchmark tables (takes a while)
	$(BIN)/python -m benchmarks

chromium:
	@sh tests/browser/install_chromium.sh

$(VENV)/bin/python:
	@echo "Making the virtual environment …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Trimtab needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Trimtab (a minute or two) …"
	@$(PIP) --editable '.[ui]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Trimtab with what its tests need (two or three minutes) …"
	@$(PIP) --editable '.[ui,align,dev]'
	@touch $@ $(VENV)/.run

$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) --editable '.[ui,align,dev,bench]'
	@touch $@
