# The two commands: `make demo` and `make test`. Each creates .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint torch-free bench clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/fapm demo --output demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest
	$(MAKE) torch-free

# What a PC that only inspects installs: no torch. Prints the size of both, in MB.
torch-free: install .venv-inspect/.installed
	scripts/torch_free.sh .venv .venv-inspect

.venv-inspect/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-inspect
	.venv-inspect/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

bench: install
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/coreset.py

clean:
	rm -rf .venv .venv-inspect demo build dist
