"""Other trainers' forms say what the examples say."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lema_jax.data import examples, exports
from lema_jax.data.curate import Candidate
from lema_jax.tasks.steps import split_steps
from tests.data import rows


def candidates() -> list[Candidate]:
    wrong = rows.correction()
    return [
        Candidate(rows.problem(), examples.cot(rows.problem(), "3 * 4 = 12\nThe answer is 7.", "gold")),
        Candidate(wrong.attempt.problem, examples.correction(wrong), wrong),
    ]


def test_prompt_and_completion_have_all_the_text() -> None:
    made = candidates()
    assert list(exports.prompt_completion(made)) == [
        {"prompt": row.example.prompt, "completion": row.example.completion} for row in made
    ]


def test_messages_are_two_turns() -> None:
    for row, conversation in zip(candidates(), exports.messages(candidates()), strict=True):
        assert conversation == {
            "messages": [
                {"role": "user", "content": row.example.prompt},
                {"role": "assistant", "content": row.example.completion},
            ]
        }


def test_a_pair_parts_at_the_first_wrong_step() -> None:
    assert list(exports.preference(candidates())) == [
        {
            "prompt": examples.cot(rows.problem(), "", "gold").prompt + "Ann has 3 * 4 = 12 apples.\n",
            "chosen": "She eats 5, so 12 - 5 = 7 are left.",
            "rejected": "She eats 5, so 12 - 5 = 8 are left.",
        }
    ]


@given(step=st.integers(1, 3))
def test_prompt_and_rejected_are_the_attempt_up_to_the_mistake(step: int) -> None:
    row = rows.correction(step=step)
    (pair,) = exports.preference([Candidate(row.attempt.problem, examples.correction(row), row)])
    question = examples.cot(row.attempt.problem, "", "gold").prompt
    seen = str(pair["prompt"]).removeprefix(question) + str(pair["rejected"])
    assert seen == "\n".join(split_steps(row.attempt.text)[:step])


def test_without_a_step_the_pair_is_of_whole_answers() -> None:
    row = rows.commonsense()
    (pair,) = exports.preference([Candidate(row.attempt.problem, examples.correction(row), row)])
    assert pair == {
        "prompt": examples.cot(row.attempt.problem, "", "gold").prompt,
        "chosen": "\n".join(row.steps),
        "rejected": "Explanations:\nSand - It is safe.\nThe answer is sand.",
    }


def test_files_hold_one_json_object_a_line(tmp_path: Path) -> None:
    odd = "a\u2028b \U0001f600 \\n"
    row = Candidate(rows.problem(), examples.cot(rows.problem(), odd, "gold"))
    exports.write(list(exports.FORMS), [row, *candidates()], tmp_path / "exports")
    assert {file.name for file in (tmp_path / "exports").iterdir()} == {name for name, _ in exports.FORMS.values()}
    text = (tmp_path / "exports" / "prompt_completion.jsonl").read_text(encoding="utf-8")
    completions = [json.loads(line)["completion"] for line in text.split("\n")[:-1]]
    assert completions == [odd, *(row.example.completion for row in candidates())]
