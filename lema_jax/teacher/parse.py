"""Reads a teacher's reply: the wrong step, the explanation, the corrected steps.

Replies are a model's prose, so nothing here trusts their shape: headings may be bold, numbered or missing, the
solution may stand in braces, in a code fence or bare, the whole may be JSON. `parse` always returns, and says in
`flaw` what it missed.
"""

import dataclasses
import itertools
import re

from lema_jax.tasks.steps import label, split_steps, unlabelled
from lema_jax.tasks.thinking import spoken
from lema_jax.teacher import structured

FLAWS = ("empty", "refusal", "no_step", "no_solution", "no_answer", "cut_off")


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
    said, finished = spoken(reply)
    if not finished:
        return Parts(flaw="cut_off")
    text = _PICTURE.sub(r"\1", _FENCE.sub("", structured.as_text(said)).replace("：", ":")).strip()
    if not text:
        return Parts(flaw="empty")
    head, solution = _split_at_solution(text)
    named, explanation = _naming(head) if asks_step else ((), _EXPLANATION.sub("", head, count=1))
    if not solution and named:
        explanation, solution = _in_prose(explanation)
    first, steps, flaw = _steps(solution)
    parts = Parts(named, _bare_explanation(explanation), first, steps)
    return dataclasses.replace(parts, flaw=_flaw(parts, text, asks_step, flaw))


def _flaw(parts: Parts, text: str, asks_step: bool, of_solution: str) -> str:
    if not parts.steps and _REFUSAL.search(text[:300]):
        return "refusal"
    if asks_step and not parts.named:
        return "no_step"
    return of_solution if parts.steps else "no_solution"


# --- the three parts --------------------------------------------------------------------------------------------------

# Quantifiers are possessive (`*+`): a reply of 100,000 asterisks must not cost quadratic time.
_DECOR = r"^[ \t>#*_•-]*+(?:\(?\d{1,2}[.)][ \t]*+)?(?:\\textbf\{)?[*_ \t]*+"  # bullets, bold, `### `, `2. `
_PICTURE = re.compile(
    r"^([ \t>#*_•-]*+)[\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]++[ \t]*+(?=\**[A-Za-z])", re.MULTILINE
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)
_REFUSAL = re.compile(r"\b(?:sorry|unable to|as an ai|can(?:no|['’])t (?:help|assist|provide|comply))\b", re.IGNORECASE)
_EXPLANATION = re.compile(
    _DECOR
    + r"(?:(?:the|an?|brief|short)\s){0,2}(?:explanation|mistakes?|reason(?:ing)?|error|why|what(?:'s| is) wrong)\b"
    r"(?:[^:\n]{0,40}:|[*_} \t]*$)[*_}]*+",
    re.IGNORECASE | re.MULTILINE,
)
_RIGHT = r"(?:correct(?:ed)?|revised|fixed|right|proper|updated|amended|new|rectified)"
_SOLUTION = re.compile(
    _DECOR + rf"(?:(?:here(?:'s|\sis|\sare)|below\sis|the|a|my|full|complete|this\sis)\s){{0,3}}"
    rf"(?:{_RIGHT}[ \t]+(?:(?:version|full|complete|final|step-by-step|math|overall)\s){{0,2}}"
    r"(?P<what>solution|answer|steps?(?!\s*[#(]?\d)|version|calculations?|working|path|reasoning|approach)"
    r"|(?P<alone>corrected|corrections?|solution|revision|fix(?:ed)?))\b"
    r"(?:[^:\n{.]{0,60}:|[*_} \t]*$)[*_}]*+",
    re.IGNORECASE | re.MULTILINE,
)
_VALUE = re.compile(r"[ \t*$\\(\[]*(?:\\boxed\{)?[-+$€£]?[\d.,/ ]*\d[^\n]{0,20}$", re.MULTILINE)
_OPEN_LINE = re.compile(r"^[ \t]*\{[ \t]*$", re.MULTILINE)
_CLOSE_LINE = re.compile(r"^[ \t]*\}[ \t.]*$", re.MULTILINE)
_NEXT_QUESTION = re.compile(r"^[*_ \t]*+Question:", re.MULTILINE)


