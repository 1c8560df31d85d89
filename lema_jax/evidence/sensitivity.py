"""How far a checkpoint's accuracy moves by choices that are not the model: how it is asked, and who grades."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.evidence import clusters, table
from lema_jax.evidence.runs import Run
from lema_jax.evidence.samples import Measure
from lema_jax.records import Prediction, Verdict
from lema_jax.tasks import harness_rules, prompts

Grader = Callable[[Prediction], bool]


def _official(row: Prediction) -> bool:
    return tasks.get(row.problem.task).official_grader(row.text, row.problem)


def _rule(rule: str) -> Grader:
    return lambda row: harness_rules.right(row.text, row.problem.gold, rule)


_GRADERS: dict[str, Grader] = {"robust": lambda row: row.verdict is Verdict.RIGHT, "official": _official}
_OF_NUMBERS: dict[str, Grader] = {f"harness {rule}": _rule(rule) for rule in harness_rules.RULES}
NOTE = (
    "robust is this package's grader, official the authors', harness the two rules of lm-evaluation-harness for GSM8K "
    "(strict: the first number behind `####`; flexible: the last number)."
)


@dataclass(frozen=True)
class Sensitivity:
    """`accuracy[style][grader]` of one checkpoint's answers to the same `n` questions."""

    checkpoint: str
    test: str
    n: int
    accuracy: dict[str, dict[str, Measure]]

    @property
    def spread(self) -> float:
        """The largest accuracy less the smallest."""
        values = [of.value for row in self.accuracy.values() for of in row.values()]
        return max(values) - min(values)

    def by_grader(self) -> float:
        """The largest spread between graders of the same answers."""
        return max(_spread(list(row.values())) for row in self.accuracy.values())

    def by_style(self) -> float:
        """The largest spread between styles by one grader."""
        return max(_spread(list(column)) for column in zip(*(row.values() for row in self.accuracy.values())))


def measure(runs: Sequence[Run]) -> Sensitivity:
    """The table of aligned runs of one checkpoint, one a prompt style; the harness's rules are for numeric answers.

    Raises:
      UserError: two checkpoints, or two runs of one style.
    """
    first = runs[0].predictions[0]
    for number, run in enumerate(runs):
        if run.predictions[0].checkpoint != first.checkpoint:
            raise UserError(
                f"{run.folder} is of checkpoint {run.predictions[0].checkpoint}, {runs[0].folder} of "
                f"{first.checkpoint}: --sensitivity is of one; compare several without it"
            )
        if twin := next((one for one in runs[:number] if one.prompt_style == run.prompt_style), None):
            raise UserError(f"{twin.folder} and {run.folder} both have the prompt style {run.prompt_style}; give one")
    problems = [prediction.problem for prediction in runs[0].predictions]
    numeric = all(prompts.family(problem) == "gsm8k" for problem in problems)
    graders = _GRADERS | (_OF_NUMBERS if numeric else {})
    within = clusters.find(problems)

    def accuracy(run: Run, grader: Grader) -> Measure:
        right = np.array([[grader(row) for row in sample] for sample in (run.predictions, *run.further)])
        shares = right if run.samples == 1 else right.mean(axis=0, keepdims=True)
        return Measure(float(right.mean()), clusters.accuracy_interval(shares, within, samples=run.samples))

    found = {run.prompt_style: {name: accuracy(run, grader) for name, grader in graders.items()} for run in runs}
    return Sensitivity(first.checkpoint, f"{first.problem.task}/{first.problem.split}", len(problems), found)


def text(found: Sensitivity) -> str:
    """The table for the terminal, and what it says."""
    header = ("prompt style", *next(iter(found.accuracy.values())))
    rows = [
        (style, *(f"{table.percent(of.value)} ({table.span(of.interval)})" for of in row.values()))
        for style, row in found.accuracy.items()
    ]
    moved = (
        f"{found.checkpoint} on {found.n:,} questions of {found.test}: choices that are not the model move accuracy by "
        f"{100 * found.spread:.1f} points, the grader of the same answers alone by up to {100 * found.by_grader():.1f}"
    )
    if len(found.accuracy) > 1:
        moved += f", the prompt style by one grader by up to {100 * found.by_style():.1f}"
    return f"{table.text_table(header, rows)}\n\n{moved}. In brackets: 95 % intervals. {NOTE}"


def _spread(measures: Sequence[Measure]) -> float:
    return max(of.value for of in measures) - min(of.value for of in measures)
