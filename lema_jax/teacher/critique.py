"""Critiques of attempts, right and wrong: a teacher's reply read and checked, and the offline teacher's own.

A critique gives reasons, then a judgement (critique fine-tuning, arXiv 2501.17703). Grading knows the verdict already,
so a critique is kept only where its judgement is the verdict.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from lema_jax import tasks
from lema_jax.records import Attempt, Critique, Verdict
from lema_jax.tasks import answers
from lema_jax.tasks.claims import claims
from lema_jax.tasks.steps import split_steps
from lema_jax.tasks.thinking import spoken
from lema_jax.teacher import keep, reference, structured


def row(
    id: str,
    attempt: Attempt,
    teacher: str,
    text: str,
    prompt: str = "",
    failed: str = "",
    usage: dict[str, Any] | None = None,
) -> Critique:
    """The row of a teacher's reply: its reasons, its judgement, and the first rule that it breaks, if any.

    Args:
      prompt: the id of what a chat teacher was asked by.
      failed: why the reply is incomplete, where that is known already.
    """
    said, finished = spoken(text)
    reasons, right = read(said) if finished else ("", None)
    made = Critique(
        id=id,
        attempt=attempt,
        teacher=teacher,
        prompt=prompt,
        text=text,
        critique=reasons,
        right=right,
        rejected=failed or ("" if finished else "cut_off"),
        usage=usage or {},
    )
    broken = next((name for name, passes in RULES.items() if not passes(made)), "")
    return made if made.rejected else made.model_copy(update={"rejected": broken})


def read(text: str) -> tuple[str, bool | None]:
    """The reasons in a reply and its judgement; None for one that says neither or both.

    The judgement is the last line that begins with `Conclusion:`; what follows it is no part of the reasons. "The right
    answer is 12" judges nothing where the line says "wrong" too.
    """
    text = _FENCE.sub("", structured.as_text(text)).strip()
    found = list(_CONCLUSION.finditer(text)) or list(_HEADED.finditer(text))
    body = text[: found[-1].start()] if found else text
    body = body.strip()
    reasons = body[cue.end() :] if (cue := _CUE.match(body)) else body
    said = _HEDGED.sub(" ", _NEGATED.sub(_opposite, found[-1]["said"])) if found else ""
    judged = _judged(said)
    if len(judged) == 2:
        judged = _judged(_RIGHT_ANSWER.sub(" ", said))
    return _unbraced(reasons), judged.pop() if len(judged) == 1 else None


def _judged(said: str) -> set[bool]:
    return {word.lower() in _RIGHT for word in _JUDGEMENT.findall(said)}


def _opposite(negated: re.Match[str]) -> str:
    return " wrong " if negated["what"].lower() in _RIGHT else " right "


def _unbraced(text: str) -> str:
    """Without braces around the whole: LaTeX's stay."""
    text, open_ones = text.strip(), text.count("{") - text.count("}")
    if text.startswith("{") and open_ones > 0:
        return text[1:].strip()
    if text.endswith("}") and open_ones < 0:
        return text[:-1].strip()
    return text[1:-1].strip() if _WHOLE.fullmatch(text) else text


_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)
_CUE = re.compile(  # a label, or a sentence that only announces the critique
    r"[*_#>\s]*+(?:(?:sure|certainly|of course|ok|okay)\b[,.! ]*+)?"
    r"(?:critique[*_ \t]*+(?::|(?=\n))|(?:here is|here['’]s|below is|this is|let me|i will|i['’]ll)\b"
    r"[^\n:.]{0,80}?\bcritique\b[^\n:.]{0,80}+[:.])[*_]*\s*",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"^[*_#>\- \t]*(?:final\s+)?(?:conclusion|judge?ment|verdict)[*_ \t]*(?:[:：]|[—–-](?=\s))"
    r"(?P<said>[^\n]*(?:\n(?!\s*\n)[^\n]*)?)",
    re.IGNORECASE | re.MULTILINE,
)
_HEADED = re.compile(
    r"^[*_#>\- \t]*(?:final\s+)?(?:conclusion|judge?ment|verdict)[*_ \t]*\n+(?P<said>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_RIGHT = {"right", "correct"}
_WHOLE = re.compile(r"\{(?:[^{}]|\{[^{}]*\})*\}")
_NEGATED = re.compile(
    r"(?:(?:\b(?:not(?!\s+only)|neither|never|fails? to)|n['’]t)\s+(?:\w+\s+){0,2}?"
    r"|\b(?:no|nothing|without)\s+(?:(?:is|was|that|an?|any|steps?|things?|parts?)\s+){0,2}(?=wrong|incorrect))"
    r"(?P<what>right|correct|wrong|incorrect)\b",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:partial|part|most|near|almost|large|half|main)(?:ly)?[\s-]+(?:right|correct)\b", re.IGNORECASE
)
_RIGHT_ANSWER = re.compile(
    r"\b(?:right|correct)\s+(?:final\s+)?(?:answer|value|result|total|sum|number|amount|choice|option|one)\b",
    re.IGNORECASE,
)
_JUDGEMENT = re.compile(r"\b(?:right|correct|wrong|incorrect)\b", re.IGNORECASE)


RULES: dict[str, Callable[[Critique], bool]] = {
    "no_judgement": lambda row: row.right is not None,
    "wrong_judgement": lambda row: row.right is (row.attempt.verdict is Verdict.RIGHT),
    "no_reasons": lambda row: bool(re.search(r"\w", row.critique)),
    "tells_answer": lambda row: not keep.leaks(row.attempt.problem, row.critique),
}


def reply(attempt: Attempt) -> str:
    """The offline teacher's critique: each step up to the first wrong one, and a judgement that it makes by itself.

    An attempt is wrong for it where a sum does not hold or the answer is another than gold's: a right answer that was
    found by wrong sums is called wrong, and the critique is not kept.

    Raises:
      UserError: the problem has no rationale, or one in LaTeX.
    """
    steps = split_steps(attempt.text)
    finding = _finding(attempt, steps)
    lines = [
        _holds(number, step) for number, step in enumerate(steps[: finding.step - 1 if finding else None], start=1)
    ]
    if finding:
        lines.append(f"There is a mistake in step {finding.step}. {finding.explanation}")
    return "\n".join([*lines, f"Conclusion: {'wrong' if finding else 'right'}."])


def _finding(attempt: Attempt, steps: Sequence[str]) -> reference.Finding | None:
    problem = attempt.problem
    reference.require(problem)
    if problem.choices:
        is_right = tasks.grade(problem, attempt.text, truncated=False)[1] is Verdict.RIGHT
    else:
        stated = answers.final_number(steps[-1]) if steps else None
        is_right = stated is not None and answers.same_number(stated, problem.gold)
    if not is_right:
        return reference.locate(problem, steps)
    return next(
        (
            reference.Finding(number, reference.false_sum(claim))
            for number, step in enumerate(steps, start=1)
            for claim in claims(step)
            if not claim.holds
        ),
        None,
    )


def _holds(number: int, step: str) -> str:
    sums = [reference.equation(claim) for claim in claims(step)]
    return f"Step {number} is right: {' and '.join(sums)}." if sums else f"Step {number} is right."
