"""The correct command with the reference teacher: undisturbed, killed, misused."""

import subprocess
import sys

import pytest

from lema_jax import correct, records, tasks
from lema_jax.errors import UserError
from lema_jax.records import Critique, Verdict, row_id
from lema_jax.tasks.steps import split_steps
from tests.correct_command import (
    ENVIRONMENT,
    attempt,
    command,
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


def test_a_process_of_its_own_writes_what_the_function_writes(tmp_path):
    attempts = write_attempts(tmp_path / "attempts.jsonl", 3)
    flags = (f"--attempts={attempts}", f"--out={tmp_path / 'command.jsonl'}")
    done = subprocess.run(command(*flags), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 corrections kept" in done.stdout
    result = correct.run(correct.Config(attempts=attempts, out=tmp_path / "function.jsonl"))
    assert (result.mistakes, result.corrected, result.rows, result.kept, result.rejected) == (3, 3, 3, 3, {})
    assert result.out.read_bytes() == (tmp_path / "command.jsonl").read_bytes()


def test_one_run_leaves_nothing_to_the_next(tmp_path):
    attempts = write_attempts(tmp_path / "attempts.jsonl", 4)
    limited = correct.run(correct.Config(attempts=attempts, out=tmp_path / "limited.jsonl", limit=2))
    write_attempts(attempts, 6)
    every = correct.run(correct.Config(attempts=attempts, out=tmp_path / "every.jsonl"))
    other = correct.run(correct.Config(attempts=attempts, out=tmp_path / "other.jsonl", limit=5))
    assert [result.mistakes for result in (limited, every, other)] == [2, 6, 5]


def test_a_config_that_contradicts_itself_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match=r"--seed draws .* give --limit with it"):
        correct.run(correct.Config(attempts=tmp_path / "none.jsonl", out=tmp_path / "c.jsonl", seed=3))
    assert not list(tmp_path.iterdir())


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


def test_rows_of_other_settings_are_named(files):
    assert "more rows" not in succeeds(*files)
    assert "12 more rows there are about the same attempts" in succeeds(*files, "--cut_at_first_error")


def test_cut_at_first_error(files, tmp_path):
    succeeds(*files, "--cut_at_first_error")
    for row, number in zip(corrections(tmp_path / "corrections.jsonl"), range(12)):
        steps = split_steps(attempt(number).text)
        assert split_steps(row.attempt.text) == steps[: row.step]
        assert row.attempt.sampling == {"cut_at_step": row.step}


def test_it_starts_without_what_it_does_not_need(files):
    heavy = {"jax", "flax", "torch", "transformers", "openai", "tensorflow", "numpy"}
    code = f"import sys; from lema_jax import correct; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.slow
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


def test_what_is_passed_over_is_counted_with_the_reason(tmp_path):
    others = [not_wrong(verdict) for verdict in (Verdict.RIGHT, Verdict.UNPARSED, Verdict.TRUNCATED)]
    attempts = write_attempts(tmp_path / "attempts.jsonl", 2, *others)
    said = succeeds(f"--attempts={attempts}", f"--out={tmp_path / 'c.jsonl'}")
    assert "1 passed over: unparsed, no answer could be read; --read_last_number" in said
    assert "1 passed over: truncated" in said
    assert "passed over: never asked" not in said


def test_the_last_number_is_read_when_asked_for_and_the_rows_say_so(files, tmp_path):
    unread = attempt(0).model_copy(update={"id": "u", "text": "1 + 1 = 2.\nSo it is 987654 in all.", "answer": None})
    unread = unread.model_copy(update={"verdict": Verdict.UNPARSED})
    write_attempts(tmp_path / "attempts.jsonl", 1, unread)
    assert "for 1 of 1 mistakes" in succeeds(*files)
    said = succeeds(*files, "--read_last_number")
    assert "1 right" not in said
    assert "2 wrong, 0 unparsed" in said
    first, second = corrections(tmp_path / "corrections.jsonl")
    assert (first.attempt.id, first.attempt.sampling) == ("a0", {})
    assert (second.attempt.answer, second.attempt.sampling) == ("987654", {"read_last_number": True})


def test_a_limit_takes_the_first_and_with_a_seed_a_draw_that_a_larger_one_contains(files, tmp_path):
    def ids(*flags) -> list[str]:
        out = tmp_path / "drawn.jsonl"
        out.unlink(missing_ok=True)
        said = succeeds(files[0], f"--out={out}", *flags)
        assert ("of the 12 wrong ones are corrected" in said) == ("--limit=12" not in flags)
        return [row.attempt.id for row in corrections(out)]

    every = [f"a{number}" for number in range(12)]
    assert ids("--limit=5") == every[:5]
    drawn = [ids(f"--limit={limit}", "--seed=3") for limit in (4, 4, 7, 12)]
    assert drawn[0] == drawn[1]
    assert [len(some) for some in drawn] == [4, 4, 7, 12]
    assert set(drawn[0]) < set(drawn[2]) < set(drawn[3])
    assert all(some == [id for id in every if id in some] for some in drawn)  # in the order of the attempts
    assert drawn[2] not in (ids("--limit=7", "--seed=4"), every[:7])
    assert "give --limit with it" in fails(*files, "--seed=3")


def test_a_file_of_another_kind_is_named(tmp_path):
    attempts = write_attempts(tmp_path / "attempts.jsonl", 2)
    succeeds(f"--attempts={attempts}", f"--out={tmp_path / 'c.jsonl'}")
    said = fails(f"--attempts={tmp_path / 'c.jsonl'}", f"--out={tmp_path / 'd.jsonl'}")
    assert (
        "c.jsonl:1: this is a file of corrections (of correct); a file of attempts (of sample) is needed here" in said
    )
    assert "this is a file of attempts" in fails(f"--attempts={attempts}", f"--out={attempts}")


def test_nothing_to_correct(tmp_path):
    attempts = tmp_path / "attempts.jsonl"
    records.write(attempts, [not_wrong(Verdict.RIGHT), not_wrong(Verdict.TRUNCATED)])
    said = fails(f"--attempts={attempts}", f"--out={tmp_path / 'c.jsonl'}")
    assert "1 right, 0 wrong, 0 unparsed, 1 truncated: nothing to correct" in said
    assert not (tmp_path / "c.jsonl").exists()


def test_user_mistakes_get_one_clear_line(files, tmp_path, monkeypatch):
    assert "cannot read" in fails(f"--attempts={tmp_path / 'none.jsonl'}", files[1])
    assert "--out" in fails(files[0])
    assert "unexpected argument" in fails(*files, "more")
    assert "--teacher" in fails(*files, "--teacher=gpt")
    assert "--model is for a chat teacher" in fails(*files, "--model=gpt-4o")
    assert "--samples is for a chat teacher" in fails(*files, "--samples=2")
    assert "--concurrency is for a chat teacher" in fails(*files, "--concurrency=2")
    assert "needs --model" in fails(*files, "--teacher=openai")
    chat = (*files, "--teacher=openai", "--model=m")
    assert "would all be the same" in fails(*chat, "--samples=2", "--temperature=0")
    assert "cannot read" in fails(*chat, "--prompt_file=/none.txt")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "set OPENAI_API_KEY" in fails(*chat, env={})
    assert "needs this model's price" in fails(*chat, "--max_cost_usd=1")
    torn = tmp_path / "torn.jsonl"
    torn.write_text((tmp_path / "attempts.jsonl").read_text().replace('"verdict":"wrong"', '"verdict":"bad"', 1))
    assert "torn.jsonl:1: verdict: " in fails(f"--attempts={torn}", files[1])


def test_critiques_judge_right_and_wrong_attempts_and_count_who_disagrees(tmp_path):
    right, lucky = (
        attempt(number).model_copy(update={"id": f"r{number}", "verdict": Verdict.RIGHT}) for number in (5, 6)
    )
    solved = tasks.get("arithmetic").completion(right.problem)
    right = right.model_copy(update={"text": solved, "answer": right.problem.gold})
    write_attempts(tmp_path / "a.jsonl", 3, right, lucky, not_wrong(Verdict.UNPARSED))
    flags = (f"--attempts={tmp_path / 'a.jsonl'}", f"--out={tmp_path / 'c.jsonl'}", "--critique")
    said = succeeds(*flags)
    assert "4 of 5 critiques kept, for 4 of 5 attempts" in said
    assert "1 rejected: wrong_judgement (The critique calls a right solution wrong" in said
    made = {row.attempt.id: row for row in records.read(tmp_path / "c.jsonl", Critique)}
    assert {id: row.right for id, row in made.items()} == {
        "a0": False,
        "a1": False,
        "a2": False,
        "r5": True,
        "r6": False,
    }
    before = (tmp_path / "c.jsonl").read_bytes()
    succeeds(*flags)
    assert (tmp_path / "c.jsonl").read_bytes() == before
    drawn = ("--limit=2", "--seed=0")
    assert "2 of the 5 right and wrong ones are judged" in succeeds(*flags, *drawn)
    assert "--cut_at_first_error is for corrections" in fails(*flags, "--cut_at_first_error")
    assert "this is a file of critiques (of correct --critique); a file of corrections" in fails(*flags[:2])
