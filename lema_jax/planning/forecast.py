"""What a study takes before it runs: hours, tokens, dollars, and the difference that it could show."""

import dataclasses
import datetime
import functools
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from lema_jax.data.batches import DataConfig
from lema_jax.evidence import clusters, stats, table
from lema_jax.model import flops
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.planning import checks
from lema_jax.planning.config import StudyConfig
from lema_jax.planning.jobs import Board, Job, Outcome
from lema_jax.records import Problem
from lema_jax.tasks import sources
from lema_jax.training.config import TrainConfig

DISCORDANCE = 0.2  # share of questions on which two arms disagree
SEED_SD = 0.01  # of an arm's accuracy between seeds
_CHARACTERS = 3.0  # of a question or a solution, to a token
_INSTRUCTION = 30  # tokens of a prompt beside its question
_EXAMPLE = 160  # tokens of an example, padding included
_SHARE = 0.5  # of a core's matrix product that training reached on two cores; of an accelerator's peak somewhat less
_START_S = 5.0  # tracing and compiling a program, where none was measured
_EXAMPLES_A_SECOND = 2_000.0  # that are tokenised and written


def step_flops(model: LlamaConfig, train: TrainConfig) -> float:
    """Model flops of a training step."""
    data = train.data
    return flops.model_flops(flops.Step(model, train.compute, train.lora, rows(data), data.seq_len))


def rows(data: DataConfig) -> int:
    """The rows of a step; about, where the data decides."""
    return data.batch_size or math.ceil(data.examples_per_step * _EXAMPLE / data.seq_len)


def steps(train: TrainConfig, examples: int) -> int:
    """About how many steps a training run on that many examples makes; exact where its configuration says it."""
    if train.steps:
        return train.steps
    if train.tokens:
        return math.ceil(train.tokens / (rows(train.data) * train.data.seq_len))
    return math.ceil(train.epochs * examples / (train.data.examples_per_step or rows(train.data)))


@dataclasses.dataclass(frozen=True)
class Questions:
    """The questions of a split: what names them, how many there are, and about how long they are.

    Attributes:
      prompt: tokens that a question is asked with.
      rationale: tokens of a gold rationale; 0 where no question has one.
    """

    digest: str
    count: int
    prompt: float
    rationale: float


def read(problems: Sequence[Problem]) -> Questions:
    """The questions of a split, their lengths by a rule for characters."""
    asked = [len(problem.question) / _CHARACTERS for problem in problems] or [0.0]
    written = [len(problem.rationale) / _CHARACTERS for problem in problems if problem.rationale] or [0.0]
    prompt, rationale = _INSTRUCTION + statistics.mean(asked), statistics.mean(written)
    return Questions(sources.digest(problems), len(problems), prompt, rationale)


def decoding_flops(model: LlamaConfig, answers: int, questions: Questions, max_new_tokens: int) -> float:
    """Model flops of that many answers: as long as a gold rationale; without one, of half the allowed length."""
    length = questions.prompt + min(questions.rationale or max_new_tokens / 2, max_new_tokens)
    return answers * flops.model_flops(flops.Step(model, Compute(), None, 1, round(length))) / 3  # forward only


