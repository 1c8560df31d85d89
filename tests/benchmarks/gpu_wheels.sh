#!/usr/bin/env bash
# What a machine with a GPU and no network needs beside its own JAX and PyTorch, in folders that can be carried there:
#
#   bash tests/benchmarks/gpu_wheels.sh .gpu/wheels                       wheels for Python 3.12, x86-64
#   bash tests/benchmarks/gpu_wheels.sh .gpu/wheels MODEL.gguf .gpu/part  and a model in .gpu/part1, .gpu/part2, …
#
# A part has at most PART_MB (default 60) megabytes. The versions are those of launch/constraints.txt. The machine is
# taken to have jax, flax, optax, orbax-checkpoint, torch, transformers, peft and what these need; TensorFlow is needed
# nowhere (TFDS reads and writes its files without it).
set -euo pipefail
wheels=${1:?a folder for the wheels} model=${2:-} part=${3:-}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# The packages of pyproject.toml that such a machine lacks, and what they need in turn.
packages=(
  grain array_record portpicker                        # batches
  tensorflow-datasets dm-tree immutabledict promise simple-parsing docstring-parser tensorflow-metadata
  googleapis-common-protos termcolor toml importlib_resources zipp  # data sets
  gguf ml_collections                                  # weights, configurations
  math-verify latex2sympy2_extended antlr4-python3-runtime latex2mathml  # answers
  pydantic pydantic-core annotated-types typing-inspection typing-extensions
  openai httpx2 httpcore2 jiter sniffio                # endpoints
)
platforms=()
for glibc in 39 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
mkdir -p "$wheels"
rm -f "$wheels"/*.whl
for package in "${packages[@]}"; do
  pinned=$(grep -iE "^${package//[-_]/[-_]}==" launch/constraints.txt || true)
  # A package that comes as source alone is pure Python: built here, it runs there.
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" --dest "$wheels" "${pinned:-$package}" 2>/dev/null ||
    python3 -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$wheels" "${pinned:-$package}"
done
if find "$wheels" -name '*.whl' ! -name '*-any.whl' ! -name '*x86_64.whl' | grep .; then
  echo "these wheels were built for this machine alone" >&2
  exit 1
fi
du -sh "$wheels"
if [ -n "$model" ]; then
  rm -rf "${part:?a folder for the parts}"[0-9]*
  split --bytes="${PART_MB:-60}MB" --numeric-suffixes=1 --suffix-length=1 "$model" "$wheels/piece"
  for piece in "$wheels"/piece[0-9]; do
    mkdir -p "$part${piece##*piece}"
    mv "$piece" "$part${piece##*piece}/piece"
    sha256sum <"$model" >"$part${piece##*piece}/whole"
  done
  du -sh "$part"[0-9]
fi
