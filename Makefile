# Everything a person or a CI job does with this repository. `make` alone lists it.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# make demo: of which family (sdxl, or nothing for Stable Diffusion), where to, and what to change; for tpu, how many
# devices of the CPU stand in for TPU chips (0: real ones)
FAMILY ?=
ACCELERATOR ?=
HOST_DEVICES ?= 2
OUT ?= out/demo$(FAMILY:%=-%)$(ACCELERATOR:%=-%)
STEPS ?=
LEARNING_RATE ?=
ARGS ?=

# make compile: other images than those of this release
IMAGES := $(if $(REGISTRY),TEXTUAL_INVERSION_REGISTRY=$(REGISTRY)) $(if $(VERSION),TEXTUAL_INVERSION_VERSION=$(VERSION))

# make images, sboms, push: which ones, by docker or podman, on which base, and what a build has from this machine
NAMES ?= $(shell $(PYTHON) -m components.common.images)
CONTAINER_ENGINE ?= $(notdir $(shell command -v podman || command -v docker))
BASE ?= python:3.11-slim
SOURCE ?= $(filter https://%,$(shell git config --get remote.origin.url))
REVISION ?= $(shell git describe --always --abbrev=40 --exclude '*' --dirty)
PIP_CONF ?= $(firstword $(wildcard $(PIP_CONFIG_FILE) $(HOME)/.config/pip/pip.conf $(HOME)/.pip/pip.conf /etc/pip.conf))
CA_BUNDLE ?= $(firstword $(wildcard $(SSL_CERT_FILE) /etc/ssl/certs/ca-certificates.crt))
SECRETS := $(PIP_CONF:%=--secret id=pip.conf,src=%) $(CA_BUNDLE:%=--secret id=ca-certificates.crt,src=%)
reference = $(shell $(IMAGES) $(PYTHON) -m components.common.images $*)
# By flags, since podman's cache of layers does not see that a build argument in a LABEL has changed.
LABELS = --label "org.opencontainers.image.title=Textual Inversion: $*" \
    --label "org.opencontainers.image.description=$(shell head -n 1 containers/$*/requirements.in | cut -c 3-)" \
    $(addprefix --label org.opencontainers.image.,version=$(lastword $(subst :, ,$(reference))) \
    revision=$(REVISION) $(SOURCE:%=source=%))

# make bench-train, bench-train-flax: the reference scripts of diffusers; the Flax one needs a Python with diffusers 0.39.0,
# transformers 4.57.6, flax, jax, optax and torch; for SDXL: UPSTREAM=.../textual_inversion_sdxl.py ARGS='--size sdxl-cpu-256'
UPSTREAM ?= textual_inversion.py
UPSTREAM_FLAX ?= textual_inversion_flax.py
UPSTREAM_PYTHON ?=

# make deploy: a folder of manifests/overlays, and the kubectl whose context says where to
OVERLAY ?=
KUBECTL ?= $(BIN)/kubectl

# make test: which tests, and how many at once
TESTS ?= tests
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-slowest test-parity test-learning test-faults test-hostile test-images bench-train bench-train-flax lint format images \
    sboms push compile manifests-check deploy sprites lock lock-images clean

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(READY) ## run the whole pipeline on the tiny model: OUT=out/demo FAMILY=sdxl ACCELERATOR=tpu STEPS=200 LEARNING_RATE=3e-2 ARGS="..."
	$(BIN)/textual-inversion run --preset sprites$(FAMILY:sd%=-%) --out $(OUT) $(ACCELERATOR:%=--accelerator %) \
	    $(if $(filter tpu,$(ACCELERATOR)),--host-devices $(HOST_DEVICES)) \
	    $(if $(STEPS),--max-train-steps $(STEPS)) $(if $(LEARNING_RATE),--learning-rate $(LEARNING_RATE)) $(ARGS)

test: $(READY) ## run the tests: TESTS=tests/common WORKERS=2 ARGS="-k storage"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
	    $(addprefix --ignore tests/,learning parity faults hostile images) $(TESTS) $(ARGS)

test-slowest: ARGS += --durations 20 --durations-min 1
test-slowest: test ## run the tests and print the twenty slowest

test-learning: $(READY) ## train on the tiny world, and hold what is learned against what can be (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist load tests/learning $(ARGS)

test-parity: $(READY) ## hold both trainers against the reference's mathematics and each other (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/parity $(ARGS)

test-faults: $(READY) ## kill trainings at any moment and start them again (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/faults $(ARGS)

test-hostile: $(READY) ## give every step what is damaged, hostile, interrupted or doubled, and fuzz its parsers (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/hostile $(ARGS)

test-images: $(READY) ## build the light images and run their steps in them, without a network (minutes)
	CONTAINER_ENGINE=$(CONTAINER_ENGINE) $(BIN)/python -m pytest --timeout 1800 tests/images $(ARGS) \
	    || { status=$$?; [ $$status = 77 ] || exit $$status; }  # 77: containers cannot run here, and it says why

bench-train: $(READY) ## time the trainer against the reference script: UPSTREAM=.../textual_inversion.py
	$(BIN)/python -m tests.benchmarks.bench_train --upstream $(UPSTREAM) $(ARGS)

bench-train-flax: $(READY) ## time the trainers against the last Flax script: UPSTREAM_FLAX=... UPSTREAM_PYTHON=.../bin/python
	$(BIN)/python -m tests.benchmarks.bench_train_flax --upstream $(UPSTREAM_FLAX) --upstream-python $(UPSTREAM_PYTHON) $(ARGS)

lint: $(READY) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put the code into the common style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

images: ## build the container images: REGISTRY=... VERSION=... NAMES="dataset publish" BASE=python@sha256:...
	@$(MAKE) --no-print-directory $(NAMES:%=image-%)

image-%:
	$(CONTAINER_ENGINE) build --file containers/Dockerfile --build-arg IMAGE=$* --build-arg BASE=$(BASE) $(SECRETS) $(LABELS) \
	    --tag $(reference) .

sboms: $(READY) ## write what is in the built images to build/sboms/: Python and Debian packages, as CycloneDX
	@$(MAKE) --no-print-directory $(NAMES:%=sbom-%)

sbom-%:
	@mkdir -p build/sboms && rm -f build/sboms/$*.tar
	$(CONTAINER_ENGINE) save --output build/sboms/$*.tar $(reference)
	$(BIN)/syft scan docker-archive:build/sboms/$*.tar --output cyclonedx-json=build/sboms/$*.cdx.json
	@rm build/sboms/$*.tar

push: ## push the built images: a tag that the registry has is never replaced
	$(IMAGES) $(PYTHON) -m containers.push --engine $(CONTAINER_ENGINE) $(NAMES)

compile: $(READY) ## write pipelines/compiled/ and what follows in manifests/ and README.md: REGISTRY=... VERSION=...
	$(IMAGES) $(BIN)/textual-inversion compile
	$(IMAGES) $(BIN)/python -m pipelines.manifests
	$(BIN)/python -m pipelines.readme

manifests-check: $(READY) ## check what every overlay and component of manifests/ makes
	$(BIN)/python -m pytest tests/manifests $(ARGS)

deploy: $(READY) ## apply manifests/overlays/OVERLAY to the cluster that kubectl is set to: OVERLAY=gke
	@test -n "$(OVERLAY)" || { echo "OVERLAY: expected one of" `ls manifests/overlays` >&2; exit 1; }
	@! $(KUBECTL) kustomize manifests/overlays/$(OVERLAY) | grep -n CHANGE-ME || \
	    { echo "set what is shown above in manifests/" >&2; exit 1; }
	$(KUBECTL) apply --server-side --force-conflicts -k manifests/overlays/$(OVERLAY)

sprites: $(READY) ## train the tiny models of examples/sprites again (about an hour and a half on two cores)
	$(BIN)/python -m examples.sprites.make
	$(BIN)/python -m examples.sprites.make --family sdxl

lock: $(READY) ## write constraints.txt from the environment
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu//'; } > $(VENV)/lock
	mv $(VENV)/lock constraints.txt

lock-images: $(READY) ## lock the images' packages again: the versions of constraints.txt, and hashes
	for name in $(NAMES); do \
	    $(BIN)/uv pip compile --quiet --generate-hashes --constraints constraints.txt --python-version 3.11 \
	        --python-platform x86_64-manylinux_2_31 --custom-compile-command "make lock-images" \
	        --output-file containers/$$name/requirements.txt containers/$$name/requirements.in || exit 1; \
	done

clean: ## remove everything that was made, but for the environment
	rm -rf out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@echo "Setting up the Python environment in $(VENV) (once; a few minutes, most of it for PyTorch) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[torch,flax,launcher,dev]"
	@touch $@ && echo "The environment is ready."
