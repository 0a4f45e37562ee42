# Everything runs out of .venv and ~/.cache/dgx-vllm; `make help` lists what there is.
SHELL := /bin/bash
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
.DEFAULT_GOAL := help
.PHONY: help setup venv testbed demo demo-down test test-all lint unit molecule gpu-test image-test lock clean-testbed clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

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

test: setup      ## lint, unit tests, molecule default
	@scripts/test

test-all: setup  ## the same, with every vLLM release and every molecule scenario
	@scripts/test --all

lint: venv       ## linters only
	@scripts/lint

unit: venv       ## tests that need no node
	@pytest

molecule: setup  ## the scenario "default" only
	@molecule test -s default

gpu-test: venv   ## proof on a machine with an NVIDIA GPU, its vLLM and PyTorch: make gpu-test OUT=DIR [WHEELS=DIR]
	@tests/gpu/run.sh --out $(OUT) $(if $(WHEELS),--wheels $(WHEELS))

image-test: setup ## the image in wheel mode, really built and tried
	@scripts/image-test

lock:            ## requirements.txt from requirements.in
	@pip install --quiet pip-tools
	@pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-options -o requirements.txt requirements.in

clean-testbed:   ## remove nodes, services, images and caches of the testbed; stop the Docker engine if we started it
	@molecule/shared/bin/clean

clean: clean-testbed ## the same, and .venv and the collections
	@rm -rf .venv .collections/.made-from .collections/ansible_collections/ansible .collections/ansible_collections/community
