# Every command a clone needs. `make` alone lists them.

PYTHON ?= python3
# On Linux the index's torch brings gigabytes of CUDA; TORCH_INDEX=https://download.pytorch.org/whl/cpu leaves them out.
TORCH_INDEX ?=

# What comes from the system, all in one place.
PACKAGES := mosquitto python3-venv
BENCH_PACKAGES := cmake g++
ORACLE_PACKAGES := gcc libc6-dev

VENV := .venv
OPTIMUM := .venv-optimum
GENAI := .venv-genai
CUDA := .venv-cuda
BENCH := .venv-bench
DATA ?= build/bench
# Of Mistral 7B's shape. All 32 take 45 GB of disk, and onnxruntime-genai's builder about 50 GB of memory; 4 take 9 of each.
LAYERS ?= 4
OTHERS = --gguf $(DATA)/twin.gguf --genai $(DATA)/genai --genai-python $(GENAI)/bin/python
PROJECTS := pyproject.toml export/pyproject.toml
PIP_INSTALL := bin/python -m pip --disable-pip-version-check install --quiet
CLONE := --editable '.[mqtt]' --editable ./export
TESTING := 'pytest>=8.4' 'pytest-asyncio>=1.1' 'hypothesis>=6.130'

.DELETE_ON_ERROR:
.PHONY: help setup demo test test-oracles check bench clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(VENV)/.runtime  ## install what the demo needs: system packages, .venv with both distributions

demo: $(VENV)/.runtime  ## export the trained model, serve it, ask it about a simulated home
	$(VENV)/bin/edge-assistant demo --checkpoint models/home-mini/checkpoint

test: $(VENV)/.dev  ## run the tests; offline, without torch
	$(VENV)/bin/python -m pytest

test-oracles: $(OPTIMUM)/.oracle $(GENAI)/.oracle $(CUDA)/.oracle  ## compare with transformers, optimum, genai; ask CUDA's provider
	$(OPTIMUM)/bin/python -m pytest tests/oracles -m 'not genai and not cuda'
	$(GENAI)/bin/python -m pytest tests/oracles -m 'genai or transformers5'
	$(CUDA)/bin/python -m pytest tests/oracles/cuda

check: $(VENV)/.dev  ## lint, formatting, types, import directions, contents of the wheels
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest --quiet tests/test_house.py

bench: $(BENCH)/.bench $(GENAI)/.oracle  ## measure speed, memory, export and MQTT beside others (30 minutes; 9 GB of disk)
	@mkdir -p $(DATA)
	test -d $(DATA)/7b || $(BENCH)/bin/edge-assistant-export synth --shape mistral-7b --layers $(LAYERS) $(DATA)/7b
	test -d $(DATA)/1b || $(BENCH)/bin/edge-assistant-export synth --shape 1b $(DATA)/1b
	for block in 32 128; do test -d $(DATA)/int4-b$$block || \
	    $(BENCH)/bin/edge-assistant-export model $(DATA)/7b $(DATA)/int4-b$$block --block-size $$block || exit 1; done
	test -f $(DATA)/twin.gguf || $(BENCH)/bin/python benchmarks/gguf_twin.py --layers $(LAYERS) $(DATA)/twin.gguf
	test -f $(DATA)/genai/genai_config.json || $(GENAI)/bin/python -m onnxruntime_genai.models.builder \
	    -i $(DATA)/7b -o $(DATA)/genai -p int4 -e cpu -c $(DATA)/cache
	for spinning in "" --spinning; do \
	    $(BENCH)/bin/python benchmarks/decode.py --bundle int4-b32=$(DATA)/int4-b32 --warm int4-b128=$(DATA)/int4-b128 \
	        --state $(DATA)/state $(OTHERS) $$spinning && \
	    $(BENCH)/bin/python benchmarks/first_token.py $(DATA)/int4-b128 $(OTHERS) $$spinning && \
	    $(BENCH)/bin/python benchmarks/callers.py $(DATA)/int4-b128 $(OTHERS) $$spinning && \
	    $(BENCH)/bin/python benchmarks/callers.py $(DATA)/int4-b128 $(OTHERS) --prompt 190 --shared 170 --decode 16 $$spinning && \
	    $(BENCH)/bin/python benchmarks/asked_together.py $(DATA)/int4-b128 --gguf $(DATA)/twin.gguf $$spinning && \
	    $(BENCH)/bin/python benchmarks/guesses.py $(DATA)/int4-b128 --gguf $(DATA)/twin.gguf $$spinning || exit 1; done
	$(BENCH)/bin/python benchmarks/draft.py
	$(BENCH)/bin/python benchmarks/idle.py $(OTHERS)
	$(BENCH)/bin/python benchmarks/export.py $(DATA)/7b --scratch $(DATA)
	$(BENCH)/bin/python benchmarks/export.py $(DATA)/1b --scratch $(DATA) --builder-python $(GENAI)/bin/python
	$(BENCH)/bin/python benchmarks/mqtt.py

