# `make` lists the targets. ARGS is passed on: make run ARGS="--epochs 30", make test ARGS="-k norm".
# `make PYTHON=python3.12 test` makes the environment with that Python.
PYTHON ?= python3
ARGS ?=
SHELL := /bin/sh
.DEFAULT_GOAL := help

# Python starts in a third of the time if it may keep its bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test test-faults test-oldest test-versions lint format typecheck docs release-check audit bench lock clean FORCE

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'

setup: .venv/.installed ## make .venv with the locked dependencies

run: .venv/.installed ## compare both CNNs over three seeds, shortened: about 3 minutes on 2 CPU cores
	@.venv/bin/python -m cifar_jax.main study --config configs/quick.toml $(ARGS)

# A process a core, a file of tests at a time: its tests share what was compiled.
PARALLEL = -n auto --dist loadfile --no-loadscope-reorder

test: .venv/.installed ## run the tests
	@.venv/bin/python -m pytest $(PARALLEL) $(ARGS)

test-faults: .venv/.installed ## run the long fault and fuzz tests
	@.venv/bin/python -m pytest $(PARALLEL) -m faults_long $(ARGS)

# Texts, tutorials and the browser do not depend on the versions.
ANY_VERSION = test_language.py test_documents.py test_tutorials.py library/test_notebooks.py \
	export/test_in_browser.py
test-oldest: .venv-oldest/.installed ## run the tests on the oldest supported dependencies (jax 0.5.0)
	@.venv-oldest/bin/python -m pytest $(PARALLEL) $(ANY_VERSION:%=--ignore=tests/%) $(ARGS)

test-versions: ## run a short part of the tests on Python 3.11 to 3.14, newest and oldest jax (needs uv)
	@.ci/versions $(ARGS)

lint: .venv/.installed ## check style, formatting and the direction of imports
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/lint-imports --no-cache --no-logo

format: .venv/.installed ## format, and fix what can be fixed
	@.venv/bin/python -m ruff check --fix .
	@.venv/bin/python -m ruff format .

typecheck: .venv/.installed ## check the types
	@.venv/bin/python -m mypy

docs: .venv-docs/.installed ## write the pages as a site into build/site
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict $(ARGS)
	@echo "build/site/index.html"

release-check: ## build the wheel, install it elsewhere, and run it there
	@PYTHON=$(PYTHON) .ci/release

# From the package index, or from an OSV server: make audit OSV_URL=https://osv.example/v1/query
export OSV_URL
audit: .venv-audit/.installed ## look for known vulnerabilities in the locked dependencies
	@.ci/advisories || { echo "no advisories can be had: .ci/advisories says where from" >&2; exit 1; }
	@.venv-audit/bin/pip-audit --strict --disable-pip --progress-spinner off \
	  $(if $(OSV_URL),--vulnerability-service osv --osv-url $(OSV_URL)) \
	  --requirement requirements/locked.lock $(ARGS)

BENCHMARKS = startup host layers throughput many_runs coverage equal_arms seeds scaling
bench: .venv/.installed ## run a short form of every benchmark
	@set -e; for name in $(BENCHMARKS); do \
	  echo "$$name:"; .venv/bin/python benchmarks/$$name.py --short $(ARGS); done

UV_COMPILE = uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url
lock: ## resolve the newest dependencies into requirements/ (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv on PATH" >&2; exit 1; }
	$(UV_COMPILE) pyproject.toml --extra dev --output-file requirements/locked.lock
	$(UV_COMPILE) pyproject.toml --extra test --resolution lowest-direct \
	  --output-file requirements/oldest.lock
	$(UV_COMPILE) requirements/audit.in --output-file requirements/audit.lock
	$(UV_COMPILE) requirements/docs.in --output-file requirements/docs.lock

clean: ## remove the environments and caches (not the runs)
	rm -rf .venv .venv-versions .venv-oldest .venv-audit .venv-docs .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp goes first and comes back last, so that an interrupted installation is redone; without
# it the environment is made anew, with it a changed lock only updates what is there.
# 3.14 is too new for the oldest dependencies.
define install
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < $(1))' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import sys; print(sys.version.split()[0])' 2>/dev/null || echo "not found"); \
	  echo "$(PYTHON) is $$found, $(@D) needs Python $(2);" \
	    "for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@if [ -f $@ ] && [ "$$($(PYTHON) -V 2>&1)" = "$$($(@D)/bin/python -V 2>&1)" ]; then \
	    echo "Updating $(@D) to $< and pyproject.toml ..." && \
	    rm $@; \
	  else \
	    echo "Making $(@D) from $< (300 MB to download, about 1 minute) ..." && \
	    rm -rf $(@D) && \
	    if command -v uv >/dev/null; \
	      then uv venv --quiet --seed --python "$$(command -v $(PYTHON))" $(@D); \
	      else $(PYTHON) -m venv $(@D); fi; \
	  fi
	@if command -v uv >/dev/null; then \
	    uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $< && \
	    uv pip install --quiet --python $(@D)/bin/python --no-deps --editable .; \
	  else \
	    $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $< && \
	    $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .; \
	  fi
	@touch $@
endef

.venv/.installed: requirements/locked.lock pyproject.toml
	$(call install,(4,),3.11 or newer)

.venv-oldest/.installed: requirements/oldest.lock pyproject.toml
	$(call install,(3, 14),3.11 to 3.13)

# Not in .venv: what looks for vulnerabilities, or writes the site, has many dependencies of its own.
.venv-audit/.installed .venv-docs/.installed: .venv-%/.installed: requirements/%.lock
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# A PYTHON given by hand replaces an environment of another version.
ifneq ($(origin PYTHON),file)
version = $(shell { $(1) -V; } 2>/dev/null)
ifneq ($(call version,$(PYTHON)),$(call version,.venv/bin/python))
.venv/.installed: FORCE
endif
ifneq ($(call version,$(PYTHON)),$(call version,.venv-oldest/bin/python))
.venv-oldest/.installed: FORCE
endif
endif
