# Every path is relative, so the checkout may lie in a folder with spaces in its name.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j2
endif

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
PYTEST_ARGS ?= -n 2

RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
EXTRAS := book,dask,test$(if $(shell command -v npm),,$(shell printf ,)node)
CHAPTERS := $(patsubst notebooks/%.py,_build/executed/%.ipynb,$(wildcard notebooks/[0-9]*.py))
LAST := _build/executed/11_what_survives.ipynb
PAGES := _config.yml _toc.yml $(shell find book -type f -not -path '*/__pycache__/*' -not -path '*/vendor/*')

# Read by book/_tools/parameters.py and, the last two, by recipes' shells
export MODEL MODELS IMAGES IMAGE_SIZE PARAMETERS PORT REPOSITORY
# Read by book/_tools/editions.py
export SITE
# Read by the recipe of `report`, as MODELS and IMAGES are, where they are given
export O3 ADE20K CAMVID BSDS COUNT OUT DEVICE

# One build at a time. Only a first `make` runs under the lock; what it makes has it already.
ALONE := $(PYTHON) book/_tools/lock.py

.PHONY: help book pdf ledger report check test test-real wheel sizes lint lint-js unit serve live lab editions bench clean FORCE

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "Other models and images: make book MODEL=name MODELS=\"names beside it\" IMAGES=folder IMAGE_SIZE=pixels, or PARAMETERS=file.yaml"

book: $(READY) ## run the chapters that changed, once each, and build the book
	@$(ALONE) $(MAKE) --no-print-directory _build/html/index.html
	@echo "The book is in _build/html/index.html (make serve shows it)"

pdf: book ## print the book as a PDF, with still figures
	$(RUN) book/_tools/pdf.py _build/html _build/query-key-interaction.pdf

ledger: book ## keep what the chapters judged, so that the last chapter opens alone
	cp _build/ledger.csv qkutils/book/results/ledger.csv

report: $(READY) ## give every claim of the paper its verdict: MODELS="a b" IMAGES= O3= ADE20K= CAMVID= BSDS= COUNT= OUT= DEVICE=
	@$(RUN) -m qkutils report $${MODELS:+--models $$MODELS} $${IMAGES:+--images "$$IMAGES"} \
	$${O3:+--o3 "$$O3"} $${ADE20K:+--ade20k "$$ADE20K"} $${CAMVID:+--camvid "$$CAMVID"} $${BSDS:+--bsds "$$BSDS"} \
	$${COUNT:+--count "$$COUNT"} $${OUT:+--out "$$OUT"} $${DEVICE:+--device "$$DEVICE"}

check: lint unit ## check the code and run its tests, without chapters and without a browser

unit: $(READY)
	$(RUN) -m pytest $(PYTEST_ARGS) -m 'not live and not real and not slow and not chapter and not site and not browser'

test: lint book _build/axe/axe.min.js ## check the code, run the tests, look at the built book in a browser
	$(RUN) -m pytest $(PYTEST_ARGS) -m 'not live and not real' --cov=qkutils --cov-report=term:skip-covered

test-real: $(READY) ## run the tests of real models: QKUTILS_WEIGHTS and QKUTILS_IMAGES name their folders
	$(RUN) -m pytest $(PYTEST_ARGS) -m 'real and not live'

wheel: $(READY) ## build the wheel, install it alone outside of the repository, and try it there
	rm -rf build _build/wheel
	$(RUN) -m pip wheel --quiet --no-deps --wheel-dir _build/wheel .
	rm -rf build
	@set -e; outside=$$(mktemp -d); trap 'rm -rf "$$outside"' EXIT; $(PYTHON) -m venv "$$outside"; \
	"$$outside/bin/python" -m pip install --quiet -c constraints.txt _build/wheel/*.whl; \
	cp tests/smoke.py "$$outside"; cd "$$outside"; bin/python smoke.py

sizes: ## print how many lines of code each room of the library has
	@$(PYTHON) book/_tools/sizes.py

lint: $(READY) $(if $(shell command -v npm),lint-js)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m codespell_lib .
	$(RUN) -m mypy

lint-js: node_modules/.ready
	npx --no-install eslint .
	npx --no-install prettier --check '**/*.{js,mjs}'

node_modules/.ready: package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund
	touch $@

serve: $(READY) ## show the book at http://localhost:8000 (or PORT=)
	@$(RUN) book/_tools/serve.py "$$PORT" --check
	@$(MAKE) --no-print-directory book
	@$(RUN) book/_tools/serve.py "$$PORT"

live: $(READY) ## drive a view in JupyterLab, on a machine with nothing else to do
	$(RUN) -m pytest -m live tests/site/test_live_notebook.py

lab: $(READY) ## open the student edition in JupyterLab, in the folder lab
	@$(RUN) book/_tools/editions.py lab lab
	$(RUN) -m jupyterlab lab

editions: book ## write all editions and the pages into one archive
	@$(RUN) book/_tools/editions.py archive _build/editions.zip
	@echo "The archive is _build/editions.zip; unpacked, its site.zip opens by index.html"

bench: $(READY) ## run every benchmark
	@for script in tests/benchmarks/bench_*.py; do echo "$$script"; $(RUN) "$$script" || exit 1; done

clean: ## remove all that was built, but not the environment
	@$(ALONE) rm -rf _build .pytest_cache .mypy_cache .ruff_cache

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed (PYTHON=path)" if sys.version_info < (3, 11) else 0)'
	@$(ALONE) sh -ec '$(PYTHON) -m venv $(VENV); \
	$(RUN) -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"; touch $@'

# Rewritten only if the parameters are other ones than last time.
_build/parameters.yaml: FORCE $(READY)
	@$(RUN) book/_tools/parameters.py $@

# The address to which pages link, which publishing sets: rewritten only if it is another one.
_build/repository.txt: FORCE
	@mkdir -p $(@D); printf %s "$$REPOSITORY" | cmp -s - $@ || printf %s "$$REPOSITORY" >$@

RUNNER := $(addprefix book/_tools/,run_chapter.py chapter_client.py faults.py exercise_widgets.py uses.py)
$(CHAPTERS): _build/executed/%.ipynb: notebooks/%.py $(RUNNER) _build/parameters.yaml $(READY)
	@$(RUN) book/_tools/run_chapter.py $< $@ --parameters _build/parameters.yaml

# The last chapter reads what the others judged.
_build/ledger.csv: $(filter-out $(LAST),$(CHAPTERS))
	@$(RUN) book/_tools/gather.py $@ $^
$(LAST) _build/html/index.html: export QKUTILS_LEDGER = $(CURDIR)/_build/ledger.csv
$(LAST): _build/ledger.csv

# What each chapter used of the library when it ran: it runs again when that changes.
-include $(CHAPTERS:.ipynb=.d)

book/assets/vendor/.stamp: book/_tools/vendor_web.py $(READY)
	$(RUN) book/_tools/vendor_web.py

_build/axe/axe.min.js: book/_tools/vendor_web.py $(READY)
	$(RUN) book/_tools/vendor_web.py --checker $(@D)
	touch $@

# From a clean tree: with old doctrees, Jupyter Book forgets the warnings of the pages it does not read again.
_build/html/index.html: $(CHAPTERS) _build/ledger.csv $(PAGES) book/assets/vendor/.stamp _build/repository.txt
	$(RUN) book/_tools/stage.py _build/stage $(CHAPTERS)
	rm -rf _build/site
	$(VENV)/bin/jupyter-book build _build/stage --path-output _build/site -q -W -n --keep-going >/dev/null
	$(RUN) book/_tools/swap.py _build/site/_build/html _build/html
