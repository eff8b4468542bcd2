# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest. Python, pip and
# make are enough: what requirements/ pins is installed by pip, and nothing is compiled.

STACK  ?= fork
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check
LOCK   := requirements/$(STACK).txt
# MMCV without operators, whatever torch is there; pip's cache may hold a build with them.
BUILD  := MMCV_WITH_OPS=0 $(PIP) --no-build-isolation
LITE   := $(shell grep -E '^(onedl-mmcv|mmcv-lite)==' $(LOCK))
MMCV   := $(LITE:mmcv-lite%=mmcv%)
NEWEST := $(if $(filter original,$(STACK)),11,13)

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
    $$python -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $(NEWEST)))' \
    2>/dev/null && { echo $$python; break; }; done)

.PHONY: help env demo test test-all test-original gpu-report reproduce-fashion lint format docs clean

help:
	@echo 'make demo           set up, then train, test and fuse a small Mask R-CNN on made-up data'
	@echo 'make test           set up, then run the tests (PYTEST_ARGS="-m \"not slow\"" for fewer)'
	@echo 'make test-all       run all tests, including those that take minutes'
	@echo 'make test-original  run the tests with the last releases of the original OpenMMLab'
	@echo 'make gpu-report     benchmark on a GPU, and write work_dirs/benchmark/benchmark.md'
	@echo 'make reproduce-fashion  train what docs/fashion_mnist.md has in tables, and write them anew'
	@echo 'make lint           check style, format and types'
	@echo 'make format         let ruff correct style and format'
	@echo 'make docs           build the pages of docs/ as a site into site/, and check their links'
	@echo 'make env            only set up $(VENV); with OPS=compiled, compile the operators of MMCV, too'
	@echo 'make clean          delete environments, caches and what training wrote'

# Each of these files is written last, so that a set-up that was interrupted goes on.
$(VENV)/stack: $(LOCK) setup.py
	@test -n '$(PYTHON)' || { echo 'error: the $(STACK) stack needs Python 3.10 to 3.$(NEWEST) with its' \
	    'module venv: install one, or name it, as in make $(MAKECMDGOALS) PYTHON=/opt/python3.11/bin/python3' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint $(LOCK) setuptools wheel
	$(BUILD) --no-deps --no-cache-dir $(LITE)
	$(BUILD) --requirement $(LOCK)
	$(BUILD) --no-deps --editable .
	@touch $@

$(VENV)/tools: requirements/dev.txt requirements/no-deps.txt $(VENV)/stack
	$(BUILD) --requirement $(LOCK) --requirement requirements/dev.txt
	$(PIP) --no-deps --requirement requirements/no-deps.txt
	@touch $@

# About ten minutes on two cores, with a C++ compiler, and with nvcc of torch's CUDA for a GPU.
$(VENV)/compiled: $(VENV)/stack
	$(PIP) --constraint $(LOCK) ninja psutil
	$(PY) -m pip uninstall --quiet --yes mmcv-lite
	MMCV_WITH_OPS=1 CFLAGS='-O3 -g0' CXXFLAGS='-O3 -g0' \
	    $(PIP) --no-build-isolation --no-deps --no-cache-dir --force-reinstall $(MMCV)
	@touch $@

env: $(VENV)/tools $(if $(filter compiled,$(OPS)),$(VENV)/compiled)

demo: $(VENV)/stack
	$(PY) tools/demo.py

test: env
	$(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-all: env
	$(PY) -m pytest -n 2 --dist loadfile --all $(PYTEST_ARGS)

test-original:
	@$(MAKE) --no-print-directory test STACK=original VENV=.venv-original

# Sets nothing up: on a machine with a GPU, torch is what its driver wants. It takes $(VENV) if that
# is there, or else PYTHON.
gpu-report:
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(if $(wildcard $(PY)),$(PY),$(or $(PYTHON),python3)) \
	    -m projects.benchmark.main --device cuda --modes forward features train --batches 1 64 \
	    --peers resnet50 swin-t convnext-t --dtypes fp32 tf32 fp16 bf16 $(ARGS)

# Hours on two cores; each training is kept, and the same command goes on where it was stopped. The
# data is Debian's and Ubuntu's package dataset-fashion-mnist.
reproduce-fashion: env
	test -d data/fashion_mnist || { mkdir -p data/fashion_mnist && \
	    cp /usr/share/datasets/fashion-mnist/* data/fashion_mnist && gunzip data/fashion_mnist/*; }
	test -d data/garments || $(PY) -m projects.toy_data.make_garments data/garments
	$(PY) -m projects.studies.compare_trainings small/vanillanet_fashion_mnist.py small/resnet_fashion_mnist.py \
	    --jobs 2 --rounds 100 --write docs/fashion_mnist.md classification
	$(PY) -m projects.studies.compare_precisions small/vanillanet_fashion_mnist.py \
	    work_dirs/studies/vanillanet_fashion_mnist_seed0_*/epoch_15.pth --rounds 0 --write docs/fashion_mnist.md bits
	$(PY) -m mmvanilla train small/resnet_wide_fashion_mnist.py
	$(PY) -m projects.studies.compare_trainings small/vanillanet_fashion_mnist_distilled.py \
	    small/vanillanet_fashion_mnist_distilled_30e.py \
	    projects/studies/configs/resnet_fashion_mnist_distilled.py --jobs 2 --write docs/fashion_mnist.md teacher
	$(PY) -m projects.studies.compare_trainings projects/toy_data/configs/*_garments.py \
	    --seeds 0 --jobs 2 --rounds 100 --write docs/fashion_mnist.md garments
	$(PY) -m projects.studies.compare_trainings projects/studies/configs/upernet_garments.py \
	    projects/studies/configs/maskrcnn_garments.py --seeds 0 1 --jobs 2 --write docs/fashion_mnist.md merging

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

clean:
	rm -rf .venv .venv-original build dist mmvanilla.egg-info work_dirs site
	rm -rf .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find mmvanilla configs tools tests projects -name __pycache__ -type d -prune -exec rm -rf {} +
