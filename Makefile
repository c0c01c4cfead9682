# Two commands on a fresh machine: `make demo` and `make test`. Everything here also runs under GNU make 3.81 (macOS).

VENV ?= .venv
PYTHON ?=

BIN = $(VENV)/bin
ADAPTER = adapters/support-demo
# Nothing is fetched once the environment is there.
OFFLINE = HF_HUB_OFFLINE=1

# Another project's packages must not be mistaken for ours.
unexport PYTHONPATH PYTHONHOME

.PHONY: help env demo test check-all clean

help:
	@echo 'make demo       train a router on the embedded base, evaluate it, route five requests'
	@echo 'make test       ruff, mypy and the tests'
	@echo 'make check-all  the same with the slow tests'
	@echo 'make env        make the environment only'
	@echo 'make clean      remove the environment and the caches'
	@echo
	@echo 'The environment is made in .venv by the first fit Python, 3.11 to 3.14, that is found.'
	@echo 'Another folder: make test VENV=/path/to/folder'
	@echo 'Another Python: make test PYTHON=python3.12'

env:
	@scripts/environment.sh "$(VENV)" "$(PYTHON)"

demo: env
	@$(OFFLINE) scripts/demo.sh "$(BIN)" "$(ADAPTER)"

test: env
	"$(BIN)/ruff" check .
	"$(BIN)/mypy" --strict mlx_router
	$(OFFLINE) "$(BIN)/pytest" -q

check-all: env
	"$(BIN)/ruff" check .
	"$(BIN)/mypy" --strict mlx_router
	$(OFFLINE) "$(BIN)/pytest" -q -m "slow or not slow"

clean:
	@if [ -e "$(VENV)/.mlx-router-made" ]; then rm -rf "$(VENV)"; \
	elif [ -e "$(VENV)" ]; then echo 'Left alone, since make did not make it: $(VENV)'; fi
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist mlx_router.egg-info
	find . -path './.venv' -prune -o -name __pycache__ -type d -exec rm -rf {} +
