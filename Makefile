# Every target sets up .venv by itself and does so once: the second call starts at once.
# PYTHON picks the interpreter of a new .venv; ARGS is passed on to demo and test.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test quick check cluster-check cluster-test chaos fmt proto bench clean distclean

help:  ## Show this text
	@echo "Targets (each sets up $(VENV) on first use: some minutes and several GB, mostly torch):"
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-14s %s\n", $$1, $$2 }'
	@echo "Variables: PYTHON=$(PYTHON) makes the environment; ARGS='...' goes to demo and test."

demo: $(INSTALLED)  ## Render videos, train, serve, run the fleet, write a report
	$(BIN)/hyperfleet demo $(ARGS)

# Long files come first in the order of collection; xdist would begin with those of most tests.
test: $(INSTALLED)  ## Run the tests (ARGS='-m slow' for the slow ones, ARGS=tests/unit for some)
	$(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

# Types and shapes at run time are left to `make test`: to instrument the package takes 20 s per process.
quick: $(INSTALLED)  ## Run the tests that need no Ray and little time, for the edit loop
	$(BIN)/pytest --quick --jaxtyping-packages= --numprocesses=logical --maxprocesses=4 --dist=worksteal -q \
		tests/unit tests/architecture $(ARGS)

check: $(INSTALLED)  ## Check format, lint, types and layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

cluster-check: $(INSTALLED)  ## Check every cluster file offline, against Ray's, AWS' and Kubernetes' own code
	$(BIN)/pytest tests/architecture/test_cluster_files.py $(ARGS)

cluster-test: $(INSTALLED)  ## Run cluster.local.yaml on three machines made of namespaces; needs root
	$(BIN)/python tests/cluster/acceptance.py

chaos: $(INSTALLED)  ## Kill every kind of process under load and print how long recovery took
	$(BIN)/python tests/cluster/chaos.py $(ARGS)

fmt: $(INSTALLED)  ## Format the code and apply the linter's safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(INSTALLED)  ## Make the modules of generator.proto again
	$(BIN)/python -m grpc_tools.protoc -I platform --python_out=platform --pyi_out=platform \
		--grpc_python_out=platform hyperfleet/wire/generator.proto

bench: $(INSTALLED)  ## Run every script in benchmarks/, one after the other
	@ls benchmarks/*.py >/dev/null 2>&1 || { echo "benchmarks/ holds no script to run" >&2; exit 1; }
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean:  ## Remove caches and build output; keeps .venv, data, models and runs
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

distclean: clean  ## Also remove .venv and all that runs wrote (data, outputs, MLflow store)
	rm -rf $(VENV) data outputs mlruns mlartifacts mlflow.db*

# pip is asked for, not only python: an interrupted or outdated environment is made again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "HyperFleet needs Python 3.11 or newer, got: $$($(PYTHON) --version 2>&1);" \
		"name another one, e.g. make $(or $(MAKECMDGOALS),test) PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian install its python3-venv package" >&2; \
		exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
