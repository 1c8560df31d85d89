"""Accuracy on overlapping and other questions, and on pairs of tests, with the intervals of their differences."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lema_jax.errors import UserError
from lema_jax.evidence import compare, contamination, crossed, stats
from lema_jax.evidence.runs import Run
from tests import made_runs


def arm(name, letters, checkpoint="one", questions=None, **fields):
    """An arm of one run; `fields`: of each problem, and `questions` their texts."""
    rows = []
    for number, letter in enumerate(letters):
        of = {key: value[number] for key, value in fields.items()}
        text = f"{name}, {number}?" if questions is None else questions[number]
        problem = made_runs.problem(number, question=text, **of)
        rows.append(made_runs.prediction(problem, made_runs.LETTERS[letter], checkpoint))
    return compare.arm([Run(name, name, tuple(rows))])


def test_overlapping_questions_are_measured_apart():
    one = arm("a", "rrrw" + "rw" * 10)
    other, seen = contamination.by_overlap([one], {f"arithmetic/test/{n}" for n in range(4)} | {"svamp/test/1"})
    assert (other.questions, other.n, other.accuracy, other.interval) == (
        "not overlapping",
        20,
        0.5,
        stats.wilson(10, 20),
    )
    assert (seen.questions, seen.n, seen.accuracy, seen.interval) == ("overlapping", 4, 0.75, stats.wilson(3, 4))
    assert seen.difference == 0.25
    assert seen.difference_interval == crossed.apart(0.5, stats.wilson(10, 20), 0.75, stats.wilson(3, 4))
    (all_,) = contamination.by_overlap([one], ())
    assert (all_.questions, all_.n, all_.difference) == ("not overlapping", 24, None)


def test_the_difference_of_independent_accuracies_is_newcombes():
    """Newcombe 1998, Statistics in Medicine 17:873, table II, method 10: 56/70 - 48/80, and 9/10 - 3/10."""
    for (a, m), (b, n), expected in [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090))]:
        found = crossed.apart(b / n, stats.wilson(b, n), a / m, stats.wilson(a, m))
        assert found == pytest.approx(expected, abs=5e-5)


def test_questions_made_from_a_tests_own_are_compared_with_those_alone():
    """GSM8K and GSM-Plus: the first two of four questions are seeds, each of two changed ones."""
    seeds = ["What  is it?", "How many?", "Why?", "When?"]
    before = arm("a", "rrww", questions=seeds)
    metas = [{"seed_question": s, "kind": k} for s in ("What is it?", "How many?") for k in ("numbers", "words")]
    after = arm("a", "wrwr", meta=metas, task=["gsm_plus"] * 4, split=["testmini"] * 4)
    parts = contamination.pair(before, after)
    assert [(part.questions, part.n, part.accuracy, part.difference) for part in parts] == [
        ("arithmetic/test", 2, 1.0, None),
        ("gsm_plus/testmini", 4, 0.5, -0.5),
        ("gsm_plus/testmini: numbers", 2, 0.0, -1.0),
        ("gsm_plus/testmini: words", 2, 1.0, 0.0),
    ]
    assert contamination.rows(parts)[1][5:] == ("−50.0", contamination.rows(parts)[1][6])
    with pytest.raises(UserError, match="of one checkpoint"):
        contamination.pair(before, arm("a", "rrww", "two"))


def test_tests_of_different_questions_are_independent():
    before, after = (
        arm("a", "r" * 60 + "w" * 40),
        arm("a", "r" * 40 + "w" * 60, questions=[f"{n}!" for n in range(100)]),
    )
    first, second = contamination.pair(before, after)
    assert (first.n, second.n, second.difference) == (100, 100, pytest.approx(-0.2))
    assert second.difference_interval == crossed.apart(0.6, stats.wilson(60, 100), 0.4, stats.wilson(40, 100))


def test_one_changed_question_a_seed_is_the_paired_t_test():
    random = np.random.default_rng(0)
    one, other = random.random((2, 50)) < 0.5
    found = crossed.shared(one, other, np.arange(50), np.arange(50))
    paired = scipy_stats.ttest_rel(other.astype(float), one.astype(float))
    assert found.value == pytest.approx(other.mean() - one.mean())
    assert (found.p, found.df) == (pytest.approx(paired.pvalue), 49)
    assert found.interval() == pytest.approx(tuple(paired.confidence_interval()))
