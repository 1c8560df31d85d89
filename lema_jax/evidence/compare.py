"""Arms (recipes, with one run a training seed) and their comparison on the same questions."""

import enum
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax.errors import UserError
from lema_jax.evidence import clusters, crossed, stats
from lema_jax.evidence.clusters import Clusters
from lema_jax.evidence.runs import Run
from lema_jax.records import Prediction, Verdict


@dataclass(frozen=True, eq=False)
class Arm:
    """One recipe: a run, or several that differ in the training seed. Counts are sums over its runs.

    `right` is [runs, questions], `accuracy` the mean over both, with `interval`. `style` and `prompts`, a hash of each
    question's prompt within this process, [questions], are the same for all runs.
    """

    name: str
    runs: tuple[Run, ...]
    right: np.ndarray
    clusters: Clusters | None
    style: str
    prompts: np.ndarray
    accuracy: float
    interval: stats.Interval
    wrong: int
    unparsed: int
    truncated: int
    prompt_too_long: int
    paper: float | None  # accuracy by the official grader

    @property
    def seeds(self) -> int:
        return self.right.shape[0]

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
            if differing := sum(a.prompt != b.prompt for a, b in zip(seeds[0].predictions, run.predictions)):
                raise UserError(
                    f"{seeds[0].folder} and {run.folder} are both named {run.name}, but {differing} of their prompts "
                    f"differ (styles {seeds[0].prompt_style} and {run.prompt_style}): runs of one name are training "
                    "seeds; give other --names"
                )
    return [arm(seeds) for seeds in named]


def arm(runs: Sequence[Run]) -> Arm:
    """The arm whose training seeds are these aligned runs of one name."""
    right = np.array([[p.verdict is Verdict.RIGHT for p in run.predictions] for run in runs])
    counts = Counter(p.verdict for run in runs for p in run.predictions)
    found = clusters.find([prediction.problem for prediction in runs[0].predictions])
    return Arm(
        name=runs[0].name,
        runs=tuple(runs),
        right=right,
        clusters=found,
        style=runs[0].prompt_style,
        prompts=np.array([hash(prediction.prompt) for prediction in runs[0].predictions]),
        accuracy=float(right.mean()),
        interval=accuracy_interval(right, found),
        wrong=counts[Verdict.WRONG],
        unparsed=counts[Verdict.UNPARSED],
        truncated=counts[Verdict.TRUNCATED],
        prompt_too_long=counts[Verdict.PROMPT_TOO_LONG],
        paper=stats.paper_accuracy([p for run in runs for p in run.predictions]),
    )


def accuracy_interval(right: np.ndarray, within: Clusters | None = None) -> stats.Interval:
    """The 95 % interval of the mean of booleans [runs, questions].

    Wilson's for one run of questions without clusters; else on as many questions as would have the same standard error
    over seeds and clusters (`crossed.proportion`).
    """
    if len(right) == 1 and within is None:
        return stats.wilson(int(right[0].sum()), right.shape[1])
    return crossed.proportion(right, None if within is None else within.of)


class StatTest(enum.StrEnum):
    """The test of a comparison: over what may have come out otherwise."""

    MCNEMAR = "exact McNemar test"  # questions
    CLUSTERS = "t test over clusters of questions"
    SEEDS = "t test over seeds and questions"
    SEEDS_AND_CLUSTERS = "t test over seeds and clusters of questions"


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against the baseline; differences are other - baseline.

    `p` is of `test`, `df` the degrees of freedom of a t test. `paired` is None where an arm has several seeds.
    `reworded` counts the questions whose prompts differ.
    """

    baseline: Arm
    other: Arm
    difference: float
    interval: stats.Interval
    p: float
    test: StatTest
    df: float | None
    detectable: float
    paired: stats.Paired | None
    reworded: int

    @property
    def significant(self) -> bool:
        """At 5 %, by `test`."""
        return self.p < stats.ALPHA


def compare(baseline: Arm, other: Arm) -> Comparison:
    """The comparison of two arms whose runs are aligned with one another.

    Two single runs on questions without clusters: the exact McNemar test and the paired bootstrap's interval. Else the
    t test and t interval of crossed random effects (`crossed.difference`).
    """
    paired = stats.pair(baseline.right[0], other.right[0]) if baseline.seeds == other.seeds == 1 else None
    if paired is not None and baseline.clusters is None:
        df, p, test, interval = None, stats.mcnemar(paired), StatTest.MCNEMAR, stats.paired_bootstrap(paired)
        detectable = stats.detectable_paired(paired.n, paired.discordant / paired.n)
    else:
        of = None if baseline.clusters is None else baseline.clusters.of
        estimate = crossed.difference(baseline.right, other.right, of)
        df, p, interval = estimate.df, estimate.p, estimate.interval()
        by_seeds = StatTest.SEEDS if baseline.clusters is None else StatTest.SEEDS_AND_CLUSTERS
        test = by_seeds if paired is None else StatTest.CLUSTERS
        detectable = stats.detectable_by_t(estimate.error, estimate.df)
    return Comparison(
        baseline,
        other,
        difference=other.accuracy - baseline.accuracy,
        interval=interval,
        p=p,
        test=test,
        df=df,
        detectable=detectable,
        paired=paired,
        reworded=int(np.sum(baseline.prompts != other.prompts)),
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
