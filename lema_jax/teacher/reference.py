"""The reference teacher: corrects offline, from the gold rationale, in place of a chat model.

It serves tasks whose rationale is plain arithmetic (GSM8K, our own word problems), not LaTeX (MATH); attempts may be
LaTeX. A step is wrong when a sum it claims does not hold, or when it computes a
value that the gold rationale has no use for and that leads to none of the rationale's values either. When every value
is of use, the path stopped short: then the step after the last useful value is wrong. The corrected steps are the gold
ones that the kept steps have not reached.
"""

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from lema_jax.errors import UserError
from lema_jax.records import Attempt, Problem
from lema_jax.tasks import answers, expressions, number_words
from lema_jax.tasks.claims import Claim, claims, numbers
from lema_jax.tasks.steps import number_steps, split_steps

TEACHER = "reference"
VERSION = 2  # of its behaviour; part of the ids of its rows


@dataclasses.dataclass(frozen=True)
class Finding:
    """The first wrong step of a path, 1-based, and what is wrong with it."""

    step: int
    explanation: str


@dataclasses.dataclass(frozen=True)
class _GoldStep:
    text: str
    value: Fraction | None  # None when it computes nothing
    claim: Claim | None  # the sum that gives the value, where one is spelled out


def reply(attempt: Attempt) -> str:
    """The correction in the format of a chat teacher's reply (`Step k.`, `Explanation: …`, `Correct Solution:`); of a
    question with choices, of which no step is asked for, an explanation and the whole `Corrected Answer:`.

    Raises:
      UserError: the problem has no rationale, or one in LaTeX.
    """
    problem, steps = attempt.problem, split_steps(attempt.text)
    finding = locate(problem, steps)
    if problem.choices:
        whole = "\n".join([*(step.text for step in _gold_steps(problem)), f"The answer is {problem.gold}."])
        return f"The mistake is in step {finding.step}. {finding.explanation}\nCorrected Answer:\n{{\n{whole}\n}}"
    kept = steps[: finding.step - 1]
    left = _left(_gold_steps(problem), problem.question, kept)
    corrected = [*(step.text for step in left), f"The answer is {problem.gold}."]
    unchanged = "...\n" if kept else ""
    return (
        f"Step {finding.step}.\nExplanation: {finding.explanation}\nCorrect Solution:\n{{\n"
        f"{unchanged}{number_steps(corrected, first=finding.step)}\n}}"
    )


def require(problem: Problem) -> None:
    """Refuses a problem that the reference teacher cannot correct or judge.

    Raises:
      UserError: the problem has no rationale, or one in LaTeX.
    """
    _gold_steps(problem)


def locate(problem: Problem, steps: Sequence[str]) -> Finding:
    """The first wrong step of a path whose answer is wrong.

    Raises:
      UserError: the problem has no rationale, or one in LaTeX.
    """
    gold = _gold_steps(problem)
    needed = _needed(problem, gold)
    made = [claims(step) for step in steps]
    # A value from which a later true sum makes a needed one is of use, though the rationale takes another path.
    used = {  # the last step that each is of use to
        operand: i
        for i, step in enumerate(made)
        for claim in step
        if claim.holds and claim.stated in needed
        for operand in claim.operands
    }
    last_useful = 0
    known = _stated(problem.question)
    for i, step in enumerate(steps):
        if i == len(steps) - 1 and answers.final_number(step) is not None:
            break
        if false := next((claim for claim in made[i] if not claim.holds), None):
            return Finding(i + 1, false_sum(false))
        values = [claim.stated for claim in made[i]] or [value for value in numbers(step) if value not in known]
        useless = {value for value in values if value not in needed and used.get(value, -1) < i}
        if useless:
            value = next(value for value in values if value in useless)
            claim = next((claim for claim in made[i] if claim.stated == value), None)
            return Finding(i + 1, _useless(problem, value, claim, _left(gold, problem.question, steps[:i])))
        if needed.intersection(values):
            last_useful = i + 1
        known.update(numbers(step))
    step_number = min(last_useful + 1, len(steps))
    left = _left(gold, problem.question, steps[: step_number - 1])
    return Finding(step_number, _short(problem, left, step_number))


# --- the gold rationale -----------------------------------------------------------------------------------------------

_MARK = re.compile(r"<<([^<>]*)>>")


def _gold_steps(problem: Problem) -> list[_GoldStep]:
    if not problem.rationale.strip():
        raise UserError(
            f"problem {problem.id} has no rationale, which the reference teacher corrects from; use a chat teacher"
        )
    if "\\" in problem.rationale:
        raise UserError(
            f"the rationale of problem {problem.id} is LaTeX, which the reference teacher cannot read: use a chat one"
        )
    return [_gold_step(line) for line in problem.rationale.splitlines() if line.strip()]


def _gold_step(line: str) -> _GoldStep:
    marks = _MARK.findall(line)
    sums = [*claims(line), *itertools.chain.from_iterable(claims(mark) for mark in marks)]
    results = [answers.number(mark.rpartition("=")[2]) for mark in marks] or [claim.stated for claim in sums]
    value = results[-1] if results else None
    return _GoldStep(
        text=_MARK.sub("", line).strip(),
        value=value,
        claim=next((claim for claim in sums if claim.stated == value), None),
    )


def _needed(problem: Problem, gold: Iterable[_GoldStep]) -> set[Fraction]:
    """The values on the way to the answer: results of the rationale's sums, and of parts of those sums."""
    needed = {answers.number(problem.gold)}
    for line in problem.rationale.splitlines():
        for text in (line, *_MARK.findall(line)):
            for claim in claims(text):
                needed |= {claim.stated, *_partial(claim)}
    return {value for value in (*needed, *(step.value for step in gold)) if value is not None}


