"""From rows to candidates: what cannot serve is counted, what is of another task is refused."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax import records, tasks
from lema_jax.data import arms, examples, exports, gather
from lema_jax.errors import UserError
from lema_jax.teacher import prompting
from tests.data import rows


def test_gold_then_right_attempts_whatever_they_end_in(tmp_path: Path) -> None:
    file = tmp_path / "attempts.jsonl"
    texts = {
        "right": ["12 - 5 = 7\nThe answer is 7. \n", "It is \\boxed{7}", "#### 7", "The answer is $7."],
        "wrong": ["The answer is 8."],
        "unparsed": ["Well."],
        "truncated": ["12 -"],
    }
    made = [
        rows.attempt(text=text, verdict=verdict, answer="7" if verdict == "right" else None)
        for verdict in texts
        for text in texts[verdict]
    ]
    records.write(file, made)
    pool = gather.chain_of_thought("gsm8k", [rows.problem()], [file])
    assert [(row.example.source, row.example.completion, row.closed) for row in pool.candidates] == [
        ("gold", "3 * 4 = 12\nThe answer is 7.", False),
        ("tiny", "12 - 5 = 7\nThe answer is 7.", False),
        ("tiny", "It is \\boxed{7}\nThe answer is 7.", True),
        ("tiny", "The answer is 7.", True),
        ("tiny", "The answer is $7.", False),
    ]
    assert pool.left_out == [("wrong", 1), ("unparsed (no answer could be read)", 1), ("truncated", 1)]


def test_a_right_attempt_that_was_cut_off_in_what_follows_its_answer_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "attempts.jsonl"
    limit = {"sampling": {"max_new_tokens": 9}, "answer": "7", "verdict": "right"}
    texts = {"12 - 5 = 7\nThe answer is 7. Let us": 9, "12 - 5 = 7\nThe answer is 7.": 9, "So \\boxed{7} are": 8}
    records.write(file, [rows.attempt(text=text, completion_tokens=count, **limit) for text, count in texts.items()])
    pool = gather.chain_of_thought("gsm8k", [], [file])
    assert [row.example.completion for row in pool.candidates] == [
        "12 - 5 = 7\nThe answer is 7.",
        "So \\boxed{7} are\nThe answer is 7.",
    ]
    assert pool.left_out == [("right, but cut off after the answer", 1)]


def test_the_last_number_is_an_answer_only_when_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "attempts.jsonl"
    texts = ("12 - 5 = 7.\nIn total, she has 7 left.", "She has 8 left.", "5 of 12 are gone.", "Who knows?")
    records.write(file, [rows.attempt(text=text, verdict="unparsed", answer=None) for text in texts])
    silent = gather.chain_of_thought("gsm8k", [], [file])
    assert (silent.candidates, silent.left_out) == ([], [("unparsed (no answer could be read)", 4)])
    pool = gather.chain_of_thought("gsm8k", [], [file], read_last_number=True)
    assert [row.example.completion for row in pool.candidates] == [f"{texts[0]}\nThe answer is 7."]
    assert pool.left_out == [("wrong", 1), ("unparsed (no answer could be read)", 2)]


def test_kept_corrections_that_name_a_step(tmp_path: Path) -> None:
    file = tmp_path / "corrections.jsonl"
    made = [
        rows.correction(),
        rows.correction(rejected="wrong_answer"),
        rows.correction(step=None),
        rows.correction(step=9),
    ]
    records.write(file, made)
    pool = gather.corrections("gsm8k", [file], examples.correction)
    assert [row.correction for row in pool.candidates] == made[:1]
    assert pool.left_out == [("rejected", 1), ("without a step of the attempt, or a solution", 2)]


def test_rows_of_another_task_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "attempts.jsonl"
    records.write(file, [rows.attempt(), rows.attempt(rows.problem(1, task="arithmetic"))])
    with pytest.raises(UserError, match=r"attempts.jsonl: row \w+ is of the task arithmetic, not gsm8k"):
        gather.chain_of_thought("gsm8k", [], [file])


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "attempts.jsonl"
    file.write_text(rows.attempt().model_dump_json() + "\n{}\n")
    with pytest.raises(UserError, match=r"attempts.jsonl:2: "):
        gather.chain_of_thought("gsm8k", [], [file])


ARMS = st.sampled_from(sorted(arms.ARMS))
FORMS = st.sampled_from(["<think>{}</think>", "{}\n</think>\n\n", "[THINK]{}[/THINK]\n", "◁think▷{}◁/think▷"])


@given(FORMS, st.text(alphabet="qz \n=+").map(lambda text: f"qqq{text}"), ARMS)
@settings(max_examples=30, deadline=None)
def test_a_thought_reaches_no_example_prompt_or_export(form: str, thought: str, arm: str) -> None:
    text = form.format(thought)
    solved = rows.attempt(text=f"{text}3 * 4 = 12\nThe answer is 7.", verdict="right", answer="7")
    missed = rows.attempt(text=text + "\n".join(rows.STEPS))
    choice = rows.commonsense()
    chosen = choice.model_copy(
        update={"attempt": choice.attempt.model_copy(update={"text": text + choice.attempt.text})}
    )
    row = arms.ARMS[arm]
    render = row.example
    with tempfile.TemporaryDirectory() as folder:
        file, other, third = (Path(folder) / name for name in ("a", "b", "c"))
        records.write(file, [solved])
        records.write(other, [rows.correction(missed)])
        records.write(third, [chosen])
        made = gather.chain_of_thought("gsm8k", [], [file]).candidates
        assert made
        if row.reads == "right attempts":
            made += gather.own_paths("gsm8k", [file], row.example, most=1, seed=0).candidates
        elif row.reads == "wrong attempts":
            records.write(other, [missed])
            made += gather.wrong_attempts("gsm8k", [other], row.example).candidates
        elif row.reads == "critiques":
            records.write(other, [rows.critique(missed)])
            made += gather.critiques("gsm8k", [other], row.example).candidates
        elif render:
            made += gather.corrections("gsm8k", [other], render).candidates
            made += gather.corrections("csqa", [third], render).candidates if not row.needs_steps else []
    for row in made:
        written = row.example.prompt + row.example.completion + getattr(row.example, "rejected", "")
        assert "qqq" not in written
        assert not re.search(r"think[>\]▷]", written.casefold())
    for _, form_of_rows in exports.FORMS.values():
        assert "qqq" not in json.dumps(list(form_of_rows(made)))
    for wrong in (missed, chosen.attempt):
        assert "qqq" not in prompting.messages(prompting.load(wrong.problem), wrong)


def test_of_a_users_own_file_only_rows_that_name_a_split_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "NAMES", ())
    own = [{"question": f"{number} + 1?", "gold": number + 1} for number in range(3)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    name = f"jsonl:{tmp_path / 'own.jsonl'}"
    assert gather.held_out(name, None, required=True) == ({}, [])
    with open(tmp_path / "own.jsonl", "a") as file:
        file.write(json.dumps({"question": "9 + 9?", "gold": 18, "split": "valid"}) + "\n")
    sets, missing = gather.held_out(name, None, required=True)
    assert {split: [row.question for row in found] for split, found in sets.items()} == {f"{name}/valid": ["9 + 9?"]}
    assert missing == []
