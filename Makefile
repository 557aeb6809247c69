# Everything a person or a CI job does with this repository. `make` alone lists it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# make demo: where to, and what to change
OUT ?= out/demo
STEPS ?=
LEARNING_RATE ?=
ARGS ?=

# make compile: other images than those of this release
IMAGES := $(if $(REGISTRY),TEXTUAL_INVERSION_REGISTRY=$(REGISTRY)) $(if $(VERSION),TEXTUAL_INVERSION_VERSION=$(VERSION))

# make bench-train: the reference script, textual_inversion.py of diffusers
UPSTREAM ?= textual_inversion.py

# make deploy: a folder of manifests/overlays, and the kubectl whose context says where to
OVERLAY ?=
KUBECTL ?= $(BIN)/kubectl

# make test: which tests, and how many at once
TESTS ?= tests
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults bench-train lint format compile manifests-check deploy sprites lock clean

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(READY) ## run the whole pipeline on the tiny model: OUT=out/demo STEPS=200 LEARNING_RATE=3e-2 ARGS="..."
	$(BIN)/textual-inversion run --preset sprites --out $(OUT) \
	    $(if $(STEPS),--max-train-steps $(STEPS)) $(if $(LEARNING_RATE),--learning-rate $(LEARNING_RATE)) $(ARGS)

test: $(READY) ## run the tests: TESTS=tests/common WORKERS=2 ARGS="-k storage"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --ignore tests/faults $(TESTS) $(ARGS)

test-faults: $(READY) ## kill trainings at any moment and start them again (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/faults $(ARGS)

bench-train: $(READY) ## time the trainer against the reference script: UPSTREAM=.../textual_inversion.py
	$(BIN)/python -m tests.benchmarks.bench_train --upstream $(UPSTREAM) $(ARGS)

lint: $(READY) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put the code into the common style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

compile: $(READY) ## write pipelines/compiled/*.yaml and what follows in manifests/: REGISTRY=... VERSION=...
	$(IMAGES) $(BIN)/textual-inversion compile
	$(IMAGES) $(BIN)/python -m pipelines.manifests

manifests-check: $(READY) ## check what every overlay and component of manifests/ makes
	$(BIN)/python -m pytest tests/manifests $(ARGS)

deploy: $(READY) ## apply manifests/overlays/OVERLAY to the cluster that kubectl is set to: OVERLAY=gke
	@test -n "$(OVERLAY)" || { echo "OVERLAY: expected one of" `ls manifests/overlays` >&2; exit 1; }
	@! $(KUBECTL) kustomize manifests/overlays/$(OVERLAY) | grep -n CHANGE-ME || \
	    { echo "set what is shown above in manifests/" >&2; exit 1; }
	$(KUBECTL) apply --server-side --force-conflicts -k manifests/overlays/$(OVERLAY)

sprites: $(READY) ## train the tiny model of examples/sprites again (about an hour on two cores)
	$(BIN)/python -m examples.sprites.make

lock: $(READY) ## write constraints.txt from the environment
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu//'; } > $(VENV)/lock
	mv $(VENV)/lock constraints.txt

clean: ## remove everything that was made, but for the environment
	rm -rf out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@echo "Setting up the Python environment in $(VENV) (once; a few minutes, most of it for PyTorch) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[torch,flax,launcher,dev]"
	@touch $@ && echo "The environment is ready."
