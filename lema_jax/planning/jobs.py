"""A study's jobs, and where they stand: a graph of stage configs, and a folder that remembers what was done.

out/study.json          the configuration, the jobs and their state, and which folders belong to which arm
out/jobs/<id>.json      the outcome of one job, written when it ends
out/jobs/<id>.log       what its stage printed

A job's id is made of everything that shapes its result and of the ids of the jobs that it needs. So another
configuration in the same folder finds the jobs that it shares done, and never another job's result.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lema_jax import digests, lock, ranges, storage
from lema_jax.errors import UserError
from lema_jax.evidence import manifest
from lema_jax.evidence.manifest import NAME, STUDENT, Manifest, State
from lema_jax.stage import Config

_ID = 10  # hexadecimal digits
_FIRST = {
    *(f"{dot}{NAME}.tmp" for dot in (".", "")),  # without a dot in earlier versions
    ".lock",
    "jobs",
    "compiled",
    *("data", "train", "sample", "correct", "critique", "evolve", "evaluate"),
    *(f"{dot}report.{ending}" for dot in (".", "") for ending in ("html", "txt", "html.tmp", "txt.tmp")),
}  # what a study makes beside `study.json`


@dataclasses.dataclass(frozen=True)
class Job:
    """One call of a stage.

    Attributes:
      id: names everything that shapes its result.
      kind: what it makes: data, train, sample, correct, critique, evolve or evaluate.
      name: in words.
      config: of the stage.
      needs: ids of the jobs whose results it reads.
      out: the file or folder that it makes, relative to the study's.
      arm, seed, test: what it is of, where it is of one.
      work: what its duration grows with: tokens that are computed, or examples that are made.
      flops: of it, where a model computes; 0 where none does.
      asks_endpoint: a chat endpoint does it, for money.
    """

    id: str
    kind: str
    name: str
    config: Config
    needs: tuple[str, ...]
    out: str
    arm: str = ""
    seed: int | None = None
    test: str = ""
    work: float = 1.0
    flops: float = 0.0
    asks_endpoint: bool = False


def identity(kind: str, shaping: Mapping[str, Any], needs: Iterable[Job]) -> str:
    """The id of a job: a hash of its stage, of what shapes it, and of what it reads."""
    plain = _plain(json.loads(json.dumps(shaping, default=str)))
    return digests.hashed([kind, plain, [job.id for job in needs]])[:_ID]


def _plain(value: Any) -> Any:
    """The value with 1 for 1.0: a file may write either, and JSON returns the other."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Settings of stages that shape no result: where it is written, from where it is read, how fast it is made.
FREE = (
    *("out", "attempts", "corrections", "critiques", "problems", "checkpoint", "tokenizer", "data_dir", "tests"),
    *("job", "batch_size", "fsdp", "tensor"),
)
FREE_IN_TRAINING = (
    *("out", "init", "path", "log_every", "keep", "tensorboard", "wandb", "mesh"),
    *("scan_layers", "remat", "attention", "loss_chunk"),
)


def given(config: Any, free: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass, and of those in it, that differ from their defaults, by `a.b` names.

    A field that a later version adds changes no id.

    Args:
      free: names of fields, or of groups of them, that shape no result.
    """
    found: dict[str, Any] = {}
    for field in ranges.options(config):
        value = getattr(config, field.name)
        if field.name in free:
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= {f"{field.name}.{name}": inner for name, inner in given(value, free).items()}
            if not _has_default(field):
                found[field.name] = type(value).__name__
        elif not _has_default(field) or value != _default(field):
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def waves(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """The jobs in groups, each of which needs only jobs of groups before it, or none of these.

    Args:
      jobs: each after those of them that it needs.
    """
    level: dict[str, int] = {}
    for job in jobs:
        level[job.id] = 1 + max((level.get(id, -1) for id in job.needs), default=-1)
    for number in range(max(level.values(), default=-1) + 1):
        yield [job for job in jobs if level[job.id] == number]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
      seconds: of its last start.
      tokens: that it read and wrote; of a training, those of the examples that it saw.
      facts: counts that later jobs read.
    """

    state: State
    seconds: float = 0.0
    tokens: int = 0
    usd: float = 0.0
    error: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Board:
    """Where the jobs of a study stand, on the disk."""

    def __init__(self, out: str | Path) -> None:
        self.out = storage.on_disk(out)

    def path(self, job: Job, ending: str) -> Path:
        """A file about a job."""
        return self.out / "jobs" / f"{job.id}.{ending}"

    def outcome(self, job: Job) -> Outcome:
        """How a job ended; a record that cannot be read counts as missing: the stage finds its own work done."""
        try:
            content = json.loads(self.path(job, "json").read_bytes())
            found = Outcome(**{field.name: content[field.name] for field in dataclasses.fields(Outcome)})
        except (OSError, ValueError, LookupError, TypeError):
            return Outcome("missing")
        if found.state == "done" and not (self.out / job.out).exists():
            return Outcome("missing")  # someone made room
        return found

    def is_done(self, job: Job) -> bool:
        """Whether its result is there."""
        return self.outcome(job).state == "done"

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Records how a job ended."""
        about = {"id": job.id, "kind": job.kind, "name": job.name}
        storage.write(self.path(job, "json"), json.dumps(about | dataclasses.asdict(outcome), indent=1) + "\n")

    def write(self, config: Mapping[str, Any], jobs: Sequence[Job]) -> None:
        """Writes `study.json`: what a report reads. Processes that run a job each may write it at a time."""
        with lock.waited_for(self.out / "jobs" / ".lock"):
            self._write(config, jobs)

    def _write(self, config: Mapping[str, Any], jobs: Sequence[Job]) -> None:
        outcomes = {job.id: self.outcome(job) for job in jobs}
        finished = [job for job in jobs if outcomes[job.id].state == "done" and job.arm]

        def folders(kind: str, *more: str) -> list[dict[str, Any]]:
            names = ("arm", "seed", *more)
            chosen = [job for job in finished if job.kind == kind]
            return [{name: getattr(job, name) for name in names} | {"folder": job.out} for job in chosen]

        named = list(dict.fromkeys([*config["arms"], *(job.arm for job in jobs if job.arm and job.arm != STUDENT)]))
        content = {name: config[name] for name in ("task", "baseline", "seeds")} | {
            "arms": named,
            "tests": list(dict.fromkeys(job.test for job in jobs if job.test)),
            "evaluations": folders("evaluate", "test"),
            "trainings": folders("train"),
            "data": folders("data"),
            "jobs": [vars(job) | vars(outcomes[job.id]) for job in jobs],
            "config": config,
        }
        storage.write(self.out / NAME, Manifest.model_validate(content).model_dump_json(indent=1) + "\n")

    def read(self) -> Manifest | None:
        """`study.json`, or None in a folder that is free.

        Raises:
          UserError: it cannot be read, or the folder holds something else.
        """
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out} is no folder; choose another out")
        if (self.out / NAME).exists():
            return manifest.read(self.out)
        if self.out.exists() and not {one.name for one in self.out.iterdir()} <= _FIRST:
            raise UserError(f"{self.out} holds something else than a study; choose another out")
        return None
