"""Arms and their comparison: what the statistics say of runs that answered the same questions."""

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

    `right` is [runs, questions]; `accuracy` the mean over both. The interval is Wilson's for one run; for several, the
    crossed bootstrap of seeds and questions.
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
    paper: float | None  # accuracy by the authors' grader

    @property
    def questions(self) -> int:
        return self.right.shape[1]


def arms(runs: Sequence[Run]) -> list[Arm]:
    """Aligned runs gathered by name, in the order in which the names first occur.

    Raises:
      UserError: two runs of one name and one checkpoint, or asked in other words: seeds differ in the checkpoint alone.
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
    """How many questions two aligned runs were asked in different words."""
    return sum(a.prompt != b.prompt for a, b in zip(one.predictions, other.predictions))


def arm(runs: Sequence[Run]) -> Arm:
    """The arm that aligned runs of one name are seeds of."""
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
    """The 95 % interval of the mean of [runs, questions] right or wrong.

    Where seeds agree that every question is right, or none, resampling them is blind: Wilson's on the questions then.
    """
    if len(right) == 1 or right.all() or not right.any():
        return stats.wilson(int(right[0].sum()), right.shape[1])
    return stats.hierarchical_bootstrap(np.zeros((1, right.shape[1]), bool), right)


@dataclass(frozen=True, eq=False)
class Comparison:
    """An arm against the baseline, as other - baseline.

    `p` and `paired` are for single runs; None with seeds. `reworded`: the questions asked in other words.
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
        """At 5 %: by the exact McNemar test; across seeds, by an interval that leaves 0 out."""
        if self.p is not None:
            return self.p < stats.ALPHA
        return self.interval.low > 0 or self.interval.high < 0


def compare(baseline: Arm, other: Arm) -> Comparison:
    """Both arms' runs must be aligned with one another."""
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
    across = stats.hierarchical_bootstrap(baseline.right, other.right)
    detectable = stats.detectable_from(across)
    return Comparison(baseline, other, difference, across, detectable, paired=None, p=None, reworded=differing)


class Change(enum.StrEnum):
    """What became of a question between the baseline and another run."""

    FIXED = "fixed"
    BROKEN = "broken"
    BOTH_WRONG = "both wrong"
    BOTH_RIGHT = "both right"


def change(baseline: Prediction, other: Prediction) -> Change:
    """Anything but RIGHT counts as wrong here: unparsed and truncated answers too."""
    match baseline.verdict is Verdict.RIGHT, other.verdict is Verdict.RIGHT:
        case False, True:
            return Change.FIXED
        case True, False:
            return Change.BROKEN
        case False, False:
            return Change.BOTH_WRONG
    return Change.BOTH_RIGHT


def to_read(baseline: Run, other: Run, count: int, *, seed: int = 0) -> list[tuple[Prediction, Prediction]]:
    """Up to `count` pairs of answers worth reading: fixed ones first, then broken, then wrong ones that changed.

    Within a kind they are drawn at random (seeded): the first of a file are no fair sample, nor are the best.
    """
    pairs = list(zip(baseline.predictions, other.predictions))
    random.Random(seed).shuffle(pairs)
    order = (Change.FIXED, Change.BROKEN, Change.BOTH_WRONG)
    worth = [(b, o) for b, o in pairs if change(b, o) in order and b.text != o.text]
    return sorted(worth, key=lambda pair: order.index(change(*pair)))[:count]
