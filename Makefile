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
# One environment. A stamp for each purpose says that what it needs is in there.
LAB := $(VENV)/.lab
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
COMMA := ,
NODE := $(if $(shell command -v npm),,$(COMMA)node)
# What needs test tools. Where one of these is asked for, they are there before the book begins.
CHECKING := publish pdf check unit test test-real lint live bench
CHAPTERS := $(patsubst notebooks/%.py,_build/executed/%.ipynb,$(wildcard notebooks/[0-9]*.py))
LAST := _build/executed/11_what_survives.ipynb
# These take longest, so they start first: no core waits for them at the end.
LONG := $(patsubst %,_build/executed/%.ipynb,09_names_and_causes 02_embedded_world 05_odd_one_out \
	06_same_object 08_mode_gallery 10_one_image)
PAGES := _config.yml _toc.yml $(shell find book -type f -not -path '*/__pycache__/*' -not -path '*/vendor/*')

# Read by book/_tools/parameters.py and, the last two, by recipes' shells
export MODEL MODELS IMAGES IMAGE_SIZE PARAMETERS PORT REPOSITORY
# Read by book/_tools/editions.py and pages
export SITE
# Read by the recipe of `report`, as MODELS and IMAGES are, where they are given
export O3 ADE20K CAMVID BSDS COUNT OUT DEVICE

# What is installed is compiled when it is first imported.  A shell that forbids to keep that would
# have every process compile all of it again, for several seconds.
unexport PYTHONDONTWRITEBYTECODE

# One build at a time. Only a first `make` runs under the lock; what it makes has it already.
ALONE := $(PYTHON) book/_tools/lock.py

.PHONY: help book pdf ledger report check test test-real wheel sizes lint lint-js unit serve live lab editions publish bench clean FORCE

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "Other models and images: make book MODEL=name MODELS=\"names beside it\" IMAGES=folder IMAGE_SIZE=pixels, or PARAMETERS=file.yaml"

book: $(READY) $(if $(filter $(CHECKING),$(MAKECMDGOALS)),$(TOOLS)) ## run the chapters that changed, once each, and build the book
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

unit:
	$(RUN) -m pytest $(PYTEST_ARGS) -m 'not live and not real and not slow and not chapter and not site and not browser'

test: lint book _build/axe/axe.min.js ## check the code, run the tests, look at the built book in a browser
	$(RUN) -m pytest $(PYTEST_ARGS) -m 'not live and not real'

test-real: ## run the tests of real models: QKUTILS_WEIGHTS and QKUTILS_IMAGES name their folders
	$(RUN) -m pytest $(PYTEST_ARGS) -m 'real and not live'

# The wheel carries the student notebooks, with the numbers of the run, so it is built from a copy.
wheel: book ## build the wheel with the student notebooks, and try it alone outside of the repository
	rm -rf _build/package _build/wheel
	mkdir -p _build/package
	cp -R pyproject.toml README.md LICENSE qkutils _build/package
	@$(RUN) book/_tools/editions.py student _build/package/qkutils/book/student
	$(RUN) -m pip wheel --quiet --no-deps --wheel-dir _build/wheel ./_build/package
	@tests/wheel.sh "$(PYTHON)" "$(RUN)"

sizes: ## print how many lines of code each room of the library has
	@$(PYTHON) book/_tools/sizes.py

lint: $(if $(shell command -v npm),lint-js)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m codespell_lib .
	$(RUN) -m mypy

