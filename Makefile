# Every target sets up what it needs; a second call is quick. `make quickstart` and `make test` are the two to know.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.campana-ready

.PHONY: setup quickstart test test-fast check format bench docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "campana needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

quickstart: $(READY)
	$(BIN)/campana run studies/quickstart.yaml

# Several tests at a time, each on one thread: threads of two tests on one core wait for each other many times as long as they work.
TESTS := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --maxprocesses 8 --dist worksteal

test: $(READY)
	$(TESTS)

test-fast: $(READY)
	$(TESTS) -m 'not slow'

check: $(READY)
	$(BIN)/ruff check src tests benchmarks studies
	$(BIN)/ruff format --check src tests benchmarks studies
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m campana.cli.reference --check docs

format: $(READY)
	$(BIN)/ruff check --fix src tests benchmarks studies
	$(BIN)/ruff format src tests benchmarks studies

docs: $(READY)
	$(BIN)/python -m campana.cli.reference docs

bench: $(READY)
	for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark; done

clean:
	rm -rf $(VENV) build dist src/*.egg-info
