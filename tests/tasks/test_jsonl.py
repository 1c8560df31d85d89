"""A user's own task, and the task table."""

import json

import pytest

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Verdict

ROWS = [
    {"question": "2 + 3?", "gold": 5, "id": "sum"},
    {"question": "A half?", "gold": "\\frac12", "split": "test", "rationale": "1 / 2."},
    {"question": "Where?", "gold": "bank", "choices": ["bank", "mall"]},
    {"question": "3 + 3?", "gold": "6", "split": "train"},
]


def write(path, rows) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return f"jsonl:{path}"


def test_rows_are_graded_by_what_their_gold_is(tmp_path):
    task = tasks.get(write(tmp_path / "mine.jsonl", ROWS))
    number, formula, choice = task.load("test")
    assert [problem.id for problem in (number, formula, choice)] == ["mine/test/sum", "mine/test/1", "mine/test/2"]
    assert [problem.question for problem in task.load("train")] == ["2 + 3?", "Where?", "3 + 3?"]
    for problem, right, wrong in [(number, "$5.00", "6"), (formula, "$0.5$", "$0.6$"), (choice, "(A)", "(B)")]:
        assert tasks.grade(problem, f"The answer is {right}.", truncated=False)[1] is Verdict.RIGHT
        assert tasks.grade(problem, f"The answer is {wrong}.", truncated=False)[1] is Verdict.WRONG
        assert tasks.grade(problem, "I do not know.", truncated=False)[1] is Verdict.UNPARSED
        assert tasks.grade(problem, task.completion(problem), truncated=False)[1] is Verdict.RIGHT
        assert task.official_grader(task.completion(problem), problem)
    assert "Candidate Answers: bank, mall." in task.prompt(choice)
    assert task.prompt(number) == tasks.get("gsm8k").prompt(number)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q"}, r"mine\.jsonl:2: no gold; found question"),
        ({"question": "q", "gold": " "}, r":2: gold: is empty"),
        ({"question": "q", "gold": "a", "split": 5}, r":2: split: 5 is no text; name the split"),
        ({"question": "q", "gold": "a", "answer": 5}, r":2: unknown key 'answer'; a row has choices, gold"),
        ({"question": "q", "gold": "a", "choices": ["b"]}, r":2: gold: 'a' is none of the choices"),
        ({"question": 5, "gold": "a"}, r":2: question: Input should be a valid string"),
        ({"question": "q", "gold": "a", "id": "sum"}, r":2: id 'sum' is on line 1 already"),
        ("{", r":2: not JSON"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, said):
    with pytest.raises(UserError, match=said):
        tasks.get(write(tmp_path / "mine.jsonl", [ROWS[0], row])).load("test")


def test_a_file_that_is_missing_or_has_nothing_of_the_split(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        tasks.get("jsonl:nowhere.jsonl").load("test")
    with pytest.raises(UserError, match="no problem of split 'dev'"):
        tasks.get(write(tmp_path / "mine.jsonl", ROWS[3:])).load("dev")


def test_every_name_is_a_task_with_the_functions_of_one():
    for name in tasks.NAMES:
        task = tasks.get(name)
        assert task.SPLITS
        for function in ("load", "prompt", "completion", "extract", "same", "official_grader"):
            assert callable(getattr(task, function))
    with pytest.raises(UserError, match=r"no task 'gsm'; choose one of aime, arithmetic, .*jsonl:PATH"):
        tasks.get("gsm")


def test_a_cut_text_is_right_or_truncated_but_never_wrong(tmp_path):
    problem = tasks.get(write(tmp_path / "mine.jsonl", ROWS)).load("test")[0]
    assert tasks.grade(problem, "The answer is 5. And", truncated=True) == ("5", Verdict.RIGHT)
    assert tasks.grade(problem, "The answer is 6. And", truncated=True) == ("6", Verdict.TRUNCATED)
    assert tasks.grade(problem, "2 + 3 is", truncated=True) == (None, Verdict.TRUNCATED)


@pytest.mark.parametrize("text", ["The answer is 5", "#### $5", "4. 2 + 3 is 5\n5", "\\boxed{5", "5"])
def test_a_number_that_may_be_cut_in_two_is_no_answer(tmp_path, text):
    problem = tasks.get(write(tmp_path / "mine.jsonl", ROWS)).load("test")[0]
    assert tasks.grade(problem, text, truncated=False) == ("5", Verdict.RIGHT)
    assert tasks.grade(problem, text, truncated=True) == (None, Verdict.TRUNCATED)
    assert tasks.grade(problem, f"{text}\n", truncated=True) == ("5", Verdict.RIGHT)
    assert tasks.grade(problem, f"The answer is 53.\n{text}", truncated=True) == ("53", Verdict.TRUNCATED)


def test_the_number_of_a_list_that_is_cut_off_is_no_answer(tmp_path):
    problem = tasks.get(write(tmp_path / "mine.jsonl", ROWS)).load("test")[0]
    for end in ("", ".", ". ", ". The"):
        assert tasks.grade(problem, f"4. And so on.\n5{end}", truncated=True) == (None, Verdict.TRUNCATED)


def test_rows_that_name_a_split_are_held_out(tmp_path):
    task = tasks.get(write(tmp_path / "mine.jsonl", [*ROWS, {"question": "4 + 4?", "gold": "8", "split": "late"}]))
    held_out = {split: [problem.question for problem in found] for split, found in task.held_out().items()}
    assert held_out == {"test": ["A half?"], "late": ["4 + 4?"]}
