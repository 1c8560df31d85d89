r"""The behaviour of the authors' released grader: what it reads from an answer, step by step.

Its verdicts are comparable with the paper's, bugs included (`5 or 6` is 56, `2 1/2` is 10.5, no answer is 0). Unlike
the original, this one never executes text as code, bounds arithmetic, and distinguishes "no answer" (None) from 0.
"""

import re
from collections.abc import Sequence

from lema_jax.tasks import expressions

_PHRASE = "The answer is "
_LONGEST_CHOICE_TEXT = 5_000  # characters; more add the same distance to every candidate


def number(text: str) -> float | None:
    """The number that the authors' grader reads for GSM8K, SVAMP and ASDiv; None where it falls back to 0."""
    _, phrase, answer = _cut(text).rpartition(_PHRASE)
    if not phrase:
        return None
    answer = re.sub("[£€]", "", answer.removesuffix(".")).removesuffix(".").replace(",", "")
    for sign in ("=", ">>"):
        if sign in answer:
            answer = answer.rpartition(sign)[2].strip()
    answer = re.sub("[a-z]", "", answer.lower()).partition(":")[0]
    answer = re.sub('[$"]', "", answer)
    if "%" in answer:
        answer = answer.strip().removesuffix("%")
    answer = answer.removesuffix("/").replace(" ", "")
    if "%" in answer or not answer:
        return None
    if re.search(r"[-+*/]", answer):
        return expressions.floating(answer)
    try:
        return float(answer)
    except ValueError:
        return None


def latex(text: str) -> str | None:
    """The normal form of the answer that the authors' grader reads for MATH, or None."""
    for cue in ("Q:", "Question:"):
        text = text.partition(cue)[0].strip()
    _, phrase, answer = text.replace(_PHRASE.rstrip() + ": ", _PHRASE).rpartition(_PHRASE)
    if not phrase:
        return _normal(_box(text))
    answer = answer.strip().removesuffix(".").replace("$", "").strip()
    return _normal(_box(answer) if "boxed{" in answer else answer)


def normal_gold(gold: str) -> str | None:
    r"""The normal form of a MATH gold, given as the content of its box.

    Their script deletes `$` before it reads commands, so `\$6` becomes `\6`.
    """
    return _normal(gold.replace("$", ""))


def choice(text: str, choices: Sequence[str]) -> str:
    """The candidate with the least edit distance to what follows the last `The answer is `, or else to the text."""
    answer = _cut(text).rpartition(_PHRASE)[2].rstrip(".")[:_LONGEST_CHOICE_TEXT]
    return min(choices, key=lambda candidate: _distance(answer, candidate))


def _cut(text: str) -> str:
    text = re.split(r"\n\nQ: |\n\nQuestion: ", text, maxsplit=1)[0]
    return text.replace(_PHRASE.rstrip() + ": ", _PHRASE)


def _box(text: str) -> str | None:
    r"""The content of the last `\boxed{…}`; None if there is none, or its brace is never closed."""
    opened = text.rpartition("\\boxed{")
    depth = 1 if opened[1] else 0
    for brace in re.finditer("[{}]", opened[2]) if depth else ():
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return opened[2][: brace.start()]
    return None


def _normal(answer: str | None) -> str | None:
    """MATH's own normal form (Hendrycks et al. 2021), as the authors use it."""
    if answer is None:
        return None
    answer = answer.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    answer = re.sub(r"[td]frac", "frac", answer).replace("\\left", "").replace("\\right", "")
    answer = answer.replace("^{\\circ}", "").replace("^\\circ", "").replace("\\$", "")
    if answer.count("\\text{ ") > 1:
        return None
    answer = answer.partition("\\text{ ")[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    answer = re.sub(r"^\.", "0.", answer)
    sides = answer.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        answer = sides[1]
    answer = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", answer).replace(" ", "")
    answer = re.sub(r"\\frac([^{])(?=\{)", r"\\frac{\1}", answer)
    answer = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", answer)
    if answer == "0.5":
        return "\\frac{1}{2}"
    return re.sub(r"^(-?(?:0|[1-9]\d*))/(-?(?:0|[1-9]\d*))$", r"\\frac{\1}{\2}", answer)


def _distance(one: str, other: str) -> int:
    """Levenshtein's edit distance."""
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, start=1):
        above, row = row, [i]
        for j, other_char in enumerate(other, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (char != other_char)))
    return row[-1]