clean:  ## remove the environments and what tools left behind
	rm -rf $(VENV) $(OPTIMUM) $(GENAI) $(CUDA) $(BENCH) build *.egg-info export/*.egg-info .mypy_cache .pytest_cache .ruff_cache

# An environment is made once, and filled again when a pyproject.toml has changed.

%/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	    f"edge-assistant needs Python 3.11 or newer; {sys.executable} is {v[0]}.{v[1]}.\n" \
	    "Name another one: make PYTHON=/path/to/python3.12 (README.md, section Python, says how to get one).")'
	@$(call apt,$(PACKAGES))
	$(PYTHON) -m venv $*

$(VENV)/.runtime: $(PROJECTS) | $(VENV)/bin/python
	$(VENV)/$(PIP_INSTALL) $(CLONE)
	@touch $@

$(VENV)/.dev: $(PROJECTS) | $(VENV)/bin/python
	$(VENV)/$(PIP_INSTALL) --editable '.[mqtt,dev]' --editable ./export
	@touch $@ $(VENV)/.runtime

$(OPTIMUM)/.oracle: $(PROJECTS) | $(OPTIMUM)/bin/python
	$(OPTIMUM)/$(PIP_INSTALL) $(TORCH_INDEX:%=--index-url %) torch==2.13.0
	$(OPTIMUM)/$(PIP_INSTALL) $(CLONE)[optimum] $(TESTING)
	@touch $@

$(GENAI)/.oracle: $(PROJECTS) | $(GENAI)/bin/python
	$(GENAI)/$(PIP_INSTALL) $(TORCH_INDEX:%=--index-url %) torch==2.13.0
	$(GENAI)/$(PIP_INSTALL) $(CLONE)[genai] $(TESTING)
	@touch $@

# Two wheels hold one package, onnxruntime: the one that both distributions ask for goes.
$(CUDA)/.oracle: $(PROJECTS) | $(CUDA)/bin/python
	@$(call apt,$(ORACLE_PACKAGES))
	$(CUDA)/$(PIP_INSTALL) $(CLONE) $(TESTING) safetensors 'nvidia-cuda-runtime==13.*' 'nvidia-cuda-crt==13.*'
	$(CUDA)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(CUDA)/$(PIP_INSTALL) --no-deps --force-reinstall 'onnxruntime-gpu>=1.31'
	@touch $@

$(BENCH)/.bench: $(PROJECTS) | $(BENCH)/bin/python
	@$(call apt,$(BENCH_PACKAGES))
	$(BENCH)/$(PIP_INSTALL) $(CLONE)[bench]
	@touch $@

# Install those of the named packages that are missing; a second run touches nothing.
define apt
missing=$$(for package in $(1); do dpkg-query --show --showformat '$${Status}' $$package 2>/dev/null | \
	grep --quiet 'ok installed' || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	    command -v apt-get > /dev/null || { echo "Install these with your system's package manager:" $$missing; exit 1; }; \
	    sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	    $$sudo apt-get update --quiet --quiet; \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends $$missing; \
	fi
endef