def _partial(claim: Claim) -> Iterable[Fraction]:
    """What another grouping of the same sum passes through: 24 - 4 - 2 may go by 4 + 2, and 3 * 4 * 5 by 4 * 5."""
    signs = re.findall(r"(?<=[\d)] )[-+*/]", claim.expression)
    plain = not re.search(r"\(|\*\*|-\d", claim.expression)  # without brackets, powers, negative numbers
    if not plain or not 2 <= len(signs) == len(claim.operands) - 1 <= 7:
        return
    for size in range(2, len(claim.operands)):
        if set(signs) <= {"+", "-"}:
            terms = [value * (-1) ** (sign == "-") for sign, value in zip(["+", *signs], claim.operands)]
            yield from (abs(sum(part)) for part in itertools.combinations(terms, size))
        elif set(signs) == {"*"}:
            yield from (Fraction(math.prod(part)) for part in itertools.combinations(claim.operands, size))


def _stated(question: str) -> set[Fraction]:
    """The numbers of a question, in digits or small words."""
    words = re.findall(r"[a-z]+", question.lower())
    return {*numbers(question), *(Fraction(number_words.SMALL[word]) for word in words if word in number_words.SMALL)}


def _left(gold: Sequence[_GoldStep], question: str, kept: Sequence[str]) -> list[_GoldStep]:
    """The gold steps still to do after the kept ones.

    Of those before the last one reached, only what a later one needs: the path may have gone another way round.
    """
    reached = _reached(question, kept)
    done = []
    for step in gold:
        done.append(step.value is not None and reached[step.value] > 0)
        if done[-1]:
            reached[step.value] -= 1
    last = max((i for i, is_done in enumerate(done) if is_done), default=-1)
    left: list[_GoldStep] = []
    for i in reversed(range(len(gold))):
        wanted = {operand for step in left if step.claim for operand in step.claim.operands}
        if not done[i] and (i > last or gold[i].value in wanted):
            left.insert(0, gold[i])
    return left


def _reached(question: str, steps: Sequence[str]) -> collections.Counter[Fraction | None]:
    """How often each value was computed, or stated without a sum; the same sum repeated counts once."""
    made = [claims(step) for step in steps]
    sums = {(claim.expression, claim.stated) for step in made for claim in step}
    reached: collections.Counter[Fraction | None] = collections.Counter(value for _, value in sums)
    known = _stated(question)
    for step, said in zip(steps, made):
        if not said:
            reached.update({value for value in numbers(step) if value not in known and value not in reached})
    return reached


# --- explanations -----------------------------------------------------------------------------------------------------

_DONE = {"+": "added", "-": "subtracted", "*": "multiplied", "/": "divided"}


def false_sum(claim: Claim) -> str:
    """What is wrong with a sum that does not hold."""
    value, stated = _decimal(claim.value), _decimal(claim.stated)
    places = 2
    while _about(claim.value, places) == stated:
        places += 1
    about = f"about {_about(claim.value, places)}" if "/" in value else value
    return f"The arithmetic is wrong: {_shown(claim)} is {about}, not {stated}."


def _useless(problem: Problem, value: Fraction, claim: Claim | None, left: Sequence[_GoldStep]) -> str:
    if not left:
        return f"Nothing is left to compute here: the answer is {problem.gold}."
    target = _target(left, claim)
    if target is None:
        return "This step does not lead to what the question asks for."
    if claim is None:  # it may be part of another way, so no more is said of it than is so
        return f"What is needed here is {equation(target)}, which this step does not find."
    needed = f"What is needed here is {equation(target)}."
    if sorted(claim.operands) == sorted(target.operands) and len(claim.operands) == 2:
        sign, right = _sign(claim), _sign(target)
        if sign and right and sign != right:
            return (
                f"{_decimal(claim.operands[0])} and {_decimal(claim.operands[1])} should be {_DONE[right]}, not"
                f" {_DONE[sign]}: {equation(target)}."
            )
    return f"Computing {equation(claim)} does not help. {needed}"


def _short(problem: Problem, left: Sequence[_GoldStep], step: int) -> str:
    if not left:
        return f"All that is needed was computed before: the answer is {problem.gold}."
    before = (
        "What was computed before is right, but it is not yet what the question asks for."
        if step > 1
        else "Nothing that the question asks for is computed here."
    )
    target = _target(left, None)
    return f"{before} What is needed here is {equation(target)}." if target else before


def _target(left: Sequence[_GoldStep], claim: Claim | None) -> Claim | None:
    """The sum that should stand where `claim` stands: of those left, the one that shares most numbers with it."""
    sums = [step.claim for step in left if step.claim and step.claim.holds]
    operands = set(claim.operands) if claim else set()
    return max(sums, key=lambda one: len(operands.intersection(one.operands)), default=None)


def _sign(claim: Claim) -> str:
    """The sign of a sum of two positive numbers; empty for any other."""
    found = re.fullmatch(r"[\d.]+ ([-+*/]) [\d.]+", claim.expression)
    return found[1] if found else ""


def equation(claim: Claim) -> str:
    """The sum and its own value, whatever the path made of it."""
    value = _decimal(claim.value)
    return f"{_shown(claim)} ≈ {_about(claim.value, 2)}" if "/" in value else f"{_shown(claim)} = {value}"


def _shown(claim: Claim) -> str:
    return claim.expression.replace("**", "^")


def _decimal(value: Fraction) -> str:
    return expressions.written(value)


def _about(value: Fraction, places: int) -> str:
    """The decimals of a value to so many places, or to two digits of a small one."""
    while value and abs(value) * 10**places < 10:
        places += 1
    return expressions.written(round(value, places))
