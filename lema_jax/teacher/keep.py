"""The keep rules: which corrections are good enough to learn from.

A rule is a pure function of the attempt and of the reply's parts; it says whether the correction passes. RULES names
each by the fault that it finds; `faults.FAULTS` says what every name means. The paper kept a correction when its final
answer equals gold (section 2.1); the other rules catch what that one lets through: a reply that names no step of the
attempt, rewrites a step that it claims to keep, names another step or reason than what it mends, reaches gold by a
false equation, points at a given answer, or leaves a label in a step.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from lema_jax import tasks
from lema_jax.records import Attempt, Correction, Problem, Verdict
from lema_jax.tasks import claims
from lema_jax.tasks.steps import label, split_steps
from lema_jax.teacher.parse import Parts, parse
from lema_jax.teacher.prompting import asks_step


def correction(
    id: str,
    attempt: Attempt,
    teacher: str,
    text: str,
    prompt: str = "",
    failed: str = "",
    usage: dict[str, Any] | None = None,
) -> Correction:
    """The row of a teacher's reply: its parts, and the first thing that is wrong with it, if anything is.

    Args:
      prompt: the id of what a chat teacher was asked by.
      failed: why the reply is incomplete, where that is known already.
    """
    parts = align(attempt, parse(text, asks_step=asks_step(attempt.problem)))
    return Correction(
        id=id,
        attempt=attempt,
        teacher=teacher,
        prompt=prompt,
        text=text,
        step=min(parts.named, default=None),
        explanation=parts.explanation,
        steps=parts.steps,
        answer=tasks.grade(attempt.problem, "\n".join(parts.steps), truncated=False)[0],
        rejected=failed or _flaw(parts, usage or {}) or first_broken(attempt, parts),
        usage=usage or {},
    )


def _flaw(parts: Parts, usage: dict[str, Any]) -> str:
    """The parser's flaw; a reply that the endpoint says ended by itself was not cut off."""
    return "no_answer" if parts.flaw == "cut_off" and usage.get("finish") == "stop" else parts.flaw


def cut_at_step(row: Correction) -> Correction:
    """The same correction of an attempt that ends with its wrong step (LEMMA, arXiv 2503.17439, learns from such).

    An attempt is not truncated where no step is named, nor where its first steps would split differently by
    themselves: a single line of several sentences.
    """
    steps = split_steps(row.attempt.text)[: row.step]
    text = "\n".join(steps)
    if row.step is None or split_steps(text) != steps:
        return row
    sampling = row.attempt.sampling | {"cut_at_step": row.step}
    return row.model_copy(update={"attempt": row.attempt.model_copy(update={"text": text, "sampling": sampling})})


def first_broken(attempt: Attempt, parts: Parts) -> str:
    """The name of the first rule that the correction breaks; empty when it passes all of them."""
    return next((name for name, passes in RULES.items() if not passes(attempt, parts)), "")


def align(attempt: Attempt, parts: Parts) -> Parts:
    """Leaves out the kept steps where the reply restates them, and numbers an unnumbered solution from its step.

    A restatement that differs from the attempt stays, for `keeps_prefix` to find.
    """
    if not parts.named:
        return parts
    step = min(parts.named)
    start = parts.first or 1
    restated = split_steps(attempt.text)[start - 1 : step - 1]
    if restated and len(parts.steps) > len(restated) and _same(parts.steps[: len(restated)], restated):
        return dataclasses.replace(parts, first=step, steps=parts.steps[len(restated) :])
    return dataclasses.replace(parts, first=parts.first or step)


def answer_is_gold(attempt: Attempt, parts: Parts) -> bool:
    """The corrected solution ends in the gold answer (the paper's only rule)."""
    return tasks.grade(attempt.problem, "\n".join(parts.steps), truncated=False)[1] is Verdict.RIGHT


def step_exists(attempt: Attempt, parts: Parts) -> bool:
    """Every step that is called wrong is one of the attempt's."""
    return all(1 <= step <= len(split_steps(attempt.text)) for step in parts.named)


def keeps_prefix(attempt: Attempt, parts: Parts) -> bool:
    """The steps before the wrong one stand: not rewritten, and none of their sums given another value.

    Values may differ by 1 %, which is rounding.
    """
    if not parts.named:
        return True
    step = min(parts.named)
    kept = _sums(split_steps(attempt.text)[: step - 1])
    corrected = _sums(parts.steps)
    return (parts.first or step) >= step and all(
        math.isclose(corrected.get(sum_, value), value, rel_tol=0.01) for sum_, value in kept.items()
    )


def starts_at_step(attempt: Attempt, parts: Parts) -> bool:
    """The corrected solution begins at the first step that is called wrong."""
    return not parts.named or (parts.first or 0) == min(parts.named)


def changes_step(attempt: Attempt, parts: Parts) -> bool:
    """The first corrected step says something else than the one it corrects (all of them, where no step is named)."""
    original = split_steps(attempt.text)
    if not parts.named:
        return not _same(parts.steps, original)
    at = min(parts.named) - 1
    return not _same(parts.steps[:1], original[at : at + 1])


def mends_the_step(attempt: Attempt, parts: Parts) -> bool:
    """The solution does not state the true equations of the step called wrong again, and mend one of a later step."""
    if not parts.named:
        return True
    at, original, true = min(parts.named), split_steps(attempt.text), _true(parts)
    of_step, later = claims.of_steps(original[at - 1 : at]), claims.of_steps(original[at:])
    stands = bool(of_step) and all(claim.holds and claim.expression in true for claim in of_step)
    return not (stands and any(not claim.holds and claim.expression in true for claim in later))


