# What a person or a machine runs here; `make` alone lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# How many seeded rounds a random test takes; test-all takes many.
export KOS_ROUNDS ?= 1

PYTHON := .venv/bin/python
BED := $(PYTHON) tests/bed/bed.py
# What backs up files of all owners runs as root; sudo gives nothing of the environment by itself.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),sudo --non-interactive) env
FAULTS := tests/bed tests/artefact tests/fault
FLEET_INVENTORY := inventories/local
ROLE ?=

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## install what is missing: Debian packages, .venv (quick when all is there)
	@tools/setup.sh

.PHONY: fleet
fleet: setup ## make a local fleet and show the whole story on it, from publishing to a lost node
	@$(PYTHON) tools/bundle.py
	@echo "fleet: one mirror and four nodes in two zones, inventory in $(FLEET_INVENTORY)"
	@$(BED) up --name local --inventory $(FLEET_INVENTORY)
	@$(PYTHON) tools/fleet_demo.py --bed local --inventory $(FLEET_INVENTORY)

.PHONY: fleet-down
fleet-down: setup ## remove the local fleet, its keys, repository and reports; the image is kept for the next one
	@$(BED) down --name local
	@rm -rf $(FLEET_INVENTORY) build/fleet

.PHONY: test
test: setup ## every check: lint, unit, infra, backup, molecule and fault, one after the other, with a summary
	@$(PYTHON) tools/lanes.py lint unit infra backup molecule fault

.PHONY: test-all
test-all: export KOS_ROUNDS := 50
test-all: test ## the same with many rounds of each random test

.PHONY: test-lint
test-lint: setup ## ruff, mypy, shellcheck, ansible-lint, ansible-test sanity on two cores, documentation
	@echo "lint: every session of noxfile.py that has the tag lint"
	@nox --tags lint

.PHONY: test-unit
test-unit: setup ## the tests that need no node
	@echo "unit: tests/unit"
	@pytest tests/unit --numprocesses auto

.PHONY: test-molecule
test-molecule: setup ## the roles and the fleet on systemd containers; ROLE=runtime takes one scenario
	@echo "molecule: $(or $(ROLE),every scenario)"
	@nox --session molecule -- $(ROLE)

.PHONY: test-fault
test-fault: setup ## crashes, hostile mirrors, wrong clocks, full disks, cut links; KOS_SEED=… replays a failure
	@echo "fault: $(FAULTS), $(KOS_ROUNDS) rounds of each random test"
	@pytest $(FAULTS) --numprocesses 2 --dist loadfile

.PHONY: test-infra
test-infra: setup ## the Pulumi programs, their policies and the inventory that follows them
	@tools/setup.sh infra
	@tools/pulumi/pulumi.sh >/dev/null || [[ $$? == 3 ]]
	@echo "infra: tests/infra in build/environments/infra"
	@build/environments/infra/bin/python -m pytest tests/infra --numprocesses auto

.PHONY: test-backup
test-backup: setup ## backup, restore and drill with real restic, servers and PostgreSQL; KOS_SEED=… replays a failure
	@tools/versitygw/versitygw.sh >/dev/null || [[ $$? == 3 ]]
	@echo "backup: tests/backup, $(KOS_ROUNDS) rounds of each random test"
	@$(AS_ROOT) KOS_ROUNDS=$(KOS_ROUNDS) KOS_SEED=$(KOS_SEED) \
		$(PYTHON) -m pytest tests/backup --numprocesses 2 --dist worksteal --override-ini cache_dir=build/pytest-backup

.PHONY: bench
bench: ## measure every figure that the README quotes, into build/bench.json
	@echo "bench: tests/bench, into build/bench.json"
	@tools/setup.sh bench
	@nox --session bench

.PHONY: collection
collection: setup ## build the artefact of the collection with the node's bundle inside
	@echo "collection: the node's bundle, then the artefact"
	@$(PYTHON) tools/collection.py

.PHONY: docs
docs: setup ## build the documentation with its reference pages into build/site
	@echo "docs: reference pages from the code, then build/site"
	@nox --session docs

.PHONY: clean
clean: ## remove what was built here; .venv, the node image and a running fleet stay
	@rm -rf build .nox .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible
	@find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
	@echo "clean: build, caches and compiled Python are gone"
