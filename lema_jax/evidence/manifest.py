"""`study.json`: what a study's folder holds, finished or not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pydantic

from lema_jax.errors import UserError

NAME = "study.json"
STUDENT = "student"  # the arm of the student itself, which is not trained further
State = Literal["done", "failed", "missing"]
_REMEDY = "remove it and run study again, which finds its jobs done and writes it"


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)


class Made(_Entry):
    """A folder that a job of one arm and seed made, relative to the study's."""

    arm: str
    seed: int
    folder: str


class Evaluation(Made):
    """A folder of `evaluate`; `test` is task/split, with `+style` where the prompts are not the arm's own."""

    test: str
    style: str = ""


class Job(_Entry):
    """A job: what became of it, and what it took."""

    id: str
    kind: str
    name: str
    state: State
    seconds: float | None = None
    tokens: float | None = None
    usd: float | None = None
    error: str = ""


class Manifest(_Entry):
    """A study: its plan, and the folders of what is finished."""

    task: str
    baseline: str
    arms: list[str]
    seeds: list[int]
    tests: list[str]
    evaluations: list[Evaluation]
    trainings: list[Made] = []
    data: list[Made] = []
    jobs: list[Job] = []
    config: dict[str, Any] = {}


def read(folder: Path) -> Manifest:
    """The manifest in a study's folder.

    Raises:
      UserError: it is missing, malformed, contradicts itself, or lists one evaluation twice.
    """
    path = folder / NAME
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; is {folder} a folder that study made?") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {field}: {first['msg']}; {_REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {_REMEDY}") from None
    if manifest.baseline not in manifest.arms:
        raise UserError(f"{path}: the baseline {manifest.baseline} is none of the arms {', '.join(manifest.arms)}")
    for entry in manifest.evaluations:
        if entry.arm not in (*manifest.arms, STUDENT) or entry.test not in manifest.tests:
            raise UserError(
                f"{path}: {entry.folder} is of the arm {entry.arm} on {entry.test}, which are not both in it"
            )
    times = Counter((entry.arm, entry.seed, entry.test) for entry in manifest.evaluations)
    for (arm, seed, test), count in times.items():
        if count > 1:
            raise UserError(f"{path} lists {count} evaluations of {arm}, seed {seed}, on {test}; keep one")
    return manifest