def explained(attempt: Attempt, parts: Parts) -> bool:
    """The explanation is not empty."""
    return bool(re.search(r"\w", parts.explanation))


def no_leak(attempt: Attempt, parts: Parts) -> bool:
    """No text refers to an answer that the student cannot know (`gold`, unless the question is about gold)."""
    return not leaks(attempt.problem, "\n".join([parts.explanation, *parts.steps]))


def leaks(problem: Problem, text: str) -> bool:
    """Whether a teacher's text refers to an answer that the student cannot know."""
    gold = _GOLD.search(text) and not _GOLD.search(problem.question)
    return bool(_GIVEN.search(text) or gold)


def says_what_it_mends(attempt: Attempt, parts: Parts) -> bool:
    """Where the solution gives a false equation of the wrong step its true value, the explanation says so.

    It names the value, or that something is computed wrongly. A weak teacher mends the sum in passing and explains
    something else, often in the words of a worked example.
    """
    if not parts.named:
        return True
    at, true = min(parts.named), _true(parts)
    of_step = claims.of_steps(split_steps(attempt.text)[at - 1 : at])
    values = [claim.value for claim in of_step if not claim.holds and claim.expression in true]
    named = itertools.product(values, claims.numbers(parts.explanation))
    given = any(math.isclose(value, number, rel_tol=0.01) for value, number in named)
    return not values or given or bool(_COMPUTES.search(parts.explanation))


def equations_hold(attempt: Attempt, parts: Parts) -> bool:
    """No equation of the corrected solution is false: gold may be reached by chance, as by two slips.

    The explanation may quote the attempt's false one.
    """
    return all(claim.holds for claim in claims.of_steps(parts.steps))


def unlabelled(attempt: Attempt, parts: Parts) -> bool:
    """No label, heading, or half of one is left in a step or in the explanation."""
    return not any(_LEFT.search(step) or label(step) for step in parts.steps) and not _LEFT.search(parts.explanation)


RULES: dict[str, Callable[[Attempt, Parts], bool]] = {
    "wrong_answer": answer_is_gold,
    "no_such_step": step_exists,
    "rewrites_kept_steps": keeps_prefix,
    "starts_elsewhere": starts_at_step,
    "same_step": changes_step,
    "later_step": mends_the_step,
    "no_explanation": explained,
    "tells_answer": no_leak,
    "other_reason": says_what_it_mends,
    "false_equation": equations_hold,
    "label_left": unlabelled,
}

_RIGHT = "(?:corrected|correct|revised|fixed|updated|new)"
# How a sentence about a step continues: `Step 1 gives 5 pens, so …` carries no label.
_TELLS = (
    r"(?:is|was|gives|gave|gets|got|shows|showed|tells|told|says|said|yields|found|finds|has|and|to|does|did|we|he|she"
    r"|they|it)\b"
)
_LEFT = re.compile(
    rf"^[\W_]*(?:{_RIGHT}\s+)?step[\s#(\[_-]*\d+(?!\d|['’])(?!\s+{_TELLS})"
    r"|^\s*(?:[*_#>\s]*(?:(?:incorrect|wrong) steps?\b[^.:]{0,20}:|explanation\s*:"
    r"|(?:here is |the )*(?:correct(?:ed)?|revised|fixed) (?:solution|steps?)\b[^.:]{0,40}:|corrections?\s*:)"
    r"|#{1,3}\s|#{5,6}\s|```|[—–:}\]|>/→⇒]|\*\*\s|\d+\.\d+\s*:)"
    r"|\b(?:correct(?:ed)?|revised|fixed) solution\b[*_\s]*[:：]|</?(?:explanation|(?:in)?correct\w*|solution)>"
    r"|(?:[.!?:*}]|\*\*)\s+\**step\s*\d+(?:\.\d+)?\**\s*(?:[:|→⇒]|[-=]>)|```|</?think|\"\s*:\s*[\[{\"]"
    r"|(?<!\*)\*\*$(?<!\S\*\*)",
    re.IGNORECASE,
)
_COMPUTES = re.compile(
    r"\barithmetic|\bcalculation|\bcomputation|\bmis(?:calculat|comput|count|add|divi)|\bincorrectly\b|\bwrongly\b"
    r"|\b(?:sum|product|difference|quotient|result|value|total|addition|subtraction|multiplication|division)\b[^.]{0,40}"
    r"\b(?:incorrect|wrong|false|mistake|error)",
    re.IGNORECASE,
)
_GOLD = re.compile(r"\bgold", re.IGNORECASE)
_GIVEN = re.compile(
    r"\bground[- ]truth|\banswer key|\b(?:given|expected|provided|reference) (?:final |correct )?answer"
    r"(?!s? (?:choices|options|candidates)\b|(?<=given answer) of \W*\d)"  # the student's answer may be the given one
    r"|\breference solution|\bgold(?:en)? (?:standard |final )?(?:answer|solution|label)",
    re.IGNORECASE,
)


def _sums(steps: Sequence[str]) -> dict[str, Fraction]:
    """`3 + 4` -> 7 for each `3 + 4 = 7` in the steps."""
    return {claim.expression: claim.stated for claim in claims.of_steps(steps)}


def _true(parts: Parts) -> set[str]:
    """The expressions that the corrected solution gives their true value."""
    return {claim.expression for claim in claims.of_steps(parts.steps) if claim.holds}


def _same(these: Sequence[str], those: Sequence[str]) -> bool:
    """Equal but for white space, case and final full stops."""
    return [_norm(step) for step in these] == [_norm(step) for step in those]


def _norm(step: str) -> str:
    return "".join(step.split()).casefold().rstrip(".")
