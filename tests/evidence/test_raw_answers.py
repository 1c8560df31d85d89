"""The small file of a study's answers says what its report says."""

from lema_jax.data import card
from lema_jax.evidence import study, table
from tests import made_runs
from tests.benchmarks import raw_answers


def test_the_small_file_gives_the_report_s_numbers(tmp_path):
    arms, tests = {"cot": 0.5, "lema": 0.35, "student": 0.3}, ("arithmetic/test", "arithmetic/test+chat")
    made = study.load(made_runs.write_study(tmp_path / "study", arms, tests=tests), funnel=card.funnel)
    count = raw_answers.pack(tmp_path / "study", tmp_path / "answers.xz")
    assert count == sum(arm.answers for of in made.tests.values() for arm in of.arms.values())
    found = {(test, arm): numbers for test, arm, *numbers in raw_answers.table_of(tmp_path / "answers.xz")}
    for test, of in made.tests.items():
        for name, arm in of.arms.items():
            accuracy, seeds, *compared, adjusted = found.pop((test, name))
            assert accuracy == table.percent(arm.accuracy)
            assert len(seeds.split("%")) == arm.seeds + 1
            if one := of.comparisons.get(name):
                measured = [table.points(one.difference), table.points_span(one.interval), table.p_value(one.p)]
                assert compared == measured
                assert adjusted == table.p_value(made.adjusted[test, name])
    assert not found
    drawn = raw_answers.plot(tmp_path / "answers.xz")
    assert drawn.startswith("<svg")
    assert "var(" not in drawn
    assert all(f">{name}</text>" in drawn for name in ("lema, test", "student, test", "lema, test+chat"))
