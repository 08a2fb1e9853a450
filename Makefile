# make demo: everything from an empty machine to a model that talks.  make test: the tests, as CI runs them.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test clean

demo: .venv/installed-eval
	$(BIN)/mengya demo

test: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	PYTEST_ADDOPTS="--numprocesses auto --maxprocesses 4 --dist worksteal" $(BIN)/pytest

.venv/installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv runs shards
