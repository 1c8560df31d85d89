#!/usr/bin/env bash
# The whole loop on the built-in task: a small LLaMA learns arithmetic word problems, makes mistakes, has them
# corrected, and learns from them. 12 to 22 minutes on two CPU cores, after installation; needs Python >= 3.11 and a
# package index, no more.
# Killed anywhere, the same command goes on from there.      RUNS=elsewhere bash launch/quickstart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
. launch/stages.sh
run=${RUNS:-runs}/quickstart

stage "1/8 data: chain of thought for 20,000 training questions, and a tokenizer of its own"
lema build_data --task=arithmetic --train_tokenizer=1536 --overlap=drop --out="$run/data_student"

stage "2/8 train a student from random weights"
lema train --config=configs/arithmetic_student.py --config.data.path="$run/data_student" --config.out="$run/student"

stage "3/8 sample its attempts at 2,500 training questions"
lema sample --checkpoint="$run/student" --task=arithmetic --limit=2500 --temperature=0.7 --max_new_tokens=128 \
  --batch_size=128 --out="$run/attempts.jsonl"

stage "4/8 correct the wrong ones"
lema correct --attempts="$run/attempts.jsonl" --teacher=reference --out="$run/corrections.jsonl"

stage "5/8 data for two arms: 3,000 examples each, chain of thought alone and with corrections"
mix=(--task=arithmetic --tokenizer="$run/student" --overlap=drop --max_tokens=256 --equal_examples=3000)
lema build_data "${mix[@]}" --arm=cot --out="$run/data_cot"
lema build_data "${mix[@]}" --arm=lema --corrections="$run/corrections.jsonl" --out="$run/data_lema"

stage "6/8 train both arms from the same student, for the same number of steps"
for arm in cot lema; do
  lema train --config=configs/arithmetic_arm.py --config.init="$run/student" --config.data.path="$run/data_$arm" \
    --config.out="$run/$arm"
done

stage "7/8 evaluate all three, greedy, on 1,000 questions that none of them has seen"
for arm in student cot lema; do
  lema evaluate --checkpoint="$run/$arm" --task=arithmetic --split=test --limit=1000 --max_new_tokens=128 \
    --batch_size=128 --out="$run/test_$arm"
done

stage "8/8 did learning from mistakes help?"
lema report --runs="$run/test_cot,$run/test_lema,$run/test_student" --names=cot,lema,student --baseline=cot --show=3 \
  --training="$run/cot,$run/lema" --data="$run/data_cot,$run/data_lema" --out="$run/report.html"
