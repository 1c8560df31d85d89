"""Reads a teacher's reply: the wrong step, the explanation, the corrected steps.

Replies are a model's prose, so nothing here trusts their shape: headings may be bold, numbered or missing, the
solution may stand in braces, in a code fence or bare. `parse` always returns, and says in `flaw` what it missed.
"""

import dataclasses
import re

from lema_jax.tasks.steps import split_steps

FLAWS = ("empty", "refusal", "no_step", "no_solution", "cut_off")


@dataclasses.dataclass(frozen=True)
class Parts:
    """The three parts of a reply, as far as they could be read."""

    named: tuple[int, ...] = ()  # the step numbers that it calls wrong, in its order
    explanation: str = ""
    first: int | None = None  # the number that its first corrected step carries; None: it carries none
    steps: tuple[str, ...] = ()  # the corrected steps, labels removed, one line each
    flaw: str = ""  # one of FLAWS when the reply cannot serve; empty otherwise


def parse(reply: str, *, asks_step: bool = True) -> Parts:
    """The parts of a reply in the paper's structure (section 2.1: incorrect step, explanation, correct solution).

    Args:
      reply: the text as it came; it may repeat the prompt's cue (`Incorrect Step:` or `Mistakes:`) or go on from it.
      asks_step: whether the prompt asked for a step number (commonsense prompts do not).
    """
    text = _FENCE.sub("", _THOUGHT.sub("", reply)).strip()
    if not text:
        return Parts(flaw="empty")
    head, solution = _split_at_solution(text)
    named, explanation = _naming(head) if asks_step else ((), _EXPLANATION.sub("", head, count=1))
    first, steps, whole = _steps(solution)
    parts = Parts(named, " ".join(explanation.split()).strip("*_ "), first, steps)
    return dataclasses.replace(parts, flaw=_flaw(parts, text, asks_step, whole))


def _flaw(parts: Parts, text: str, asks_step: bool, whole: bool) -> str:
    if not parts.steps and _REFUSAL.search(text[:300]):
        return "refusal"
    if asks_step and not parts.named:
        return "no_step"
    if not parts.steps:
        return "no_solution"
    return "" if whole else "cut_off"


