"""CommonsenseQA: the paper's prompt, and answers by letter or by text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.errors import UserError
from lema_jax.records import Problem, Verdict
from lema_jax.tasks import csqa, grade, sources

PROBLEM = Problem(
    id="p",
    task="csqa",
    split="dev",
    question="A revolving door is a security measure at a what?",
    gold="bank",
    choices=("bank", "library", "department store", "mall", "new york"),
)


def test_prompt_gold_and_choices_are_the_papers(data_dir):
    papers = [row for _, row in sources.read_jsonl(data_dir / "lema" / "csqa_dev.jsonl", ("prompt", "answer"))]
    ours = csqa.load("dev", data_dir)
    assert [csqa.prompt(problem) for problem in ours] == [row["prompt"] for row in papers]
    assert [problem.gold for problem in ours] == [row["answer"] for row in papers]
    assert [list(problem.choices) for problem in ours] == [row["candidates"] for row in papers]


@pytest.mark.slow
def test_every_gold_is_right_by_text_and_by_letter(data_dir):
    problems = csqa.load("train", data_dir) + csqa.load("dev", data_dir)
    assert len(problems) == 9_741 + 1_221
    for problem in problems:
        letter = "ABCDE"[problem.choices.index(problem.gold)]
        for text in (csqa.completion(problem), f"The answer is ({letter}).", f"The answer is {letter}. {problem.gold}"):
            assert grade(problem, text, truncated=False)[1] is Verdict.RIGHT
        assert csqa.official_grader(csqa.completion(problem), problem)


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("bank.", "bank"),
        ("A", "bank"),
        ("(A) bank", "bank"),
        ("**B) library**", "library"),
        ("library (B)", "library"),
        ("option b", "library"),
        ("a bank", "bank"),
        ("A department store", "department store"),
        ("New York.", "new york"),
        ("the mall, since a library is quiet", "mall"),
        ("bank, not library", "bank"),
        ("(B), not (A)", "library"),
        ("either bank or library", None),
        ("A or B", None),
        ("(A) and (C)", None),
        ("(A) library", None),
        ("none of these", None),
        ("floor", None),
    ],
)
def test_a_choice_is_read_and_several_are_none(said, choice):
    assert csqa.extract(f"Explanations. The answer is {said}", PROBLEM) == choice


def test_a_relative_clause_about_an_answer_states_none():
    asked = "Please just select only one answer that is most relevant to the question.\n"
    assert csqa.extract(f"The answer is bank.\n\n{asked}", PROBLEM) == "bank"
    assert csqa.extract("The answer that is most relevant to the question is mall.", PROBLEM) == "mall"
    assert csqa.extract("The answer, that is what fits best, is mall.", PROBLEM) == "mall"


def test_an_answer_without_a_cue_is_unparsed():
    assert grade(PROBLEM, "A bank has a revolving door.", truncated=False) == (None, Verdict.UNPARSED)
    assert grade(PROBLEM, "", truncated=False) == (None, Verdict.UNPARSED)


def test_choices_with_the_same_text_are_the_same_answer():
    twice = PROBLEM.model_copy(update={"choices": ("bank", "library", "bank")})
    assert csqa.extract("The answer is C", twice) == csqa.extract("The answer is A", twice) == "bank"


def test_a_choice_within_another_is_not_named_by_it():
    nested = PROBLEM.model_copy(update={"choices": ("york", "new york", "mall")})
    assert csqa.extract("The answer is new york.", nested) == "new york"
    assert csqa.extract("The answer is York.", nested) == "york"


@pytest.mark.parametrize("said", ["B", "(B)", "B. library", "Option B", "Library.", "B is correct.", "**(B) library**"])
def test_a_last_line_that_is_a_choice_is_the_answer(said):
    assert csqa.extract(f"A bank is no place for it.\n{said}", PROBLEM) == "library"


def test_the_last_of_a_list_of_choices_is_no_answer():
    assert csqa.extract("The choices are:\n(A) bank\n(B) library", PROBLEM) is None


@given(st.text(max_size=200))
def test_no_text_raises_and_only_choices_come_back(text):
    assert csqa.extract(text, PROBLEM) in (*PROBLEM.choices, None)
    assert csqa.extract("The answer is " + text, PROBLEM) in (*PROBLEM.choices, None)


def test_a_broken_line_is_named(data_dir, tmp_path):
    lines = (data_dir / "csqa" / "dev_rand_split.jsonl").read_text().splitlines()
    file = tmp_path / "dev_rand_split.jsonl"
    for line, said in [
        ('{"answerKey": "A"}', r"dev_rand_split\.jsonl:3: no question"),
        ('{"answerKey": "A", "question": {"stem": "q"}}', r":3: question: no choices"),
        ('{"answerKey": "F", "question": {"stem": "q", "choices": []}}', r":3: answerKey: 'F' is none of the labels"),
    ]:
        file.write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
        with pytest.raises(UserError, match=said):
            csqa.load("dev", tmp_path)
