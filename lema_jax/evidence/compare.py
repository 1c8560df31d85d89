"""Arms (recipes, with one run a training seed) and their comparison on the same questions."""

import enum
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax.errors import UserError
from lema_jax.evidence import clusters, crossed, stats, summary
from lema_jax.evidence.clusters import Clusters
from lema_jax.evidence.runs import Run
from lema_jax.records import Prediction, Verdict


@dataclass(frozen=True, eq=False)
class Arm:
    """One recipe: a run, or several that differ in the training seed. Counts are sums over its runs and samples.

    `right` is [runs, questions]: right or wrong, or the share of the question's `samples` that are right; `accuracy` is
    the mean over both, with `interval`. `style` and `prompts`, a hash of each question's prompt within this process,
    [questions], are the same for all runs.
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
    samples: int = 1

    @property
    def answers(self) -> int:
        return self.right.size * self.samples

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
    samples = runs[0].samples
    if other := next((run for run in runs if run.samples != samples), None):
        raise UserError(
            f"{runs[0].folder} has {samples} answers a question, {other.folder} has {other.samples}: seeds of one arm "
            "have as many; evaluate both with one --samples"
        )
    right = np.array([summary.shares(list(zip(run.predictions, *run.further))) for run in runs])
    answers = [one for run in runs for one in run.answers]
    counts = Counter(one.verdict for one in answers)
    found = clusters.find([prediction.problem for prediction in runs[0].predictions])
    return Arm(
        name=runs[0].name,
        runs=tuple(runs),
        right=right,
        clusters=found,
        style=runs[0].prompt_style,
        prompts=np.array([hash(prediction.prompt) for prediction in runs[0].predictions]),
        accuracy=float(right.mean()),
        interval=clusters.accuracy_interval(right, found, samples=samples),
        wrong=counts[Verdict.WRONG],
        unparsed=counts[Verdict.UNPARSED],
        truncated=counts[Verdict.TRUNCATED],
        prompt_too_long=counts[Verdict.PROMPT_TOO_LONG],
        paper=summary.paper_accuracy(answers),
        samples=samples,
    )


class StatTest(enum.StrEnum):
    """The test of a comparison: over what may have come out otherwise."""

    MCNEMAR = "exact McNemar test"  # questions
    QUESTIONS = "t test over questions"
    CLUSTERS = "t test over clusters of questions"
    SEEDS = "t test over seeds and questions"
    SEEDS_AND_CLUSTERS = "t test over seeds and clusters of questions"


@dataclass(frozen=True)
class Agreement:
    """How many of two runs' first answers are equal: the texts, and what was read from them."""

    texts: int
    answers: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against the baseline; differences are other - baseline.

    `p` is of `test`, `df` and `error` the degrees of freedom and the standard error of a t test. `paired` is None where
    an arm has several seeds or samples. `reworded` counts the questions whose prompts differ. `equal` is of two single
    runs.
    """

    baseline: Arm
    other: Arm
    difference: float
    interval: stats.Interval
    p: float
    test: StatTest
    df: float | None
    error: float | None
    paired: stats.Paired | None
    reworded: int
    equal: Agreement | None = None

    @property
    def significant(self) -> bool:
        """At 5 %, by `test`."""
        return self.p < stats.ALPHA

    def detectable(self, alpha: float = stats.ALPHA) -> float:
        """The smallest difference that `test` finds 4 times in 5 at that level; infinite where none would do."""
        if self.df is not None and self.error is not None:
            return stats.detectable_by_t(self.error, self.df, alpha=alpha)
        assert self.paired is not None
        return stats.detectable_paired(self.paired.n, self.paired.discordant / self.paired.n, alpha=alpha)


def compare(baseline: Arm, other: Arm) -> Comparison:
    """The comparison of two arms whose runs are aligned with one another.

    Two single runs of one answer each to questions without clusters: the exact McNemar test and the paired score
    interval. Else the t test and t interval of crossed random effects (`crossed.difference`).
    """
    single, paired = baseline.seeds == other.seeds == 1, None
    if single and baseline.samples == other.samples == 1:
        paired = stats.pair(baseline.right[0], other.right[0])
    if paired is not None and baseline.clusters is None:
        df, error, p, test = None, None, stats.mcnemar(paired), StatTest.MCNEMAR
        interval = stats.paired_score(paired)
    else:
        of = None if baseline.clusters is None else baseline.clusters.of
        estimate = crossed.difference(baseline.right, other.right, of)
        df, error, p, interval = estimate.df, estimate.error, estimate.p, estimate.interval()
        if baseline.clusters is None:
            test = StatTest.QUESTIONS if single else StatTest.SEEDS
        else:
            test = StatTest.CLUSTERS if single else StatTest.SEEDS_AND_CLUSTERS
    return Comparison(
        baseline,
        other,
        difference=other.accuracy - baseline.accuracy,
        interval=interval,
        p=p,
        test=test,
        df=df,
        error=error,
        paired=paired,
        reworded=int(np.sum(baseline.prompts != other.prompts)),
        equal=_agreement(baseline.runs[0], other.runs[0]) if single and baseline.runs and other.runs else None,
    )


def _agreement(one: Run, other: Run) -> Agreement:
    pairs = list(zip(one.predictions, other.predictions))
    return Agreement(sum(a.text == b.text for a, b in pairs), sum(a.answer == b.answer for a, b in pairs))


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
