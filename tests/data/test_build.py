"""From rows to a data set: counted filters, fair arms, whole or nothing, the same bytes again."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lema_jax import records, tasks
from lema_jax.data import build as room
from lema_jax.data import card, dataset, examples, tokenizer
from lema_jax.data.build import build
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
from lema_jax.records import Correction, Problem
from tests.data import rows
from tests.data.building import TEST, TRAIN, corrections, recipe, task, texts

__all__ = ["corrections", "task"]  # fixtures


def content(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_records_decode_to_the_examples(tmp_path: Path, corrections: Path) -> None:
    made, new = build(recipe(arm="lema", corrections=(corrections,)), tmp_path / "out")
    assert new
    words, data = tokenizer.load(tmp_path / "out"), dataset.Records(tmp_path / "out")
    assert len(data) == len(texts(tmp_path / "out")) == 70 == made.counts["examples"]
    for record, example in zip(data, texts(tmp_path / "out")):
        learned = record["weights"] == 1
        assert words.decode(record["tokens"][~learned]) == "<s>" + example.prompt
        assert words.decode(record["tokens"][learned]) == example.completion + "</s>"
    assert made.kinds == {"cot": 40, "correction": 30}
    assert made.sources == {"gold": 40, "reference": 30}
    assert made.students == {"tiny": 30}
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "| `tiny` | 30 |" in readme
    assert "Text written by `tiny`: the terms" in readme
    assert made.counts["longest"] == max(len(record["tokens"]) for record in data)


def test_the_same_recipe_is_the_same_bytes_and_not_made_twice(tmp_path: Path, corrections: Path) -> None:
    wanted = recipe(arm="lema", corrections=(corrections,), dev_questions=5, export=("jsonl", "messages", "preference"))
    first, _ = build(wanted, tmp_path / "a")
    elsewhere = tmp_path / "deep" / "corrections.jsonl"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(corrections.read_bytes())
    build(dataclasses.replace(wanted, corrections=(elsewhere,)), tmp_path / "deep" / "b")
    assert content(tmp_path / "a") == content(tmp_path / "deep" / "b")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*")}
    again, new = build(wanted, tmp_path / "a")
    assert (again, new) == (first, False)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"equal_examples": 20}, {"limits": Limits(max_tokens=400)}])
def test_another_recipe_does_not_overwrite(tmp_path: Path, change: dict[str, Any]) -> None:
    build(recipe(), tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(UserError, match=rf"other settings or inputs \({next(iter(change))}\); remove it"):
        build(recipe(**change), tmp_path / "out")
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    "other", [{"wrong_step_weight": 0}, {"own_attempts": False}, {"skip_cot": 3, "equal_examples": 20}]
)
def test_the_recipe_of_the_defaults_is_another_too(tmp_path: Path, corrections: Path, other: dict[str, Any]) -> None:
    made = {"arm": "inline", "corrections": (corrections,)} | {n: v for n, v in other.items() if n == "equal_examples"}
    build(recipe(**made | other), tmp_path / "out")
    with pytest.raises(UserError, match=rf"other settings or inputs \({next(iter(other))}\); remove it"):
        build(recipe(**made), tmp_path / "out")


def test_changed_inputs_are_noticed(tmp_path: Path, corrections: Path, task: dict[str, list[Problem]]) -> None:
    build(recipe(arm="lema", corrections=(corrections,)), tmp_path / "out")
    records.write(corrections, [*records.read(corrections, Correction)][:-1])
    with pytest.raises(UserError, match=r"inputs \(corrections\)"):
        build(recipe(arm="lema", corrections=(corrections,)), tmp_path / "out")
    build(recipe(), tmp_path / "cot")
    task["train"].pop()
    with pytest.raises(UserError, match=r"inputs \(training_questions\)"):
        build(recipe(), tmp_path / "cot")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("Dear …")
    with pytest.raises(UserError, match="is no data set of build_data's"):
        build(recipe(), tmp_path)
    assert (tmp_path / "letters.txt").exists()


@pytest.mark.parametrize("moment", ["_write_set", "_write_dev", "_sha256"])
def test_a_kill_leaves_nothing_and_the_next_run_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    wanted = recipe(dev_questions=4)
    build(wanted, tmp_path / "undisturbed")

    class Killed(BaseException):
        pass

    original = getattr(room, moment)

    def killed(*args: Any) -> None:
        original(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(room, moment, killed)
        with pytest.raises(Killed):
            build(wanted, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.tmp").exists()
    (tmp_path / ".out.tmp" / "left by kill -9").mkdir(parents=True)
    build(wanted, tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")
    assert not (tmp_path / ".out.tmp").exists()


def test_dev_questions_are_nowhere_in_training(tmp_path: Path, corrections: Path) -> None:
    held_out = []
    for arm, given in (("cot", ()), ("lema", (corrections,))):
        build(recipe(arm=arm, corrections=given, dev_questions=10, seed=3), tmp_path / arm)
        dev = list(records.read(tmp_path / arm / "dev" / "problems.jsonl", Problem))
        held_out.append(dev)
        trained = " ".join(row.prompt for row in texts(tmp_path / arm))
        assert len(dev) == 10
        assert not any(problem.question in trained for problem in dev)
        assert {row.problem_id for row in texts(tmp_path / arm / "dev")} == {problem.id for problem in dev}
        assert dataset.counts(tmp_path / arm / "dev").examples == 10
    assert held_out[0] == held_out[1]


def test_a_dev_set_that_lost_its_examples_is_damaged(tmp_path: Path) -> None:
    build(recipe(dev_questions=4), tmp_path / "out")
    assert dataset.has_examples(tmp_path / "out" / "dev")
    (tmp_path / "out" / "dev" / "lengths.npy").unlink()
    with pytest.raises(UserError, match=r"lengths\.npy"):
        dataset.has_examples(tmp_path / "out" / "dev")


def test_what_the_dev_loss_leaves_out_is_counted(tmp_path: Path, task: dict[str, list[Problem]]) -> None:
    task["train"][:] = [*TRAIN[:20], *(row.model_copy(update={"rationale": ""}) for row in TRAIN[20:])]
    made, _ = build(recipe(dev_questions=30), tmp_path / "out")
    counts = dict(map(tuple, made.left_out["dev loss"]))
    assert counts.keys() == {"without a rationale", "over-long"}
    assert dataset.counts(tmp_path / "out" / "dev").examples == 30 - sum(counts.values()) < 30


def test_every_row_is_accounted_for(tmp_path: Path, corrections: Path) -> None:
    attempts = tmp_path / "attempts.jsonl"
    right = [rows.attempt(problem, f"{k}\nThe answer is 7.", "right") for problem in TRAIN[:9] for k in range(2)]
    long = rows.attempt(TRAIN[0], "1 + 0 = 1\n" * 200 + "The answer is 7.", "right")
    repeated = rows.attempt(TRAIN[0], "0\n\nThe answer is 7.", "right", student="other")
    records.write(attempts, [*right, long, repeated, rows.attempt(TRAIN[0])])
    made, _ = build(
        recipe(arm="lema", corrections=(corrections,), attempts=(attempts,), equal_examples=50, dev_questions=2),
        tmp_path / "out",
    )
    left_out = {pool: dict(map(tuple, counts)) for pool, counts in made.left_out.items()}
    assert left_out["chain of thought"]["wrong"] == 1
    assert left_out["chain of thought"]["repeated"] == 1
    assert left_out["chain of thought"]["over-long"] == 1
    kinds = {"chain of thought": ("cot", 40 + 21), "corrections": ("correction", 30)}
    for pool, (kind, came) in kinds.items():
        assert came == made.kinds[kind] + sum(left_out[pool].values())
    readme = (tmp_path / "out" / "README.md").read_text()
    for pool, counts in made.left_out.items():
        assert all(f"| {pool} | {why} | {count} |" in readme for why, count in counts)


def test_the_card_names_every_file_by_its_hash(tmp_path: Path) -> None:
    made, _ = build(recipe(dev_questions=2, export=("jsonl",)), tmp_path / "out")
    assert card.read(tmp_path / "out") == made
    others = {
        name: digest for name, digest in content(tmp_path / "out").items() if name not in ("README.md", "card.json")
    }
    assert made.files == others
    readme = (tmp_path / "out" / "README.md").read_text()
    assert all(digest in readme for digest in others.values())
    assert "MIT" in readme
    assert str(tmp_path) not in readme


def leak(task: dict[str, list[Problem]]) -> None:
    task["train"][3] = rows.problem(3, question=TEST[2].question.replace("birds", "larks"))


def test_overlap_with_test_is_refused(tmp_path: Path, task: dict[str, list[Problem]]) -> None:
    leak(task)
    with pytest.raises(UserError, match=r"1 training questions .*gsm8k/train/3 with gsm8k/train/2.*--overlap=drop"):
        build(recipe(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("policy", "left"), [("drop", 39), ("keep", 40)])
def test_overlap_is_dropped_or_kept_when_asked(
    tmp_path: Path, task: dict[str, list[Problem]], policy: str, left: int
) -> None:
    leak(task)
    made, _ = build(recipe(overlap=policy), tmp_path / "out")
    assert made.counts["examples"] == left
    assert made.overlap == {"policy": policy, "checked": {"gsm8k/test": 5}, "unchecked": [], "found": 1}


def test_overlap_that_cannot_be_checked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(split: str, data_dir: Path | None = None) -> list[Problem]:
        if split == "test":
            raise UserError("no such file")
        return TRAIN

    monkeypatch.setattr(tasks.get("gsm8k"), "load", load)
    with pytest.raises(UserError, match="overlap with gsm8k/test cannot be checked: no such file"):
        build(recipe(), tmp_path / "out")
    made, _ = build(recipe(overlap="keep"), tmp_path / "out")
    assert made.overlap["unchecked"] == ["gsm8k/test"]
    assert "Not checked, for want of data: gsm8k/test." in (tmp_path / "out" / "README.md").read_text()


def test_a_task_without_gold_says_what_to_give(tmp_path: Path, task: dict[str, list[Problem]]) -> None:
    task["train"][:] = [problem.model_copy(update={"rationale": ""}) for problem in TRAIN]
    with pytest.raises(UserError, match="gsm8k has no gold rationales; give --nogold_rationales, and right attempts"):
        build(recipe(), tmp_path / "out")
    attempts = tmp_path / "attempts.jsonl"
    records.write(attempts, [rows.attempt(TRAIN[0], "The answer is 7.", "right")])
    made, _ = build(recipe(gold_rationales=False, attempts=(attempts,), dev_questions=3), tmp_path / "out")
    assert made.sources == {"tiny": 1}
    assert not (tmp_path / "out" / "dev" / "examples.jsonl").exists()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"limits": Limits(max_prompt=3)}, "chain of thought: 40 rows, 40 over-long; 0 left"),
        ({"limit": 3, "arm": "lema", "rejected": "no_explanation"}, "corrections: 30 rows, 30 rejected; 0 left"),
    ],
)
def test_nothing_left_names_the_filter(tmp_path: Path, corrections: Path, fields: dict[str, Any], why: str) -> None:
    if rejected := fields.pop("rejected", ""):
        kept = records.read(corrections, Correction)
        records.write(corrections, [row.model_copy(update={"rejected": rejected}) for row in kept])
        fields["corrections"] = (corrections,)
    with pytest.raises(UserError, match=why):
        build(recipe(**fields), tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"arm": "lemma"}, "--arm=lemma: there is no arm 'lemma'; the arms are cot, "),
        ({"arm": "lema"}, "--arm=lema needs --corrections"),
        ({"corrections": (Path("c"),)}, "--corrections without --arm"),
        ({"gold_rationales": False}, "nothing to learn from"),
        ({"tokenizer": Path("t")}, "either --tokenizer .* or --train_tokenizer"),
        ({"train_tokenizer": None}, "either --tokenizer .* or --train_tokenizer"),
        ({"equal_examples": 3, "equal_tokens": 3}, "--equal_examples and --equal_tokens contradict"),
        ({"correction_share": 1.5}, "--correction_share=1.5"),
        ({"export": ("csv",)}, "--export=csv is none of jsonl, messages, preference"),
        ({"export": ("preference",)}, "--export=preference makes pairs from corrections"),
        ({"attempts": (Path("absent.jsonl"),)}, "cannot read absent.jsonl"),
        ({"tokenizer": Path("absent"), "train_tokenizer": None}, "no tokenizer in absent"),
        ({"train_tokenizer": 10}, "a tokenizer of 10 ids is too small"),
        ({"equal_examples": 41}, "equal_examples=41, but this mix ends after 40"),
        ({"dev_questions": 40}, "dev_questions=40 must be below the 40"),
    ],
)
def test_what_a_user_can_get_wrong(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        build(recipe(**fields), tmp_path / "out")
    assert not any("out" in path.name for path in tmp_path.iterdir())


def test_a_tokenizer_is_taken_from_another_data_set(tmp_path: Path, corrections: Path) -> None:
    first, _ = build(recipe(), tmp_path / "first")
    wanted = recipe(train_tokenizer=None, tokenizer=tmp_path / "first", arm="lema", corrections=(corrections,))
    second, _ = build(wanted, tmp_path / "second")
    assert second.tokenizer == first.tokenizer
    words = tokenizer.load(tmp_path / "second")
    for text in examples.interface():  # a tokenizer of chain of thought has the words of corrections too
        pieces = words.tokenize(text)
        assert len(pieces) < 1.6 * len(text.split()) + text.count("\n") * 2


def test_limit_takes_the_first_questions(tmp_path: Path) -> None:
    build(recipe(limit=7), tmp_path / "out")
    assert {row.problem_id for row in texts(tmp_path / "out")} == {problem.id for problem in TRAIN[:7]}


def test_loss_is_on_completions(tmp_path: Path, corrections: Path) -> None:
    made, _ = build(recipe(arm="lema", corrections=(corrections,)), tmp_path / "out")
    words = tokenizer.load(tmp_path / "out")
    expected = sum(
        len(words(row.completion, add_special_tokens=False).input_ids) + 1 for row in texts(tmp_path / "out")
    )
    assert made.counts["loss_tokens"] == expected
    assert int(np.sum([record["weights"].sum() for record in dataset.Records(tmp_path / "out")])) == expected


def test_questions_with_choices_have_corrections_but_no_step_to_leave_out(
    tmp_path: Path, task: dict[str, list[Problem]]
) -> None:
    row = rows.commonsense()
    task["train"][:] = [row.attempt.problem]
    records.write(tmp_path / "corrections.jsonl", [row])
    given = {"task": "csqa", "corrections": (tmp_path / "corrections.jsonl",), "gold_rationales": False}
    made, _ = build(recipe(arm="lema", export=("preference",), **given), tmp_path / "out")
    assert made.kinds == {"correction": 1}
    assert texts(tmp_path / "out") == [examples.correction(row)]
    with pytest.raises(UserError, match="arm=lema_no_step: a correction of csqa names no step"):
        build(recipe(arm="lema_no_step", **given), tmp_path / "other")


@pytest.mark.parametrize("text", ['{"recipe": {}}', '{"colour": 1}', "[]", "{", '"x"'])
def test_a_card_that_is_none_of_ours_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "card.json").write_text(text)
    with pytest.raises(UserError, match=r"out/card.json is no card of a data set"):
        build(recipe(), tmp_path / "out")


def test_a_card_of_other_settings_names_them(tmp_path: Path) -> None:
    made, _ = build(recipe(), tmp_path / "out")
    settings = {name: value for name, value in made.recipe.items() if name != "overlap"}
    card.write(dataclasses.replace(made, recipe=settings), tmp_path / "out")
    with pytest.raises(UserError, match=r"other settings or inputs \(overlap\)"):
        build(recipe(), tmp_path / "out")


def test_a_data_set_made_before_an_option_existed_is_found_made(tmp_path: Path) -> None:
    made, new = build(recipe(), tmp_path / "out")
    earlier = {name: value for name, value in made.recipe.items() if name != "equal_loss_tokens"}
    card.write(dataclasses.replace(made, recipe=earlier), tmp_path / "out")
    assert new
    assert not build(recipe(), tmp_path / "out")[1]
