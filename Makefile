# make demo    set everything up and run the whole story on data it makes itself; results in build/demo/
# make test    set everything up and run the tests (the slow ones too: make test ARGS="-m slow")
# make wheel   the library as a package for pip, in dist/
# make lint    ruff and mypy
# make screenshots    pictures of every step of the Slicer module, in build/screenshots/; with ARGS=--tutorial those of
#                     docs/tutorial.md, in Resources/Screenshots/tutorial/
# make docs    the documentation site, in build/site/ (torch is not needed)
# make clean   remove results and caches (delete .venv/ yourself to set up anew)
#
# PYTHON=python3.12        another interpreter (3.11 or newer)
# TORCH_INDEX=ADDRESS      take torch alone from this package index, for example PyTorch's own CPU index

PYTHON      ?= python3
TORCH_INDEX ?=
ARGS        ?=

BIN   := .venv/bin
READY := .venv/.installed
TESTS := .venv/.installed-tests
DOCS  := .venv/.installed-docs
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
PIP   := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar off

.PHONY: demo test lint ruff format mypy screenshots docs clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/incrementalseg demo --out build/demo $(ARGS)

test: $(TESTS)
	$(BIN)/python -m pytest $(ARGS)

lint: ruff format mypy

ruff: $(TESTS)
	$(BIN)/python -m ruff check .

format: $(TESTS)
	$(BIN)/python -m ruff format --check .

mypy: $(TESTS)
	$(BIN)/python -m mypy IncrementalSegLib

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# An interpreter that is new enough, and .venv where there is none that works.
define VENV
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed: name one with  make PYTHON=python3.12 …" >&2; exit 1; }
@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
	  echo "Could not create .venv. On Debian and Ubuntu:  sudo apt install python3-venv" >&2; exit 1; }
endef

# torch comes first and alone, so that the build chosen here (CPU or CUDA) is the one that everything else is fitted to.
$(READY): pyproject.toml constraints.txt
	$(VENV)
	@echo "Setting up .venv with $(TORCH) (minutes, once) …"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --no-deps $(TORCH)
	@$(PIP) -c constraints.txt -e '.[figures]'
	@touch $@

# Slicer's scene and Qt, on which the module is tested without Slicer. Without their dependencies: trame-slicer, of which only
# the terminology files are used, and nnU-Net's networks, which need torch alone.
$(TESTS): $(READY)
	@echo "Setting up .venv for the tests (minutes, once) …"
	@$(PIP) -c constraints.txt -e '.[figures,test]'
	@$(PIP) -c constraints.txt --no-deps trame-slicer dynamic-network-architectures
	@touch $@

# The extra's own packages, without the project, whose dependency torch is.
$(DOCS): pyproject.toml constraints.txt
	$(VENV)
	@echo "Setting up .venv for the documentation …"
	@$(PIP) -c constraints.txt $$($(BIN)/python -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The site is in build/site/."

screenshots: $(TESTS)
	$(BIN)/python Testing/screenshots.py $(if $(findstring --tutorial,$(ARGS)),,build/screenshots) $(ARGS)

# build/lib is where setuptools would find files again that the library no longer has.
.PHONY: wheel
wheel: $(TESTS)
	rm -rf build/lib
	$(BIN)/python -m pip --disable-pip-version-check wheel --no-deps --no-build-isolation --quiet --wheel-dir dist .
