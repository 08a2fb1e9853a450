# make demo: everything from an empty machine to a model that talks.
# make check: before every commit, under three minutes.  make test: the tests, as CI runs them.
PYTHON ?= python3
BIN := .venv/bin
# Packages whose tests start few processes and train little: a minute on one core.
QUICK := $(addprefix tests/,data/ingest data/rows losses models planning text web world \
	test_config.py test_imports.py test_seams.py test_words.py)

.PHONY: demo check test clean

demo: .venv/installed-eval
	$(BIN)/mengya demo

# The type checker takes as long as the quick tests: each has a core. Both are waited for.
check: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright & types=$$!; $(BIN)/pytest $(QUICK); tests=$$?; wait $$types && exit $$tests

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
