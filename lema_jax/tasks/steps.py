r"""Splits a reasoning path into numbered steps, which teachers read and corrections refer to.

The paper's paths have one step per line, or are one paragraph of sentences. Chat models write Markdown: a displayed
formula, a code block or a table belongs to the step before it, a heading or bold title to the step after it, and an
indented line to its list item.
"""

import enum
import re
from collections.abc import Iterator, Sequence

from lema_jax.tasks.cues import of_this_question

_TEN = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: i for i, word in enumerate(_TEN, start=1)}
_NUMBER = rf"(?P<number>\d{{1,3}}|{'|'.join(_WORDS)})"
_AGAIN = r"(?:corrected|correct|revised|fixed|new|updated|correction)"
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "X": 10}
# What may precede a label: punctuation, LaTeX or HTML, such as `- **`, `### `, `[`, `<b>`, `\textbf{`.
_DRESS = (
    r"(?:\\(?:text(?:bf|it|rm|sf)?|mathbf|underline|emph|(?:sub)*section\*?|paragraph|item)\b\{?|</?[a-z]\w{0,5}>"
    r"|[^\w\n$\\]|_){0,12}+"
)
_ARROW = (
    r"[\u2190-\u21ff\u2794-\u27be\u27f0-\u27ff\u2900-\u297f\u25b6\u25b8\u25ba\u00bb\u203a\u2022\u00b7]"
    r"|\$?\\(?:long)?(?:right|)arrow\b\$?|\$?\\(?:to|implies)\b\$?|[-=~]{0,3}>{1,3}"
)
_CLOSE = r"(?:[*_}`\"”\])]|</[a-z]\w{0,5}>)"
# `Step 2:`, `**Step 2**`, `Corrected Step #2.1 — `, `Step 2 (corrected):`, `[Step 2]`, `Step 2 → `, `Step 2 Add …`, of
# a list `2.`, `(2)`; not the 64 of `64.00` or the 5 of `5 apples`, and no sentence about a step: `Step 2 is wrong`.
_LABEL = re.compile(
    _DRESS + rf"(?:{_AGAIN}\s+)?step[ \t_-]*(?:no\.?\s*|number\s*)?[#(\[]*\s*"
    rf"(?:{_NUMBER}|(?-i:(?P<roman>{'|'.join(sorted(_ROMAN, key=len, reverse=True))})))"
    r"(?:\.\d{1,2}|(?<=\d)[a-z](?![a-z]))?(?:\s?(?:of|/)\s?\d{1,2})?(?![a-z0-9'’])[)\]]*"
    rf"(?:\s*[(\[]{_AGAIN}[)\]])?"
    rf"(?:\s*{_CLOSE}{{0,4}}\s*(?:(?:[:：—|~]|{_ARROW}){{1,2}}{_CLOSE}{{0,4}}|(?:[.;–/]|-{{1,3}}){_CLOSE}{{0,4}}(?=\s|$))"
    rf"|{_CLOSE}{{1,4}}(?=\s|$)"
    r"|(?=\s+(?:(?-i:[A-Z])|\d|\$|\\[(\[]|[(\[“\"]))|[ \t]*$)\s*",
    re.IGNORECASE,
)
_LIST_LABEL = re.compile(r"\*{0,2}\(?\d{1,2}(?:\.\d{1,2})?(?:\)\s*[.:]?|\s*[.:])(?:\*\*)?(?=\s|$)\s*")
# A sentence ends at . ! ? before white space and a new beginning; a decimal point or "Mrs." does not.
_SENTENCE = re.compile(
    r"(?<=[.!?])(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bMrs\.)(?<!\bvs\.)\s+(?=[A-Z\d]|\$(?!\$))"
)


def split_steps(text: str) -> list[str]:
    """The steps of a reasoning path up to the next question, one line each, without labels such as `Step 2:`.

    A step is a line if the text has several, otherwise a sentence. Idempotent: steps joined by line breaks split into
    the same steps.
    """
    steps = _split(of_this_question(text))
    for _ in range(_PASSES):  # text without its label may begin with another one
        again = _split(of_this_question("\n".join(steps)))
        if again == steps:
            break
        steps = again
    return steps


_PASSES = 6


def label(line: str) -> tuple[int | None, str] | None:
    """The number in a line's label and what follows the label; None if the line has no label.

    The number is None for a list item, whose number is not a step's.
    """
    found = _LABEL.match(line)
    if not found and not (found := _LIST_LABEL.match(line)):
        return None
    named, roman = (found.groupdict().get(name) for name in ("number", "roman"))
    number = _ROMAN[roman] if roman else None if named is None else _WORDS.get(named.lower()) or int(named)
    mark = found.group()
    opened = "\\textbf{" in mark or mark.count("**") % 2 or mark.count("__") % 2
    rest = line[found.end() :].strip()
    return number, _closed(rest) if opened else rest


