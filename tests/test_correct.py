"""The correct door with the reference teacher: undisturbed, killed, misused."""

import subprocess
import sys

import pytest

from lema_jax import records
from lema_jax.records import Verdict, row_id
from lema_jax.tasks.steps import split_steps
from tests.correct_door import (
    ENVIRONMENT,
    attempt,
    corrections,
    fails,
    kill_when,
    not_wrong,
    succeeds,
    write_attempts,
)


@pytest.fixture
def files(tmp_path):
    return f"--attempts={write_attempts(tmp_path / 'attempts.jsonl', 12)}", f"--out={tmp_path / 'corrections.jsonl'}"


def test_wrong_attempts_alone_are_corrected_in_their_order(tmp_path):
    others = [not_wrong(verdict) for verdict in (Verdict.RIGHT, Verdict.UNPARSED, Verdict.TRUNCATED)]
    attempts = write_attempts(tmp_path / "attempts.jsonl", 12, *others)
    said = succeeds(f"--attempts={attempts}", f"--out={tmp_path / 'c.jsonl'}", "--teacher=reference")
    assert "1 right, 12 wrong, 1 unparsed, 1 truncated" in said
    assert "12 of 12 corrections kept, for 12 of 12 mistakes" in said
    assert "0 rejected: wrong_answer" in said
    rows = corrections(tmp_path / "c.jsonl")
    assert [row.attempt.id for row in rows] == [f"a{number}" for number in range(12)]
    for row in rows:
        assert (row.teacher, row.rejected) == ("reference", "")
        assert row.answer == row.attempt.problem.gold
        assert 1 <= row.step <= len(split_steps(row.attempt.text))


def test_more_attempts_add_their_rows_and_leave_the_others(files, tmp_path):
    succeeds(*files)
    before = (tmp_path / "corrections.jsonl").read_bytes()
    write_attempts(tmp_path / "attempts.jsonl", 15)
    succeeds(*files)
    after = (tmp_path / "corrections.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 15


def test_an_attempt_with_another_text_is_another_row(files, tmp_path):
    """Rows are named by what shapes them: the attempt's text and what the teacher says of it."""
    succeeds(*files)
    changed = attempt(0).model_copy(update={"text": "7 + 1 = 9\nThe answer is 9."})
    records.write(tmp_path / "attempts.jsonl", [changed, *(attempt(number) for number in range(1, 12))])
    assert "for 12 of 12 mistakes" in succeeds(*files)
    rows = corrections(tmp_path / "corrections.jsonl")
    assert len(rows) == 13
    assert rows[-1].attempt.text == changed.text


def test_rows_that_earlier_versions_named_stand_where_they_say_the_same(files, tmp_path):
    succeeds(*files)
    file = tmp_path / "corrections.jsonl"
    named = [
        row.model_copy(update={"id": row_id(attempt=row.attempt.id, teacher="reference", cut=False)})
        for row in corrections(file)
    ]
    named[0] = named[0].model_copy(update={"text": "Step 1.\nExplanation: what it said before."})
    records.write(file, named)
    assert "12 of 12 corrections kept" in succeeds(*files)
    assert len({row.id for row in corrections(file)}) == 13


def test_cut_at_first_error(files, tmp_path):
    succeeds(*files, "--cut_at_first_error")
    for row, number in zip(corrections(tmp_path / "corrections.jsonl"), range(12)):
        whole = split_steps(attempt(number).text)
        assert split_steps(row.attempt.text) == whole[: row.step]
        assert row.attempt.sampling == {"cut_at_step": row.step}


def test_it_starts_without_what_it_does_not_need(files):
    heavy = {"jax", "flax", "torch", "transformers", "openai", "tensorflow", "numpy"}
    code = f"import sys; from lema_jax import correct; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_killed_anywhere_and_run_again_the_file_is_the_same(tmp_path):
    attempts = write_attempts(tmp_path / "attempts.jsonl", 400)
    succeeds(f"--attempts={attempts}", f"--out={tmp_path / 'undisturbed.jsonl'}")
    expected = (tmp_path / "undisturbed.jsonl").read_bytes()
    out = tmp_path / "killed.jsonl"
    seen = set()
    for size in (1, len(expected) // 4, len(expected) // 2):
        kill_when(
            lambda size=size: out.exists() and out.stat().st_size >= size, f"--attempts={attempts}", f"--out={out}"
        )
        seen.add(len(out.read_bytes()))
        with open(out, "ab") as file:
            file.write(b'{"id": "torn')  # as a kill in the middle of a write leaves it
    assert len(seen) == 3
    succeeds(f"--attempts={attempts}", f"--out={out}")
    assert out.read_bytes() == expected


def test_nothing_to_correct(tmp_path):
    attempts = tmp_path / "attempts.jsonl"
    records.write(attempts, [not_wrong(Verdict.RIGHT), not_wrong(Verdict.TRUNCATED)])
    said = fails(f"--attempts={attempts}", f"--out={tmp_path / 'c.jsonl'}")
    assert "1 right, 0 wrong, 0 unparsed, 1 truncated: nothing to correct" in said
    assert not (tmp_path / "c.jsonl").exists()


def test_user_mistakes_get_one_clear_line(files, tmp_path):
    assert "cannot read" in fails(f"--attempts={tmp_path / 'none.jsonl'}", files[1])
    assert "--out" in fails(files[0])
    assert "unexpected argument" in fails(*files, "more")
    assert "--teacher" in fails(*files, "--teacher=gpt")
    assert "--model is for a chat teacher" in fails(*files, "--model=gpt-4o")
    assert "--samples is for a chat teacher" in fails(*files, "--samples=2")
    assert "needs --model" in fails(*files, "--teacher=openai")
    chat = (*files, "--teacher=openai", "--model=m")
    assert "would all be the same" in fails(*chat, "--samples=2", "--temperature=0")
    assert "cannot read" in fails(*chat, "--prompt_file=/none.txt")
    nobody = {name: value for name, value in ENVIRONMENT.items() if name != "OPENAI_API_KEY"}
    assert "set OPENAI_API_KEY" in fails(*chat, env=nobody)
    assert "needs this model's price" in fails(*chat, "--max_cost_usd=1")
    torn = tmp_path / "torn.jsonl"
    torn.write_text((tmp_path / "attempts.jsonl").read_text().replace('"verdict":"wrong"', '"verdict":"bad"', 1))
    assert "torn.jsonl:1: verdict: " in fails(f"--attempts={torn}", files[1])
