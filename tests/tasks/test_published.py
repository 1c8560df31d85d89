"""Published mistakes: they are wrong, of training questions, and marked where the publisher says."""

import json
import re

import pytest

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Verdict
from lema_jax.tasks import published
from lema_jax.tasks.steps import split_steps


def test_stepverify_has_marks_of_people(data_dir):
    problems = tasks.get("gsm8k").load("train", data_dir)
    rows = published.attempts("stepverify", problems, data_dir)
    assert len(rows) == 567  # distinct solutions
    assert sum(len(row.labelled_steps) for row in rows) == 797
    assert {row.verdict for row in rows} == {Verdict.WRONG}
    by_text = {row.text: row for row in rows}
    for entry in json.loads((data_dir / "stepverify" / "dataset.json").read_text()):
        if row := by_text.get("\n".join(step.strip() for step in entry["student_incorrect_solution"])):
            marked = {split_steps(row.text)[step - 1] for step in row.labelled_steps}
            assert any(entry["incorrect_step"].strip().endswith(step) for step in marked)


@pytest.mark.parametrize(("task", "wrong"), [("gsm8k", 98), ("math", 100)])
def test_mathcritique_has_mistakes_of_a_model(data_dir, task, wrong):
    problems = tasks.get(task).load("train", data_dir)
    rows = published.attempts("mathcritique", problems, data_dir)
    assert [row.verdict for row in rows].count(Verdict.WRONG) == wrong
    assert len({row.id for row in rows}) == 100
    for row in rows:
        assert row.text
        assert not re.search(r"<<[^<>]*>>|Assistant:|<.end_of_text.>|Human:", row.text)
        assert row.labelled_steps == ()


def test_what_is_not_published_is_told(tmp_path, data_dir):
    problems = tasks.get("gsm8k").load("train", data_dir)
    with pytest.raises(UserError, match="no solutions of math's questions, but of gsm8k's"):
        published.attempts("stepverify", tasks.get("math").load("train", data_dir), data_dir)
    with pytest.raises(UserError, match="no solution of any of these 1 questions"):
        published.attempts("stepverify", [problems[0].model_copy(update={"question": "None?"})], data_dir)
    with pytest.raises(UserError, match=r"dataset\.json; get it from https://"):
        published.attempts("stepverify", problems, tmp_path)
    entry = {"problem": problems[0].question, "student_incorrect_solution": ["One."], "incorrect_index": 1}
    (tmp_path / "dataset.json").write_text(json.dumps([entry]))
    with pytest.raises(UserError, match=r"dataset\.json: entry 0: incorrect_index is 1, and there are 1 steps"):
        published.attempts("stepverify", problems, tmp_path)