def unlabelled(line: str) -> str:
    """The line without its leading labels: `**Step 2:** text`, `2. text`, `## Step 2`."""
    for _ in range(_PASSES):
        if not (found := label(line)):
            break
        line = found[1]
    return line


def _closed(text: str) -> str:
    """Drops the closing mark of emphasis that was opened in a removed label."""
    if text.count("**") % 2:
        text = text.replace("**", "", 1)
    if text.count("__") % 2:
        text = text.replace("__", "", 1)
    if text.count("}") > text.count("{"):
        text = text.replace("}", "", 1)
    return text.strip()


def _split(text: str) -> list[str]:
    lines = text.splitlines()
    markup = any(one.match(line) for line in lines for one in _MARKUP)
    steps = _blocks(lines) if markup else [line.strip() for line in lines]
    steps = [bare for step in steps if (bare := unlabelled(step.strip()))]
    if len(steps) == 1:
        steps = [bare for sentence in _sentences(steps[0]) if (bare := unlabelled(sentence))]
    return steps


def _sentences(line: str) -> Iterator[str]:
    """The sentences of a line, never split inside a formula."""
    parts: list[str] = []
    dollars = brackets = 0  # open ones
    for part in _SENTENCE.split(line):
        parts.append(part.strip())
        dollars = (dollars + part.count("$$")) % 2
        brackets = max(0, brackets + part.count("\\[") - part.count("\\]"))
        if not dollars and not brackets:
            yield " ".join(parts).strip()
            parts = []
    yield " ".join(parts).strip()


# --- Markdown ---------------------------------------------------------------------------------------------------------

_HEADING = re.compile(r"[ ]{0,3}#{1,6}\s+(?!-?[$€£]?\d[\d.,]*\s*$)(?P<title>\S.*)")  # `#### 72` is GSM8K's answer
_TITLE = re.compile(
    r"\s*(?:[-*•+]\s+|\(?\d{1,2}[.)]\s+)?(?:\*\*|__|\\textbf\{)(?P<title>[^*_{}]{1,120})(?:\*\*|__|\})\s*[:.]?\s*$"
)
_STATES = re.compile(r"[.!?]\s*$|=|\\boxed|answer\s+is", re.IGNORECASE)  # a statement, not a title
_RULE = re.compile(r"\s*(?:(?:-[ ]?){3,}|(?:\*[ ]?){3,}|(?:_[ ]?){3,}|={3,})\s*$")
_FENCE = re.compile(r"\s*(?:```|~~~)\s*[\w+-]*\s*$")
_WORD = re.compile(r"[A-Za-z]{2}")
_ROW = re.compile(r"\s*\|.*\|\s*$")
_ROW_RULE = re.compile(r"[\s|:-]*$")
_FORMULA = re.compile(r"\s*(?:(?P<bracket>\\\[)|(?P<dollars>\$\$)|(?P<set>\\begin\{)|\\\]\s*$|\\end\{)")
_MARKUP = (_HEADING, _TITLE, _RULE, _FENCE, _ROW, _FORMULA)
_ITEM = re.compile(r"\s*(?:[-*•+]|\(?\d{1,2}[.)])\s+")
_BULLET = re.compile(r"^\s*(?:[-*•+]\s+)+")


class _Kind(enum.Enum):
    TEXT = enum.auto()  # starts a step
    BLOCK = enum.auto()  # a displayed formula, code, a table row: part of a step
    TITLE = enum.auto()  # a label of the step that follows
    NOTHING = enum.auto()


