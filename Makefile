# Installs aiparsing_d2 into a virtual environment of its own and runs the usual tasks in it.
#
#   make PYTHON=python3.12 ...   makes the environment with another Python (3.10 or newer)
#   make VENV=path ...           uses an environment of yours: what it has already is kept,
#                                e.g. a build of torch that suits the machine
#   make TORCH="--index-url URL torch torchvision" ...
#                                takes torch from another index, e.g. PyTorch's own of builds for
#                                the CPU alone, a tenth in size; or other versions of it

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch torchvision

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# One file per finished step of the installation: a failed or interrupted step leaves none, so that
# the next call resumes there.
DONE := $(VENV)/.aiparsing_d2

# Batches differ in size and number of people: room for the CPU kernels of all of them.
DEMO_ENV := ONEDNN_PRIMITIVE_CACHE_CAPACITY=8192

fail = { echo "make: error: $(1)" >&2; exit 1; }

.PHONY: help install data demo train-demo ablation test test-slow lint format types docs docs-check wheel clean \
	distclean

help: ## Show this help (the default)
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

install: $(DONE)/project ## Set up the environment: torch, Detectron2, this project and its tools

data: install ## Draw a small data set, unless it is there
	$(BIN)/python -m aiparsing_d2.drawn_scenes --output "$${DETECTRON2_DATASETS:-datasets}/drawn_cihp"

# Some seeds draw three scenes of which the weights find all people; those of 6 show most
# of what they can do. Others show people who overlap and are found as one.
demo: install ## Parse a photograph and drawn scenes with the weights in the package
	@test -d output/demo/scenes || $(BIN)/python -m aiparsing_d2.drawn_scenes --train 0 --val 3 --seed 6 --output output/demo/scenes
	$(BIN)/python -m aiparsing_d2 parse docs/images/astronaut.jpg output/demo/scenes/Validation/Images --output output/demo/parsed --overwrite

train-demo: data ## Draw a small data set, train on it, evaluate and show the results (6 to 11 minutes)
	$(DEMO_ENV) $(BIN)/python train_net.py --config-file configs/demo/aiparsing_tiny_FPN_drawn_cihp.py --resume
	$(BIN)/python tools/show_results.py output/train_demo --edges

ablation: data ## Train the rows of the paper's Table VI on the small data set (hours)
	$(DEMO_ENV) $(BIN)/python tools/run_ablation.py

test: install ## Run the tests, without those that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: install ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: install ## Check style
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

format: install ## Correct style
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

types: install ## Check types
	$(BIN)/python -m mypy

docs: install ## Build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-check: install ## Run or check every command and snippet of the documents
	OMP_NUM_THREADS=1 $(BIN)/python tools/check_docs.py

wheel: install ## Build the wheel into dist/
	$(PIP) wheel --no-deps --wheel-dir dist .

clean: ## Remove caches and build files; data sets and results stay
	rm -rf build dist site *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv too (never an environment given as VENV)
	rm -rf .venv

$(DONE)/venv:
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null \
			|| $(call fail,'$(PYTHON)' is not Python 3.10 or newer: name one by make PYTHON=...); \
		$(PYTHON) -m venv $(VENV) \
			|| $(call fail,cannot make $(VENV): install the venv module (Debian: apt install python3-venv) or name an environment by make VENV=...); }
	@mkdir -p $(@D) && touch $@

$(DONE)/torch: $(DONE)/venv
	@echo "Installing torch and torchvision into $(VENV): up to 5 GB, a few minutes ..."
	@$(PIP) install $(TORCH) \
		|| $(call fail,torch is not installed: see pip above; make again resumes)
	@touch $@

$(DONE)/detectron2: tools/install_detectron2.py $(DONE)/torch
	@$(BIN)/python tools/install_detectron2.py
	@touch $@

$(DONE)/project: pyproject.toml setup.py $(DONE)/detectron2
	@echo "Installing aiparsing_d2 and its tools into $(VENV) ..."
	@$(PIP) install --editable '.[dev]' \
		|| $(call fail,aiparsing_d2 is not installed: see pip above; make again resumes)
	@$(BIN)/python -c 'import cv2' 2> /dev/null \
		|| $(PIP) install --force-reinstall --no-deps opencv-python-headless \
		|| $(call fail,OpenCV cannot be imported: see pip above; make again resumes)
	@touch $@
