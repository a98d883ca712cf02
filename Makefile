# `make demo` and `make test` do all the set-up. They need Python 3.10, 3.11, 3.12 or
# 3.13: `python3` if it is one of these, else the newest; `make PYTHON=... test` asks
# for another. Each Python has versions of its own, constraints/python3.*.txt.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# What is imported stays compiled: else each program that a test starts compiles
# TensorFlow anew, which takes as long as the rest of its start.
unexport PYTHONDONTWRITEBYTECODE
VERSION = $$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Python compiles modules when they are first imported; most never are.
INSTALL = $(PIP) install --no-compile -c constraints/python$(VERSION).txt
PYTEST := $(PY) -m pytest -n 2 --dist worksteal
SETUP := pyproject.toml setup.py $(wildcard constraints/*.txt)
PYTHON ?=
DEMO ?=
ABLATION ?=

.PHONY: help demo ablation test check test-all lint protos constraints clean environment

help:
	@echo "make demo         set up, then the whole path on generated scenes (cmt demo);"
	@echo "                  DEMO=\"--minutes 1\" for a short one"
	@echo "make ablation     set up, then the rows of Table 2 on generated scenes (hours; goes"
	@echo "                  on where it was stopped) and docs/ablation.md;"
	@echo "                  ABLATION=\"--hours 1\" for a part of it"
	@echo "make test         set up, then the default tests"
	@echo "make check        ruff, then the tests of packaging, compiled protos, Beam, kills,"
	@echo "                  whole programs, and the examples of docstrings"
	@echo "make test-all     every test, the slow ones too"
	@echo "make lint         ruff alone: rules and format"
	@echo "make protos       compile protos/*.proto"
	@echo "make constraints  renew constraints/ for the Python in use"
	@echo "make clean        remove .venv and what building left"
	@echo "PYTHON=/path/to/python chooses the Python of .venv"

demo: $(VENV)/installed
	$(VENV)/bin/cmt demo $(DEMO)

# The times are taken last, when nothing of this runs beside them.
ablation: $(VENV)/installed
	$(PY) tools/ablation.py search $(ABLATION)
	$(PY) tools/ablation.py run $(ABLATION)
	$(PY) tools/ablation.py search --large $(ABLATION)
	$(PY) tools/ablation.py run --large $(ABLATION)
	$(PY) tools/ablation.py times
	$(PY) tools/ablation.py times --large
	$(PY) tools/ablation.py text
	$(PY) tools/ablation.py text --large

test: $(VENV)/installed-test
	$(PYTEST)

check: lint
	$(PYTEST) -m 'check and not slow'

test-all: $(VENV)/installed-test
	$(PYTEST) -m ""

lint: $(VENV)/installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

protos: $(VENV)/installed-test
	$(PY) tools/compile_protos.py

# The newest versions that go together, in a new environment.
constraints: clean environment
	$(PIP) install -e ".[test]"
	{ echo "# What \`make constraints\` found for Python $(VERSION) on Linux."; \
	$(PIP) freeze --all --exclude-editable --exclude pip | tr A-Z_ a-z-; } \
	> constraints/python$(VERSION).txt

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

environment:
	@sh tools/make_venv.sh $(VENV) "$(PYTHON)"

$(VENV)/installed: $(SETUP) | environment
	$(INSTALL) -e .
	touch $@

$(VENV)/installed-test: $(SETUP) | environment
	$(INSTALL) -e ".[test]"
	touch $@ $(VENV)/installed
