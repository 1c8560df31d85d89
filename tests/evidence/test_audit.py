"""The audit of corrections: counts that add up, and rows shown as they are."""

import pytest

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.evidence import audit
from lema_jax.records import Attempt, Correction, Verdict
from tests import made_runs
from tests.html_page import Parsed


def correction(number, rejected="", student="small", step=2, teacher="reference", level=1, marks=(), **fields):
    problem = made_runs.problem(number, meta={"level": level})
    attempt = Attempt(
        id=f"a{number}", problem=problem, student=student, sampling={}, prompt="", text="One is 1.\nTwo is 3.\nSo 3.",
        answer="3", verdict=Verdict.WRONG, prompt_tokens=1, completion_tokens=1, labelled_steps=marks,
    )  # fmt: skip
    given = {"text": "reply", "step": step, "explanation": "Two is not 3.", "steps": ("Two is 2.", "The answer is 2.")}
    identity = records.row_id(number=number, teacher=teacher)
    return Correction(
        **{"id": identity, "attempt": attempt, "teacher": teacher, "rejected": rejected, **given, **fields}
    )


ROWS = [
    correction(0, usage={"completion_tokens": 10, "cost_usd": 0.5, "finish": "stop"}),
    correction(1, "wrong_answer", student="big", level=2, usage={"completion_tokens": 5}),
    correction(1, student="big", level=2, teacher="gpt", step=3),
    correction(2, "no_explanation", level=10),
    correction(3, "wrong_answer", step=None, steps=()),
]


def test_counts_add_up():
    found = audit.audit(ROWS)
    assert (found.overall.count, found.overall.n) == (2, 5)
    assert (found.attempts, found.attempts_corrected) == (4, 2)
    assert found.rejected == {"wrong_answer": 2, "no_explanation": 1}
    assert found.overall.count + sum(found.rejected.values()) == found.overall.n
    assert found.steps == {2: 1, 3: 1}
    assert found.usage == {"completion_tokens": 15, "cost_usd": 0.5}


def counted(count, n):
    return count, n


def of(rates):
    return {name: counted(rate.count, rate.n) for name, rate in rates.items()}


def test_success_by_student_teacher_and_difficulty():
    rates = audit.audit(ROWS).rates
    assert of(rates["student"]) == {"big": counted(1, 2), "small": counted(1, 3)}
    assert of(rates["teacher"])["gpt"] == counted(1, 1)
    assert list(rates["level"]) == ["1", "2", "10"]
    assert sum(rate.n for rate in rates["level"].values()) == len(ROWS)


def test_agreement_with_the_steps_that_people_marked():
    assert audit.audit(ROWS).agreement == {}
    rows = [
        correction(0, marks=(2, 2, 3)),
        correction(0, "no_explanation", marks=(2, 2, 3), teacher="gpt", step=4),
        correction(1, "no_step", marks=(1,), step=None),
        correction(2, marks=()),
    ]
    found = audit.audit(rows)
    rates = {name: tuple(of({"exact": who.exact, "near": who.near}).values()) for name, who in found.agreement.items()}
    assert rates == {
        "reference": (counted(2, 4), counted(3, 4)),  # the reply that names no step agrees with nobody
        "gpt": (counted(0, 3), counted(1, 3)),
        "another person": (counted(1, 3), counted(3, 3)),
        "always step 1": (counted(1, 7), counted(5, 7)),
        "always step 2": (counted(4, 7), counted(7, 7)),
    }
    assert "always step 1" in audit.text(found)
    said = " ".join(Parsed(audit.html(found, rows, "c.jsonl")).text)
    assert "Agreement with people" in said
    assert said.count("marked by people") == 2 + 2 + 1
    assert "Agreement" not in " ".join(Parsed(audit.html(audit.audit(ROWS), ROWS, "c.jsonl")).text)


def test_page_marks_the_wrong_step_and_numbers_the_correction_from_it():
    parsed = Parsed(audit.html(audit.audit(ROWS[:1]), ROWS[:1], "c.jsonl"))
    steps = [attributes.get("class") for tag, attributes in parsed.tags if tag == "li"]
    assert steps == [None, "mistake", "dropped", "corrected", "corrected"]
    said = " ".join(" ".join(parsed.text).split())
    assert "2 Two is 2. 3 The answer is 2." in said
    assert "Two is not 3." in said


def test_a_reply_without_parts_is_shown_as_it_came():
    assert "reply" in " ".join(Parsed(audit.html(audit.audit(ROWS[4:]), ROWS[4:], "c.jsonl")).text)


@pytest.mark.slow
def test_thirty_rows_are_drawn_by_the_seed():
    rows = [correction(i, explanation=f"row {i}") for i in range(100)]
    found = audit.audit(rows)
    pages = [audit.html(found, rows, "c.jsonl", seed=seed) for seed in (0, 0, 1)]
    assert pages[0] == pages[1]
    drawn = [{text for text in Parsed(page).text if text.startswith("row ")} for page in pages]
    assert [len(rows) for rows in drawn] == [30, 30, 30]
    assert drawn[0] != drawn[2]


def test_text_of_models_stays_text():
    evil = "<script>alert(1)</script>"
    row = correction(0, explanation=evil, student=evil, teacher=evil, steps=(evil,), rejected=evil)
    assert len([tag for tag, _ in Parsed(audit.html(audit.audit([row]), [row], evil)).tags if tag == "script"]) == 1


def test_many_reasons_of_rejection_are_gathered_none_lost():
    rows = [correction(i, f"reason {i % 20}") for i in range(40)]
    said = " ".join(Parsed(audit.html(audit.audit(rows), rows, "c")).text)
    assert "other reasons" in said
    assert "16" in said  # 8 reasons of 2 rows each


def test_terminal_says_the_same():
    said = audit.text(audit.audit(ROWS))
    assert "2 of 5 corrections are kept (40.0 %" in said
    assert "wrong_answer" in said


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(UserError, match="has no corrections"):
        audit.load(tmp_path / "c.jsonl")
