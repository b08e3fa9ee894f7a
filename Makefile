# Two commands matter: `make demo` and `make test`. Both may be run again; the second time they only do what changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTED := $(VENV)/.installed $(VENV)/.tested
NATIVE := $(shell find csrc CMakeLists.txt pyproject.toml -type f)

# The commands of a virtual environment name the interpreter they were made for by its path.
ifneq ($(MAKECMDGOALS),clean)
MADE_FOR := $(shell sed -n '1s/^\#!//p' $(BIN)/albireo 2>/dev/null)
ifneq ($(MADE_FOR),)
ifeq ($(wildcard $(MADE_FOR)),)
$(error $(CURDIR)/$(VENV) was made for $(MADE_FOR), which is not there any more (this directory was moved?); it is made anew after: make clean)
endif
endif
endif

# Tests start servers and interpreters by the hundred: without bytecode each would compile the whole package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo serve test test-all test-levels fuzz aot clients load-clients fuzz-routes chaos lint versions format bench page \
        prometheus macos clean

demo: $(VENV)/.installed
	@$(BIN)/albireo generate --stats --seed 7 "Once upon a time, a little fox"

# Folders that are long, each a process; all others are one; linters are one more. Two at a time, the longest first: whoever
# is done takes the next, so both cores have work until the end. What a process said is shown at its end. numpy and torch
# have one thread: of two, each of which spins while it waits for the other, one would take the other process's core.
# (Not $(MAKE): `make -n` would run that line, and with it all tests.)
APART := tests/backends/cuda tests/e2e tests/server tests/backends/cpu
PYTEST := $(BIN)/python -m pytest -q -p no:cacheprovider $(THOROUGH)
test:
	@make --no-print-directory -j 2 $(TESTED)
	@mkdir -p build
	@printf '%s\n' '$(PYTEST) $(APART:%=--ignore=%) tests' $(APART:%='$(PYTEST) %') 'make --no-print-directory lint' | \
	  OMP_NUM_THREADS=1 xargs -P 2 -I JOB sh -c \
	  'log=build/test.$$$$.log; eval "$$1" >$$log 2>&1; code=$$?; echo "== $$1"; cat $$log; rm $$log; exit $$code' sh JOB

# Also those marked `thorough`: matrices whose every cell is seen somewhere in `make test`, but not beside every other.
test-all:
	@make --no-print-directory test THOROUGH=--thorough

# The whole suite at every instruction-set level this machine has.
test-levels: $(TESTED)
	for level in scalar avx2 avxvnni avx512 avx512bf16; do \
	  echo "== $$level"; ALBIREO_ISA_MAX=$$level $(BIN)/python -m pytest -q tests || exit 1; done

# Minutes of random damage to engine directories and GGUF files, with another seed each time; the tests do a few seconds
# of it.
fuzz: $(TESTED)
	FUZZ_ROUNDS=12000 FUZZ_SEED=$$$$ $(BIN)/python -m pytest -q tests/artifact/test_fuzz.py tests/models/gguf/test_header.py

# What came of kernels compiled ahead of time, which tests look up: compiles what is missing; ALL=--all everything.
aot: $(TESTED)
	$(BIN)/python tools/aot_ledger.py $(ALL)

# Real clients against `albireo serve`, in environments of their own (CLIENTS_DIR; by default in the user's cache): 4.5 GB.
clients: $(VENV)/.installed
	$(BIN)/python tools/clients/check.py

# Other people's load generators (vllm bench serve, guidellm, aiperf), which must count what the server counts. They need
# 6 GB; VLLM_PYTHON=interpreter and the like take what is installed elsewhere.
load-clients: $(TESTED)
	$(BIN)/python tools/clients/load.py

# Ten minutes of requests that schemathesis makes of the server's own document, in an environment of its own: 100 MB.
fuzz-routes: $(VENV)/.installed
	$(BIN)/python tools/clients/fuzz.py

# A minute of requests while clients leave, engines are killed and stopped, and memory is short: each has to be answered as
# a quiet server answers it. MODEL=directory, SECONDS=60, SEED=0.
chaos: $(TESTED)
	$(BIN)/python tools/chaos.py $(MODEL) --seconds $(or $(SECONDS),60) --seed $(or $(SEED),0)

lint: $(TESTED)
	$(BIN)/ruff check src tests benchmarks tools examples
	$(BIN)/ruff format --check src tests benchmarks tools examples
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.cc' -o -name '*.h' -o -name '*.inl')
	$(BIN)/lint-imports

format: $(TESTED)
	$(BIN)/ruff check --fix src tests benchmarks tools examples
	$(BIN)/ruff format src tests benchmarks tools examples
	$(BIN)/clang-format -i $(shell find csrc -name '*.cc' -o -name '*.h' -o -name '*.inl')

# The bundled model on http://127.0.0.1:8000, with a page to look at; MODEL=checkpoint or engine directory.
serve: $(VENV)/.installed
	@$(BIN)/python -c "import uvicorn, msgspec, prometheus_client" 2>/dev/null || \
	  $(BIN)/python tools/install_extra.py serve
	@$(BIN)/albireo serve $(MODEL)

# MODEL=checkpoint directory; other engines are added by hand, see the script's --help.
bench: $(VENV)/.installed
	$(BIN)/python benchmarks/workloads/compare.py --model $(MODEL)

# What running needs, and nothing else: libraries, and the project. An editable install: Python edits need no reinstall,
# native ones rebuild here.
$(VENV)/.libraries: pyproject.toml tools/install_extra.py
	@test -x $(BIN)/python || { $(PYTHON) -m venv $(VENV) && \
	  { $(BIN)/python -m pip uninstall --quiet --yes setuptools 2>/dev/null || true; }; }  # nothing here needs it
	@$(BIN)/python tools/install_extra.py
	@touch $@

$(VENV)/.installed: $(NATIVE) | $(VENV)/.libraries
	@echo "installing albireo into $(VENV) (the native core compiles once, which takes minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# What tests need on top: no part of it is the project's, so `make test` has it installed while the native core compiles.
# torch comes first and alone, as its CPU build: plain resolution would fetch CUDA.
$(VENV)/.tested: pyproject.toml tools/install_torch.py tools/install_extra.py tests/constraints.txt | $(VENV)/.libraries
	@$(BIN)/python tools/install_torch.py
	@$(BIN)/python tools/install_extra.py test
	@touch $@

# The newest of everything that tests need, written down for the next who install it. Run the tests then.
versions: $(TESTED)
	@$(BIN)/python tools/install_extra.py --newest test
	@$(BIN)/python -m pip freeze --exclude-editable | grep -v '^torch==' >tests/constraints.txt

# The page at / in headless Chromium, the metrics and the dashboard in Prometheus; each says why where it cannot.
page: $(TESTED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright
	@$(BIN)/python tools/check_page.py

prometheus: $(TESTED)
	@$(BIN)/python tools/check_prometheus.py

# The native core compiled and linked for Macs of both kinds, by a compiler that PyPI has (docs/macos.md): 20 minutes.
macos: $(TESTED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check ziglang
	@$(BIN)/python tools/check_macos.py

clean:
	rm -rf build $(VENV)
