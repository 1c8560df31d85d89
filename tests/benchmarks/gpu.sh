#!/usr/bin/env bash
# Right, then fast, on a machine with an NVIDIA GPU and no network: every check and figure in one run.
#
#   bash tests/benchmarks/gpu.sh [--dry] [STEP…]        the steps named, or all; --dry: tiny ones, on a CPU
#
# The machine has jax (CUDA), flax, orbax, torch, transformers and peft; gpu_wheels.sh gets the rest as wheels, looked for
# in .gpu/wheels, and a model in parts, in .gpu/part1, .gpu/part2, … Where these give a whole model it takes the place of
# random weights of SmolLM2-135M's shape. JSON lines come to $OUT/gpu.jsonl, the first with card, versions and commit; a
# log to $OUT/log.txt. A step that fails or runs out of its time is said there, and the next one begins. What is done is
# not done again by a second call on the same machine. LIMIT: seconds that the whole call may take (570); BASE: where all
# is kept (a folder lema-gpu for temporary files); PYTHON (python3).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
if [ "${1:-}" = --dry ]; then
  export LEMA_GPU_DRY=1 JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=
  slow=8 # a CPU's seconds are shorter
  shift
fi
limit=${LIMIT:-570} base=${BASE:-${TMPDIR:-/tmp}/lema-gpu} python=${PYTHON:-python3}
export OUT=${OUT:-$base/out} WORK=$base/random PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error
export XLA_PYTHON_CLIENT_PREALLOCATE=false JAX_COMPILATION_CACHE_DIR=$base/compiled TOKENIZERS_PARALLELISM=false
export PYTHONPATH=$base/site:$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$OUT" "$base/site"

if [ -d .gpu/part1 ] && [ "$(cat .gpu/part[0-9]/piece | sha256sum)" = "$(cat .gpu/part1/whole)" ]; then
  WORK=$base/smollm2
fi
mkdir -p "$WORK/done" "$WORK/logs"
[ "$WORK" = "$base/random" ] || [ -f "$WORK/model.gguf" ] || cat .gpu/part[0-9]/piece >"$WORK/model.gguf"
[ -f "$WORK/kernel.txt" ] || ! [ -f "$base/random/kernel.txt" ] || cp "$base/random/kernel.txt" "$WORK/"

wanted=("$@")
asked() { # whether a step is to be done
  [ -f "$WORK/done/$1" ] && return 1
  [ ${#wanted[@]} = 0 ] || [[ " ${wanted[*]} " = *" $1 "* ]]
}

step() { # NAME SECONDS COMMAND…: does it in at most so many seconds, and says how it ended
  local name=$1 most=$(($2 * ${slow:-1})) left=$((limit - SECONDS - 5)) began=$SECONDS code=0
  asked "$name" || return 0
  shift 2
  if [ "$left" -lt 15 ]; then
    echo "== $name: no time is left"
    return 0
  fi
  echo "== $name"
  timeout --kill-after=5 $((most < left ? most : left)) "$@" >"$WORK/logs/$name" 2>&1 || code=$?
  grep '^{"step"' "$WORK/logs/$name"
  [ "$code" = 0 ] && touch "$WORK/done/$name"
  [ "$code" = 0 ] || tail -n 12 "$WORK/logs/$name"
  echo "{\"step\": \"ended\", \"name\": \"$name\", \"code\": $code, \"seconds\": $((SECONDS - began))}" | tee -a "$OUT/gpu.jsonl"
}

run() { # NAME SECONDS MODULE [ARGUMENT…]
  local name=$1 most=$2 module=$3
  shift 3
  step "$name" "$most" "$python" -m "tests.benchmarks.$module" "$@"
}

exact() { JAX_DEFAULT_MATMUL_PRECISION=highest run "$@"; }

if [ ! -d "$base/site/grain" ] && compgen -G '.gpu/wheels/*.whl' >/dev/null; then
  wanted_before=("${wanted[@]}") wanted=()
  step install 120 "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$base/site" .gpu/wheels/*.whl
  wanted=("${wanted_before[@]}")
fi
"$python" -m tests.benchmarks.gpu_lines # the machine
[ -f "$WORK/done/make" ] || wanted+=(${wanted[0]:+make})

# Compiling and checking, several at a time: nothing is timed.
run make 150 gpu_make
run expect 90 gpu_torch expect &
exact nf4 60 gpu_right nf4 &
run resume 150 gpu_right resume &
XLA_FLAGS="--xla_gpu_deterministic_ops=true${XLA_FLAGS:+ $XLA_FLAGS}" run resume_deterministic 150 gpu_right resume &
wait
run attention 120 gpu_attention
exact model 240 gpu_right model &
exact greedy 240 gpu_right greedy &
exact losses 240 gpu_right losses &
wait
# Speeds, one at a time.
run train 150 gpu_train first
run torch_train 90 gpu_torch train
run decode 150 gpu_decode
run torch_decode 150 gpu_torch decode
run train_rest 200 gpu_train rest
TORCH_COMPILED=1 run torch_compiled 120 gpu_torch train

tail -n +1 "$WORK"/logs/* >"$OUT/log.txt" 2>/dev/null
echo "== $SECONDS s; wrong or failed:"
grep -E '"right": false|"error"|"code": [1-9]' "$OUT/gpu.jsonl" || echo none
