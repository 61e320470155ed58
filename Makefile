# Sets itself up: every target first makes .venv with the versions and hashes of requirements.lock.
#   PYTHON=python3.12 make test      another Python, 3.11 or later
#   make test ARGS="-k slot -x"      more words for the command behind a target

PYTHON ?= python3
ARGS ?=
UV ?= 0.13.9

VENV := .venv
READY := $(VENV)/ready

.PHONY: help demo test lint bench lock clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    a live restructure on an embedded PostgreSQL, under a writing workload"
	@echo "make test    the tests, on the PostgreSQL versions found (ARGS=\"--pg 18\" chooses)"
	@echo "make lint    ruff, mypy --strict and the import floors"
	@echo "make bench   the benchmarks, as a table and as JSON"
	@echo "make lock    renew requirements.lock"
	@echo "make clean   remove $(VENV) and caches"

demo: $(READY)
	$(VENV)/bin/restructure demo $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest -n 5 --dist worksteal $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests/lint

bench: $(READY)
	$(VENV)/bin/python -m benchmarks $(ARGS)

# An environment knows the folder it was made in: one that was copied or moved is made anew.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "restructure needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ": try PYTHON=python3.12 make ...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)" >&2; exit 1; }
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "$(CURDIR)" > $@

# All platforms and Pythons at once, which pip itself cannot resolve for.
lock:
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(VENV)-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --generate-hashes --no-annotate --no-emit-package restructure --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-lock .mypy_cache .pytest_cache .ruff_cache .hypothesis
