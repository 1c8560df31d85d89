"""ΔPPL against its definition, question by question."""

import math

import pytest

from lema_jax.errors import UserError
from lema_jax.evidence.perplexity import delta_ppl
from lema_jax.records import PathScore


def score(problem, right, ppl, tokens=7):
    nll = math.log(ppl) * tokens
    return PathScore(id="", problem_id=problem, checkpoint="student", right=right, nll=nll, tokens=tokens)


def test_a_question_counts_once_however_many_paths_it_has():
    of_a = [score("a", True, 2.0), score("a", False, 3.0, tokens=1), score("a", False, 5.0, tokens=90)]
    of_b = [score("b", True, 4.0), score("b", False, 4.0)]
    found = delta_ppl([*of_a, *of_b, score("only right", True, 9.0)])
    assert (found.questions, found.left_out) == (2, 1)
    assert (found.wrong, found.right) == pytest.approx((4.0, 3.0))
    assert found.difference == pytest.approx(1.0)
    assert found.interval == pytest.approx((0.0, 2.0))


def test_a_path_that_cannot_be_is_a_number():
    unlikely = PathScore(id="", problem_id="a", checkpoint="student", right=False, nll=7_000.0, tokens=7)
    scores = [score("a", True, 2.0), unlikely, score("b", True, 2.0), score("b", False, 3.0)]
    assert math.isfinite(delta_ppl(scores).difference)


def test_a_student_that_cannot_tell_has_an_interval_around_zero():
    scores = [score(str(i), kind, 2 + ((i + kind) % 5)) for i in range(100) for kind in (True, False)]
    found = delta_ppl(scores)
    assert found.interval.low < 0 < found.interval.high


def test_nothing_to_compare_is_an_error():
    with pytest.raises(UserError, match="none of 2 questions"):
        delta_ppl([score("a", True, 2.0), score("b", False, 2.0)])
    with pytest.raises(UserError, match="1 of 1 questions"):  # of which there would be no interval
        delta_ppl([score("a", True, 2.0), score("a", False, 3.0)])
    with pytest.raises(UserError, match="question a has no tokens"):
        delta_ppl([score("a", True, 2.0, tokens=0)])
