# The two commands are `make book` and `make test`; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help env book test unit notebooks-check portable pages colab serve notebooks lint bench \
	lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED_READY := $(VENV)/.locked
READY := $(VENV)/.ready
BENCH := .venv-bench
PORT ?= 8000
CHAPTERS := $(wildcard book/*.ipynb)
PAGE := _build/html/index.html
SOURCES := _config.yml _toc.yml $(CHAPTERS) $(wildcard book/*.* book/reference/* book/api/* \
	book/_ext/* book/_static/*.* mcunc/*.* mcunc/*/*.py)
# Each notebook kernel on one thread: two run side by side, and sums come out in one order.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# CPU=1 leaves the CUDA libraries out; README.md says how to point pip at the CPU build of torch.
LOCKED := $(if $(CPU),grep -vE '^(nvidia-|cuda-|triton)' requirements.lock,cat requirements.lock)

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

env: $(READY) ## set up .venv from requirements.lock

$(LOCKED_READY): requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "Setting up $(VENV) (a few minutes the first time)"
	@rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	@$(LOCKED) > $(VENV)/locked.txt
	@$(BIN)/pip install -qq --no-deps -r $(VENV)/locked.txt
	@touch $@

$(READY): $(LOCKED_READY) pyproject.toml
	@$(BIN)/pip install -qq --no-deps --no-build-isolation --editable .
	@$(BIN)/pip check
	@touch $@

book: env ## execute every chapter afresh and render _build/html
	@rm -rf _build
	@$(BIN)/jupyter-book build . --all -q -W -n --keep-going && $(BIN)/python book/check_build.py \
		|| { rm -f $(PAGE); exit 1; }  # so that nothing takes a faulty book for a whole one

test: env lint unit notebooks-check pages ## lint, unit tests, chapters, rendered pages

unit: env
	$(BIN)/pytest -q -n 2 --dist loadfile tests -m 'not pages'

notebooks-check: env
	$(BIN)/pytest -q -n 2 --dist loadfile --nbval --nbval-current-env \
		--nbval-cell-timeout=300 --nbval-sanitize-with tests/nbval.cfg $(CHAPTERS) book/template/*.ipynb

# PORTABLE="--settings aten-avx2 --checks unit" tries a part of it.
portable: env ## unit tests and chapters, computed as other processors would
	@$(BIN)/python tests/portable.py $(PORTABLE)

pages: env $(PAGE)
	$(BIN)/pytest -q -m pages tests/book

$(PAGE): $(SOURCES)
	@$(MAKE) --no-print-directory book

serve: env $(PAGE) ## show the rendered book on http://localhost:8000
	$(BIN)/python -m http.server $(PORT) --directory _build/html --bind localhost

notebooks: env ## run every chapter again and store its outputs
	$(BIN)/python book/store_outputs.py $(CHAPTERS) book/template/*.ipynb

lint: env ## check code style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

colab: ## run every chapter in an environment that has only what Colab has
	bash tests/colab.sh

bench: $(BENCH)/.ready ## time the package beside its peers; rewrites benchmarks/RESULTS.md
	$(BENCH)/bin/python benchmarks/run.py

# The peers live apart: an environment that sees what is in .venv and adds theirs.
$(BENCH)/.ready: $(READY) benchmarks/requirements.txt
	@rm -rf $(BENCH) && $(BIN)/python -m venv --without-pip $(BENCH)
	@site='import sysconfig; print(sysconfig.get_path("purelib"))'; \
		echo "import site; site.addsitedir('$$($(BIN)/python -c "$$site")')" \
		> "$$($(BENCH)/bin/python -c "$$site")/locked.pth"
	@$(BIN)/pip --python $(BENCH)/bin/python install -qq --no-deps \
		-r benchmarks/requirements.txt
	@$(BIN)/pip --python $(BENCH)/bin/python check
	@touch $@

lock: ## resolve requirements.lock again (uses uv to resolve, pip to install)
	$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras \
		--no-annotate --no-header pyproject.toml -o requirements.lock
	rm -rf $(VENV)-lock

clean: ## remove the rendered book (keeps .venv)
	rm -rf _build .pytest_cache .hypothesis .ruff_cache
