# make setup, then make test, make lint, or one test: make one TEST=tests/sweep/fit/test_isoflop.py
.PHONY: setup test test-all lint format one hooks
RUN = .venv/bin/python -m

setup:  ## .venv with everything that tests need
	bash -c 'source scripts/environment.sh test'

test:  ## style, types, and the tests, with a sample of the matrices of faults
	bash scripts/test.sh

test-all:  ## the same with all of the matrices
	bash scripts/test.sh --runslow

lint:  ## style and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format:
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

one:  ## TEST=path[::name], in this process
	$(RUN) pytest -x $(TEST)

hooks:  ## lint before each commit
	$(RUN) pip install --quiet pre-commit
	$(RUN) pre_commit install
