"""Arms down, tasks across; each task compared on its own questions."""

import pytest

from lema_jax.errors import UserError
from lema_jax.evidence import ablation, page
from lema_jax.evidence.runs import Run
from tests import made_runs
from tests.html_page import Parsed


def run(name, task, letters):
    rows = [
        made_runs.prediction(made_runs.problem(i, id=f"{task}/test/{i}", task=task), made_runs.LETTERS[letter], name)
        for i, letter in enumerate(letters)
    ]
    return Run(name, f"{name}/{task}", tuple(rows))


RUNS = [
    run("cot", "gsm8k", "rw" * 20),
    run("lema", "gsm8k", "rr" * 20),
    run("cot", "svamp", "rwww"),
    run("lema", "svamp", "wrww"),
    run("lema_no_step", "gsm8k", "rw" * 20),
]


def test_layout_has_differences_marks_and_gaps():
    header, rows = ablation.layout(ablation.by_task(RUNS, "cot"))
    assert header == ("run", "gsm8k/test (n=40)", "svamp/test (n=4)")
    assert rows == [
        ("cot", "50.0", "25.0"),
        ("lema", "100.0 (+50.0*)", "25.0 (+0.0)"),
        ("lema_no_step", "50.0 (+0.0)", "–"),
    ]


def test_arms_with_other_prompts_are_marked():
    rows = [row.model_copy(update={"prompt": "<user>"}) for row in RUNS[1].predictions]
    chat = Run("lema", "lema", tuple(rows))
    assert ablation.layout(ablation.by_task([RUNS[0], chat], "cot"))[1][1] == ("lema", "100.0 (+50.0*†)")


def test_a_task_without_the_baseline_has_no_differences():
    assert ablation.layout(ablation.by_task(RUNS[1:2], "cot"))[1] == [("lema", "100.0")]


def test_questions_must_be_the_same_within_a_task():
    with pytest.raises(UserError, match="different questions"):
        ablation.by_task([RUNS[2], run("lema", "svamp", "rrr")], "cot")


def test_page_says_the_same():
    parsed = Parsed(page.tasks_page(ablation.by_task(RUNS, "cot"), "cot"))
    said = " ".join(parsed.text)
    assert "100.0 (+50.0*)" in said
    assert "lema answers 50.0 points more of the 40 questions right than cot" in said
    assert len([tag for tag, _ in parsed.tags if tag == "svg"]) == 2


def test_holm_corrects_for_all_arms_on_all_tasks():
    said = ablation.several(ablation.by_task(RUNS, "cot"))
    assert said.startswith(
        "Of 3 comparisons, after correction for their number (Holm), significant: lema on gsm8k/test"
    )
    assert said in " ".join(Parsed(page.tasks_page(ablation.by_task(RUNS, "cot"), "cot")).text)
