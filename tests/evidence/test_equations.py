"""What wrong answers get wrong is counted from their equations."""

import dataclasses
import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.data import card
from lema_jax.evidence import equations, study
from lema_jax.records import Verdict
from tests import made_runs
from tests.html_page import Parsed

TRUE, FALSE, WORDS = "Ann has 3 + 4 = 7 pens.", "Ann has 3 + 4 = 8 pens.", "Ann has pens."


def answer(verdict: Verdict, *steps: str):
    return made_runs.prediction(made_runs.problem(0), verdict, text="\n".join([*steps, "The answer is 7."]))


def test_a_wrong_answer_states_a_false_equation_or_true_ones_alone_or_none() -> None:
    found = equations.of(
        [
            answer(Verdict.RIGHT, TRUE, TRUE),
            answer(Verdict.RIGHT, FALSE),  # right by chance
            answer(Verdict.WRONG, TRUE, FALSE),
            answer(Verdict.WRONG, TRUE),
            answer(Verdict.WRONG, WORDS),
            answer(Verdict.TRUNCATED, FALSE),
        ]
    )
    assert found == equations.Counts(answers=6, stating=5, equations=7, false=3, wrong=3, slipped=1, misled=1)
    (row,) = equations.layout({"cot": found})
    assert row == ("cot", "1.2", "42.9 %", "50.0 %", "16.7 %", "16.7 %", "16.7 %")
    assert len(row) == len(equations.HEADER)


@given(st.integers(0, 4 * equations.MOST))
def test_of_many_answers_enough_are_read_and_they_are_evenly_spaced(count: int) -> None:
    seen = []

    class Answers(list):
        def __getitem__(self, which):
            seen.append(which)
            return []

    equations.of(Answers([None] * count))
    taken = range(count)[seen[0]]
    assert len(taken) <= equations.MOST
    assert len(taken) == count or 2 * len(taken) >= equations.MOST


def test_answers_without_equations_are_no_computations() -> None:
    stated, silent = equations.of([answer(Verdict.WRONG, TRUE)]), equations.of([answer(Verdict.WRONG, WORDS)] * 2)
    assert equations.tells([stated])
    assert not equations.tells([stated, silent])
    assert not equations.tells([])
    assert not equations.tells([equations.of([])])


@pytest.mark.parametrize("step", [TRUE, WORDS])
def test_the_report_says_it_where_answers_compute(tmp_path, step: str) -> None:
    folder = made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4})
    load = functools.partial(study.load, funnel=card.funnel)
    made = load(folder)
    counts = {
        name: equations.of([answer(Verdict.WRONG, step, step)] * 3) for name in made.tests["arithmetic/test"].arms
    }
    changed = dataclasses.replace(
        made, tests={"arithmetic/test": dataclasses.replace(made.tests["arithmetic/test"], equations=counts)}
    )
    assert ("What goes wrong" in study.text(changed)) is (step is TRUE)
    page = Parsed(study.html(changed))
    assert ("What goes wrong" in " ".join(page.text)) is (step is TRUE)


def test_the_arms_counts_are_of_all_their_seeds(tmp_path) -> None:
    made = study.load(made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4}), funnel=card.funnel)
    tested = made.tests["arithmetic/test"]
    assert list(tested.equations) == list(tested.arms)
    for name, arm in tested.arms.items():
        assert tested.equations[name].answers == arm.answers
        assert tested.equations[name].wrong == arm.wrong
