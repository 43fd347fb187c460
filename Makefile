# Two commands from a fresh clone: `make demo` and `make test`. Both set up .venv on first use.
# On a machine without a GPU a smaller torch serves as well: make demo PIP_ARGS="--extra-index-url <PyTorch's CPU index>"
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-slow test-gpu test-ui lint docs clean
demo: $(VENV)/.installed
	$(BIN)/tadp-da demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow --timeout 3600

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu -n 0 -rs --timeout 3600

test-ui: $(VENV)/.installed-ui
	$(BIN)/python -m pytest -n 0 -rs tests/tadp_da/cli/test_playground.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[test]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[docs]'
	@touch $@

# Gradio wants an older Pillow than the rest takes: after this, .venv has that one.
$(VENV)/.installed-ui: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[test,ui]'
	@touch $@

clean:
	rm -rf $(VENV) build docs/_build *.egg-info
