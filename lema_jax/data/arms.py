"""The arms of a comparison: what a model learns from besides chain of thought. A recipe is a row of `ARMS`.

An arm is named `ROW`, `ROW:VALUE`, `ROW@SHARE` or `ROW:VALUE@SHARE`: `lema@0.1` has 10 % corrections, `rft:2` at most
two of the student's paths a question. `mixed:ROW@SHARE,ROW@SHARE` learns from the rows of several.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from lema_jax.data import examples, inline, pairs
from lema_jax.errors import UserError
from lema_jax.records import Example

MIXED = "mixed"


@dataclasses.dataclass(frozen=True)
class Arm:
    """A recipe of training data.

    Attributes:
      source: the paper that it is of, or what it is for.
      reads: what its own examples are made of: corrections, critiques, right or wrong attempts; empty for none.
      example: makes an example of such a row.
      option: of the recipe, that `:VALUE` in the arm's name sets; empty where it takes none.
      displaced: the mix is drawn with corrections, which are then left out: what remains is the chain of thought beside
        them.
      first: its own examples come before all chain of thought, where training reads examples in their order
        (`data.order="stored"`).
      needs_steps: it is made of a wrong step, which corrections of questions with choices do not name.
      pairs: preference pairs of corrections by `example`, and of the solutions in --attempts, take the place of all
        else; a model learns from them by the objective `preference`.
      tagged: questions are asked under a tag that says whether the solution is right, also at test time.
    """

    source: str
    reads: str = ""
    example: Callable[[Any], Example] | None = None
    option: str = ""
    displaced: bool = False
    first: bool = False
    needs_steps: bool = False
    pairs: bool = False
    tagged: bool = False


_LEMA = "LEMA, arXiv 2310.20689, section 2"
_ABLATION = "LEMA, arXiv 2310.20689, section 4: a part of the corrections is left out"
_INLINE = "LEMMA, arXiv 2503.17439; Physics of Language Models 2.2, arXiv 2408.16293"

ARMS: dict[str, Arm] = {
    "cot": Arm("chain of thought alone: the baseline of every paper"),
    "cot_part": Arm(
        "the chain of thought of lema's mix alone: what the corrections displace",
        "corrections",
        examples.correction,
        displaced=True,
    ),
    "cot_plus_extracted": Arm(
        "the corrected solutions as chain of thought: what they say", "corrections", examples.extracted
    ),
    "lema": Arm(_LEMA, "corrections", examples.correction),
    "corrections_first": Arm(f"{_LEMA}, in another order", "corrections", examples.correction, first=True),
    "preference": Arm(
        "preference at the first wrong step: step-wise DPO, arXiv 2406.18629; 2406.14532",
        "corrections",
        pairs.at_wrong_step,
        pairs=True,
    ),
    "preference_solutions": Arm(
        "preference of right solutions to wrong ones: DPO, arXiv 2305.18290", "attempts", pairs=True
    ),
    "lema_no_step": Arm(
        _ABLATION, "corrections", functools.partial(examples.correction, without=examples.Part.STEP), needs_steps=True
    ),
    "lema_no_explanation": Arm(
        _ABLATION, "corrections", functools.partial(examples.correction, without=examples.Part.EXPLANATION)
    ),
    "lema_no_solution": Arm(
        _ABLATION, "corrections", functools.partial(examples.correction, without=examples.Part.SOLUTION)
    ),
    "rft": Arm(
        "the student's own right attempts: rejection sampling (RFT), arXiv 2308.01825",
        "right attempts",
        examples.own,
        option="paths_a_question",
    ),
    "inline": Arm(_INLINE, "corrections", inline.repaired, option="wrong_step_weight"),
    "inline_restart": Arm(_INLINE, "corrections", inline.restarted, option="wrong_step_weight", needs_steps=True),
    "critique": Arm(
        "critiques of right and wrong attempts (critique fine-tuning), arXiv 2501.17703",
        "critiques",
        examples.critique,
        option="right_share",
    ),
    "negatives": Arm(
        "right and wrong attempts under different tags (NAT), arXiv 2402.11651",
        "wrong attempts",
        examples.wrong,
        tagged=True,
    ),
}


@dataclasses.dataclass(frozen=True)
class Part:
    """An arm as it is named, or a part of a mixed one: its row, the value of the row's option, and its share."""

    name: str
    value: float | None = None
    share: float | None = None

    @property
    def row(self) -> Arm:
        return ARMS[self.name]


