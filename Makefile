# The two commands of the README, `make demo` and `make test`, and the steps they are made of.
# Needs Python >= 3.11, a C++ compiler and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BUILD := build/dev
BIN := $(VENV)/bin
# Most of what is installed is never imported: Python compiles what is, when it is.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile \
	-c constraints.txt
# The build tools are in .venv already: an isolated build would fetch them again at every rebuild.
EDITABLE = --no-build-isolation -C build-dir=$(BUILD) -C cmake.define.FASTCAL_CUDA=$(CUDA) \
	-C cmake.define.CMAKE_CUDA_ARCHITECTURES=$(ARCHITECTURES) "-Ccmake.define.FASTCAL_ISAS=$(ISAS)"
WITH_CPP_TESTS := -C cmake.define.FASTCAL_BUILD_TESTS=ON
# AUTO, ON or OFF: `make build CUDA=OFF` spares minutes while other parts of csrc/ are worked on.
CUDA ?= AUTO
# Of the CUDA module: that of this machine's GPU. A wheel holds all, which takes minutes more.
ARCHITECTURES ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .),90)
ISAS = baseline;avx2;avx512
# What the first installation has built need not be built again right after it, unless this finds a
# change since, or no .built. Later builds leave it to CMake, as their settings may be others.
CHANGED = $$(find csrc cmake tests/cpp CMakeLists.txt pyproject.toml -newer $(VENV)/.built 2>&1)
CXX_SOURCES = $(shell find csrc tests/cpp -name '*.h' -o -name '*.cpp' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')
PYTEST_ARGS ?=
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-all build docs lint test-cpp test-python sanitize format clean distclean

# The demo has no use for the CUDA module without a GPU, and it runs on this processor alone.
demo: CUDA := $(if $(shell nvidia-smi -L 2>/dev/null),$(CUDA),OFF)
demo: ISAS = baseline;$(if $(shell grep -m 1 avx512vl /proc/cpuinfo 2>/dev/null),avx512,avx2)
demo: $(VENV)/.demo-ready
	test -z "$(CHANGED)" || $(PIP_INSTALL) $(EDITABLE) --no-deps -e .
	rm -f $(VENV)/.built
	$(BIN)/fastcal demo -o demo-run

# In this order, whatever -j says: pytest comes last, so that its summary closes the output.
test:
	$(MAKE) build
	$(MAKE) lint
	$(MAKE) test-cpp
	$(MAKE) test-python

# And what is slow and rarely fails: every kind of bad input, and fuzzing of each reader.
test-all:
	$(MAKE) test PYTEST_ARGS="--slow $(PYTEST_ARGS)"

build: $(VENV)/.test-ready
	test -z "$(CHANGED)" || $(PIP_INSTALL) $(EDITABLE) $(WITH_CPP_TESTS) --no-deps -e .
	rm -f $(VENV)/.built

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/repo-review --show err .
	$(BIN)/zizmor --offline --no-progress --quiet .github

test-cpp:
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure --no-tests=error

test-python:
	$(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

# The CPU module under the sanitizers of the compiler: the C++ tests, and tests that load the module.
sanitize: $(VENV)/.test-ready
	$(BIN)/python tests/sanitize.py address,undefined
	$(BIN)/python tests/sanitize.py thread

# The site, in build/docs. A warning is an error.
docs: build
	$(PIP_INSTALL) $(EDITABLE) $(WITH_CPP_TESTS) -e '.[docs,train,report,quality]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "open build/docs/index.html"

format: $(VENV)/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

$(VENV)/.tools-ready: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"fastcal needs Python 3.11 or newer; $(PYTHON) is {v.major}.{v.minor} (make PYTHON=python3.x)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) scikit-build-core setuptools-scm pybind11 cmake ninja
	touch $@

# The demo's set is the smaller one: the test tools are of no use to somebody who only looks.
$(VENV)/.demo-ready: $(VENV)/.tools-ready
	$(PIP_INSTALL) $(EDITABLE) -e '.[train,report]'
	touch $@ $(VENV)/.built

$(VENV)/.test-ready: $(VENV)/.tools-ready
	$(PIP_INSTALL) $(EDITABLE) $(WITH_CPP_TESTS) -e '.[train,report,quality,export,test,dev]'
	touch $@ $(VENV)/.built

clean:
	rm -rf build dist demo-run .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find fastcal tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
