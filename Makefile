# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.
# The environment is made with python3, or with another Python on PATH if that does not fit.
# To choose the interpreter: make PYTHON=python3.11 ...

STACK  ?= fork
VENV   ?= .venv
PY     := $(VENV)/bin/python

# PYTHON only creates the environment. It is not exported, since tools/*.sh, which run inside of the
# environment, use a variable of the same name.
unexport PYTHON

.PHONY: help env demo test test-all test-original gpu-report lint format docs release-check reproduce-fashion clean

help:
	@echo 'make demo           set up, then train, test and fuse a small Mask R-CNN on made-up data'
	@echo 'make test           set up, then run the tests (PYTEST_ARGS="-m \"not slow\"" for fewer)'
	@echo 'make test-all       run all tests, including those that take minutes'
	@echo 'make test-original  run the tests with the last releases of the original OpenMMLab'
	@echo 'make gpu-report     test and benchmark on a GPU, and write docs/benchmarks_gpu.md'
	@echo 'make reproduce-fashion  train what docs/fashion_mnist.md has in tables, and write them anew'
	@echo 'make lint           check style, format and types'
	@echo 'make format         let ruff correct style and format'
	@echo 'make docs           build the pages of docs/ as a site into site/, and check their links'
	@echo 'make release-check  build a release into dist/, install it in an empty environment and use it'
	@echo 'make env            only set up $(VENV)'
	@echo 'make clean          delete environments, caches and what training wrote'

# Does nothing if the environment matches the lock files. Without PYTHON, the first interpreter that
# runs at all (a shim of pyenv may not) starts the script, which looks for one that fits.
env:
ifdef PYTHON
	@$(PYTHON) requirements/install.py $(STACK) $(VENV)
else
	@for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then \
	        exec $$python requirements/install.py $(STACK) $(VENV) --search; \
	    fi; \
	done; \
	echo 'error: no Python 3 on PATH runs: install one, or name it, as in' \
	    '`make env PYTHON=/opt/python3.11/bin/python3`' >&2; exit 1
endif

demo: env
	$(PY) tools/demo.py

test: env
	$(PY) -m pytest $(PYTEST_ARGS)

test-all: env
	$(PY) -m pytest --all $(PYTEST_ARGS)

test-original:
	@$(MAKE) --no-print-directory test STACK=original VENV=.venv-original

# Sets nothing up: on a machine with a GPU, torch is what its driver wants. It takes $(VENV) if that
# is there, or else PYTHON.
gpu-report:
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(if $(wildcard $(PY)),$(PY),$(or $(PYTHON),python3)) tools/gpu_report.py $(ARGS)

# Hours on two cores; each training is kept, and the same command goes on where it was stopped. The
# data is Debian's and Ubuntu's package dataset-fashion-mnist.
reproduce-fashion: env
	test -d data/fashion_mnist || { mkdir -p data/fashion_mnist && \
	    cp /usr/share/datasets/fashion-mnist/* data/fashion_mnist && gunzip data/fashion_mnist/*; }
	test -d data/garments || $(PY) -m projects.toy_data.make_garments data/garments
	$(PY) -m projects.studies.compare_trainings small/vanillanet_fashion_mnist.py small/resnet_fashion_mnist.py \
	    --jobs 2 --rounds 100 --write docs/fashion_mnist.md classification
	$(PY) -m projects.studies.compare_precisions small/vanillanet_fashion_mnist.py \
	    work_dirs/studies/vanillanet_fashion_mnist_seed0_*/epoch_15.pth --write docs/fashion_mnist.md bits
	$(PY) -m projects.studies.compare_trainings projects/toy_data/configs/*_garments.py \
	    --seeds 0 --jobs 2 --rounds 100 --write docs/fashion_mnist.md garments

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy mmvanilla

format: env
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# Without the theme's advertisement of its successor. Links that lead nowhere are errors.
docs: env
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'built: site/index.html'

release-check: env
	$(PY) requirements/release_check.py

# The wheel of mmcv stays in the user's cache folder: compiling it again takes minutes.
clean:
	rm -rf .venv .venv-original .venv.lock .venv-original.lock build dist mmvanilla.egg-info work_dirs
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find mmvanilla configs tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf site .cache