def parse(name: str) -> tuple[Part, ...]:
    """The parts that an arm's name stands for: one, or those of a mixed arm.

    Raises:
      UserError: no such row, a value or share that is no number or that the row does not take, a mixed arm with a part
        that has no share, that is named twice, or that cannot be mixed, or shares above 1 together.
    """
    kind, _, listed = name.partition(":")
    if kind != MIXED:
        return (_part(name),)
    parts = tuple(_part(one.strip()) for one in listed.split(","))
    names = [part.name for part in parts]
    if len(parts) == 1:
        raise UserError(f"the arm {name!r} mixes one part; write {listed}")
    if any(part.share is None for part in parts):
        raise UserError(f"the arm {name!r} must name a share for each part, such as {MIXED}:lema@0.14,inline@0.14")
    if unmixable := [part.name for part in parts if part.row.displaced or part.row.first or part.row.pairs]:
        raise UserError(f"the arm {name!r}: {unmixable[0]} is about a whole mix; it has no part in one")
    if len(set(names)) < len(names):
        raise UserError(f"the arm {name!r} names a part twice; name each once")
    if (total := sum(part.share or 0 for part in parts)) > 1 + 1e-9:
        raise UserError(f"the arm {name!r} has shares of {total:g} together; they must be at most 1")
    return parts


def listed(texts: Iterable[str]) -> tuple[str, ...]:
    """The arms in texts that separate them by commas; a mixed arm takes all that follow it and name a share.

    A text that begins with a mixed arm is that arm.
    """
    arms: list[str] = []
    for text in map(str, texts):
        if text.startswith(f"{MIXED}:"):
            arms.append(text)
            continue
        pieces = [one.strip() for one in text.split(",")]
        for number, piece in enumerate(pieces):
            inside = number and arms[-1].startswith(f"{MIXED}:") and "@" in piece and not piece.startswith(MIXED)
            if inside:
                arms[-1] += f",{piece}"
            else:
                arms.append(piece)
    return tuple(arms)


def row(name: str) -> Arm:
    """The row of an arm; of a mixed one that of its first part, which like all of them keeps no order."""
    return parse(name)[0].row


def reads(name: str, what: str) -> bool:
    """Whether an arm's own examples are made of that kind of rows: corrections, critiques or attempts."""
    return any(part.row.reads.endswith(what) for part in parse(name))


def own(name: str) -> bool:
    """Whether an arm has examples besides chain of thought."""
    return any(part.row.reads for part in parse(name))


def shares(name: str, usual: float) -> list[float]:
    """The shares of an arm's own examples in an equalised mix; `usual` where its name gives none."""
    return [part.share or usual for part in parse(name) if part.row.example is not None]


_RANGES = {"paths_a_question": (1, 10**6), "wrong_step_weight": (0, 1), "right_share": (0, 1)}
_WHOLE = ("paths_a_question", "wrong_step_weight")


def _part(name: str) -> Part:
    named, at, share = name.partition("@")
    row, colon, value = named.partition(":")
    if row not in ARMS:
        raise UserError(
            f"there is no arm {row!r}; the arms are {', '.join(ARMS)}, lema@0.1 for another share, and "
            f"{MIXED}:lema@0.14,inline@0.14 for several"
        )
    return Part(row, _value(name, row, value) if colon else None, _share(name, row, share) if at else None)


def _value(name: str, row: str, text: str) -> float:
    option = ARMS[row].option
    if not option:
        takers = ", ".join(other for other, arm in ARMS.items() if arm.option)
        raise UserError(f"the arm {name!r} gives a value, but {row} takes none; {takers} do")
    low, high = _RANGES[option]
    value = _number(text)
    if value is None or not low <= value <= high or (option in _WHOLE and value != int(value)):
        kind = "a whole number" if option in _WHOLE else "a number"
        raise UserError(
            f"the arm {name!r}: {option} must be {kind} from {low} to {high}, such as {row}:{high if high < 2 else 4}"
        )
    return int(value) if option in _WHOLE else value


def _share(name: str, row: str, text: str) -> float:
    if ARMS[row].example is None:
        raise UserError(f"the arm {name!r} names a share of corrections, but {row} learns from none; write {row}")
    if ARMS[row].pairs:
        raise UserError(f"the arm {name!r} names a share of corrections, but {row} has nothing else; write {row}")
    value = _number(text) or 0.0
    if not 0 < value <= 1:
        raise UserError(f"the arm {name!r} must name a share above 0 and at most 1, such as {row}@0.1")
    return value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
