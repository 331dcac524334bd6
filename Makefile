# Inlier from a fresh clone. Needs make, git and Python 3.11 or newer; everything else is installed
# into .venv with the versions of constraints.txt. `make help` lists the targets.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
WORKERS ?= logical --maxprocesses 4
# In order of their names: what takes long, tests/e2e, comes early, and at the end no worker waits for another.
PYTEST := $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
GOAL   := $(or $(firstword $(MAKECMDGOALS)),help)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo venv test slow browser lint types format check bench bench-batching bench-db bench-service month chaos licenses sbom audit api ops-test promises fuzz clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 23

demo: $(VENV)/.for-running ## train on made-up parts, serve, inspect; Ctrl-C stops it (EXIT=1: ends by itself)
	@$(PY) deploy/demo/run.py $(if $(filter-out 0,$(EXIT)),--exit)

venv: $(VENV)/.for-developing ## create .venv with everything a developer needs

test: $(VENV)/.for-developing ## all tests but the slow ones, on up to four processors (WORKERS=0: in one process)
	$(PYTEST)

slow: $(VENV)/.for-developing ## the tests that take minutes, the demo itself among them
	$(PYTEST) -m slow

browser: $(VENV)/.for-developing ## the tests that look at pages in Chromium
	REQUIRE_BROWSER=1 $(PYTEST) -m browser

lint: $(VENV)/.for-developing ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.for-developing ## mypy, strict
	$(PY) -m mypy

format: $(VENV)/.for-developing ## let ruff rewrite what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

check: lint types test ## lint, types and test

bench: $(VENV)/.for-developing ## speed of the engine, large images, training and start, some minutes
	$(PY) -m deploy.bench.speed $(ARGS)

bench-batching: $(VENV)/.for-developing ## continuous and static batching under load, some minutes
	$(PY) -m deploy.bench.batching

bench-service: $(VENV)/.for-developing ## what the service adds to the engine at 20 requests/s of 1 MB, some minutes
	$(PY) -m deploy.bench.service $(ARGS)

bench-db: $(VENV)/.for-developing ## pages of a million inspections on SQLite and PostgreSQL, some minutes
	$(PY) -m deploy.bench.db

api: $(VENV)/.for-developing ## write docs/api.md from what the service says of itself
	$(PY) -m deploy.reference.api

ops-test: $(VENV)/.for-developing ## a whole line on loopback under load and faults, some minutes (ARGS="--seconds 100")
	$(PY) -m deploy.ops_test $(ARGS)

chaos: $(VENV)/.for-developing ## a line to look at while things go wrong with it at random, five minutes (ARGS="--minutes 2")
	$(PY) -m deploy.chaos $(ARGS)

licenses: $(VENV)/.for-developing ## write docs/licenses.md from what is installed
	$(PY) -m deploy.supply.licenses

sbom: $(VENV)/.for-developing ## build/sbom-*.json: the parts of an installation, as CycloneDX
	$(PY) -m deploy.supply.sbom

audit: $(VENV)/.for-developing ## known vulnerabilities of what is pinned; needs the internet, 75: not all was asked
	$(PY) -m deploy.supply.audit

month: $(VENV)/.for-developing ## a simulated month with and without retraining, half an hour: ARGS="--data IMAGES"
	$(PY) -m deploy.month $(ARGS)

promises: $(VENV)/.for-developing ## prove what docs/reliability.md promises, slow tests too, and print the table: ARGS="--only 4 --quick --write"
	$(PY) -m tests.promises $(ARGS)

fuzz: $(VENV)/.for-developing ## bytes that are nearly right, at the decoder and the API, ten minutes (INLIER_FUZZ_SECONDS)
	INLIER_FUZZ_SECONDS=$${INLIER_FUZZ_SECONDS:-600} $(PY) -m pytest -p no:cacheprovider tests/service/input/test_fuzz.py

clean: ## remove the environment, the demo and every cache
	rm -rf $(VENV) .demo .bench .month build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per set of dependencies, so pip runs only when a file that decides about it has changed.
$(VENV)/.for-running: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing what training and serving need (once; about 0.4 GB with torch's CPU build)"
	$(PIP) install -c constraints.txt -e '.[trainer]'
	@touch $@

$(VENV)/.for-developing: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing what training, serving and the tests need (once; about 0.5 GB with torch's CPU build)"
	$(PIP) install -c constraints.txt -e '.[trainer,dev]'
	@touch $@ $(VENV)/.for-running

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Inlier needs Python 3.11 or newer, and '$(PYTHON)' is not that."; \
	  echo "Name another one: make $(GOAL) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv"; \
	  exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