def _split_at_solution(text: str) -> tuple[str, str]:
    """What stands before the corrected solution, and the solution."""
    explained = _EXPLANATION.search(text)
    start = explained.end() if explained else 0
    headings = list(_SOLUTION.finditer(text))
    before = [one for one in headings if one.end() <= start and _opens_steps(text, one)]
    behind = [one for one in headings if one.start() >= start]
    if before and not behind and _ANSWER.search(text, start):  # `Explanation:` within the solution
        behind = before
    if behind:
        found = next((one for one in behind if not _gives_answer(text, one)), behind[0])
        if not _opens_steps(text, found):
            whole = (one for one in behind if one.start() > found.end() and _opens_steps(text, one))
            later = next(whole, None)
            # `The correct step is: 9 - 4 = 5.` may be a line of the explanation.
            if later and "\n" not in text[found.end() : later.start()].strip():
                found = later
        return text[: found.start()], text[found.end() :]
    if brace := _OPEN_LINE.search(text, start):
        return text[: brace.start()], text[brace.start() :]  # a lone brace belongs to the solution
    return _split_at_label(text, start)


_MOST_LINES = 200  # of an explanation without a heading after it


def _split_at_label(text: str, start: int) -> tuple[str, str]:
    """The same without a heading: at the first labelled line behind an explanation that judges no step."""
    answers = [found.start() for found in _ANSWER.finditer(text)]
    places = [0, *(found.end() for found in itertools.islice(re.finditer(r"\n", text), _MOST_LINES))]
    for at in places:
        line = text[at : at + 1_000].partition("\n")[0].strip()
        found = label(line) if max(start, 1) <= at < max(answers, default=0) else None
        if found and found[0] is not None and found[1] and not _JUDGES.match(found[1]):
            named, explanation = _naming(text[:at])
            return (text[:at], text[at:]) if named and re.search(r"\w", explanation) else (text, "")
    return text, ""


def _gives_answer(text: str, heading: re.Match[str]) -> bool:
    """Whether a heading is that of the answer alone: `Correct answer: 4`."""
    return (heading["what"] or "").lower() == "answer" and bool(_VALUE.match(text, heading.end()))


def _opens_steps(text: str, heading: re.Match[str]) -> bool:
    """Whether a heading is surely of the whole solution: `The correct step is:` may be part of the explanation."""
    behind = text[heading.end() : heading.end() + 200].lstrip(" \t\n*_")
    line = behind.partition("\n")[0].strip()
    labelled = label(line)
    if (labelled and labelled[0]) or behind.startswith(("{", "...")):
        return True
    return "solution" in heading.group().lower() and not _CONCLUSION.match(line)


_ANSWER = re.compile(r"answer is|\\boxed|####|\banswer\s*:", re.IGNORECASE)
_OUGHT = re.compile(
    rf"\b(?:{_RIGHT}|actual) (?:solution|answer|step|calculation|way|approach|method|computation|result|value|equation)"
    r"|\b(?:should|must) (?:be|have)\b|\binstead\b|\bcorrectly\b",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z\\$\d])|\n+")


def _in_prose(text: str) -> tuple[str, str]:
    """Explanation and solution of a reply without headings: from where it says what should be to its answer."""
    text = text.strip()
    if not _ANSWER.search(text):
        return text, ""
    sentences = [(found.end()) for found in _SENTENCES.finditer(text)]
    places = [0, *sentences, len(text)]
    for start, end in itertools.pairwise(places):
        if _OUGHT.search(text, start, end) or label(text[start:end].strip()):
            return (text[:start] if text[:start].strip() else text[start:end]), text[start:]
    first = places[1]
    return text[:first], (text[first:] if _ANSWER.search(text, first) else text)


def _bare_explanation(text: str) -> str:
    """On one line, without a heading of the answer after it and without what decorates it."""
    for found in _SOLUTION.finditer(text, 1):
        behind = text[found.end() :].partition("\n")[0]
        if _gives_answer(text, found) or ((found["what"] or "").lower() == "answer" and behind.strip(" *_")):
            text = text[: found.start()]
            break
    lines = [line for line in text.splitlines() if not _RULE.fullmatch(line.strip())]
    bare = " ".join(" ".join(lines).split()).strip("*_ ")
    return bare.removeprefix("## ").strip() if not bare.startswith("####") else bare


_RULE = re.compile(r"[-*_=]{3,}|\{|\}|#+")

