# Each target makes its own .venv when there is none; PYTHON says with which interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
SECOND := experiments/caches/mobilenet_v2_cifar10_seed1.safetensors# of the second training; not in the package

.PHONY: demo test check-long fuzz bench docs studies study-joint_policy study-caches lint clean

demo: .venv/experiments            ## play the main job on the embedded cache: table and report
	$(BIN)/offramp compare world=demo folder=runs/demo

test: .venv/dev lint               ## lint, types, tests, doctests
	$(BIN)/python -m pytest -q -m "not long" -n 2 --dist worksteal --durations=10

check-long: .venv/dev              ## what takes minutes: replay against rollout in full, ten million rounds, all kills, all tutorials, Ray, model servers
	$(BIN)/python -m pytest -q -m long -n 2 --dist worksteal

fuzz: .venv/dev                    ## 100,000 forged tokens, impossible observations and mutilated files; 20,000 mutilated requests
	$(BIN)/python tests/bandits/test_durable_fuzz.py 100000
	OFFRAMP_FUZZ_CASES=20000 $(BIN)/python -m pytest -q tests/experiments/test_service_fuzz.py

bench: .venv/bench                 ## the whole table, against C, river, lightrl and MABWiser: printed, kept, and written into README and docs
	$(BIN)/python benchmarks/run.py

docs: .venv/dev                    ## the documentation, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

studies: .venv/dev                 ## every study from the caches in the repository, two at a time; ANEW=1 plays again what is there already
	@test -z "$(ANEW)" || rm -f $(foreach s,joint_policy link_change deadline payload,experiments/$(s)/result.json)
	$(MAKE) --no-print-directory -j2 study-joint_policy study-link_change study-caches study-offpolicy study-deadline study-payload
	$(BIN)/offramp papers folder=experiments/papers
	$(BIN)/offramp live play=false folder=experiments/live
	$(BIN)/offramp compare world=demo folder=runs/demo
	$(BIN)/python -m offramp.experiments.front_page

study-joint_policy:
	$(BIN)/offramp joint_policy folder=experiments/joint_policy
	$(BIN)/offramp joint_policy folder=experiments/joint_policy cache=alexnet_cifar10 settings=mobilenet_v2_cifar10

study-caches:                      # of both networks, and of the second training
	@for s in expert_branches calibration headline; do for c in mobilenet_v2_cifar10 alexnet_cifar10 $(SECOND); do \
	  $(BIN)/offramp $$s cache=$$c folder=experiments/$$s || exit 1; done; done

study-%:
	$(BIN)/offramp $* folder=experiments/$*

lint: .venv/dev                    ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/experiments: .venv/bin/python pyproject.toml setup.py
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[experiments]'
	touch $@

.venv/dev: .venv/bin/python pyproject.toml setup.py
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@ .venv/experiments

.venv/bench: .venv/dev
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]'
	touch $@

clean:
	rm -rf .venv runs build dist *.egg-info src/*.egg-info
