"""Whether wrong answers compute wrongly or compute the wrong thing: the equations that they state, checked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lema_jax.evidence import table
from lema_jax.records import Prediction, Verdict
from lema_jax.tasks import claims
from lema_jax.tasks.steps import split_steps

MOST = 1500  # answers of an arm that are read: about a millisecond each
HEADER = (
    *("arm", "equations an answer", "false", "wrong answers", "with a false equation", "with true ones alone"),
    "without any",
)
NOTE = (
    "An equation is one between numbers that a step of an answer states, such as 5 × $3 = $15; what cannot be read to "
    "its end is none. A wrong answer whose equations are all true computes something else than what was asked. “False” "
    "is a share of equations; the other shares are of all answers. They describe; no test is made of them."
)


@dataclass(frozen=True)
class Counts:
    """Counts over an arm's answers.

    Attributes:
      answers: that were read; `stating` of them state an equation.
      equations: in all of them; `false` of them do not hold.
      wrong: answers graded wrong; `slipped` of them state a false equation, `misled` true ones alone.
    """

    answers: int
    stating: int
    equations: int
    false: int
    wrong: int
    slipped: int
    misled: int


def of(predictions: Sequence[Prediction]) -> Counts:
    """The counts over at most `MOST` answers, evenly spaced."""
    every = -(-len(predictions) // MOST)
    taken = predictions[:: max(1, every)]
    held = [[claim.holds for claim in claims.of_steps(split_steps(one.text))] for one in taken]
    wrong = [holds for one, holds in zip(taken, held) if one.verdict == Verdict.WRONG]
    return Counts(
        answers=len(taken),
        stating=sum(map(bool, held)),
        equations=sum(map(len, held)),
        false=sum(not one for holds in held for one in holds),
        wrong=len(wrong),
        slipped=sum(not all(holds) for holds in wrong),
        misled=sum(bool(holds) and all(holds) for holds in wrong),
    )


def tells(counts: Iterable[Counts]) -> bool:
    """Whether the answers are computations: half of them, in all arms, state an equation."""
    counts = list(counts)
    return bool(counts) and 2 * sum(one.stating for one in counts) >= sum(one.answers for one in counts) > 0


def layout(counts: Mapping[str, Counts]) -> list[tuple[str, ...]]:
    """The rows of one test, an arm each, with the header `HEADER`."""
    return [
        (
            name,
            f"{one.equations / one.answers:.1f}",
            table.percent(one.false / max(1, one.equations)),
            *(
                table.percent(count / one.answers)
                for count in (one.wrong, one.slipped, one.misled, one.wrong - one.slipped - one.misled)
            ),
        )
        for name, one in counts.items()
    ]
