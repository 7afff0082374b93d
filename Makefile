# The commands of this workbook; each sets up what it needs in .venv first.
# Plain enough for the make of macOS (3.81).

SHELL = /bin/sh
.DEFAULT_GOAL = help
.PHONY: help setup lab test test-more test-units test-slow test-notebooks-live \
        test-notebooks-fake notebooks check bench site lint format lock clean

# Hundreds of processes are started here; without bytecode kept, each compiles the library anew.
unexport PYTHONDONTWRITEBYTECODE

# PYTHON="/path/to/python3.12" chooses the Python of .venv; unset, the first that serves is taken.
PYTHON =
# ARGS="..." goes on to JupyterLab (lab), to the builder (notebooks), to pytest (test-...).
ARGS =
# How many processes run the tests; they wait for servers and clocks half of the time.
WORKERS = 4
# The folders whose notebooks test-notebooks-live and -fake run.
BOOKS = notebooks solutions

RUN = .venv/bin/python
# Each candidate is really run: a shim of a version manager may exist and fail.
CANDIDATES = python3 python3.13 python3.12 python3.11 python3.14
PROBE = import sys; sys.version_info < (3, 11) and sys.exit(4); \
        from importlib import util; util.find_spec("ensurepip") or sys.exit(3)
# Nothing is written to the home folder, which may be read-only.
PRIVATE = JUPYTER_CONFIG_DIR="$$PWD/.cachelab/jupyter/config" \
          JUPYTER_DATA_DIR="$$PWD/.cachelab/jupyter/data" \
          JUPYTER_RUNTIME_DIR="$$PWD/.cachelab/jupyter/runtime" \
          IPYTHONDIR="$$PWD/.cachelab/ipython" MPLCONFIGDIR="$$PWD/.cachelab/matplotlib" \
          CACHELAB_HOME="$${CACHELAB_HOME:-$$PWD/.cachelab/home}"
UNITS = $(PRIVATE) $(RUN) -m pytest -q -p no:randomly -p no:nbval -p no:valkey -n $(WORKERS) \
        --max-worker-restart 0 --dist loadscope
NBVAL = $(RUN) -m pytest -q -p tools.nbval_live -p no:randomly -p no:valkey -n $(WORKERS) --dist loadscope \
        --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 60

help: ## show this list
	@echo 'usage: make TARGET [ARGS="..."] [PYTHON="/path/to/python3.12"]'
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

lab: setup ## open JupyterLab at the first notebook (ARGS="--no-browser --port 8899" goes to it)
	@echo "Cachelab: starting JupyterLab; Ctrl-C ends it."
	@exec $(RUN) -m cachelab lab $(ARGS)

test: PARTS = test-units check test-notebooks-live
test: setup ## units, contracts, check, all notebooks on the real server: five minutes
	@$(EACH_PART)

test-more: PARTS = test-slow test-notebooks-fake
test-more: setup ## the rest: what takes seconds each, all notebooks on fakeredis
	@$(EACH_PART)

EACH_PART = failed=; \
	for part in $(PARTS); do \
	    echo "== $$part"; \
	    $(MAKE) --no-print-directory SKIP_SETUP=1 $$part || failed="$$failed $$part"; \
	done; \
	if [ -n "$$failed" ]; then echo "make $@: failed:$$failed" >&2; exit 1; fi; \
	echo "make $@: all parts passed"

# What ARGS names is run whether slow or not.
test-units: setup
	@$(UNITS) $(or $(ARGS),-m "not slow")

test-slow: setup
	@$(UNITS) -m slow $(ARGS)

test-notebooks-live: setup
	@$(PRIVATE) CACHELAB_BACKEND=live $(NBVAL) $(ARGS) $(BOOKS)

test-notebooks-fake: setup
	@$(PRIVATE) CACHELAB_BACKEND=fake $(NBVAL) $(ARGS) $(BOOKS)

notebooks: setup ## rebuild notebooks/, labs/ and solutions/ from content/
	@$(PRIVATE) $(RUN) -m tools.build $(ARGS)

check: setup ## prove in seconds that notebooks, catalogue and pages match content/
	@$(RUN) -m tools.build --check

