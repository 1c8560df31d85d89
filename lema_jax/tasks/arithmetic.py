"""Arithmetic: generated word problems in GSM8K's form (`stories`). Needs no data and no network.

All numbers and results are whole, 2 to 100, so a small model whose tokenizer keeps ` 17` as one token learns the task
in minutes. `train`, `dev` and `test` share their templates and no question; `ood` has templates of its own. `meta` has
the template's name and the number of steps.
"""

import contextlib
import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import stories
from lema_jax.tasks.stories import Story, Template
from lema_jax.tasks.word_problems import completion, extract, official_grader, prompt, same

__all__ = ["HELD_OUT", "SPLITS", "TEMPLATES", "completion", "extract", "load", "official_grader", "prompt", "same"]

# The splits that share their templates, consecutive in one stream of distinct questions: a longer `train` would leave
# dev and test unchanged.
_STREAM = {"dev": 500, "test": 2_000, "train": 20_000}
_OOD = 1_000
SPLITS = ("train", "dev", "test", "ood")

TEMPLATES = stories.templates("shared.txt")
HELD_OUT = stories.templates("held_out.txt")


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a split, the same on every machine; `data_dir` is ignored.

    Raises:
      UserError: no such split.
    """
    if split not in SPLITS:
        raise UserError(f"the task arithmetic has no split {split!r}; there are: {', '.join(SPLITS)}")
    return list(_drawn(split))


@functools.cache  # train takes seconds to draw
def _drawn(split: str) -> tuple[Problem, ...]:
    if split == "ood":
        return _problems(split, itertools.islice(_stories(HELD_OUT, seed=1), _OOD))
    start = 0
    for name, size in _STREAM.items():
        if name == split:
            break
        start += size
    return _problems(split, itertools.islice(_stories(TEMPLATES, seed=0), start, start + size))


def _stories(templates: Sequence[Template], seed: int) -> Iterator[tuple[Template, Story]]:
    """Stories with distinct questions, without end, the templates taking turns."""
    rng = random.Random(seed)
    seen: set[str] = set()
    for template in itertools.cycle(templates):
        while (story := _fitting(template, rng)).question in seen:
            pass
        seen.add(story.question)
        yield template, story


def _fitting(template: Template, rng: random.Random) -> Story:
    while True:
        with contextlib.suppress(stories.Misfit):
            return template.story(rng)


def _problems(split: str, drawn: Iterator[tuple[Template, Story]]) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            id=f"arithmetic/{split}/{number}",
            task="arithmetic",
            split=split,
            question=story.question,
            gold=str(story.answer),
            rationale="\n".join(story.steps),
            meta={"template": template.name, "steps": len(story.steps)},
        )
        for number, (template, story) in enumerate(drawn)
    )
