"""Arms, comparisons and the answers picked for reading."""

import pytest
from scipy import stats as scipy_stats

from lema_jax.errors import UserError
from lema_jax.evidence import compare, crossed, stats, table
from lema_jax.evidence.compare import Change
from lema_jax.evidence.runs import Run
from tests import made_runs


def run(name, letters, checkpoint=None):
    return Run(name, name, tuple(made_runs.predictions(letters, checkpoint or name)))


def test_one_run_is_an_arm_with_wilsons_interval():
    arm = compare.arm([run("a", "rrwut")])
    assert arm.accuracy == pytest.approx(0.4)
    assert arm.interval == stats.wilson(2, 5)
    assert (arm.wrong, arm.unparsed, arm.truncated) == (1, 1, 1)


def test_runs_of_one_name_are_seeds_of_one_arm():
    one, two = compare.arms([run("cot", "rrww"), run("lema", "rrrw"), run("cot", "rwww", "cot, seed 2")])
    assert (one.name, one.right.shape, two.right.shape) == ("cot", (2, 4), (1, 4))
    assert one.accuracy == pytest.approx(3 / 8)
    assert one.interval.low <= 3 / 8 <= one.interval.high
    comparison = compare.compare(one, two)
    assert comparison.difference == pytest.approx(3 / 8)
    expected = crossed.difference(one.right, two.right)
    assert (comparison.p, comparison.df, comparison.interval) == (expected.p, expected.df, expected.interval())
    assert comparison.test is compare.StatTest.SEEDS
    assert comparison.paired is None


