"""What a difference between arms is made of: contrasts of two arms, each with one change between them."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lema_jax.evidence import compare, table
from lema_jax.evidence.compare import Arm, Comparison


@dataclass(frozen=True)
class Contrast:
    """`other - baseline`, and how to say it: `what` hurts or helps."""

    name: str
    other: str
    baseline: str
    what: str


CONTRASTS = (
    Contrast("displacement", "cot_part", "cot", "to train on fewer examples of chain of thought"),
    Contrast("interference or help", "lema", "cot_part", "to put corrections beside the same chain of thought"),
    Contrast("content", "cot_plus_extracted", "cot", "to put the corrected steps, as chain of thought, into the mix"),
    Contrast("format", "lema", "cot_plus_extracted", "to learn them in the format of corrections instead"),
)


def of(arms: Collection[str]) -> list[Contrast]:
    """The contrasts whose two arms are there."""
    return [one for one in CONTRASTS if one.baseline in arms and one.other in arms]


def found(arms: Mapping[str, Arm]) -> dict[Contrast, Comparison]:
    """The contrasts whose two arms are there, with their comparisons."""
    return {one: compare.compare(arms[one.baseline], arms[one.other]) for one in of(arms)}


def sentence(contrast: Contrast, comparison: Comparison, adjusted: float) -> str:
    """A contrast in words and numbers, whichever way it falls, by its adjusted p-value."""
    size = f"{100 * abs(comparison.difference):.1f} points"
    numbers = (
        f"{contrast.other} − {contrast.baseline} = {table.points(comparison.difference)}, 95 % interval "
        f"{table.points_span(comparison.interval)}, {table.said_p(comparison.p)}, adjusted {table.said_p(adjusted)}"
    )
    reads = table.reads(comparison, adjusted)
    said = {
        table.Reads.BETTER: f"{contrast.what} brings {size}",
        table.Reads.WORSE: f"{contrast.what} costs {size}",
        table.Reads.UNCLEAR: f"whether it helps or hurts {contrast.what} cannot be told",
    }[reads]
    return f"{contrast.name.capitalize()}: {said} ({numbers})."


_SHARE = re.compile(r"((?!mixed:).+)@(\d*\.?\d+)")


def shares(arms: Sequence[str], baseline: str, measured: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The arms that differ in the share of corrections, by recipe (`lema`): share by arm, ascending.

    Args:
      arms: names such as `lema@0.1`.
      baseline: the arm without corrections; share 0 of each recipe.
      measured: by arm, the share of corrections in its training data, for the recipe without a share in its name.
    """
    recipes: dict[str, dict[str, float]] = {}
    for name in arms:
        if match := _SHARE.fullmatch(name):
            recipes.setdefault(match[1], {})[name] = float(match[2])
    for recipe, of in recipes.items():
        if baseline in arms and not measured.get(baseline):
            of[baseline] = 0.0
        if recipe in arms and recipe in measured:
            of[recipe] = measured[recipe]
    return {recipe: dict(sorted(of.items(), key=lambda item: item[1])) for recipe, of in recipes.items()}
