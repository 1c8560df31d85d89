"""Reasoning paths of a student: reads a task's questions and a model folder, writes attempts.jsonl.

    python -m lema_jax.sample --checkpoint=runs/student --task=gsm8k --samples=4 --temperature=0.7 --out=attempts.jsonl

Every attempt, right or wrong, is graded and kept with what made it; `correct` takes the wrong ones, `build_data` may
take the right ones. What an attempt draws depends on its question, settings and number alone. The same command run
again samples only what is missing; other students, more samples or more questions add to the file.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lema_jax import checkpoint, errors, records, tasks
from lema_jax.generation import student
from lema_jax.generation.student import Asked
from lema_jax.model.decode import Sampling
from lema_jax.records import Appender, Attempt, row_id

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A model folder of convert or train.", required=True)
_STEP = flags.DEFINE_integer("step", None, "The step to sample from; the last when left out.")
_TASK = flags.DEFINE_string("task", None, "Whose questions; see lema_jax/tasks.", required=True)
_SPLIT = flags.DEFINE_string("split", "train", "Which of them.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the publishers' files lie; else the variable LEMA_DATA.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only the first questions of the split.", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("samples", 1, "Attempts at each question.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "Of sampling.", lower_bound=0)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Nucleus that is sampled from.", lower_bound=0, upper_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of sampling.")
_OUT = flags.DEFINE_string("out", None, "The attempts file.", required=True)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 512, "Tokens of an attempt.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Attempts under way at a time.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights and activations.")


def main(argv: Sequence[str]) -> None:
    """Samples what is missing and counts the verdicts."""
    del argv
    if _TEMPERATURE.value == 0 and _SAMPLES.value > 1:
        raise errors.UserError(
            f"--samples={_SAMPLES.value} at --temperature=0 would all be the same; raise one of them"
        )
    step = checkpoint.latest_step(_CHECKPOINT.value) if _STEP.value is None else _STEP.value
    model = checkpoint.identity(_CHECKPOINT.value, step)
    task = tasks.get(_TASK.value)
    problems = task.load(_SPLIT.value, Path(_DATA_DIR.value) if _DATA_DIR.value else None)[: _LIMIT.value]
    sampling = {
        "temperature": _TEMPERATURE.value,
        "top_p": _TOP_P.value,
        "seed": _SEED.value,
        "max_new_tokens": _MAX_NEW_TOKENS.value,
        "dtype": _DTYPE.value,
    }
    asked, numbers = [], {}
    for problem in problems:
        for number in range(_SAMPLES.value):
            settings = sampling | {"sample": number}
            prompt = task.prompt(problem)
            one = Asked(row_id(model=model, problem=problem.id, prompt=prompt, **settings), problem, prompt)
            asked.append(one)
            numbers[one.id] = settings

    def row(*, id: str, **fields: object) -> Attempt:
        return Attempt.model_validate({"id": id, "student": model, "sampling": numbers[id], **fields})

    with Appender(Path(_OUT.value), Attempt) as file:
        rows = student.answer(asked, file, functools.partial(_engine, step), row)
        others = [other for name, other in file.rows.items() if name not in numbers]
        records.write(file.path, [*others, *rows])
    counts = Counter(row.verdict.value for row in rows)
    print(
        f"{len(rows)} attempts at {len(problems)} questions: " + ", ".join(f"{n} {v}" for v, n in counts.most_common())
    )


def _engine(step: int, answers: int) -> student.Engine:
    return student.load(
        _CHECKPOINT.value,
        step,
        rows=min(_BATCH_SIZE.value, answers),
        sampling=Sampling(_TEMPERATURE.value, _TOP_P.value),
        max_new_tokens=_MAX_NEW_TOKENS.value,
        dtype=_DTYPE.value,
    )


if __name__ == "__main__":
    errors.run(main)