.PHONY: chapter
chapter: setup ## begin a chapter with its lab, judge, answers, guide (ARGS="18_slug 'Title' exercise")
	@$(PRIVATE) $(RUN) -m tools.scaffold chapter $(ARGS)

.PHONY: explorer
explorer: setup ## begin a model with its tests and its explorer (ARGS="cold_start 'Cold start'")
	@$(RUN) -m tools.scaffold explorer $(ARGS)

.PHONY: ready
ready: SETUP = --ci
ready: setup ## run all that a merge needs of one chapter or model (ARGS="18_slug"): two minutes
	@$(PRIVATE) $(RUN) -m tools.ready $(ARGS)

.PHONY: slides
slides: setup ## make slides of a chapter (ARGS="10_stampede") in .cachelab/slides; needs npm once
	@$(PRIVATE) $(RUN) -m tools.slides $(ARGS)

.PHONY: hub
hub: SETUP = --ci
hub: setup ## start a hub for a class on this machine (ARGS="--learners 10"); needs node, npm
	@exec $(RUN) workshop/hub/run.py $(ARGS)

bench: SETUP = --ci
bench: setup ## measure, beside others (ARGS="stage models": some; ARGS=--write: keep it)
	@$(PRIVATE) $(RUN) -m benchmarks $(ARGS)

.PHONY: mutation
mutation: setup ## change the library in small places, count what no test notices (ARGS="models --size 90")
	@$(PRIVATE) $(RUN) tests/mutation/run.py $(ARGS)

.PHONY: flake
flake: setup ## run the suite 20 times in random order on busy cores (ARGS="--runs 3"): hours
	@$(PRIVATE) $(RUN) -m tools.flake $(ARGS)

site: SETUP = --ci
site: setup ## build the book of all notebooks and solved labs, in .cachelab/site
	@$(RUN) -m tools.site $(ARGS)

lint: SETUP = --ci
lint: setup ## check format, style, types and the order of the rooms
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports

format: SETUP = --ci
format: setup ## put every source into the common format
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

# What is in the locks already stays as it is unless ARGS="--upgrade" or ARGS="-P redis" is given.
# requirements-ci.txt holds only what requirements.txt does not.
lock: SETUP = --ci
lock: setup ## make requirements.txt and requirements-ci.txt anew from pyproject.toml
	@$(LOCK) --extra lab --extra build --extra test $(ARGS) -o requirements.txt
	@$(LOCK) --extra ci --constraint requirements.txt $(ARGS) -o requirements-ci.txt \
	    $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.txt)
LOCK = $(RUN) -m uv pip compile -q pyproject.toml --universal --python-version 3.11 \
       --fork-strategy fewest --generate-hashes --no-emit-index-url --no-header --no-annotate

clean: ## remove .venv, .cachelab and caches (what you wrote in labs/ or on a hub stays)
	rm -rf .venv $(filter-out .cachelab/hub,$(wildcard .cachelab/*)) .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache \
	    .ci/artefacts build dist .coverage
	find src tools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The set-up is asked for by every target; when all is there it takes a fraction of a second.
setup:
	@if [ -n "$(SKIP_SETUP)" ]; then exit 0; fi; \
	if [ -n "$(PYTHON)" ]; then \
	    command -v "$(PYTHON)" >/dev/null || { echo "There is no Python at $(PYTHON)." >&2; exit 1; }; \
	    exec "$(PYTHON)" tools/bootstrap.py --this-python $(SETUP); \
	fi; \
	good=; bare=; old=; \
	for candidate in $(CANDIDATES); do \
	    "$$candidate" -c '$(PROBE)' >/dev/null 2>&1; \
	    case $$? in \
	        0) good=$$candidate; break ;; \
	        3) bare=$${bare:-$$candidate} ;; \
	        4) old=$${old:-$$candidate} ;; \
	    esac; \
	done; \
	chosen=$${good:-$${bare:-$$old}}; \
	if [ -z "$$chosen" ]; then \
	    echo "Cachelab needs Python 3.11 or newer, and none was found: install one, or name it: make lab PYTHON=\"/path/to/python3.12\"." >&2; \
	    exit 1; \
	fi; \
	exec "$$chosen" tools/bootstrap.py $(SETUP)
