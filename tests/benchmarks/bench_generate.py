"""Questions answered with real stopping, by ours and by transformers' `generate`: wall time, and whether tokens agree.

    python -m tests.benchmarks.bench_generate --checkpoint=runs/base --hf_dir=DIR [--prompts=256 --new=256 --rows=32]
        [--runs=2]

DIR is the same model as a Hugging Face folder (`convert --checkpoint=runs/base --out=DIR` makes one). The first
questions of GSM8K's test split, asked as in the paper, greedily, in float32. `generate` takes them in the order of
the file in batches of `rows`, padded on the left. Ours is timed with its compiling, and again without (not again with
`--runs=1`, where both times are the one with compiling); one JSON line.
`cpu_ratio` is of processor time: on a busy machine run both on one core (`taskset -c 0`), where it is what counts.
"""

import argparse
import json
import os
from pathlib import Path

import torch
import transformers

from lema_jax import checkpoint
from lema_jax.generation import student
from lema_jax.tasks import gsm8k
from tests.benchmarks import busy


def since(before: busy.Clocks) -> tuple[float, float]:
    """Wall and processor seconds of this process."""
    now = busy.read()
    return now.wall - before.wall, now.own - before.own


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--hf_dir", required=True)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--new", type=int, default=256)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--runs", type=int, choices=(1, 2), default=2)
    given = parser.parse_args()
    folder = Path(os.environ.get("LEMA_DATA", Path(__file__).parents[3] / "shared" / "data"))
    prompts = [gsm8k.prompt(problem) for problem in gsm8k.load("test", folder)[: given.prompts]]

    read = student.read(given.checkpoint, checkpoint.latest_step(given.checkpoint), "float32")
    walls = []
    for _ in range(given.runs):
        engine = student.engine(read, rows=given.rows, max_new_tokens=given.new)
        before = busy.read()
        ours = {done.index: done for done in engine.complete(prompts)}
        walls.append(since(before))

    words, end = read.tokenizer, read.tokenizer.eos_token_id
    theirs = transformers.AutoModelForCausalLM.from_pretrained(given.hf_dir, dtype=torch.float32).eval()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    texts = []
    before = busy.read()
    for start in range(0, len(prompts), given.rows):
        batch = words(prompts[start : start + given.rows], return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            made = theirs.generate(
                **batch, max_new_tokens=given.new, do_sample=False, pad_token_id=words.pad_token_id, eos_token_id=end
            )
        for ids in made[:, batch["input_ids"].shape[1] :].tolist():
            ids = ids[: ids.index(end) + 1] if end in ids else ids
            texts.append((words.decode(ids, skip_special_tokens=True), len(ids)))
    wall, cpu = since(before)

    differ = [i for i, (text, count) in enumerate(texts) if (ours[i].text, ours[i].completion_tokens) != (text, count)]
    print(
        json.dumps(
            {
                "job": f"{len(prompts)} questions, at most {given.new} tokens each, {given.rows} rows",
                "tokens": sum(done.completion_tokens for done in ours.values()),
                "ours_s": round(walls[-1][0], 1),
                "ours_with_compiling_s": round(walls[0][0], 1),
                "generate_s": round(wall, 1),
                "ratio": round(walls[-1][0] / wall, 3),
                "ours_cpu_s": round(walls[-1][1], 1),
                "ours_with_compiling_cpu_s": round(walls[0][1], 1),
                "generate_cpu_s": round(cpu, 1),
                "cpu_ratio": round(walls[-1][1] / cpu, 3),
                "tally": str(engine.tally),
                "answers_that_differ": differ,
            }
        )
    )


if __name__ == "__main__":
    main()
