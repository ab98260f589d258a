# Two commands: `make demo` and `make test`. Each makes its own .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DATA ?= digits
DEMO := runs/demo
EPOCHS ?= 24
ROUNDS ?= 15

.PHONY: demo test slow lint clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("campfire needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,vision]'
	@touch $@

# The main job on real images: the same network dense and sparse, both side by side, and how fast the sparse one runs.
demo: $(STAMP)
	$(BIN)/campfire train '$(DATA)' --structure dense --epochs $(EPOCHS) --output $(DEMO)/dense --overwrite
	$(BIN)/campfire train '$(DATA)' --structure ck --sparsity 0.7 --epochs $(EPOCHS) --output $(DEMO)/ck --overwrite
	$(BIN)/campfire report $(DEMO)/dense $(DEMO)/ck --output $(DEMO)/report
	$(BIN)/campfire bench model --model $(DEMO)/ck --batches 64,1 --rounds $(ROUNDS)

test: $(STAMP)
	$(BIN)/python -m ruff check src tests bench examples
	$(BIN)/python -m ruff format --check --quiet src tests bench examples
	$(BIN)/basedpyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -q

# What takes minutes: real training runs, killed and resumed many times.
slow: $(STAMP)
	$(BIN)/python -m pytest -m slow -q

lint: $(STAMP)
	$(BIN)/python -m ruff check --fix src tests bench examples
	$(BIN)/python -m ruff format src tests bench examples

clean:
	rm -rf .venv runs
