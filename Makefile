# The two commands: `make demo` and `make test`. Each creates .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint torch-free lowest bench clean

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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
	$(MAKE) torch-free

# What a PC that only inspects installs: no torch. Prints the size of both, in MB.
torch-free: install .venv-inspect/.installed
	scripts/torch_free.sh .venv .venv-inspect

.venv-inspect/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-inspect
	.venv-inspect/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

# The lowest versions that pyproject.toml allows, on an old Python: they must do.
LOWEST_PYTHON ?= $(shell for p in python3.10 python3.11; do $$p -c '' 2>/dev/null && echo $$p && break; done)

lowest: install .venv-lowest/.installed
	scripts/lowest_versions.sh .venv .venv-lowest

.venv-lowest/.installed: pyproject.toml
	test -n "$(LOWEST_PYTHON)"  # NumPy 1.24 has no wheel for Python 3.12
	rm -rf .venv-lowest
	$(LOWEST_PYTHON) -m venv .venv-lowest
	sed -n '/^dependencies = \[/,/^]/s/.*"\(.*\)>=\(.*\)".*/\1==\2/p' pyproject.toml >.venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

bench: install
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/coreset.py

clean:
	rm -rf .venv .venv-inspect .venv-lowest demo build dist