def of_templates(name, letters, each):
    rows = [
        made_runs.prediction(made_runs.problem(i, meta={"template": i // each}), made_runs.LETTERS[letter], name)
        for i, letter in enumerate(letters)
    ]
    return Run(name, name, tuple(rows))


def test_questions_of_one_template_are_drawn_together():
    """Two of four templates go right: 40 questions fixed of 80 are two observations of four."""
    runs = [of_templates("a", "w" * 80, 20), of_templates("b", "r" * 40 + "w" * 40, 20)]
    comparison = compare.compare(*compare.arms(runs))
    assert comparison.test is compare.StatTest.CLUSTERS
    assert comparison.df == pytest.approx(3)
    assert comparison.p == pytest.approx(scipy_stats.ttest_1samp([1, 1, 0, 0], 0).pvalue)
    assert not comparison.significant
    assert comparison.paired.fixed == 40
    assert compare.arms(runs)[1].interval.high > 0.9


def test_several_seeds_on_templates_are_both():
    runs = [
        of_templates(f"{name}{seed}", letters, 2) for seed, (name, letters) in enumerate([("a", "rwrw"), ("b", "rrrw")])
    ]
    seeds = [Run(run.name[0], run.folder, run.predictions) for run in runs]
    another = Run("b", "c", of_templates("c", "rrww", 2).predictions)
    assert compare.compare(*compare.arms([*seeds, another])).test is compare.StatTest.SEEDS_AND_CLUSTERS


def asked_by(run: Run, style: str) -> Run:
    rows = [row.model_copy(update={"prompt_style": style, "prompt": f"<{row.prompt}>"}) for row in run.predictions]
    return Run(run.name, run.folder, tuple(rows))


def test_runs_with_other_prompts_are_reported():
    alike, apart = run("a", "rrww"), asked_by(run("b", "rwrw"), "chat")
    cot, other = compare.arms([alike, apart])
    assert (compare.compare(cot, other).reworded, compare.compare(cot, cot).reworded) == (4, 0)
    with pytest.raises(UserError, match=r"both named a, but 4 of their prompts differ \(styles paper and chat\)"):
        compare.arms([alike, asked_by(run("a", "rrww", "seed 2"), "chat")])


def test_comparison_of_single_runs_is_the_paired_one():
    baseline, other = compare.arms([run("a", "r" * 60 + "w" * 40), run("b", "w" * 2 + "r" * 78 + "w" * 20)])
    comparison = compare.compare(baseline, other)
    assert comparison.paired == stats.Paired(both_right=58, fixed=20, broken=2, both_wrong=20)
    assert comparison.difference == pytest.approx(0.18)
    assert comparison.significant
    assert not compare.compare(baseline, baseline).significant


def test_unparsed_and_truncated_are_not_right_when_paired():
    kinds = [
        compare.change(b, o) for b, o in zip(made_runs.predictions("rrwut", "a"), made_runs.predictions("rtruw", "b"))
    ]
    assert kinds == [Change.BOTH_RIGHT, Change.BROKEN, Change.FIXED, Change.BOTH_WRONG, Change.BOTH_WRONG]


def test_fixed_answers_are_shown_first_and_unchanged_ones_never():
    baseline, other = run("a", "wwrwr"), run("b", "rrwwr")
    kinds = [compare.change(*pair) for pair in compare.to_read(baseline, other, 10)]
    assert kinds == [Change.FIXED, Change.FIXED, Change.BROKEN, Change.BOTH_WRONG]
    assert len(compare.to_read(baseline, other, 1)) == 1
    assert compare.to_read(baseline, baseline, 10) == []


def test_answers_to_read_are_drawn_by_the_seed():
    baseline, other = run("a", "w" * 50), run("b", "r" * 50)
    assert compare.to_read(baseline, other, 3, seed=1) == compare.to_read(baseline, other, 3, seed=1)
    assert compare.to_read(baseline, other, 3, seed=1) != compare.to_read(baseline, other, 3, seed=2)


def test_one_checkpoint_twice_is_no_second_seed():
    with pytest.raises(UserError, match="both named a and of one checkpoint"):
        compare.arms([run("a", "rw"), run("b", "rw"), run("a", "rw")])


def several(name, *letters):
    """A run of several samples a question: a text of letters a sample."""
    one, *further = (
        tuple(row.model_copy(update={"sample": number}) for row in run(name, of).predictions)
        for number, of in enumerate(letters)
    )
    return Run(name, name, one, tuple(further))


def test_arms_of_several_samples_are_compared_by_their_means():
    baseline, other = compare.arms([several("a", "rwwwww", "rwwrww"), several("b", "rrwwrw", "rrwrww")])
    assert baseline.right.tolist() == [[1, 0, 0, 0.5, 0, 0]]
    assert (baseline.samples, baseline.answers, baseline.wrong) == (2, 12, 9)
    comparison = compare.compare(baseline, other)
    assert comparison.difference == pytest.approx((1 + 0.5) / 6)
    expected = scipy_stats.ttest_rel(other.right[0], baseline.right[0])
    assert (comparison.p, comparison.df) == (pytest.approx(expected.pvalue), 5)
    assert (comparison.test, comparison.paired) == (compare.StatTest.QUESTIONS, None)
    assert "2 samples each" in table.sentence(comparison)
    with pytest.raises(UserError, match="has 2 answers a question, a has 1"):
        compare.arms([several("a", "rwwwww", "rwwrww"), run("a", "rwwwww", "seed 2")])


def test_equal_texts_of_two_runs_are_counted():
    """One checkpoint, answered by two engines: the agreement is that of the texts, and of what is read from them."""
    own, served = run("own", "rrww"), run("served", "rrww")
    other = served.predictions[1].model_copy(update={"text": "It is surely 2."})
    served = Run("served", "served", (own.predictions[0], other, *own.predictions[2:]))
    comparison = compare.compare(*(compare.arm([one]) for one in (own, served)))
    assert comparison.equal == compare.Agreement(texts=3, answers=4)
    assert table.sentence(comparison).endswith("3 of 4 texts are equal, and 4 of the answers read from them.")
    assert "texts are equal" not in table.sentence(compare.compare(*compare.arms([run("a", "wwww"), run("b", "wwww")])))
