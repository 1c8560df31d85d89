"""From rows to candidates: gold rationales, right attempts, accepted corrections. Unusable rows are counted."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from absl import logging

from lema_jax import records, tasks
from lema_jax.data import curate, examples, pairs, paths
from lema_jax.data.curate import Candidate, Pool
from lema_jax.errors import UserError
from lema_jax.records import Attempt, Correction, Critique, Example, Problem, Verdict
from lema_jax.tasks import last_number
from lema_jax.tasks.cues import of_this_question
from lema_jax.tasks.jsonl import JsonlTask

R = TypeVar("R", Attempt, Correction, Critique)


def chain_of_thought(
    task_name: str, gold: Iterable[Problem], attempts: Iterable[Path], *, read_last_number: bool = False
) -> Pool:
    """Gold rationales, then right attempts without their thinking, ending in the same final sentence as gold ones.

    Args:
      read_last_number: also grade an attempt that states no answer, by the only number in its last sentence.

    Raises:
      UserError: a file is unreadable, or of another task.
    """
    task = tasks.get(task_name)
    candidates = [Candidate(problem, examples.cot(problem, task.completion(problem), "gold")) for problem in gold]
    counts: Counter[str] = Counter()
    for attempt in _graded(task_name, attempts, (Verdict.RIGHT,), read_last_number, counts):
        example = examples.cot(attempt.problem, examples.solution(attempt), attempt.student)
        candidates.append(Candidate(attempt.problem, example, closed=_is_closed(attempt)))
    return Pool("chain of thought", candidates, _counted(counts))


def own_paths(
    task_name: str,
    attempts: Iterable[Path],
    render: Callable[[Attempt], Example],
    *,
    most: int,
    seed: int,
    read_last_number: bool = False,
) -> Pool:
    """Right attempts whose sums hold: of each question those with distinct equations, at most `most`, drawn by `seed`.

    Raises:
      UserError: a file is unreadable, or of another task.
    """
    counts: Counter[str] = Counter()
    rows = list(_graded(task_name, attempts, (Verdict.RIGHT,), read_last_number, counts))
    question = lambda row: (curate.asked(row.problem), row.problem.gold)  # 2³ and 23 are normalised alike
    drawn = curate.ranked(rows, lambda row: row.id, seed)
    sound = [row for row in drawn if paths.holds(examples.solution(row))]
    distinct = paths.distinct(sound, question, examples.solution)
    kept = paths.first(distinct, question, most)
    left_out = [
        ("with a sum that does not hold", len(rows) - len(sound)),
        ("with the equations of another path", len(sound) - len(distinct)),
        ("above the most paths of a question", len(distinct) - len(kept)),
    ]
    candidates = [Candidate(row.problem, render(row), attempt=row, closed=_is_closed(row)) for row in kept]
    return Pool("own right attempts", candidates, [*_counted(counts), *left_out], remedy=_SAMPLE)


def wrong_attempts(
    task_name: str, attempts: Iterable[Path], render: Callable[[Attempt], Example], *, read_last_number: bool = False
) -> Pool:
    """Wrong attempts, as examples made by `render`.

    Raises:
      UserError: a file is unreadable, or of another task.
    """
    counts: Counter[str] = Counter()
    rows = _graded(task_name, attempts, (Verdict.WRONG,), read_last_number, counts)
    candidates = [Candidate(row.problem, render(row), attempt=row, closed=_is_closed(row)) for row in rows]
    return Pool("wrong attempts", candidates, _counted(counts), remedy=_SAMPLE)


_SAMPLE = "make more by `python -m lema_jax.sample` with more questions, or with --samples"
_CORRECT = "make more by `python -m lema_jax.correct`"
_PASSED_OVER = {
    Verdict.RIGHT: "right",
    Verdict.WRONG: "wrong",
    Verdict.UNPARSED: "unparsed (no answer could be read)",
    Verdict.TRUNCATED: "truncated",
    Verdict.PROMPT_TOO_LONG: "never asked (their prompt is too long)",
}
_TORN = "but cut off after the answer"
_NO_ANSWER = "without an answer"  # not a row of our graders


def _graded(
    task_name: str, files: Iterable[Path], wanted: Collection[Verdict], read_last_number: bool, counts: Counter[str]
) -> Iterator[Attempt]:
    """The attempts with one of these verdicts, whole and with an answer; the others are counted."""
    for row in _rows(files, Attempt, task_name, lambda row: row.problem):
        attempt = last_number.graded(row) if read_last_number else row
        if attempt.verdict not in wanted:
            counts[_PASSED_OVER[attempt.verdict]] += 1
        elif attempt.answer is None:
            counts[_NO_ANSWER] += 1
        elif _is_closed(attempt) and _is_truncated(attempt):
            counts[f"{attempt.verdict}, {_TORN}"] += 1
        else:
            yield attempt


def _counted(counts: Counter[str]) -> list[tuple[str, int]]:
    order = [*_PASSED_OVER.values(), _NO_ANSWER]
    return sorted(counts.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))


def _is_closed(attempt: Attempt) -> bool:
    """Whether the final sentence is added to it."""
    return examples.solution(attempt) != of_this_question(attempt.text).strip()


def _is_truncated(attempt: Attempt) -> bool:
    """Whether the attempt ended at its token limit: the text after its answer is incomplete."""
    limit = attempt.sampling.get("max_new_tokens")
    return isinstance(limit, int) and 0 < limit <= attempt.completion_tokens


def corrections(task_name: str, files: Iterable[Path], render: Callable[[Correction], Example]) -> Pool:
    """The accepted corrections, as examples made by `render`.

    Raises:
      UserError: a file is unreadable, or of another task.
    """
    candidates = []
    rejected = incomplete = 0
    for row in _rows(files, Correction, task_name, lambda row: row.attempt.problem):
        if row.rejected:
            rejected += 1
        elif not examples.is_complete(row):
            incomplete += 1
        else:
            candidates.append(Candidate(row.attempt.problem, render(row), row, row.attempt))
    left_out = [("rejected", rejected), ("without a step of the attempt, or a solution", incomplete)]
    return Pool("corrections", candidates, left_out, remedy=_CORRECT)


def critiques(task_name: str, files: Iterable[Path], render: Callable[[Critique], Example]) -> Pool:
    """The accepted critiques, as examples made by `render`.

    Raises:
      UserError: a file is unreadable, or of another task.
    """
    counts = Counter({_DISAGREEING: 0, "rejected": 0})
    candidates = []
    for row in _rows(files, Critique, task_name, lambda row: row.attempt.problem):
        if row.rejected:
            counts[_DISAGREEING if row.rejected == "wrong_judgement" else "rejected"] += 1
        else:
            candidates.append(Candidate(row.attempt.problem, render(row), attempt=row.attempt))
    return Pool("critiques", candidates, list(counts.items()), remedy=f"{_CORRECT} --critique")


_DISAGREEING = "whose judgement is not the verdict"


def solution_pairs(task_name: str, attempts: Iterable[Path], *, read_last_number: bool = False) -> Pool:
    """A pair for each wrong attempt at a question that has a right one too; the right ones are taken in turn.

    Texts are without their thinking, and all end in the same final sentence, so that its form is not what is preferred.
    For the arguments and errors see `chain_of_thought`.
    """
    texts: dict[Hashable, dict[Verdict, dict[str, Attempt]]] = {}  # question -> verdict -> solution -> first attempt
    passed_over: Counter[str] = Counter()
    for attempt in _graded(task_name, attempts, (Verdict.RIGHT, Verdict.WRONG), read_last_number, passed_over):
        text = examples.solution(attempt)
        question = curate.asked(attempt.problem), attempt.problem.gold
        of_question = texts.setdefault(question, {Verdict.RIGHT: {}, Verdict.WRONG: {}})
        if of_question[attempt.verdict].setdefault(text, attempt) is not attempt:
            passed_over[f"{attempt.verdict} once more"] += 1
    candidates = []
    for of_question in texts.values():
        right, wrong = of_question[Verdict.RIGHT], of_question[Verdict.WRONG]
        if not right or not wrong:
            only = Verdict.RIGHT if right else Verdict.WRONG
            passed_over[f"at questions with {only} ones alone"] += len(right or wrong)
            continue
        passed_over["right, to which wrong ones are compared"] += len(right)
        for (text, attempt), chosen in zip(wrong.items(), itertools.cycle(right)):
            pair = pairs.of_solutions(attempt.problem, chosen, text, right[chosen].student)
            candidates.append(Candidate(attempt.problem, pair))
    return Pool("pairs of solutions", candidates, _counted(passed_over))


def held_out(
    task_name: str, data_dir: Path | None, *, required: bool, tests: Sequence[str] = ()
) -> tuple[dict[str, list[Problem]], list[str]]:
    """The problems of every split but `train` of every task, and the names (`task/split`) of unavailable ones.

    Of a user's own file these are the rows that name such a split: one without may be trained on.

    What a task warns of, such as questions without an answer, concerns who is tested by them: it is not printed here.

    Args:
      required: whether the task's own splits must be available.
      tests: users' own tasks that are tested on; of their files also the rows that name no split are held out.

    Raises:
      UserError: a required split is unavailable, or a user's own file cannot be read.
    """
    sets: dict[str, list[Problem]] = {}
    missing = []
    with _without_warnings():
        for name in dict.fromkeys((task_name, *tests, *tasks.NAMES)):
            task = tasks.get(name)
            if isinstance(task, JsonlTask):
                found = task.held_out(unnamed=name in tests)
                sets |= {f"{name}/{split}": problems for split, problems in found.items()}
                continue
            for split in task.SPLITS:
                if split == "train":
                    continue
                try:
                    sets[f"{name}/{split}"] = task.load(split, data_dir)
                except UserError as error:
                    if required and name == task_name:
                        raise UserError(f"overlap with {name}/{split} cannot be checked: {error}") from None
                    missing.append(f"{name}/{split}")
    return sets, missing


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _rows(files: Iterable[Path], kind: type[R], task_name: str, problem: Callable[[R], Problem]) -> Iterator[R]:
    for path in files:
        for row in records.read(path, kind):
            if not tasks.is_same(other := problem(row).task, task_name):
                raise UserError(
                    f"{path}: row {row.id} is of the task {other}, not {task_name}; a data set has one task"
                )
            yield row
