# SPDX-License-Identifier: Apache-2.0
# Every target does the set-up that it needs; `make help` lists them.
# ARGS goes to the nvcrucible command:  make bench ARGS="-a nvmalloc,pmdk -w larson --repeat 5"

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build bench fault fault-gate mutants fault-exhaustive report readme-table screenshots metrics-page preload-programs images test zoo fuzz lint clean

export PATH := $(CURDIR)/.venv/bin:$(PATH)
NVCRUCIBLE := .venv/bin/nvcrucible
ARGS ?=
FAULT_BUDGET ?= 240s
GATE_BUDGET ?= 90s
# What a crash must not harm: if one of them fails, so does `make fault-gate`.  The other persistent
# allocators have known findings (docs/findings), or sources that are not ours.
MUST_SURVIVE := nvmalloc,nvmalloc-strict,nvmalloc-gc,nvdaisy,good-minimal
comma := ,
# The run that `make report` shows: the newest one, unless stated.
RUN ?= $(lastword $(sort $(dir $(wildcard results/*/run.json))))

help: ## what the targets do
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

setup: ## Debian packages (where allowed), .venv, the native build; idempotent
	@.ci/setup

build: setup ## the same: set-up ends with the native build

bench: setup ## all allocators on all workloads, tables, results/; in containers where a Docker engine answers
	@.venv/bin/python -m suite.images --if-engine job || echo "bench: without its image the docker runner is no choice; going on." >&2
	@.venv/bin/python -m suite.images --if-engine pmemkv || echo "bench: pmemkv, which needs an image of its own, is left out." >&2
	@$(NVCRUCIBLE) bench $(ARGS)

fault: setup ## kill the persistent allocators and cut their power, recover them, judge them
	@.venv/bin/python -m suite.images --if-engine job || echo "fault: without its image the docker runner is no choice; going on." >&2
	@$(NVCRUCIBLE) fault $(or $(ARGS),-f sigkill$(comma)powerfail$(comma)recovery-crash --budget $(FAULT_BUDGET))

fault-gate: setup ## 90 seconds of the same for those that must survive: CI does it
	@$(NVCRUCIBLE) fault -a $(MUST_SURVIVE) --allocator-path tests/known_bad/good-minimal --runner local \
	    -f sigkill,powerfail,recovery-crash --budget $(GATE_BUDGET) $(ARGS)

mutants: setup ## nvmalloc with one flush or fence changed, at each of its sites: are all caught? some minutes
	@.venv/bin/python -m suite.mutants $(ARGS)

fault-exhaustive: setup ## every state of every sequence of up to three operations of nvmalloc; some minutes
	@.venv/bin/python -m suite.sequences $(ARGS)

report: setup ## the tables of the newest run again, or of RUN=results/...
	@test -n "$(RUN)" || { echo "report: there is no run in results/ yet; 'make bench' makes one." >&2; exit 3; }
	@$(NVCRUCIBLE) report $(RUN) $(ARGS)

readme-table: setup ## the README's table anew, from the newest run or RUN=results/...
	@test -n "$(RUN)" || { echo "readme-table: there is no run in results/ yet; 'make bench' makes one." >&2; exit 3; }
	@$(NVCRUCIBLE) report $(RUN) --readme README.md

screenshots: setup ## docs/screenshots anew, from the newest run or RUN=results/... (needs chromium)
	@test -n "$(RUN)" || { echo "screenshots: there is no run in results/ yet; 'make bench' makes one." >&2; exit 3; }
	@NVC_SCREENSHOTS=docs/screenshots NVC_SCREENSHOT_RUN=$(RUN) .venv/bin/python -m pytest -q tests/python/test_html_report.py -k test_screenshots

metrics-page: setup ## docs/metrics.md anew, from suite/metrics.py
	@.venv/bin/python -m suite.metrics_page docs/metrics.md

preload-programs: setup ## whole programs on libnvmalloc-preload at their full sizes: some minutes
	@.ci/setup test
	@NVM_PRELOAD_FULL=1 .venv/bin/python -m pytest -q tests/python/test_preload.py $(ARGS)

images: setup ## the container images, their Debian base made by debootstrap where no registry answers
	@.venv/bin/python -m suite.images $(ARGS)

test: ## all tests: C, Python, containers; the last line counts them
	@.ci/setup test
	@.venv/bin/python .ci/test $(ARGS)

zoo: setup ## planted faults: the power-fail laboratory must catch each, and accuse nobody else
	@.ci/setup test
	@.venv/bin/python -m suite.zoo $(ARGS)

fuzz: ## heap images that are damaged or lie, by libFuzzer, a night long; FUZZ_SECONDS=600 for less
	@.ci/setup test lint
	@allocators/nvmalloc/fuzz/run $(or $(FUZZ_SECONDS),28800)

lint: ## formatting, types, static analysis of all sources
	@.ci/setup test lint
	@.ci/lint

clean: ## removes what set-up and builds made; results stay
	rm -rf build build-* .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
