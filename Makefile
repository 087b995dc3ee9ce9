# `make` alone lists the targets. Each installs what it needs into .venv, once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

# Small numeric programs run beside each other here; many threads each would only get in the way.
export BENTOML_DO_NOT_TRACK := True
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check bench bench-judge bench-anomaly bench-explanations bench-sampler \
  bench-conditioning simulate bench-studies bench-webapp format lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Python 3.11 or newer is needed; name it with `make PYTHON=/path/to/python3.11 …`.'; exit 1; }
	@echo 'Installing into .venv (about two minutes, once) …'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
	  -e '.[train,serve,webapp,postgresql,studies,psychometrics,comparison,dev]'
	@touch $@

install: $(INSTALLED)  ## make .venv with everything in it

demo: $(INSTALLED)  ## draw, train, serve, run a blinded study, report (EXIT=1 ends by itself; DATA=path)
	@$(BIN)/python demo.py $(if $(EXIT),--exit) $(if $(DATA),--data '$(DATA)') $(DEMO_OPTIONS)

test: $(INSTALLED)  ## the test suite, at most 10 minutes on 2 cores
	@$(BIN)/python -m pytest

test-slow: $(INSTALLED)  ## what takes minutes rather than seconds
	@$(BIN)/python -m pytest -m slow

check: $(INSTALLED)  ## what CI runs: format, lint, types, import arrows, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

# Benchmarks need the real cells. `make bench` alone takes tens of minutes; each writes benchmarks/results/*.json.
CELLS ?= ../shared/data/pbc64
CHECKPOINT ?= checkpoints/pbc64
JUDGE ?= runs/cnn
RESULTS := benchmarks/results

$(JUDGE)/cnn.json:
	@$(BIN)/python benchmarks/plain_cnn.py --train $(CELLS)/train --minutes 22 --out $(JUDGE)

bench-judge: $(INSTALLED) $(JUDGE)/cnn.json  ## train the plain CNN that stands beside us and judges our pictures

bench: $(INSTALLED) $(JUDGE)/cnn.json  ## ours against the published rule, side by side (needs ../shared/data)
	@$(BIN)/python benchmarks/classifier.py --checkpoint $(CHECKPOINT) --data $(CELLS)/val --fit $(CELLS)/train \
	  --judge $(JUDGE) --limit 240 --json $(RESULTS)/classifier.json

bench-anomaly: $(INSTALLED)  ## anomaly scores: foreign and altered cells, and each class left out in turn (an hour)
	@$(BIN)/python benchmarks/anomaly.py far --checkpoint $(CHECKPOINT) --data $(CELLS)/..
	@$(BIN)/python benchmarks/anomaly.py leave-out --data $(CELLS)/train --test $(CELLS)/val

bench-explanations: $(INSTALLED) $(JUDGE)/cnn.json  ## evidence maps and counterfactuals
	@$(BIN)/python benchmarks/explanations.py --checkpoint $(CHECKPOINT) --data $(CELLS)/val --judge $(JUDGE) \
	  --attributes $(CELLS)/wbcatt_attributes.csv

bench-sampler: $(INSTALLED) $(JUDGE)/cnn.json  ## kernel distance of samples by steps and guidance
	@$(BIN)/python benchmarks/sampler.py --checkpoint $(CHECKPOINT) --data $(CELLS)/train --judge $(JUDGE)

bench-conditioning: $(INSTALLED) $(JUDGE)/cnn.json  ## where the class should enter the network (an hour)
	@$(BIN)/python benchmarks/conditioning.py --data $(CELLS)/train --images 56000 --judge $(JUDGE) \
	  --json $(RESULTS)/conditioning.json

simulate: $(INSTALLED)  ## coverage, error rates and recovery of the statistics, into docs/statistics.md (ten minutes)
	@$(BIN)/python benchmarks/simulate.py

bench-studies: $(INSTALLED)  ## speed of the statistics, and the worked example of docs/worked_example.md
	@$(BIN)/python benchmarks/worked_example.py
	@$(BIN)/python benchmarks/studies_speed.py measure --report

bench-webapp: $(INSTALLED)  ## 200 readers at once on PostgreSQL, and memory over 20,000 answers (a quarter of an hour)
	@$(BIN)/python benchmarks/webapp_load.py

format: $(INSTALLED)  ## format and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock:  ## resolve all dependencies anew and write constraints.txt
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -qq --disable-pip-version-check torch==2.13.0
	@build/lock/bin/python -m pip install -qq --disable-pip-version-check torch==2.13.0 \
	  bentoml==1.4.39 -e '.[train,serve,webapp,postgresql,studies,psychometrics,comparison,dev]'
	@{ sed -n '/^#/p' constraints.txt; build/lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } \
	  > build/constraints.txt && mv build/constraints.txt constraints.txt && rm -rf build/lock

clean:  ## remove .venv and everything generated
	@rm -rf .venv build demo-run .mypy_cache .ruff_cache .pytest_cache
