# Every target says in one line what it does; `make` alone prints them. Nothing is done by hand in CI
# that a target here cannot do.
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
DESTDIR ?=
VENV ?= .venv
CC ?= gcc
BIN := $(VENV)/bin
LIBRARY := $(PREFIX)/lib/ocimig
INIT := runtime/init/ocimig-init
PRELOAD := criu_images/preload/ocimig-preload.so
# Below the venv: `make clean` and a new clone start from nothing.
STAMP := $(VENV)/.made
export PYTHONSAFEPATH := 1
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: help setup dev init check format lint types test test-unit test-root test-criu test-vm conformance \
  bench bench-backup bench-clone bench-inspect bench-migrate bench-startup faults fuzz demo docs man dist install uninstall clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: ## what the program needs: Debian packages, init, CRIU, virtual environment (root, once)
	@contrib/install-deps
	@$(MAKE) --no-print-directory init dev
	@contrib/install-criu

dev: $(STAMP) ## virtual environment in .venv with an editable install and the developer's tools

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --retries 5 --editable '.[dev]'
	@touch $@

init: $(INIT) $(PRELOAD) ## compile the static program that runs inside the namespaces, and CRIU's help

$(INIT): $(wildcard runtime/init/*.c runtime/init/*.h) Makefile
	$(CC) -std=gnu11 -Os -static -Wall -Wextra -Werror -fno-asynchronous-unwind-tables -ffunction-sections \
	  -Wl,--gc-sections -Wl,-z,noexecstack -s -o $@ $(sort $(wildcard runtime/init/*.c))

$(PRELOAD): $(wildcard criu_images/preload/*.c) Makefile
	$(CC) -std=gnu11 -Os -shared -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wl,-z,noexecstack -s -o $@ \
	  $(sort $(wildcard criu_images/preload/*.c))

check: lint types test-unit ## format-check, lint, types and the tests without privileges

format: $(STAMP) ## rewrite the sources in the one format
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format .

lint: $(STAMP) ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## mypy --strict over the program and its tests
	$(BIN)/mypy
	$(BIN)/mypy tests

test: setup ## everything, on a fresh machine too: installs what it needs, then runs all tests
	$(BIN)/python -m pytest $(TESTARGS)

test-unit: $(STAMP) ## unit, house and contract tests: no privileges
	$(BIN)/python -m pytest tests/unit tests/house tests/contract $(TESTARGS)

test-root: $(STAMP) init ## whole-program tests as root
	$(BIN)/python -m pytest tests/system $(TESTARGS)

test-criu: $(STAMP) init ## checkpoint, restore and migration with CRIU
	$(BIN)/python -m pytest tests/criu $(TESTARGS)

test-vm: $(STAMP) init ## migration, trackers and limits in a virtual machine: cgroup v2, soft-dirty, netem
	OCIMIG_PATIENCE=$${OCIMIG_PATIENCE:-1000%} contrib/vm-run $(VMARGS) -- $(BIN)/python -m pytest -p no:cacheprovider \
	  tests/criu/test_follow.py tests/criu/test_migrate.py tests/system/test_trackers.py tests/system/test_throttle.py \
	  tests/system/test_dirty_rate.py $(TESTARGS)

conformance: $(STAMP) ## the whole-program tests against OCIMIG_RUNTIME=runc (or crun), to prove the tests
	OCIMIG_RUNTIME=$${OCIMIG_RUNTIME:-runc} $(BIN)/python -m pytest tests/system $(TESTARGS)

bench: setup ## run, create, start, state, delete, exec beside runc and crun: ratios and memory
	$(BIN)/python contrib/bench/compare.py $(BENCHARGS)

bench-migrate: setup ## the longest wait of a client while its server moves, by memory, files and way of moving
	$(BIN)/python contrib/bench/migrate.py $(BENCHARGS)

bench-inspect: $(STAMP) ## a look at the checkpoint BENCHARGS, beside CRIU's own crit
	$(BIN)/python contrib/bench/bench_inspect.py $(BENCHARGS)

fuzz: $(STAMP) ## damaged images, read by everything that reads images: FUZZARGS="--seconds 600 --seed 1"
	$(BIN)/python contrib/fuzz-images.py $(FUZZARGS)

faults: setup ## the whole fault matrix: every process killed, stopped, cut off at every place of a migration
	$(BIN)/python contrib/faults.py $(FAULTSARGS)

demo: setup ## a redis server moves between two hosts on this machine under a client that never stops
	$(BIN)/python contrib/demo/demo.py $(DEMOARGS)

bench-backup: setup ## a container's snapshots beside borg and restic, and a store with a thousand of them
	$(BIN)/python contrib/bench/backup.py $(BENCHARGS)
	$(BIN)/python contrib/bench/store.py

bench-clone: setup ## copies of a warm Python service beside cold starts: time to the first answer, and memory
	$(BIN)/python contrib/bench/clone.py $(BENCHARGS)

bench-startup: $(STAMP) ## milliseconds of the hot verbs, beside the floor of the interpreter
	$(BIN)/python contrib/bench/startup.py

docs: $(STAMP) ## docs/errors.md, from the error classes
	$(BIN)/python contrib/errors-page >docs/errors.md

man: $(STAMP) ## man pages, completions, docs/exit-codes.md, from the table of verbs
	$(BIN)/python contrib/man.py

dist: $(STAMP) init ## source and wheel packages in dist/
	$(BIN)/python -m build --sdist --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist -C=--build-option=--plat-name=linux_$$(uname -m) .

install: init ## into PREFIX (DESTDIR honoured), with its own copies of click and the others
	contrib/install-program --python $(PYTHON) --prefix $(PREFIX) --destdir '$(DESTDIR)'

uninstall: ## remove what `make install` wrote
	contrib/install-program --uninstall --prefix $(PREFIX) --destdir '$(DESTDIR)'

clean: ## remove what was built, the virtual environment too
	rm -rf $(VENV) build dist src/ocimig.egg-info $(INIT) $(PRELOAD) .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
