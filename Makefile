# Everything runs out of .venv and ~/.cache/dgx-vllm; `make help` lists what there is.
SHELL := /bin/bash
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
.DEFAULT_GOAL := help
.PHONY: help setup venv testbed demo demo-down test test-all lint unit molecule gpu-test gpu-bundle gpu-role image-test lock clean-testbed clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo 'Parts of make test-all:'
	@scripts/test --list

setup: venv testbed ## controller environment, collections, Docker engine, images and services of the testbed

venv:            ## .venv from requirements.txt, and the collections
	@scripts/venv
	@scripts/collections

testbed: venv    ## what the simulated nodes share
	@molecule/shared/bin/testbed

demo: setup      ## one simulated Spark, deployed by site.yml, answering a chat completion
	@scripts/demo up

demo-down:       ## remove the demo's node
	@scripts/demo down

test: setup      ## lint, every test without a node on one ansible-core, molecule default
	@scripts/test

test-all: setup  ## every vLLM release, ansible-core version and scenario; what passed on this tree is skipped: [PART=…] [FRESH=1]
	@scripts/test --all $(PART)

lint: venv       ## linters only
	@scripts/lint

unit: venv       ## tests that need no node
	@pytest

molecule: setup  ## the scenario "default" only
	@molecule test -s default

gpu-test: venv   ## proof on a machine with an NVIDIA GPU, its vLLM and PyTorch: make gpu-test OUT=DIR [WHEELS=DIR]
	@tests/gpu/run.sh --out $(OUT) $(if $(WHEELS),--wheels $(WHEELS))

gpu-bundle: venv ## what gpu-role needs on a machine without network, made on a Debian machine as root: make gpu-bundle OUT=DIR
	@tests/gpu/node/bundle.sh --out $(OUT)

gpu-role:        ## the whole role on a real NVIDIA GPU, as root: make gpu-role OUT=DIR BUNDLE=DIR [PYTHON=…]
	@tests/gpu/node/run.sh --out $(OUT) --bundle $(BUNDLE) $(if $(PYTHON),--python $(PYTHON))

image-test: setup ## the image in wheel mode, really built and tried
	@scripts/image-test

lock: venv       ## requirements.txt from requirements.in, and the lanes' own
	@scripts/lock

clean-testbed:   ## remove nodes, services, images and caches of the testbed; stop the Docker engine if we started it
	@molecule/shared/bin/clean

clean: clean-testbed ## the same, and .venv and the collections
	@rm -rf .venv .collections/.made-from .collections/ansible_collections/ansible .collections/ansible_collections/community