lint-js: node_modules/.ready
	npx --no-install eslint .
	npx --no-install prettier --check '**/*.{js,mjs}'
	node tests/front/workflows.mjs .github/workflows/*.yml

node_modules/.ready: package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund
	touch $@

serve: $(READY) ## show the book at http://localhost:8000 (or PORT=)
	@$(RUN) book/_tools/serve.py "$$PORT" --check
	@$(MAKE) --no-print-directory book
	@$(RUN) book/_tools/serve.py "$$PORT"

live: ## drive a view in JupyterLab, on a machine with nothing else to do
	$(RUN) -m pytest -m live tests/site/test_live_notebook.py

lab: $(LAB) ## open the student edition in JupyterLab, in the folder lab
	@$(RUN) book/_tools/editions.py lab lab
	$(RUN) -m jupyterlab lab

editions: book ## write all editions and the pages into one archive
	@$(RUN) book/_tools/editions.py archive _build/editions.zip
	@echo "The archive is _build/editions.zip; unpacked, its site.zip opens by index.html"

publish: export WITH_PDF = yes
publish: pdf wheel ## lay out what is published: pages, notebooks, wheel, editions; REPOSITORY= SITE=
	cp _build/wheel/*.whl constraints.txt _build/query-key-interaction.pdf _build/html/downloads
	@$(RUN) book/_tools/editions.py archive _build/editions.zip
	@$(RUN) book/_tools/launch.py _build/notebooks _build/wheel/*.whl

bench: ## run every benchmark
	@for script in tests/benchmarks/bench_*.py; do echo "$$script"; $(RUN) "$$script" || exit 1; done

clean: ## remove all that was built, but not the environment
	@$(ALONE) rm -rf _build .pytest_cache .mypy_cache .ruff_cache

$(CHECKING): $(TOOLS)

# $(call install,EXTRAS).  What is used is compiled when it is first imported; the rest never.
define install
@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed (PYTHON=path)" if sys.version_info < (3, 11) else 0)'
@$(ALONE) sh -ec '$(PYTHON) -m venv $(VENV); \
$(RUN) -m pip install --quiet --no-compile -c constraints.txt -e ".[$(1)]"; touch $@'
endef

$(LAB): constraints.txt pyproject.toml
	$(call install,lab)

# Of two that install at once, one would find the lock taken.
$(READY): constraints.txt pyproject.toml | $(if $(filter lab,$(MAKECMDGOALS)),$(LAB))
	$(call install,book$(NODE))
	@touch $(LAB)

$(TOOLS): $(READY)
	$(call install,book$(NODE)$(COMMA)dask$(COMMA)test)

# Rewritten only if the parameters are other ones than last time.
_build/parameters.yaml: FORCE $(READY)
	@$(RUN) book/_tools/parameters.py $@

# The addresses to which pages link, which publishing sets: rewritten only if they are others.
_build/repository.txt: FORCE
	@mkdir -p $(@D); echo "$$REPOSITORY" "$$SITE" "$$WITH_PDF" | cmp -s - $@ || echo "$$REPOSITORY" "$$SITE" "$$WITH_PDF" >$@

RUNNER := $(addprefix book/_tools/,run_chapter.py chapter_client.py chapters.py faults.py exercise_widgets.py uses.py)
$(CHAPTERS): _build/executed/%.ipynb: notebooks/%.py $(RUNNER) _build/parameters.yaml $(READY)
	@$(RUN) book/_tools/run_chapter.py $< $@ --parameters _build/parameters.yaml

# The last chapter reads what the others judged.
_build/ledger.csv: $(filter-out $(LAST),$(CHAPTERS))
	@$(RUN) book/_tools/gather.py $@ $^
$(LAST) _build/.site _build/.downloads: export QKUTILS_LEDGER = $(CURDIR)/_build/ledger.csv
$(LAST): _build/ledger.csv

# What each chapter used of the library when it ran: it runs again when that changes.
-include $(CHAPTERS:.ipynb=.d)

book/assets/vendor/.stamp: book/_tools/vendor_web.py $(READY)
	$(RUN) book/_tools/vendor_web.py

_build/axe/axe.min.js: book/_tools/vendor_web.py $(READY)
	$(RUN) book/_tools/vendor_web.py --checker $(@D)
	touch $@

# The two stamps below have the time at which work began: what is edited meanwhile is newer.
_build/.downloads: $(LONG) $(CHAPTERS) _build/ledger.csv $(PAGES) _build/repository.txt
	touch $@.begun
	rm -rf _build/downloads
	$(RUN) book/_tools/editions.py downloads _build/downloads
	mv $@.begun $@

# From a clean tree: with old doctrees, Jupyter Book forgets the warnings of the pages it does not read again.
_build/.site: $(LONG) $(CHAPTERS) _build/ledger.csv $(PAGES) book/assets/vendor/.stamp _build/repository.txt
	touch $@.begun
	$(RUN) book/_tools/stage.py _build/stage $(CHAPTERS)
	rm -rf _build/site
	$(VENV)/bin/jupyter-book build _build/stage --path-output _build/site -q -W -n --keep-going >/dev/null
	mv $@.begun $@

_build/html/index.html: _build/.site _build/.downloads
	rm -rf _build/next
	cp -R _build/site/_build/html _build/next
	cp -R _build/downloads _build/next/downloads
	$(RUN) book/_tools/slides.py _build/next
	$(RUN) book/_tools/swap.py _build/next _build/html