# --- the step that is wrong -------------------------------------------------------------------------------------------

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_CARDINALS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
_ORDINAL = re.compile(
    rf"\b(?:({'|'.join(_ORDINALS)})|(\d{{1,2}})(?:st|nd|rd|th))\s+step\b(?!\s+(?:that|which|where|in|to|with)\b)",
    re.IGNORECASE,
)
_IN_WORDS = re.compile(rf"\b(steps?\s+(?:number\s+|no\.?\s+)?)({'|'.join(_CARDINALS)})\b", re.IGNORECASE)
_IN_ROMAN = re.compile(rf"\b([Ss]teps?\s+)({'|'.join(sorted(_ROMAN, key=len, reverse=True))})\b(?!')")
_NUMBERS = r"(\d{1,3}(?:\s*(?:,|and|or|&|to|through|-|–|—)\s*(?:and\s)?\s*(?:steps?\s)?\s*\d{1,3})*)"
_NAMED = re.compile(r"\bsteps?[\s:*_#([{]*+(?:number\s|no\.?\s)?[\s#(]*+" + _NUMBERS, re.IGNORECASE)
_BARE_NUMBER = re.compile(r"^\W*" + _NUMBERS + r"\b")
_FAULT = r"(?:incorrect|wrong|erroneous|mistaken|mistakes?|faulty|flawed|errors?|problematic|false|invalid)"
_LABELLED = re.compile(
    rf"\b(?:{_FAULT}\s(?:step|reasoning)s?(?:\snumber)?|step\s(?:that|which)\sis\s{_FAULT}|{_FAULT})\b[^.\n]{{0,60}}$"
    rf"|\bfirst\s{_FAULT}\b[^.\n]{{0,60}}$",
    re.IGNORECASE,
)
_JUDGES = re.compile(
    rf"[\s:*_)\]}},.—–-]*+(?:(?:is|are|was|seems?|looks?|has|have|contains?|appears?)\s+)?"
    rf"(?:(?:an?|the|also|to be|not|in)\s+){{0,3}}"
    rf"(?:(?P<good>correct|right|fine|ok(?:ay)?|good|valid|accurate|true|unchanged|✓|✔|✅)|(?P<bad>{_FAULT}|❌|✗|✘))",
    re.IGNORECASE,
)


def _naming(head: str) -> tuple[tuple[int, ...], str]:
    """The numbers of the steps that are called wrong, and the explanation.

    What follows an explicit label counts first, then what is called wrong, then any step that is not called right.
    """
    explained = _EXPLANATION.search(head)
    before = _in_digits(head[: explained.start()] if explained else head)
    best: tuple[int, re.Match[str]] | None = None
    line_start = 0
    for found in _NAMED.finditer(before):
        line_start = before.rfind("\n", max(0, found.start() - 200), found.start()) + 1
        judged = _JUDGES.match(before, found.end())
        negated = judged and re.search(r"\bnot\b", judged.group(), re.IGNORECASE)
        good, bad = bool(judged and judged["good"]), bool(judged and judged["bad"])
        good, bad = (bad, good) if negated else (good, bad)
        labelled = bool(_LABELLED.search(before[max(line_start, found.start() - 100) : found.start()]))
        rank = 0 if good else 3 if labelled else 2 if bad else 1
        if rank and (best is None or rank > best[0] or rank == best[0] == 3):
            best = rank, found
    naming = best[1] if best else _BARE_NUMBER.search(before)
    named = tuple(int(number) for number in re.findall(r"\d+", naming.group(1))) if naming else ()
    if explained:
        return named, head[explained.end() :]
    return named, before[naming.end() :].lstrip(" .:*_)]}\n—–-") if naming else ""


def _in_digits(text: str) -> str:
    """Steps named in words, by ordinals or Roman numerals, as `step 2`."""
    text = _ORDINAL.sub(lambda f: f"step {_ORDINALS.index(f[1].lower()) + 1 if f[1] else f[2]}", text)
    text = _IN_WORDS.sub(lambda f: f"{f[1]}{_CARDINALS.index(f[2].lower()) + 1}", text)
    return _IN_ROMAN.sub(lambda f: f"{f[1]}{_ROMAN.index(f[2]) + 1}", text)


# --- the corrected steps ----------------------------------------------------------------------------------------------

