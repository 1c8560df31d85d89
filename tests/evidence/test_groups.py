"""Groups partition the questions, in an order that a reader expects."""

import pytest

from lema_jax.evidence import compare, groups
from lema_jax.evidence.runs import Run
from lema_jax.records import Verdict
from tests import made_runs


def arm(metas, letters, name="a"):
    rows = [
        made_runs.prediction(made_runs.problem(i, meta=meta), made_runs.LETTERS[letter], name)
        for i, (meta, letter) in enumerate(zip(metas, letters))
    ]
    return compare.arm([Run(name, name, tuple(rows))])


def test_groups_add_up_to_the_whole_and_stand_in_natural_order():
    metas = [{"level": level} for level in ("Level 10", "Level 2", "Level 2", "Level 1", "Level 10", "Level 2")]
    one, two = arm(metas, "rrwrww", "one"), arm(metas, "rrrrrr", "two")
    grouped = groups.by("level", [one, two])
    assert grouped.groups == ("Level 1", "Level 2", "Level 10")
    assert grouped.n == (1, 3, 2)
    assert [accuracy for accuracy, _ in grouped.accuracy["one"]] == pytest.approx([1, 1 / 3, 1 / 2])
    total = sum(n * accuracy for n, (accuracy, _) in zip(grouped.n, grouped.accuracy["one"]))
    assert total / 6 == pytest.approx(one.accuracy)


def test_only_fields_that_divide_the_questions_are_groups():
    problems = [
        made_runs.problem(i, meta={"same": 1, "steps": i % 3, "number": i, **({"rare": "x"} if i == 7 else {})})
        for i in range(100)
    ]
    assert groups.keys(problems) == ["steps", "rare"]
    assert groups.value(problems[0], "rare") == "none"
    assert groups.keys(problems[:7]) == ["steps"]  # seven numbers of seven questions are no groups either


def test_each_group_has_the_interval_of_its_own_size():
    many, few = [{"k": "many"}] * 90, [{"k": "few"}] * 10
    grouped = groups.by("k", [arm(many + few, "rw" * 50)])
    narrow = dict(zip(grouped.groups, grouped.accuracy["a"]))
    width = {group: interval.high - interval.low for group, (_, interval) in narrow.items()}
    assert width["few"] > 2 * width["many"]


def test_seeds_that_agree_on_a_tiny_group_claim_no_certainty():
    run = Run("a", "a", (made_runs.prediction(made_runs.problem(0, meta={"k": 1}), Verdict.WRONG),))
    seeds = compare.arm([run, run])
    assert seeds.interval.high > 0.5
