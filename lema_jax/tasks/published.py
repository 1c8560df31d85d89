"""Published mistakes: real wrong solutions of training questions, which need no student.

`stepverify` (Daheim et al., EMNLP 2024, arXiv 2407.09136; CC BY-SA 4.0): 1,002 solutions of GSM8K questions, with the
first wrong step marked by teachers. `mathcritique` (Xi et al., arXiv 2411.16579; Apache-2.0): solutions of
Llama-3-8B, 100 of GSM8K questions and 100 of MATH's.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Attempt, Problem, row_id
from lema_jax.tasks import sources
from lema_jax.tasks.sources import Source

NAMES = ("stepverify", "mathcritique")


def attempts(
    name: str, problems: Sequence[Problem], data_dir: Path | None = None, limit: int | None = None
) -> list[Attempt]:
    """The published solutions of these problems of one task, graded, in the publisher's order.

    Args:
      limit: use the first so many problems that have any.

    Raises:
      UserError: the file is missing or damaged, or has no solution of any of the problems.
    """
    by_question = {_key(problem.question): problem for problem in problems}
    task = problems[0].task
    if task not in _TASKS[name]:
        raise UserError(f"{name} has no solutions of {task}'s questions, but of {' and '.join(_TASKS[name])}'s")
    solutions = _stepverify(data_dir) if name == "stepverify" else _mathcritique(task, data_dir)
    labels: dict[tuple[str, str], list[int]] = {}  # some solutions have several annotators
    for question, text, step in solutions:
        if _key(question) in by_question:
            labels.setdefault((_key(question), text), []).extend(step)
    if not labels:
        raise UserError(f"{name} has no solution of any of these {len(by_question)} questions")
    solved = {question for question, _ in labels}
    taken = set([question for question in by_question if question in solved][:limit])
    return [
        _attempt(name, by_question[question], text, steps)
        for (question, text), steps in labels.items()
        if question in taken
    ]


_TASKS = {"stepverify": ("gsm8k",), "mathcritique": ("gsm8k", "math")}
_REPOSITORIES = {
    "stepverify": "https://github.com/eth-lre/verify-then-generate",
    "mathcritique": "https://github.com/WooooDyy/MathCritique",
}
_MARK = re.compile(r"<<[^<>]*>>")


def _stepverify(data_dir: Path | None) -> Iterator[tuple[str, str, list[int]]]:
    """Question, solution, and the numbers of the steps marked wrong."""
    for where, row in _rows("stepverify", "dataset.json", data_dir, ("problem", "student_incorrect_solution")):
        steps = [step.strip() for step in row["student_incorrect_solution"]]
        index = row.get("incorrect_index")
        if not isinstance(index, int) or not 0 <= index < len(steps):
            raise UserError(f"{where}: incorrect_index is {index!r}, and there are {len(steps)} steps")
        yield row["problem"], "\n".join(steps), [index + 1]


def _mathcritique(task: str, data_dir: Path | None) -> Iterator[tuple[str, str, list[int]]]:
    name = f"Meta-Llama-3-8B-{task}-sftdata_0_new.json"
    for _, row in _rows("mathcritique", name, data_dir, ("instruction",)):
        question, _, rest = row["instruction"].partition(" Please also give your final")
        text = rest.partition("Assistant:")[2].partition("<|end_of_text|>")[0]
        text = text.removeprefix("Let's break it down step by step:")
        yield question, _MARK.sub("", text).strip(), []


def _rows(name: str, file: str, data_dir: Path | None, keys: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    path = sources.find(Source(f"{name}/{file}", 0, "", _REPOSITORIES[name]), data_dir)
    for number, row in enumerate(sources.read_json(path)):
        where = f"{path}: entry {number}"
        yield where, sources.require_keys(where, row, keys)


def _attempt(name: str, problem: Problem, text: str, labelled: list[int]) -> Attempt:
    answer, verdict = tasks.grade(problem, text, truncated=False)
    return Attempt(
        id=row_id(student=name, problem=problem.id, text=text),
        problem=problem,
        student=name,
        sampling={},
        prompt=tasks.get(problem.task).prompt(problem),
        text=text,
        answer=answer,
        verdict=verdict,
        prompt_tokens=0,
        completion_tokens=0,
        labelled_steps=tuple(labelled),
    )


def _key(question: str) -> str:
    return " ".join(question.split())
