# Every target sets itself up in .venv; the second time that takes no time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ROOMS := commands recipes hub cards validators converters

.PHONY: demo test test-slow test-wide browser check docs bench clean

demo: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh

test: $(READY) browser
	$(BIN)/pytest -m "not slow and not wide"

test-slow: $(READY) browser
	$(BIN)/pytest -m slow

test-wide: $(READY)
	$(BIN)/pytest -m wide

browser: $(READY)
	@bash tests/install_chromium.sh $(BIN)/playwright

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# From the sources alone, without the network; links to other hosts are listed, not fetched.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/docs/index.html"

bench: $(READY)
	$(BIN)/python benchmarks/streaming.py against-libraries

clean:
	rm -rf $(VENV) build demo-out .pytest_cache .mypy_cache .ruff_cache *.egg-info

# constraints.txt pins what fluxconv is developed with, torch first of all.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "fluxconv needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $@