def _blocks(lines: Sequence[str]) -> list[str]:
    """The steps of a text in Markdown, each on one line."""
    steps: list[str] = []
    waiting: list[str] = []  # titles, and blocks before any text: parts of the next step
    blocks = fresh = False  # whether a block waits; whether the next line starts a step
    formula = False  # whether the step ends in a block, after which it may continue
    item = _NO_ITEM  # the indent of the step's list item
    for kind, line in _elements(lines):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if kind is _Kind.TITLE:
            if blocks:
                steps.append(" ".join(waiting))
                waiting, blocks = [], False
            waiting += [f"{title.rstrip(':. ')}:"] if (title := _TITLE.sub(r"\g<title>", unlabelled(text))) else []
            fresh, item = True, indent if _ITEM.match(line) else _NO_ITEM
        elif kind is _Kind.BLOCK and re.search(r"\w", text):
            if fresh or not steps:
                waiting.append(text if blocks else _inline(text))
                blocks = True
            else:
                steps[-1] = f"{steps[-1]} {text}"
                formula = True
            continue
        elif kind is _Kind.TEXT:
            goes_on = steps and not fresh and (indent > item or (formula and (text[:1].islower() or text[0] in ",.;")))
            bare = _BULLET.sub("", text)
            if goes_on:
                steps[-1] = f"{steps[-1]} {bare}"
            else:
                steps.append(" ".join([*waiting, unlabelled(bare)]))
                waiting, blocks = [], False
            if indent <= item or item is _NO_ITEM:
                item = indent if _ITEM.match(line) else _NO_ITEM
            fresh = False
        else:
            fresh, item = fresh or not steps, _NO_ITEM
        formula = False
    return [*steps, " ".join(waiting)]


_NO_ITEM = 1 << 30  # no line is indented more


def _inline(block: str) -> str:
    """A block inline: a step may not begin with a displayed one, which belongs to the step before it."""
    text = block.removeprefix("\\[").removesuffix("\\]").strip("$|").strip()
    return f"\\( {text} \\)" if _FORMULA.match(block) else text


def _elements(lines: Sequence[str]) -> Iterator[tuple[_Kind, str]]:
    """The kind of each line; the lines of a block are one element."""
    last = {end: max((i for i, line in enumerate(lines) if end in line), default=-1) for end in ("\\]", "$$", "\\end{")}
    fences = [i for i, line in enumerate(lines) if _FENCE.match(line)]
    closing = dict(zip(fences[::2], fences[1::2]))
    written = [i for i, line in enumerate(lines) if line.strip()]
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        if not line.strip():
            continue
        if end := closing.get(at - 1):
            code = [one for one in lines[at:end] if one.strip()]
            whole = written[0] == at - 1 and written[-1] == end
            if not whole and not any(label(one.strip()) for one in code):
                yield _Kind.BLOCK, " ".join(map(str.strip, code))
                at = end + 1
        elif found := _FORMULA.match(line):
            ends = {"bracket": "\\]", "dollars": "$$", "set": "\\end{"}.get(found.lastgroup or "", "")
            formula, inside = [line.strip()], line[found.end() :]
            while ends and ends not in inside and at <= last[ends]:
                inside, at = lines[at], at + 1
                formula.append(inside.strip())
            text = " ".join(one for one in formula if one)
            behind = text[max(map(text.rfind, last)) + 2 :] if ends else ""
            yield (_Kind.TEXT if _WORD.search(behind) and not behind.startswith("nd{") else _Kind.BLOCK), text
        elif _ROW.match(line):
            yield (_Kind.NOTHING if _ROW_RULE.match(line) else _Kind.BLOCK), line
        elif _RULE.match(line) or _FENCE.match(line):
            yield _Kind.NOTHING, line
        elif found := _HEADING.match(line) or _TITLE.match(line):
            said = bool(_STATES.search(unlabelled(found["title"].strip())))
            title = found["title"] if line.lstrip().startswith("#") else line
            yield (_Kind.TEXT, title) if said else (_Kind.TITLE, title)
        else:
            yield (_Kind.TITLE if not unlabelled(line.strip()) else _Kind.TEXT), line


def number_steps(steps: Sequence[str], first: int = 1) -> str:
    """`Step {first}: …` lines."""
    return "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, start=first))


def original_solution(question: str, steps: Sequence[str]) -> str:
    """The block shared by teacher prompts and correction examples (the authors' format)."""
    return f"Question: {question}\nOriginal Solution:\n{{\n{number_steps(steps)}\n}}\nIncorrect Step:"


def proposed(question: str, choices: Sequence[str], text: str) -> str:
    """The block shared by teacher prompts and examples of critiques: a question and an attempt at it."""
    offered = f"\nCandidate Answers: {', '.join(choices)}." if choices else ""
    attempt = of_this_question(text).strip() if choices else number_steps(split_steps(text))
    return f"Question: {question}{offered}\nSolution:\n{{\n{attempt}\n}}\nCritique:"


def original_answer(question: str, choices: Sequence[str], text: str) -> str:
    """As `original_solution`, for a question with choices, whose correction names no step."""
    return (
        f"Question: {question}\nCandidate Answers: {', '.join(choices)}.\n"
        f"Original Answer:\n{{\n{of_this_question(text).strip()}\n}}\nMistakes:"
    )