_INLINE_STEP = re.compile(
    r"(?<!\bfrom)(?<!\bin)(?<!\bof)(?<!\bto)(?<!\bsee)(?<!\bat)(?<!\bby)(?<!\band)(?<!\bor)(?<!\bwith)(?<![-*•+>#|(])"
    r"(?<![Cc]orrect)(?<![Cc]orrected)(?<![Rr]evised)(?<![Ff]ixed)(?<![Uu]pdated)(?<![Ii]ncorrect)(?<![Ww]rong)"
    r"(?<![ \t])[ \t]++(?=(?:\*\*|\\textbf\{)?Step \d{1,3}(?:\.\d{1,2})?(?:\*\*)?\s?(?:[:|→⇒]|[-=]>))"
)
_CONCLUSION = re.compile(r"^\W*(?:(?:so|thus|therefore|hence),?\s)?the (?:final )?answer is\b", re.IGNORECASE)
_MATHEMATICS = re.compile(r"[\d=$\\]")
_STEP_NUMBER = re.compile(r"\bsteps?\s*\d+", re.IGNORECASE)
_TABLE_ROW = re.compile(
    r"^\s*\|\s*(?:\*\*)?(?:step\s*)?(\d{1,3}|[:\s-]+|step|#|no\.?)(?:\*\*)?\s*\|(.*?)\|?\s*$", re.IGNORECASE
)
_UNCHANGED = re.compile(
    r"^[\W_]*(?:(?:is |are |remains? |stays? )?(?:the )?(?:same|unchanged|no changes?|correct)"
    r"(?:\s(?:as|in|from)\s(?:above|before|(?:in\s)?(?:the )?(?:original|previous).{0,30}))?[\W_]*)?$",
    re.IGNORECASE,
)
Labelled = list[tuple[int | None, str]]


def _steps(solution: str) -> tuple[int | None, tuple[str, ...], str]:
    """The number of the first corrected step, the steps, and the flaw of a solution that did not come to its end."""
    body, flaw = _body(solution)
    numbered = _labelled(body)
    while numbered and _UNCHANGED.match(numbered[0][1]):  # `...` or `Step 1: (same as before)`: the kept prefix
        numbered.pop(0)
    steps = [(number, text) for number, text in numbered if text]
    return (steps[0][0] if steps else None), tuple(text for _, text in steps), flaw


def _labelled(body: str) -> Labelled:
    """The steps with the numbers they carry. A line without a label goes on with the step before it."""
    lines = [line for one in _INLINE_STEP.sub("\n", body).splitlines() if (line := _row(one).strip())]
    lines = [line for line in lines if not _RULE.fullmatch(line)]
    labels = [label(line) for line in lines]
    if any(found and found[0] is not None for found in labels):
        labels = [found if found and found[0] is not None else None for found in labels]
    elif sum(bool(found) for found in labels) <= 1:
        return [(None, step) for step in split_steps(body)]
    steps: Labelled = []
    before = ""  # the first label: `...`, chatter, or what the steps stand on
    for line, found in zip(lines, labels):
        if found:
            number, text = found[0], _bare(unlabelled(found[1]))
            if before and not _UNCHANGED.match(text):
                text, before = f"{before} {text}", ""
            steps.append((number, text))
        elif steps and _CONCLUSION.match(line) and steps[-1][1]:
            steps.append((None, _bare(line)))
        elif steps:
            steps[-1] = (steps[-1][0], f"{steps[-1][1]} {_bare(line)}".strip())
        elif _MATHEMATICS.search(_STEP_NUMBER.sub("", line)):
            before = f"{before} {_bare(line)}".strip()
    return steps


def _row(line: str) -> str:
    """The row of a table of steps as a labelled line."""
    if not (found := _TABLE_ROW.match(line)):
        return line
    return f"Step {found[1]}: {' '.join(found[2].replace('|', ' ').split())}" if found[1].isdigit() else ""


def _bare(text: str) -> str:
    """Without a heading's mark, and without the second half of a bold label or line."""
    text = text.strip()
    text = text if text.startswith("####") else text.lstrip("#").strip()
    return text.removesuffix("**").rstrip() if text.count("**") % 2 else text


def _body(solution: str) -> tuple[str, str]:
    """The inside of a solution's braces, or what stands for it, and its flaw where it did not end."""
    solution = _cut(solution, _NEXT_QUESTION).strip()
    if opened := _OPEN_LINE.search(solution):
        solution = solution[opened.start() :].strip()
    if not solution.startswith("{"):
        return _up_to_the_answer(solution), "" if _ANSWER.search(solution) else "no_answer"
    end = _closing_brace(solution)
    if end is None:  # a stray brace inside, or no end at all
        inside = _cut(solution, _CLOSE_LINE)
        return inside[1:], "" if len(inside) < len(solution) or _ANSWER.search(inside) else "cut_off"
    inside, after = solution[1:end], solution[end + 1 :]
    if not _ANSWER.search(inside) and (found := _ANSWER.search(after[:300])):
        line_end = after.find("\n", found.end())
        inside += "\n" + after[: line_end if line_end >= 0 else len(after)].strip()
    return inside, ""


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
