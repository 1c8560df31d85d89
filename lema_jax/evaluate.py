"""Greedy answers of a model to a task's questions: reads a model folder, writes predictions.jsonl and summary.json.

    python -m lema_jax.evaluate --checkpoint=runs/lema --task=gsm8k --split=test --out=runs/lema/gsm8k_test

The folder brings its architecture and tokenizer, and for adapters its base. Every prediction is on the disk before it
counts; the same command run again answers only what is missing.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lema_jax import checkpoint, errors, records, tasks
from lema_jax.evidence import stats
from lema_jax.generation import student
from lema_jax.generation.student import Asked
from lema_jax.model.decode import Sampling
from lema_jax.records import Appender, Prediction, row_id

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A model folder of convert or train.", required=True)
_STEP = flags.DEFINE_integer("step", None, "The step to evaluate; the last when left out.")
_TASK = flags.DEFINE_string("task", None, "The benchmark; see lema_jax/tasks.", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "Its split.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the publishers' files lie; else the variable LEMA_DATA.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only the first questions of the split.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "Folder for predictions.jsonl and summary.json.", required=True)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 2048, "Tokens of an answer (2,048 in the paper).", 1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Answers under way at a time.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights and activations.")


def main(argv: Sequence[str]) -> None:
    """Answers what is missing, then writes predictions in the questions' order, and their summary."""
    del argv
    step = checkpoint.latest_step(_CHECKPOINT.value) if _STEP.value is None else _STEP.value
    model = checkpoint.identity(_CHECKPOINT.value, step)
    task = tasks.get(_TASK.value)
    shaping = {"model": model, "max_new_tokens": _MAX_NEW_TOKENS.value, "dtype": _DTYPE.value}
    asked = [
        Asked(row_id(problem=problem.id, prompt=task.prompt(problem), **shaping), problem, task.prompt(problem))
        for problem in task.load(_SPLIT.value, Path(_DATA_DIR.value) if _DATA_DIR.value else None)[: _LIMIT.value]
    ]
    out = Path(_OUT.value)
    with Appender(out / "predictions.jsonl", Prediction) as file:
        if strangers := file.rows.keys() - {one.id for one in asked}:
            other = file.rows[min(strangers)]
            raise errors.UserError(
                f"{file.path} holds answers to something else (model {other.checkpoint}, question {other.problem.id}): "
                "another model, step, task or setting; choose another --out, or remove the file"
            )
        rows = student.answer(
            asked, file, functools.partial(_engine, step), functools.partial(Prediction, checkpoint=model)
        )
        records.write(file.path, rows)
    summary = stats.summarize(rows)
    _write(out / "summary.json", {"checkpoint": model, "task": _TASK.value, "split": _SPLIT.value}, summary)
    print(
        f"{_TASK.value}/{_SPLIT.value}: {summary.accuracy:.1%} right, 95 % interval {summary.interval.low:.1%} to "
        f"{summary.interval.high:.1%}, n = {summary.n} ({summary.wrong} wrong, {summary.unparsed} unparsed, "
        f"{summary.truncated} truncated)"
    )


def _engine(step: int, answers: int) -> student.Engine:
    return student.load(
        _CHECKPOINT.value,
        step,
        rows=min(_BATCH_SIZE.value, answers),
        sampling=Sampling(),
        max_new_tokens=_MAX_NEW_TOKENS.value,
        dtype=_DTYPE.value,
    )


def _write(path: Path, what: dict[str, str], summary: stats.Summary) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(what | dataclasses.asdict(summary), indent=2) + "\n")
    os.replace(beside, path)


if __name__ == "__main__":
    errors.run(main)
