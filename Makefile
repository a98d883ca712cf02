# `make demo` and `make test` do all the set-up. They need Python 3.10 or 3.11.

VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check -c constraints.txt
SETUP := pyproject.toml setup.py constraints.txt

# The first of these that runs and is 3.10 or 3.11; `make PYTHON=... test` overrides.
PYTHON := $(shell for python in python3.11 python3.10 python3; do \
	if $$python -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' \
	2> /dev/null; then echo $$python; break; fi; done)

.PHONY: help demo test test-all lint protos clean

help:
	@echo "make demo      set up, then the whole path on generated scenes (cmt demo)"
	@echo "make test      set up, then the default tests"
	@echo "make test-all  the slow tests too"
	@echo "make lint      ruff: rules and format"
	@echo "make protos    compile protos/*.proto"
	@echo "make clean     remove .venv and what building left"

demo: $(VENV)/installed
	$(VENV)/bin/cmt demo

test: $(VENV)/installed-test
	$(PY) -m pytest

test-all: $(VENV)/installed-test
	$(PY) -m pytest -m "slow or not slow"

lint: $(VENV)/installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

protos: $(VENV)/installed-test
	$(PY) tools/compile_protos.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

$(PY):
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10 or 3.11 found (tried \
	python3.11, python3.10, python3); install one, or make PYTHON=/path/to/one" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(SETUP) | $(PY)
	$(PIP_INSTALL) -e .
	touch $@

$(VENV)/installed-test: $(SETUP) | $(PY)
	$(PIP_INSTALL) -e ".[test]"
	touch $@ $(VENV)/installed
