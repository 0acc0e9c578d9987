# make train   set up, then train the tiny model on two CPU processes
# make test    set up, then run the fast tests
# make train PYTHON=python3.12   the same with another Python than python3
.DEFAULT_GOAL := help
include environment.mk

.PHONY: help setup env-4-48 train test test-harness test-slow test-long campaign test-layouts test-recipes test-nxd test-slurm trn1-smoke check clean

help:
	@sed -n 's/^# make/make/p' Makefile

setup: $(READY)

# One thread a process: two processes on two cores.
train: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node 2 scripts/train.py recipe=tiny

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not layouts and not recipes and not nxd and not slurm" -n 2

# make env-4-48   transformers 4.48.3 beside .venv, for the tests of both versions (in .cache, and on their first run)
env-4-48: $(READY)
	$(BIN)/python -m tests.families.old_environment

# make test-harness   EleutherAI's harness on runs of ours against its HFLM; installs the extra eval
test-harness: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,eval]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/evaluation/test_harness.py

# make test-slow   one case of each mechanism with several processes, kills, whole runs: about 20 minutes on two cores
test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not nxd and not long" -n 2 --dist loadfile --durations 40

# make test-long   what CI leaves out of the slow tests: further layouts, variants, repetitions, docs' pages: over an hour
test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

# make campaign   kills, stops, full disks, damaged checkpoints, lost ranks at random instants, and a table of it
campaign: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.campaign

# make test-layouts   the whole matrix of layouts against one process, and a table of the differences
test-layouts: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m layouts tests/distributed/test_matrix.py

# make test-recipes   a step of every full-size recipe at its intended world size, on fake tensors
test-recipes: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m "slow or recipes" tests/recipes

# make test-nxd NXD_SOURCE=<checkout>/src   the neuron backend against neuronx-distributed's real source, over gloo
test-nxd: $(READY)
	@test -d "$(NXD_SOURCE)/neuronx_distributed" || { echo "NXD_SOURCE=<checkout of neuronx-distributed>/src is missing"; exit 2; }
	OMP_NUM_THREADS=1 NXD_SOURCE="$(abspath $(NXD_SOURCE))" $(BIN)/python -m pytest -m nxd tests/neuron

# make test-slurm   a real Slurm in a directory of its own, as root (Debian: slurmctld slurmd slurm-client munge)
test-slurm: $(READY)
	@$(BIN)/python -m tests.cluster.slurm
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm tests/cluster

# make check   lint, types and import contracts
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# make trn1-smoke   on a trn1.32xlarge: a page of results (docs/trainium.md); DRY=1: the same jobs, small, on this CPU
trn1-smoke: $(if $(DRY),$(READY))
	$(if $(DRY),$(BIN)/python,python) scripts/smoke.py $(if $(DRY),--dry)

# make clean   remove runs and caches, keep the virtual environment
clean:
	rm -rf runs .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
