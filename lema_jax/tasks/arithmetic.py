"""Arithmetic: word problems of our own in GSM8K's form, drawn from templates. It needs no data and no network.

A problem's numbers and results are whole, 2 to 100, so a tokenizer that keeps ` 17` as one token lets a small
model learn them in minutes. `train`, `dev` and `test` share their templates and no question; `ood` has templates of its
own. `meta` names the template and the number of steps.
"""

import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import arithmetic_long_templates as long
from lema_jax.tasks import arithmetic_templates as short
from lema_jax.tasks.arithmetic_story import Draw, Misfit, Story
from lema_jax.tasks.word_problems import completion, extract, paper, prompt, same

__all__ = ["HELD_OUT", "SPLITS", "TEMPLATES", "completion", "extract", "load", "paper", "prompt", "same"]

# Sizes of the splits that share their templates: they follow each other in one stream of distinct questions, so a
# longer `train` would leave dev and test as they are.
_STREAM = {"dev": 500, "test": 2_000, "train": 20_000}
_OOD = 1_000
SPLITS = ("train", "dev", "test", "ood")

Template = Callable[[Draw], Story]

TEMPLATES: tuple[Template, ...] = (
    short.gives_away,
    short.two_shelves,
    short.shares,
    short.change,
    short.savings,
    short.flower_stall,
    short.reading,
    short.times_as_many,
    short.three_children,
    short.bus,
    short.ages,
    short.bakery,
    short.teams,
    short.wages,
    short.half_lost,
    short.fence,
    short.tank,
    short.goal,
    short.legs,
    short.trip,
    short.profit,
    short.boxes_to_fill,
    long.library,
    long.dinner,
    long.collection,
    long.orchard,
    long.fair,
    long.three_days,
    long.painting,
    long.jobs,
    long.party,
    long.fundraiser,
)
HELD_OUT: tuple[Template, ...] = (long.elevator, long.train_cars, long.recipe, long.rope, long.tournament)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a split, the same ones for all time; `data_dir` is not looked at.

    Raises:
      UserError: no such split.
    """
    if split not in SPLITS:
        raise UserError(f"the task arithmetic has no split {split!r}; there are: {', '.join(SPLITS)}")
    return list(_drawn(split))


@functools.cache  # the long split takes seconds to draw
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
    """Stories with distinct questions for ever, the templates taking turns."""
    draw = Draw(random.Random(seed))
    told: set[str] = set()
    for template in itertools.cycle(templates):
        while (story := _tell(template, draw)).question in told:
            pass
        told.add(story.question)
        yield template, story


def _tell(template: Template, draw: Draw) -> Story:
    while True:
        try:
            return template(draw)
        except Misfit:
            continue


def _problems(split: str, stories: Iterator[tuple[Template, Story]]) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            id=f"arithmetic/{split}/{number}",
            task="arithmetic",
            split=split,
            question=story.question,
            gold=str(int(story.answer)),
            rationale="\n".join(story.steps),
            meta={"template": template.__name__, "steps": len(story.steps)},
        )
        for number, (template, story) in enumerate(stories)
    )
