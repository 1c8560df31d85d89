"""CommonsenseQA (Talmor et al. 2019): 9,741 training and 1,221 development questions with five choices, MIT licence.

A line of the publisher's files: `{"answerKey": "A", "id": …, "question": {"stem": …, "choices": [{"label": "A", "text":
"bank"}, …]}}`. The answer is the text of a choice. The paper tests on the development questions.
"""

import re
from pathlib import Path
from typing import Any

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import cues, presentation, sources
from lema_jax.tasks import official_grader as authors

_URL = "https://s3.amazonaws.com/commonsenseqa/"
_SOURCES = {
    "train": sources.Source("csqa/train_rand_split.jsonl", 9_741, "102d564674148391", _URL + "train_rand_split.jsonl"),
    "dev": sources.Source("csqa/dev_rand_split.jsonl", 1_221, "60f374c9f139fab7", _URL + "dev_rand_split.jsonl"),
}
SPLITS = tuple(_SOURCES)


def load(split: str, data_dir: Path | None = None) -> list[Problem]:
    """The questions of a split in the publisher's order; `meta` has the concept each was written for.

    Raises:
      UserError: no such split or file; the file is not the publisher's (names the line).
    """
    if split not in _SOURCES:
        raise UserError(f"the task csqa has no split {split!r}; there are: {', '.join(SPLITS)}")
    path = sources.find(_SOURCES[split], data_dir)
    rows = sources.read_jsonl(path, ("answerKey", "question"))
    problems = [_problem(split, number, row, f"{path}:{number}") for number, row in rows]
    return sources.check(_SOURCES[split], path, problems)


def prompt(problem: Problem) -> str:
    """The paper's zero-shot prompt for commonsense, byte for byte (the authors' released test files)."""
    return (
        f"{cues.COMMONSENSE}. Please first explain each candidate answer, then select"
        " only one answer that is most relevant to the question and provide reasons.\n"
        f"Question: {problem.question}\nCandidate Answers: {', '.join(problem.choices)}.\n"
        "Answer: Let's think step by step.\n"
    )


def completion(problem: Problem) -> str:
    """The gold answer alone: the questions have no rationales."""
    return f"The answer is {problem.gold}."


def extract(text: str, problem: Problem) -> str | None:
    """The choice that `text` states as its answer, by letter (`B`, `(B)`, `B.`) or by text; None for none or several.

    Reads the line after the last cue (`cues.statements`); if that names several choices, its part before a reason.
    Without any cue the answer is a last line that is a choice and nothing else, or `B is correct`.
    """
    for statement in cues.statements(text):
        line = _TEXT.sub(r" \1 ", statement.text).strip().partition("\n")[0]
        if line and (not statement.remark or _fold(line).startswith(tuple(map(_fold, problem.choices)))):
            return _choice(line, problem.choices)
    return _bare(text, problem.choices)


def same(answer: str, gold: str) -> bool:
    """Whether both are the same choice, ignoring case and white space."""
    return _fold(answer) == _fold(gold)


def official_grader(text: str, problem: Problem) -> bool:
    """The authors' verdict: the nearest candidate by edit distance is the gold one."""
    return authors.choice(text, problem.choices) == problem.gold


_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}|\$")
_REASON = re.compile(r"[.;](?=\s)|\b(?:because|since|as|not|instead of|rather than)\b", re.IGNORECASE)
_NOISE = re.compile(r"\b(?:option|choice|answer|both|either|or|and)\b|[\W_]", re.IGNORECASE)


def _choice(line: str, choices: tuple[str, ...]) -> str | None:
    """The only choice named by the line, or by its part before a reason (`because`, `not`)."""
    named = _named(line, choices)
    if len(named) > 1:
        named = _named(_REASON.split(line, maxsplit=1)[0], choices)
    return next(choice for choice in choices if _fold(choice) in named) if len(named) == 1 else None


_CORRECT = re.compile(r" is (?:the )?(?:correct|best|right)(?: (?:answer|choice|option))?$")


def _bare(text: str, choices: tuple[str, ...]) -> str | None:
    """The choice that the last line is, by label, text or both; None for the last one of a list of choices."""
    lines = presentation.document(cues.of_this_question(text)).splitlines()
    found = [_is(line, choices) for line in [line for line in lines if line.strip()][-2:]]
    return found[-1] if found and not any(found[:-1]) else None


def _is(line: str, choices: tuple[str, ...]) -> str | None:
    said = " ".join(re.sub(r"[().:]", " ", _CORRECT.sub("", _fold(line).rstrip("."))).split())
    said = said.removeprefix("option ").removeprefix("choice ")
    for label, choice in zip("abcdefghij", choices):
        plain = " ".join(re.sub(r"[().:]", " ", _fold(choice)).split())
        if said in (label, plain, f"{label} {plain}"):
            return next(one for one in choices if _fold(one) == _fold(choice))
    return None


def _named(line: str, choices: tuple[str, ...]) -> set[str]:
    """The texts of the choices that a line names; naming one does not name another that is part of its text."""
    letters = "ABCDEFGHIJ"[: len(choices)]
    bare = _NOISE.sub("", line)
    if len(bare) == 1 or bare.isupper():
        labels = set(bare.upper()) if set(bare.upper()) <= set(letters) else set()
    else:
        labels = set(re.findall(rf"(?<![\w'’])([{letters}])(?:[).:,;]|\s*$)(?!\w)", line))
    texts = {_fold(choice) for choice in choices}
    named = {text for text in texts if re.search(rf"(?<!\w){re.escape(text)}(?!\w)", _fold(line))}
    named = {text for text in named if not any(text != other and text in other for other in named)}
    return named | {_fold(choices[letters.index(label)]) for label in labels}


def _fold(text: str) -> str:
    return " ".join(presentation.characters(text).casefold().split())


def _problem(split: str, number: int, row: dict[str, Any], where: str) -> Problem:
    question = sources.require_keys(f"{where}: question", row["question"], ("stem", "choices"))
    options = [sources.require_keys(f"{where}: choices", one, ("label", "text")) for one in question["choices"]]
    choices = {str(one["label"]): str(one["text"]).removesuffix(".") for one in options}
    if row["answerKey"] not in choices:
        raise UserError(f"{where}: answerKey: {row['answerKey']!r} is none of the labels {', '.join(choices)}")
    return sources.problem(
        where,
        id=f"csqa/{split}/{number - 1}",
        task="csqa",
        split=split,
        question=question["stem"],
        gold=choices[row["answerKey"]],
        choices=tuple(choices.values()),
        meta={"concept": question.get("question_concept", "")},
    )
