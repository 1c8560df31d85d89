r"""MATH (Hendrycks et al. 2021): 7,500 training and 5,000 test problems of competitions, MIT licence; and MATH-500.

Read from the publisher's folders (`MATH/train/algebra/0.json`, …) or from a file with one line per problem
(`math/train.jsonl`, with the path as `unique_id`):
`{"problem": "…", "level": "Level 5", "type": "Algebra", "solution": "…"}`.
The gold answer is the content of the solution's last box, or of the last boxes listed in one sentence; if any one of
them is acceptable, it is `\text{either } A \text{ or } B`.
"""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import logging

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import answers, cues, equality, number_words, presentation, sources, symbolic
from lema_jax.tasks import official_grader as authors
from lema_jax.tasks.word_problems import prompt

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_TAR = "https://people.eecs.berkeley.edu/~hendrycks/MATH.tar"
_PRM800K = "https://github.com/openai/prm800k/raw/main/prm800k/math_splits/test.jsonl"
_SOURCES = {
    "train": sources.Source("math/train.jsonl", 7_500, "17a46f706325a086", _TAR),
    "test": sources.Source("math/test.jsonl", 5_000, "b2832c6fd01fc32f", _TAR),
    "500": sources.Source("math/math500_prm800k_split.jsonl", 500, "2969309e2b1ef190", _PRM800K),
}
SPLITS = tuple(_SOURCES)
_EITHER, _OR = "\\text{either }", " \\text{ or } "
_LONGEST = 10_000  # characters of an answer that are read
_KEYS = ("problem", "level", "solution")


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems of a split. Those without gold (two of `train` have an empty box) are logged and skipped.

    `meta` has subject, level (1 to 5; two of `train` have none) and the publisher's path.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the line).
    """
    if split not in _SOURCES:
        raise UserError(f"the task math has no split {split!r}; there are: {', '.join(SPLITS)}")
    source = _SOURCES[split]
    path, rows = _rows(split, source, data_dir)
    problems = [_problem(split, number, row, where) for number, (where, row) in enumerate(rows)]
    sources.check(source, path, problems)
    without = [problem.meta["path"] for problem in problems if not problem.gold]
    if without:
        logging.warning("%s: skipped problems whose box is empty: %s", path, ", ".join(without))
    return [problem for problem in problems if problem.gold]


def completion(problem: Problem) -> str:
    """The published solution and `The answer is {gold}.`"""
    return f"{problem.rationale.strip()}\nThe answer is {problem.gold}."


def extract(text: str, problem: Problem) -> str | None:
    r"""The answer that `text` states, as LaTeX; None if it states none.

    The content of the last box that is not empty. Without a box, what follows the last other cue (`cues.statements`):
    the formulas between dollar signs (or `\(`, `\[`) in the rest of the sentence, or that rest if it has none.
    """
    in_words = None  # an answer without digits or formulas: the second choice
    for statement in cues.statements(text):
        answer = statement.text.strip() if statement.boxes else _statement(statement.text)
        if answer and not statement.boxes and not _CONTENT.search(answer):
            in_words = in_words or answer
        elif answer and not statement.remark:
            return answer
    return in_words or _alone(text)


def same(answer: str, gold: str) -> bool:
    r"""Whether both are mathematically equal: by their forms, and if these cannot decide, by computer algebra.

    A gold `\text{either } A \text{ or } B` equals any one of its alternatives, and the list of all.
    """
    if gold.startswith(_EITHER):
        alternatives = gold.removeprefix(_EITHER).split(_OR)
        return any(same(answer, one) for one in (*alternatives, ", ".join(alternatives)))
    answer, gold = _plain(answer), _plain(gold)
    if not answer.strip() or not gold.strip():
        return False
    verdict = equality.same(answer, gold)
    return bool(symbolic.same(answer, gold) if verdict is None else verdict)


@functools.lru_cache(maxsize=1_024)
def _plain(answer: str) -> str:
    return presentation.plain(answer[:_LONGEST])


def official_grader(text: str, problem: Problem) -> bool:
    """The authors' verdict: MATH's string normal forms are equal; their gold is the last box only."""
    answer = authors.latex(text)
    gold = next(reversed(cues.last_boxes(problem.rationale)), problem.gold)
    return answer is not None and answer == authors.normal_gold(gold)


_DISPLAYED = re.compile(r"[\s:\w]{0,40}\\\[(.*?)\\\]", re.DOTALL)
_FORMULAS = re.compile(r"\$.*\$|\\\(.*\\\)")
_EQUAL_TO = re.compile(r"\s*=\s*[-+\d(\\][^\s]*")  # behind the formula: `$x$ = 34`
_END = re.compile(r"\.(?=\s|$)|(?<=[a-z])[!?](?=\s|$)|\n|,?\s(?:because|since|which|where|(?:and\s)?not|rather than)\b")
# Ends the sentence once the answer is there: a condition, a reason, or a bracket with words or an equation.
_ASIDE = re.compile(
    r",?\s(?:as|for|when|if|at|with|so|using|attained|achieved|obtained)\b|;\s|\s\((?=[^()\\]*(?:[a-z]{2}|=))"
)
_CONTENT = re.compile(r"[\d$\\]")  # a statement without any yields to every other
_VALUE = re.compile(r"[^\d\n]*?\b(?:is|are|equals)\s+(?=[-+$\\(\[\d])")
_PROSE = re.compile(
    rf"(?:{'|'.join(number_words.SMALL)})\b"
    r"|[a-zA-Z]{2,}(?:'s)?\s+[a-zA-Z]{2,}\s[^\\$=]*\d|\D*\d+ [a-z]{3,} [a-z]{2,} [^\\$=]*",
    re.IGNORECASE,
)


def _statement(after: str) -> str:
    """The answer after a cue: a displayed formula, else the formulas of the sentence, else the sentence.

    `the largest $n$ is 34` gives 34, and a sentence in words its number.
    """
    if displayed := _DISPLAYED.match(after):
        return displayed[1].strip()
    line = after.lstrip(" :\n*")
    if named := _VALUE.match(line):
        line = line[named.end() :]
    sentence = _until(_ASIDE, _until(_END, line), after=_CONTENT)
    if formulas := _FORMULAS.search(sentence):
        return formulas.group() + (value[0] if (value := _EQUAL_TO.match(sentence, formulas.end())) else "")
    sentence = sentence.strip(" *")
    return (answers.canonical(sentence) if _PROSE.match(sentence) else None) or sentence


def _until(end: re.Pattern[str], text: str, after: re.Pattern[str] | None = None) -> str:
    """The text up to the first `end` that is in no formula and has `after` before it."""
    starts = (found.start() for found in end.finditer(text))
    return next((text[:at] for at in starts if _outside(text[:at]) and (not after or after.search(text, 0, at))), text)


def _outside(before: str) -> bool:
    """Whether every formula and brace of this text is closed."""
    closed = before.count("{") <= before.count("}") and before.count("\\(") <= before.count("\\)")
    return closed and before.count("$") % 2 == 0


_LONE = re.compile(r"\s*(?:\$[^$\n]+\$|\\\([^\n]+\\\)|\\\[[^\n]+\\\]|[^\n]{0,200}?\d[^\n]{0,200})\s*\.?\s*")
_SENTENCE = re.compile(r"(?<![\\{a-zA-Z])[a-zA-Z]{3,}\b[^{]")


def _alone(text: str) -> str | None:
    """The text itself if it is one formula or number without words around it."""
    text = presentation.document(cues.of_this_question(text)).strip()
    return text.rstrip(".") if _LONE.fullmatch(text) and not _SENTENCE.search(text) else None


def _rows(
    split: str, source: sources.Source, data_dir: Path | None
) -> tuple[Path, Iterable[tuple[str, dict[str, Any]]]]:
    """The path of the problems, and each problem with its place."""
    folder = sources.folder(source, data_dir)
    for parent in (folder / "MATH" / split, folder / "math" / split, folder / split):
        if parent.is_dir():
            files = sorted(parent.glob("*/*.json"), key=lambda file: (file.parent.name, int(file.stem)))
            return parent, ((str(file), _of_file(split, file)) for file in files)
    path = sources.find(source, data_dir)
    return path, ((f"{path}:{number}", row) for number, row in sources.read_jsonl(path, (*_KEYS, "unique_id")))


def _of_file(split: str, file: Path) -> dict[str, Any]:
    row = sources.require_keys(str(file), sources.read_json(file), (*_KEYS, "type"))
    return row | {"unique_id": f"{split}/{file.parent.name}/{file.name}"}


_ALTERNATIVES = re.compile(r"\beither\b[^.]{0,40}\b(?:acceptable|accepted|correct)\b", re.IGNORECASE)


def _gold(solution: str) -> str | None:
    """The content of the last boxes, as a list, or as alternatives (either is acceptable, or a numeral with and without
    its base)."""
    boxes = cues.last_boxes(solution)
    numerals = {box.partition("_")[0] for box in boxes}
    if len(boxes) > 1 and (_ALTERNATIVES.search(solution) or (len(numerals) == 1 and numerals.pop().isdigit())):
        return _EITHER + _OR.join(boxes)
    return ", ".join(boxes) if boxes else None


def _problem(split: str, number: int, row: dict[str, Any], where: str) -> Problem:
    solution = str(row["solution"])
    gold = str(row["answer"]) if "answer" in row else _gold(solution)
    if gold is None:
        raise UserError(f"{where}: solution: has no \\boxed{{…}}")
    level = re.fullmatch(r"Level (\d)", str(row["level"])) if not isinstance(row["level"], int) else [0, row["level"]]
    return sources.problem(
        where,
        id=f"math/{split}/{number}",
        task="math",
        split=split,
        question=row["problem"],
        gold=" ".join(gold.split()),
        rationale=solution,
        meta={
            "subject": row.get("subject") or row["type"],
            "level": int(level[1]) if level else None,
            "path": row["unique_id"],
        },
    )