# Quantifiers are possessive (`*+`): a reply of 100,000 asterisks must not cost quadratic time.
_DECOR = r"^[ \t>#*_•-]*+(?:\(?\d{1,2}[.)][ \t]*+)?[*_ \t]*+"  # bullets, bold, `### `, `2. `
_THOUGHT = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*```.*$", re.MULTILINE)
_REFUSAL = re.compile(r"\b(?:sorry|unable to|as an ai|can(?:no|['’])t (?:help|assist|provide|comply))\b", re.IGNORECASE)
_EXPLANATION = re.compile(
    _DECOR + r"(?:explanation|mistakes?|reason)\b(?:[^:\n]{0,40}:|[*_ \t]*$)[*_]*+", re.IGNORECASE | re.MULTILINE
)
_SOLUTION = re.compile(
    _DECOR + r"(?:(?:here is|the|a)\s){0,2}correct(?:ed)?\s(?:solution|answer|steps)\b"
    r"(?:[^:\n]{0,60}:|[*_ \t]*$)[*_]*+",
    re.IGNORECASE | re.MULTILINE,
)
_OPEN_LINE = re.compile(r"^[ \t]*\{[ \t]*$", re.MULTILINE)
_CLOSE_LINE = re.compile(r"^[ \t]*\}[ \t.]*$", re.MULTILINE)
_NEXT_QUESTION = re.compile(r"^[*_ \t]*+Question:", re.MULTILINE)


def _split_at_solution(text: str) -> tuple[str, str]:
    """What stands before the corrected solution, and the solution."""
    explained = _EXPLANATION.search(text)
    start = explained.end() if explained else 0
    if found := _SOLUTION.search(text, start) or _OPEN_LINE.search(text, start):
        # A lone brace belongs to the solution; a heading does not.
        return text[: found.start()], text[found.start() if "{" in found.group() else found.end() :]
    return text, ""


_NUMBERS = r"(\d{1,3}(?:\s*(?:,|and|or|&|to|through|-|–|—)\s*(?:and\s)?\s*(?:steps?\s)?\s*\d{1,3})*)"
_NAMED = re.compile(r"\bsteps?[\s:*_#([]*+(?:number\s|no\.?\s)?" + _NUMBERS, re.IGNORECASE)
_BARE_NUMBER = re.compile(r"^\W*" + _NUMBERS + r"\b")


def _naming(head: str) -> tuple[tuple[int, ...], str]:
    """The numbers of the steps that are called wrong, and the explanation."""
    explained = _EXPLANATION.search(head)
    before = head[: explained.start()] if explained else head
    found = _NAMED.search(before) or _BARE_NUMBER.search(before)
    named = tuple(int(number) for number in re.findall(r"\d+", found.group(1))) if found else ()
    if explained:
        return named, head[explained.end() :]
    return named, before[found.end() :].lstrip(" .:*_)]\n") if found else ""


_STEP = re.compile(_DECOR + r"(?:corrected\s)?step\s*(\d{1,3})\s*+[*_]*+\s*+[:.)–-]\s*+[*_]*+\s*+", re.IGNORECASE)
_ITEM = re.compile(r"^[ \t*_]*+\(?\d{1,2}[.)][*_]*+\s++")
_INLINE_STEP = re.compile(r"(?<=[.!?…})$])[ \t]+(?=\**Step \d{1,3}:)")
_CONCLUSION = re.compile(r"^\W*(?:(?:so|thus|therefore|hence),?\s)?the (?:final )?answer is\b", re.IGNORECASE)
_ANSWER = re.compile(r"answer is|\\boxed|####", re.IGNORECASE)
_MATHEMATICS = re.compile(r"[\d=$\\]")
_STEP_NUMBER = re.compile(r"\bsteps?\s*\d+", re.IGNORECASE)
_UNCHANGED = re.compile(
    r"^[\W_]*(?:(?:is |are |remains? |stays? )?(?:the )?(?:same|unchanged|no changes?|correct)"
    r"(?:\s(?:as|in|from)\s(?:above|before|(?:in\s)?(?:the )?(?:original|previous).{0,30}))?[\W_]*)?$",
    re.IGNORECASE,
)


def _steps(solution: str) -> tuple[int | None, tuple[str, ...], bool]:
    """The number of the first corrected step, the steps, and whether the solution came to its end."""
    body, whole = _body(solution)
    numbered = _labelled(body)
    while numbered and _UNCHANGED.match(numbered[0][1]):  # `...` or `Step 1: (same as before)`: the kept prefix
        numbered.pop(0)
    steps = [(number, text) for number, text in numbered if text]
    return (steps[0][0] if steps else None), tuple(text for _, text in steps), whole


def _labelled(body: str) -> list[tuple[int | None, str]]:
    """The steps with the numbers they carry. A line without a label goes on with the step before it."""
    lines = [line.strip() for line in _INLINE_STEP.sub("\n", body).splitlines() if line.strip()]
    if any(_STEP.match(line) for line in lines):
        label = _STEP
    elif sum(bool(_ITEM.match(line)) for line in lines) > 1:
        label = _ITEM
    else:
        return [(None, step) for step in split_steps(body)]
    steps: list[tuple[int | None, str]] = []
    before = ""  # the first label: `...`, chatter, or what the steps stand on
    for line in lines:
        if found := label.match(line):
            text = _bare(line[found.end() :])
            if before and not _UNCHANGED.match(text):
                text, before = f"{before} {text}", ""
            steps.append((int(found.group(1)) if label is _STEP else None, text))
        elif steps and _CONCLUSION.match(line):
            steps.append((None, _bare(line)))
        elif steps:
            steps[-1] = (steps[-1][0], f"{steps[-1][1]} {_bare(line)}".strip())
        elif _MATHEMATICS.search(_STEP_NUMBER.sub("", line)):
            before = f"{before} {_bare(line)}".strip()
    return steps


def _bare(text: str) -> str:
    """Without a heading's mark, and without the second half of a bold label or line."""
    text = text.strip().lstrip("#").strip()
    return text.removesuffix("**").rstrip() if text.count("**") % 2 else text


def _body(solution: str) -> tuple[str, bool]:
    """The inside of a solution's braces, or what stands for it, and whether it ended."""
    solution = _cut(solution, _NEXT_QUESTION).strip()
    if opened := _OPEN_LINE.search(solution):
        solution = solution[opened.start() :].strip()
    if not solution.startswith("{"):
        return _up_to_the_answer(solution), bool(_ANSWER.search(solution))
    end = _closing_brace(solution)
    if end is None:  # a stray brace inside, or no end at all
        inside = _cut(solution, _CLOSE_LINE)
        return inside[1:], len(inside) < len(solution) or bool(_ANSWER.search(inside))
    inside, after = solution[1:end], solution[end + 1 :]
    if not _ANSWER.search(inside) and (found := _ANSWER.search(after[:300])):
        line_end = after.find("\n", found.end())
        inside += "\n" + after[: line_end if line_end >= 0 else len(after)].strip()
    return inside, True


def _cut(text: str, at: re.Pattern[str]) -> str:
    found = at.search(text)
    return text[: found.start()] if found else text


def _up_to_the_answer(text: str) -> str:
    """Leaves out the chatter that follows a bare solution."""
    ends = [found.end() for found in _ANSWER.finditer(text)]
    line_end = text.find("\n", ends[-1]) if ends else -1
    return text[:line_end] if line_end >= 0 else text


def _closing_brace(text: str) -> int | None:
    """The index of the brace that closes `text[0]`; LaTeX's `\\{` and `\\}` do not count."""
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0 and brace.group() == "}":
            return brace.start()
    return None
