# One line for each thing that CONTRIBUTING.md names. `make` alone lists the targets.
# Variables: T (a test), NAME (a benchmark), MINUTES (of fuzzing), SPEC (a family's file).

T ?= tests/test_units.py
NAME ?= plan
MINUTES ?= 5
SPEC ?= specs/family.yaml
GOLDEN := tests/cli/test_commands.py tests/cli/test_explain.py tests/cli/test_ledger.py tests/plan/test_golden_plans.py \
	tests/report/test_graph.py tests/spec/test_explain.py

.PHONY: help set-up format lint types contracts test test-fast test-slow test-one check bench fuzz golden epochs epochs-accept \
	schemas locks benchmarks-page

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

set-up:  ## install colbuild with its test tools into .venv
	python3 -m venv .venv
	.venv/bin/pip install -c constraints.txt -e ".[test]"

format:  ## format the code and mend lint faults that ruff can mend
	ruff format .
	ruff check --fix .

lint:  ## check format and lint
	ruff format --check .
	ruff check .

types:  ## check types
	mypy

contracts:  ## check which room may import which
	lint-imports

test:  ## run all tests, in two processes
	pytest

test-fast:  ## run the tests that take less than about ten seconds each
	pytest -m "not slow"

test-slow:  ## run the slow tests alone
	pytest -m slow

test-one:  ## run one file or test in one process: make test-one T=tests/test_units.py
	pytest -n 0 $(T)

check: lint types contracts test  ## run everything that .ci/run runs

bench:  ## run one benchmark: make bench NAME=plan
	python -m tests.benchmarks.$(NAME) --quick

fuzz:  ## fuzz every reader of files: make fuzz MINUTES=30
	python -m tests.fuzz --minutes $(MINUTES)

golden:  ## write the golden files of printed output again
	COLBUILD_GOLDEN=write pytest -n 0 $(GOLDEN)

epochs:  ## list the operations whose code changed since epochs.json was written
	python -m tests.ops.epochs

epochs-accept:  ## write epochs.json again
	python -m tests.ops.epochs --accept

schemas:  ## write docs/schema/ again
	for kind in family recipe profile plan; do colbuild schema $$kind > docs/schema/$$kind.v1.json; done

locks:  ## bring a family's lock up to date: make locks SPEC=specs/pocket.yaml
	colbuild lock $(SPEC)

benchmarks-page:  ## write docs/benchmarks.md again
	python -m tests.benchmarks.page
