"""The arms of a comparison: what a model learns from besides chain of thought. A recipe is a row of `ARMS`.

An arm is named by its row; in a study `lema@0.1` is the row `lema` with a share of corrections of its own.
"""

import dataclasses
import functools
from collections.abc import Callable

from lema_jax.data import examples, pairs
from lema_jax.data.examples import Part
from lema_jax.errors import UserError
from lema_jax.records import Correction, Example


@dataclasses.dataclass(frozen=True)
class Arm:
    """A recipe of training data.

    Attributes:
      source: the paper that it is of, or what it is for.
      example: makes an example of a correction; None where the arm learns from none.
      displaced: the mix is drawn with corrections, which are then left out: what remains is the chain of thought beside
        them.
      pairs: preference pairs of corrections by `example`, and of the solutions in --attempts, take the place of all
        else; a model learns from them by the objective `preference`.
      first: corrections come before all chain of thought, where training reads examples in their order
        (`data.order="stored"`).
    """

    source: str
    example: Callable[[Correction], Example] | None = None
    displaced: bool = False
    first: bool = False
    pairs: bool = False


_LEMA = "LEMA, arXiv 2310.20689, section 2"
_ABLATION = "LEMA, arXiv 2310.20689, section 4: a part of the corrections is left out"

ARMS: dict[str, Arm] = {
    "cot": Arm("chain of thought alone: the baseline of every paper"),
    "cot_part": Arm(
        "the chain of thought of lema's mix alone: what the corrections displace", examples.correction, displaced=True
    ),
    "cot_plus_extracted": Arm("the corrected solutions as chain of thought: what they say", examples.extracted),
    "lema": Arm(_LEMA, examples.correction),
    "corrections_first": Arm(f"{_LEMA}, in another order", examples.correction, first=True),
    "preference": Arm(
        "preference at the first wrong step: step-wise DPO, arXiv 2406.18629; 2406.14532",
        pairs.at_wrong_step,
        pairs=True,
    ),
    "preference_solutions": Arm("preference of right solutions to wrong ones: DPO, arXiv 2305.18290", pairs=True),
    "lema_no_step": Arm(_ABLATION, functools.partial(examples.correction, without=Part.STEP)),
    "lema_no_explanation": Arm(_ABLATION, functools.partial(examples.correction, without=Part.EXPLANATION)),
    "lema_no_solution": Arm(_ABLATION, functools.partial(examples.correction, without=Part.SOLUTION)),
}


def parse(name: str) -> tuple[str, float | None]:
    """The row and the share of corrections that `row@share` names; None for the share where it names none.

    Raises:
      UserError: no such row, a share that is no number above 0 and at most 1, or one of an arm without corrections.
    """
    row, at, share = name.partition("@")
    if row not in ARMS:
        raise UserError(f"there is no arm {row!r}; the arms are {', '.join(ARMS)}, and lema@0.1 for another share")
    if not at:
        return row, None
    if ARMS[row].example is None:
        raise UserError(f"the arm {name!r} names a share of corrections, but {row} learns from none; write {row}")
    if ARMS[row].pairs:
        raise UserError(f"the arm {name!r} names a share of corrections, but {row} has nothing else; write {row}")
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UserError(f"the arm {name!r} must name a share of corrections above 0 and at most 1, such as {row}@0.1")
    return row, value
