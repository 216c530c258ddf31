# Every verb installs what it needs. `make help` lists them.

SHELL := /bin/bash
BEGAN := $(shell date +%s)

# The first interpreter that starts and is new enough; choose another with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# More arguments for pip, such as `PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"`.
PIP_FLAGS ?=
# If this were set, every process would compile torch and the like again for 20 s, because install compiles nothing.
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
INSTALLED := .venv/installed
AVALANCHE := .venv-avalanche
LOWEST := .venv-lowest
# Tests of the code that uses the dependencies most.
LOWEST_TESTS := tests/test_package.py tests/cli tests/stream/test_ingest.py tests/train/test_loop.py \
	tests/eval/test_mteb.py tests/test_workspace.py tests/report/test_report.py

.PHONY: help install demo test test-ci test-all test-avalanche test-lowest faults lint docs site dist test-dist bench clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

install: $(INSTALLED) ## Create .venv with everything that development needs

# Runs again only if the requirements change.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one, or run make PYTHON=/path/to/python."; exit 2; }
	@echo "Installing into .venv; the first time takes about two minutes."
	$(PYTHON) -m venv .venv
	@# --no-compile: Python compiles what it imports. Compiling all of torch takes longer than the rest of the install.
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e ".[dev]"
	@touch $@

demo: install ## Run three weeks of updates on real text, and write a report
	@PATH="$(CURDIR)/$(BIN):$$PATH" BEGAN=$(BEGAN) bash examples/demo.sh demo

test: install ## Run the fast tests: those not marked slow, kill, faults, real_model or browser
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not kill and not faults and not real_model and not browser"

test-ci: install ## Run the tests that CI runs: all but the longest; fails if the fast ones cover less than 95 %
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not release" --cov --cov-report=term-missing:skip-covered

test-all: install ## Run all tests; fails if the fast ones cover less than 95 %
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term-missing:skip-covered

# A separate environment: Avalanche needs torchvision, which does not fit a CPU build of torch and breaks transformers.
$(AVALANCHE)/installed: pyproject.toml constraints.txt constraints-avalanche.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one, or run make PYTHON=/path/to/python."; exit 2; }
	@echo "Installing into $(AVALANCHE); the first time takes about two minutes."
	$(PYTHON) -m venv $(AVALANCHE)
	$(AVALANCHE)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_FLAGS) \
		-c constraints-avalanche.txt -e ".[avalanche]" pytest hypothesis
	@touch $@

test-avalanche: $(AVALANCHE)/installed ## Test the Avalanche bridge in a separate environment
	$(AVALANCHE)/bin/python -m pytest tests/stream/test_avalanche.py

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one, or run make PYTHON=/path/to/python."; exit 2; }
	@echo "Installing into $(LOWEST); the first time takes about two minutes."
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_FLAGS) \
		-c constraints-lowest.txt -e ".[model]" hypothesis pytest pytest-xdist
	@touch $@

test-lowest: $(LOWEST)/installed ## Run some tests with the oldest allowed dependencies
	$(LOWEST)/bin/python -m pytest -n 1 --dist worksteal -m "not kill and not real_model" $(LOWEST_TESTS)

# Results are added to build/faults, and go into docs/reliability.md.
faults: install ## Try thousands of faults for some hours; ONLY=kills for one phase, FAULTS=medium for fewer
	FAULTS=$${FAULTS:-long} $(BIN)/python -m pytest tests/faults -k "$(ONLY)"; code=$$?; \
		$(BIN)/python -m tests.faults.results; exit $$code

lint: install ## Check style and types, and that docs/cli.md is up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate_cli.py --check

docs: install ## Write docs/cli.md from the commands
	$(BIN)/python docs/generate_cli.py

site: install ## Build the documentation into site/, a folder of static pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python tools/check_site.py

dist: install ## Build the sdist and the wheel into dist/, and check their contents
	rm -rf dist
	$(BIN)/python -m build --quiet --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tools/check_dist.py

test-dist: dist ## Install the wheel into a new environment outside this folder, and use it
	$(BIN)/python tools/test_dist.py --pip-flags="$(PIP_FLAGS)"

bench: install ## Run the benchmarks that need no data for ten minutes, and print a table of ratios
	$(BIN)/python benchmarks/all.py

clean: ## Remove the demo, caches and build products, but no environments
	rm -rf demo build dist site *.egg-info htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +
