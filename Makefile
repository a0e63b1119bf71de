# Two commands from a fresh clone: `make study` and `make test`. Each sets itself up.
PYTHON ?= python3
STUDY ?= quick
BENCHMARKS := $(filter-out common gpu rehearse,$(basename $(notdir $(wildcard benchmarks/*.py))))
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: study new plan accept verify report adapter try lab api test fast faults cluster lint bench gpu rehearse calibrate lock

study: .venv/ready  ## run what is missing of studies/$(STUDY).yaml
	@python -m bigrec_lib.study.batch study $(STUDY) $(if $(PROFILE),--workflow-profile workflow/profiles/$(PROFILE))

new: .venv/ready  ## begin studies/$(NAME).yaml for your own table: NAME=shop DATA=path.csv [TITLES=items.csv] [COLUMNS="user=buyer,…"]
	@python -m bigrec_lib.study.batch new "$$NAME" "$$DATA" --titles "$$TITLES" --columns "$$COLUMNS"

plan: .venv/ready  ## print what is done, stale or missing, why, and how long it takes; run nothing
	@python -m bigrec_lib.study.batch plan $(STUDY)

accept: .venv/ready  ## keep what finished jobs made although code changed: FILES="path …" WHY="why results stay the same"
	@python -m bigrec_lib.study.batch accept $(STUDY) "$$FILES" "$$WHY"

verify: .venv/ready  ## recompute every hash and metric of the committed results
	@python -m bigrec_lib.study.batch verify $(STUDY)

report: .venv/ready  ## rebuild every table, figure and the site from the results; no model, no data
	@python -m bigrec_lib.study.batch report $(STUDY)

adapter: .venv/ready  ## publish the adapters that the study file names (else the first seed's)
	@python -m bigrec_lib.study.batch adapter $(STUDY)

try: .venv/ready  ## type a history of your own: opens a copy of 00_try_it; then Run, Run All Cells
	@mkdir -p runs && python -m papermill --prepare-only --log-level ERROR --no-progress-bar \
		-p study $(STUDY) notebooks/00_try_it.ipynb runs/try.ipynb
	@jupyter lab runs/try.ipynb

lab: .venv/ready  ## open the notebooks in JupyterLab
	@jupyter lab --notebook-dir=. notebooks/

api: .venv/ready  ## the library's reference from its docstrings, in runs/api/index.html
	@python -m pdoc --output-directory runs/api bigrec_lib
	@echo "reference: runs/api/index.html"

test: lint  ## lint, then every test and doctest, with the branch coverage of bigrec_lib/method
	@HF_HUB_OFFLINE=1 python -m pytest -n 2 --cov --cov-report=term

fast: lint  ## lint, then the tests that take no more than a few seconds each
	@HF_HUB_OFFLINE=1 python -m pytest -m "not slow"

faults: .venv/ready  ## kill, starve and block the toy study at FAULTS random moments (minutes)
	@FAULTS=$(or $(FAULTS),30) HF_HUB_OFFLINE=1 python -m pytest -s tests/test_faults.py

cluster: .venv/ready  ## set up SLURM on this machine (Debian, root) and run the toy study through it
	@HF_HUB_OFFLINE=1 CLUSTER=1 python -m pytest -s tests/cluster

lint: .venv/ready  ## style, types, and notebooks without outputs
	@ruff check . && ruff format --check . && mypy && mypy benchmarks && nbstripout --keep-id --verify notebooks/*.ipynb

bench: .venv/ready  ## time the library against what one would use instead; leave the machine alone
	@for name in $(BENCHMARKS); do python benchmarks/$$name.py --json benchmarks/$$name.json || exit 1; done

gpu:  ## self-test and figures of a machine with a CUDA device; on any other, a test with tiny LLMs
	@PYTHONPATH=$(CURDIR) $(PYTHON) benchmarks/gpu.py --json benchmarks/gpu.json

rehearse: .venv/ready  ## studies/paper.yaml at its true sizes on synthetic data, with a tiny LLM: about an hour
	@python benchmarks/rehearse.py --json benchmarks/rehearse.json

calibrate: .venv/ready  ## try the inference on simulated studies; write docs/calibration and docs/protocol.md
	@OMP_NUM_THREADS=1 python -m bigrec_lib.findings.calibration

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11: make PYTHON=python3.11"; exit 1; }
	@rm -f $@; test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing pinned packages into .venv"
	@{ python -m pip install --quiet --requirement requirements.lock && \
		python -m pip install --quiet --no-deps --editable . ; } || \
		{ echo "error: pip could not install requirements.lock: check that a package index is reachable, then run make again"; exit 1; }
	@touch $@

lock:  ## pin the newest versions that pyproject.toml allows
	rm -rf .venv.lock && $(PYTHON) -m venv .venv.lock
	.venv.lock/bin/python -m pip install --quiet torch==2.13.0 --editable '.[test]'
	.venv.lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//' > requirements.lock
	rm -rf .venv.lock
