"""ASDiv (Miao et al. 2020): word problems for testing, CC BY-NC 4.0: the 2,084 of 2,305 whose answer is a number.

The publisher's file is XML: `<Problem ID=… Grade=…><Body>…</Body><Question>…</Question><Solution-Type>…</Solution-Type>
<Answer>9 (apples)</Answer>…`. The paper tests on the same 2,084; the others ask for names, pairs, ratios or fractions.
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import sources
from lema_jax.tasks.word_problems import completion, extract, join, prompt
from lema_jax.tasks.word_problems import rounded_official_grader as official_grader
from lema_jax.tasks.word_problems import same_rounded as same

__all__ = ["SPLITS", "completion", "extract", "load", "official_grader", "prompt", "same"]

_SOURCE = sources.Source(
    "asdiv/ASDiv.xml",
    2_084,
    "b3798ca634daa51f",
    "https://raw.githubusercontent.com/chaochun/nlu-asdiv-dataset/master/dataset/ASDiv.xml",
)
SPLITS = ("test",)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The problems in the publisher's order; `meta` has the grade and the type of solution.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the place).
    """
    if split not in SPLITS:
        raise UserError(f"the task asdiv has no split {split!r}; there is: test")
    path = sources.find(_SOURCE, data_dir)
    try:
        entries = ElementTree.parse(path).getroot().findall(".//Problem")
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not XML ({error}); download it again from {_SOURCE.url}") from None
    problems = [problem for entry in entries if (problem := _problem(path, entry))]
    numbered = [problem.model_copy(update={"id": f"asdiv/test/{number}"}) for number, problem in enumerate(problems)]
    return sources.check(_SOURCE, path, numbered)


def _problem(path: Path, entry: ElementTree.Element) -> Problem | None:
    """The problem, or None if its answer is not a number."""
    texts = {tag: (entry.findtext(tag) or "").strip() for tag in ("Body", "Question", "Answer", "Solution-Type")}
    if empty := [tag for tag, text in texts.items() if not text]:
        raise UserError(f"{path}: Problem {entry.get('ID')}: no {' and no '.join(empty)}")
    gold = re.sub(r"\(.*?\)", "", texts["Answer"]).strip()
    if not re.fullmatch(r"-?\d+(\.\d+)?", gold):
        return None
    return sources.problem(
        f"{path}: Problem {entry.get('ID')}",
        id=entry.get("ID", ""),
        task="asdiv",
        split="test",
        question=join(texts["Body"], texts["Question"]),
        gold=gold,
        meta={"grade": entry.get("Grade", ""), "type": texts["Solution-Type"]},
    )
