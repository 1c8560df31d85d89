"""Arms (recipes, with one run a training seed) and their comparison on the same questions."""

import enum
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax.errors import UserError
from lema_jax.evidence import stats
from lema_jax.evidence.runs import Run
from lema_jax.records import Prediction, Verdict


@dataclass(frozen=True, eq=False)
class Arm:
    """One recipe: a run, or several that differ in the training seed. Counts are sums over its runs.

    `right` is [runs, questions], `accuracy` the mean over both. The interval is Wilson's for one run, and for several
    the crossed bootstrap of seeds and questions.
    """

    name: str
    runs: tuple[Run, ...]
    right: np.ndarray
    accuracy: float
    interval: stats.Interval
    wrong: int
    unparsed: int
    truncated: int
    prompt_too_long: int
    paper: float | None  # accuracy by the official grader

    @property
    def questions(self) -> int:
        return self.right.shape[1]


def arms(runs: Sequence[Run]) -> list[Arm]:
    """The arms of aligned runs: one for each name, in the order in which names first occur.

    Raises:
      UserError: two runs of one name with the same checkpoint or with different prompts; seeds differ in the checkpoint
        alone.
    """
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        other = first.setdefault((run.name, run.predictions[0].checkpoint), run)
        if other is not run:
            raise UserError(
                f"{other.folder} and {run.folder} are both named {run.name} and of one checkpoint "
                f"({run.predictions[0].checkpoint}): runs of one name are training seeds; give other --names"
            )
    named = [[run for run in runs if run.name == name] for name in dict.fromkeys(run.name for run in runs)]
    for seeds in named:
        for run in seeds[1:]:
            if differing := reworded(seeds[0], run):
                raise UserError(
                    f"{seeds[0].folder} and {run.folder} are both named {run.name}, but {differing} of their prompts "
                    f"differ (styles {seeds[0].prompt_style} and {run.prompt_style}): runs of one name are training "
                    "seeds; give other --names"
                )
    return [arm(seeds) for seeds in named]


def reworded(one: Run, other: Run) -> int:
    """The number of questions whose prompts differ between two aligned runs."""
    return sum(a.prompt != b.prompt for a, b in zip(one.predictions, other.predictions))


def arm(runs: Sequence[Run]) -> Arm:
    """The arm whose training seeds are these aligned runs of one name."""
    right = np.array([[p.verdict is Verdict.RIGHT for p in run.predictions] for run in runs])
    counts = Counter(p.verdict for run in runs for p in run.predictions)
    return Arm(
        name=runs[0].name,
        runs=tuple(runs),
        right=right,
        accuracy=float(right.mean()),
        interval=interval(right),
        wrong=counts[Verdict.WRONG],
        unparsed=counts[Verdict.UNPARSED],
        truncated=counts[Verdict.TRUNCATED],
        prompt_too_long=counts[Verdict.PROMPT_TOO_LONG],
        paper=stats.paper_accuracy([p for run in runs for p in run.predictions]),
    )


def interval(right: np.ndarray) -> stats.Interval:
    """The 95 % interval of the mean of booleans [runs, questions].

    Where all are right, or none, a bootstrap has no width, so it is Wilson's interval on the questions.
    """
    if len(right) == 1 or right.all() or not right.any():
        return stats.wilson(int(right[0].sum()), right.shape[1])
    return stats.hierarchical_bootstrap(np.zeros((1, right.shape[1]), bool), right)


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against the baseline; differences are other - baseline.

    `p` and `paired` are None where an arm has several seeds. `reworded` counts the questions whose prompts differ.
    """

    baseline: Arm
    other: Arm
    difference: float
    interval: stats.Interval
    detectable: float
    paired: stats.Paired | None
    p: float | None
    reworded: int

    @property
    def significant(self) -> bool:
        """At 5 %: by the exact McNemar test, or, with several seeds, by an interval that excludes 0."""
        if self.p is not None:
            return self.p < stats.ALPHA
        return self.interval.low > 0 or self.interval.high < 0


def compare(baseline: Arm, other: Arm) -> Comparison:
    """The comparison of two arms whose runs are aligned with one another."""
    difference = other.accuracy - baseline.accuracy
    differing = reworded(baseline.runs[0], other.runs[0])
    if len(baseline.runs) == len(other.runs) == 1:
        paired = stats.pair(baseline.right[0], other.right[0])
        return Comparison(
            baseline,
            other,
            difference,
            interval=stats.paired_bootstrap(paired),
            detectable=stats.detectable_paired(paired.n, paired.discordant / paired.n),
            paired=paired,
            p=stats.mcnemar(paired),
            reworded=differing,
        )
    across_seeds = stats.hierarchical_bootstrap(baseline.right, other.right)
    return Comparison(
        baseline,
        other,
        difference,
        interval=across_seeds,
        detectable=stats.detectable_from(across_seeds),
        paired=None,
        p=None,
        reworded=differing,
    )


class Change(enum.StrEnum):
    """How a question's verdict changes from the baseline to another run."""

    FIXED = "fixed"
    BROKEN = "broken"
    BOTH_WRONG = "both wrong"
    BOTH_RIGHT = "both right"


def change(baseline: Prediction, other: Prediction) -> Change:
    """The change of one question; any verdict but RIGHT counts as wrong."""
    match baseline.verdict is Verdict.RIGHT, other.verdict is Verdict.RIGHT:
        case False, True:
            return Change.FIXED
        case True, False:
            return Change.BROKEN
        case False, False:
            return Change.BOTH_WRONG
    return Change.BOTH_RIGHT


def to_read(baseline: Run, other: Run, count: int, *, seed: int = 0) -> list[tuple[Prediction, Prediction]]:
    """Up to `count` pairs of answers to read: fixed first, then broken, then wrong in both with different texts.

    Within a kind they are drawn at random (seeded), since the first rows of a file are not a fair sample.
    """
    pairs = list(zip(baseline.predictions, other.predictions))
    random.Random(seed).shuffle(pairs)
    order = (Change.FIXED, Change.BROKEN, Change.BOTH_WRONG)
    worth = [(b, o) for b, o in pairs if change(b, o) in order and b.text != o.text]
    return sorted(worth, key=lambda pair: order.index(change(*pair)))[:count]