@functools.cache
def peak_flops() -> float:
    """Flops per second of this machine: of its accelerators by their kind, else of a matrix product, measured.

    It is measured in a core's processor time, which other processes disturb least.
    """
    import jax

    from lema_jax.parallel import chips

    devices = jax.local_devices()
    if (peak := chips.peak_flops(devices[0].device_kind)) is not None:
        return peak * len(devices)
    a, best = np.ones((768, 768), np.float32), 1.0
    for _ in range(5):
        began = time.process_time()
        a @ a
        best = min(best, time.process_time() - began)
    return 2 * 768**3 / best * (os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Kind:
    """The jobs of one kind. `each`: seconds of one; `left`: of those that are not done; `measured`: on this study.

    Both are nan before a chat endpoint, whose pace nothing tells beforehand, has done a job.
    """

    kind: str
    jobs: int
    done: int
    tokens: int
    usd: float
    each: float
    left: float
    measured: bool


def by_kind(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> list[Kind]:
    """Durations by kind: from the jobs that are done, else by the flop formula."""
    kinds = []
    for kind in dict.fromkeys(job.kind for job in jobs):
        of = [job for job in jobs if job.kind == kind]
        done = [job for job in of if outcomes[job.id].state == "done"]
        rates = [outcomes[job.id].seconds / job.work for job in done]
        rate = statistics.median(rates) if rates else None
        seconds = [_seconds(job) if rate is None else rate * job.work for job in of]
        left = sum(one for job, one in zip(of, seconds) if job not in done)
        kinds.append(
            Kind(
                kind,
                len(of),
                len(done),
                sum(outcomes[job.id].tokens for job in of),
                sum(outcomes[job.id].usd for job in of),
                statistics.mean(seconds),
                left,
                rate is not None,
            )
        )
    return kinds


def _seconds(job: Job) -> float:
    if job.asks_endpoint:
        return math.nan
    if job.flops:
        return _START_S + job.flops / (_SHARE * peak_flops())
    return _START_S + job.work / _EXAMPLES_A_SECOND


def plan(config: StudyConfig, board: Board, jobs: Sequence[Job]) -> str:
    """What a study consists of, the difference that it can show, and what the rest of it takes."""
    outcomes = {job.id: board.outcome(job) for job in jobs}
    lines = [
        f"{board.out}: {len(config.compared)} arms, {len(config.seeds)} seeds, {len(config.tests)} tests; "
        f"{len(jobs)} jobs",
        "",
        *_detectable(config, jobs),
    ]
    lines += ["", *(f"{job.id}  {outcomes[job.id].state:8}{job.name}" for job in jobs), ""]
    return "\n".join([*lines, text(by_kind(jobs, outcomes))])


def _detectable(config: StudyConfig, jobs: Sequence[Job]) -> list[str]:
    """The smallest difference that each test can show, after Holm's correction for all comparisons."""
    asked = {(job.arm, job.test) for job in jobs if job.kind == "evaluate" and job.arm != config.baseline}
    if len(config.seeds) > 1:
        seeds = f"and an arm's accuracy has a standard deviation of {100 * SEED_SD:g} point between seeds:"
    else:
        seeds = "with the one seed of each arm as it is; another may move an accuracy by a point or more:"
    lines = [
        f"The smallest difference to {config.baseline} that is found 4 times in 5 after the correction for "
        f"{len(asked)} comparisons,",
        f"if two arms disagree on {DISCORDANCE:.0%} of the questions,",
        seeds,
    ]
    for test in config.tests:
        problems = checks.questions(config, test.task, test.split)
        problems = problems[: test.questions or None]
        n, alpha, size = len(problems), stats.ALPHA / max(1, len(asked)), math.inf
        if n > 1:
            size = stats.detectable_study(n, len(config.seeds), DISCORDANCE, SEED_SD, alpha=alpha)
        found = f"{100 * size:.1f} points" if math.isfinite(size) else "too few to show any difference"
        within = clusters.find(problems)
        more = f", in {within}: it may be larger" if within else ""
        lines.append(f"  {test.name}: {found} ({n:,} questions{more})")
    return lines


def text(kinds: Sequence[Kind]) -> str:
    """The table of the kinds of jobs, and the sum."""
    header = ("jobs", "all", "done", "tokens so far", "each about", "left about", "by")
    rows = [
        (
            kind.kind,
            f"{kind.jobs:,}",
            f"{kind.done:,}",
            f"{kind.tokens:,}",
            clock(kind.each),
            clock(kind.left),
            "measured" if kind.measured else "" if math.isnan(kind.each) else "formula",
        )
        for kind in kinds
    ]
    jobs, done, tokens = (sum(values) for values in zip(*((kind.jobs, kind.done, kind.tokens) for kind in kinds)))
    left = [kind.left for kind in kinds]
    known = clock(sum(one for one in left if not math.isnan(one)))
    more = " and the endpoint's" if any(map(math.isnan, left)) else ""
    rows.append(("in all", f"{jobs:,}", f"{done:,}", f"{tokens:,}", "", known + more, ""))
    return table.text_table(header, rows)


def clock(seconds: float) -> str:
    """A duration as h:mm:ss; nan is not known."""
    return "unknown" if math.isnan(seconds) else str(datetime.timedelta(seconds=round(seconds)))
