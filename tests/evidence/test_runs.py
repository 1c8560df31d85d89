"""Run folders are read, aligned by question, and refused where a comparison would be unfair."""

import json

import pytest

from lema_jax.errors import UserError
from lema_jax.evidence import runs
from lema_jax.records import Verdict
from tests import made_runs


def test_align_puts_predictions_in_the_first_runs_order(tmp_path):
    rows = made_runs.predictions("rwrwu")
    a = runs.load(made_runs.write(tmp_path / "a", rows), "a")
    b = runs.load(made_runs.write(tmp_path / "b", rows[::-1]), "b")
    assert [row.predictions for row in runs.align([a, b])] == [tuple(rows), tuple(rows)]


def test_other_questions_are_named(tmp_path):
    a = runs.load(made_runs.write_letters(tmp_path / "a", "rrr"), "a")
    b = runs.load(made_runs.write(tmp_path / "b", made_runs.predictions("rrrrr")[1:]), "b")
    with pytest.raises(UserError, match=r"1 only in .*a \(such as arithmetic/test/0\).*2 only in .*arithmetic/test/3"):
        runs.align([a, b])


@pytest.mark.parametrize("field", ["question", "gold", "choices"])
def test_a_question_that_changed_under_its_id_is_named(tmp_path, field):
    changed = made_runs.problem(0, **{field: ("x", "y") if field == "choices" else "changed"})
    a = runs.load(made_runs.write_letters(tmp_path / "a", "r"), "a")
    b = runs.load(made_runs.write(tmp_path / "b", [made_runs.prediction(changed, Verdict.RIGHT)]), "b")
    with pytest.raises(UserError, match=f"arithmetic/test/0 has another {field}"):
        runs.align([a, b])


def test_runs_of_two_tasks_are_refused(tmp_path):
    other = made_runs.prediction(made_runs.problem(0, task="gsm8k"), Verdict.RIGHT)
    a = runs.load(made_runs.write_letters(tmp_path / "a", "r"), "a")
    with pytest.raises(UserError, match=r"answers 'gsm8k', .* answers 'arithmetic'"):
        runs.align([a, runs.load(made_runs.write(tmp_path / "b", [other]), "b")])
    mixed = made_runs.write(tmp_path / "c", [other, *made_runs.predictions("wr")[1:]])
    with pytest.raises(UserError, match="mixes the tasks arithmetic and gsm8k"):
        runs.load(mixed, "c")


def test_a_file_of_ones_own_is_one_task_wherever_it_lies(tmp_path):
    rows = [
        made_runs.prediction(made_runs.problem(0, task=f"jsonl:{path}q.jsonl"), Verdict.RIGHT) for path in ("", "/a/")
    ]
    a, b = (runs.load(made_runs.write(tmp_path / name, [row]), name) for name, row in zip("ab", rows))
    assert len(runs.align([a, b])) == 2


def test_two_answers_to_one_question_are_refused(tmp_path):
    folder = made_runs.write(tmp_path, made_runs.predictions("r", "one") + made_runs.predictions("r", "two"))
    with pytest.raises(UserError, match=r"arithmetic/test/0 is answered twice, .*\(one\).*\(two\)"):
        runs.load(folder, "a")


def test_an_unfinished_evaluation_is_refused(tmp_path):
    folder = made_runs.write_letters(tmp_path / "a", "rrw")
    summary = folder / "summary.json"
    summary.write_text(json.dumps({"n": 4}))
    with pytest.raises(UserError, match=r"counts 4 answers, .* has 3"):
        runs.load(folder, "a")
    summary.write_text("[]")
    with pytest.raises(UserError, match='no field "n"'):
        runs.load(folder, "a")
    summary.unlink()
    with pytest.raises(UserError, match=r"summary\.json: No such file"):
        runs.load(folder, "a")
    (folder / "predictions.jsonl").write_text("")
    with pytest.raises(UserError, match="has no predictions"):
        runs.load(folder, "a")


def dev_run(folder, letters):
    rows = [
        made_runs.prediction(made_runs.problem(100 + i, split="dev"), made_runs.LETTERS[letter], folder.name)
        for i, letter in enumerate(letters)
    ]
    return runs.load(made_runs.write(folder, rows), folder.name)


def test_the_checkpoint_is_chosen_on_dev_and_the_optimistic_one_named_beside_it(tmp_path):
    tests = [
        runs.load(made_runs.write_letters(tmp_path / name, v), name) for name, v in (("early", "rrw"), ("late", "rrr"))
    ]
    devs = [dev_run(tmp_path / "dev" / "early", "rrrw"), dev_run(tmp_path / "dev" / "late", "rrww")]
    choice = runs.choose(tests, devs)
    assert (choice.chosen.name, choice.on_dev.accuracy, choice.on_test.right) == ("early", 0.75, 2)
    assert (choice.best_on_test.name, choice.best_test.right) == ("late", 3)


def test_choosing_needs_pairs_of_one_checkpoint_on_other_questions(tmp_path):
    test = runs.load(made_runs.write_letters(tmp_path / "early", "rrw"), "early")
    dev = dev_run(tmp_path / "dev" / "late", "rr")
    with pytest.raises(UserError, match="1 runs on dev for 2 on test"):
        runs.choose([test, test], [dev])
    with pytest.raises(UserError, match="same order"):
        runs.choose([test], [dev])
    with pytest.raises(UserError, match="shares 3 questions"):
        runs.choose([test], [test])
