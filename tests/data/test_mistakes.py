"""Which attempts of a file are mistakes to correct, and what a limit leaves of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import records
from lema_jax.data.mistakes import Mistakes
from lema_jax.records import Attempt, Verdict
from tests.data import rows

PROBLEM = rows.problem()


def attempt(number: int, verdict: Verdict) -> Attempt:
    return rows.attempt(PROBLEM, verdict=verdict).model_copy(update={"id": f"a{number}"})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """30 attempts; each third one is right, each other one wrong."""
    path = tmp_path_factory.mktemp("mistakes") / "attempts.jsonl"
    records.write(path, [attempt(n, Verdict.WRONG if n % 3 else Verdict.RIGHT) for n in range(30)])
    return path


WRONG = [f"a{n}" for n in range(30) if n % 3]


@given(limit=st.integers(1, 40), more=st.integers(0, 20), seed=st.none() | st.integers(0, 99))
def test_a_limit_leaves_mistakes_in_their_order_and_a_larger_one_the_same_and_more(file, limit, more, seed):
    chosen = [row.id for row in Mistakes(file, limit, seed)]
    larger = [row.id for row in Mistakes(file, limit + more, seed)]
    assert len(chosen) == min(limit, len(WRONG))
    assert set(chosen) <= set(larger)
    assert larger == [id for id in WRONG if id in set(larger)]
    if seed is None:
        assert chosen == WRONG[:limit]


def test_seeds_draw_differently(file):
    drawn = {tuple(row.id for row in Mistakes(file, 5, seed)) for seed in range(10)}
    assert len(drawn) > 5


def test_mistakes_can_be_read_again(file):
    mistakes = Mistakes(file, 5, 1)
    assert list(mistakes) == list(mistakes)
    assert [row.id for row in Mistakes(file)] == WRONG


def test_a_survey_counts_every_verdict(file, tmp_path):
    survey = Mistakes(file).survey()
    assert (survey.verdicts[Verdict.RIGHT], survey.verdicts[Verdict.WRONG]) == (10, 20)
    assert str(survey) == "10 right, 20 wrong, 0 unparsed, 0 truncated"
    assert survey.passed_over() == []
    assert list(survey.families.values()) == [PROBLEM]
    records.write(tmp_path / "others.jsonl", [attempt(n, verdict) for n, verdict in enumerate(Verdict)])
    others = Mistakes(tmp_path / "others.jsonl").survey()
    assert len(others.passed_over()) == len(Verdict) - 2
    assert str(others).count("1 ") == len(Verdict)
