"""The mix of an arm: as much of everything as of the other arms, and the same corrections."""

import re
from pathlib import Path
from typing import Any

import pytest

from lema_jax import records
from lema_jax.data import card
from lema_jax.data.arms import reads
from lema_jax.data.build import build
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
from lema_jax.records import Example
from tests.data import rows
from tests.data.building import TRAIN, corrections, recipe, task, texts

__all__ = ["corrections", "task"]  # fixtures


def test_arms_of_equal_size_differ_in_what_the_corrections_replace(tmp_path: Path, corrections: Path) -> None:
    arms = {}
    for arm in ("cot", "lema", "cot_plus_extracted", "lema_no_explanation"):
        given = () if arm == "cot" else (corrections,)
        build(recipe(arm=arm, corrections=given, equal_examples=40), tmp_path / arm)
        arms[arm] = texts(tmp_path / arm)
    gold = {arm: {row.id for row in made if row.source == "gold"} for arm, made in arms.items()}
    assert {arm: len(made) for arm, made in arms.items()} == dict.fromkeys(arms, 40)
    assert {arm: len(ids) for arm, ids in gold.items()} == {a: 40 if a == "cot" else 29 for a in arms}
    assert gold["lema"] == gold["cot_plus_extracted"] == gold["lema_no_explanation"] < gold["cot"]
    assert {row.kind for row in arms["cot_plus_extracted"]} == {"cot"}
    drawn = {arm: [row.problem_id for row in made if row.source != "gold"] for arm, made in arms.items()}
    assert (
        drawn["lema"] == drawn["cot_plus_extracted"] == drawn["lema_no_explanation"]
    )  # the same corrections, in order


def test_corrections_that_run_out_are_told(tmp_path: Path, corrections: Path) -> None:
    few, _ = build(
        recipe(arm="lema", corrections=(corrections,), equal_examples=48, correction_share=0.9), tmp_path / "few"
    )
    enough, _ = build(recipe(arm="lema", corrections=(corrections,), equal_examples=40), tmp_path / "enough")
    assert "corrections are 62% of the mix, not 90%" in card.summary(few)
    assert "of the mix" not in card.summary(enough)
    assert card.funnel(tmp_path / "few")["missing: own examples"] == 43 - 30  # 62 % of 48 are 30, 90 % are 43
    assert "missing: own examples" not in card.funnel(tmp_path / "enough")


def test_equal_tokens(tmp_path: Path, corrections: Path) -> None:
    for arm, given in (("cot", ()), ("lema", (corrections,))):
        made, _ = build(recipe(arm=arm, corrections=given, equal_tokens=1500), tmp_path / arm)
        assert 1500 - made.counts["longest"] < made.counts["tokens"] <= 1500


def test_arms_learn_from_the_same_corrections_where_some_are_long(tmp_path: Path) -> None:
    made = [rows.correction(rows.attempt(problem)) for problem in TRAIN[:30]]
    long = [row.model_copy(update={"explanation": "so " * 60}) if n % 2 else row for n, row in enumerate(made)]
    records.write(tmp_path / "some_long.jsonl", long)
    drawn = {}
    for arm in ("lema", "cot_plus_extracted", "lema_no_explanation"):
        asked = {"corrections": (tmp_path / "some_long.jsonl",), "equal_examples": 40, "limits": Limits(None, 60, None)}
        card, _ = build(recipe(arm=arm, **asked), tmp_path / arm)
        drawn[arm] = [row.problem_id for row in texts(tmp_path / arm) if row.source != "gold"]
        why = "over-long" if arm == "lema" else "over-long as a full correction"
        assert [why, 15] in card.left_out["corrections"]
    assert drawn["lema"] == drawn["cot_plus_extracted"] == drawn["lema_no_explanation"]
    assert len(drawn["lema"]) == 11


def test_what_corrections_displace_and_where_they_stand(tmp_path: Path, corrections: Path) -> None:
    asked = {"corrections": (corrections,), "equal_examples": 40, "correction_share": 0.25}
    lema, part, first, _ = (
        build(recipe(arm=arm, **(asked if arm != "cot" else {"equal_examples": 40})), tmp_path / arm)[0]
        for arm in ("lema", "cot_part", "corrections_first", "cot")
    )
    ids = {arm: [row.id for row in texts(tmp_path / arm)] for arm in ("lema", "cot_part", "corrections_first", "cot")}
    assert lema.kinds == first.kinds == {"cot": 30, "correction": 10}
    assert part.kinds == {"cot": 30}
    assert ["left out by the arm", 10] in part.left_out["corrections"]
    assert set(ids["cot_part"]) < set(ids["lema"])
    assert set(ids["cot_part"]) < set(ids["cot"])
    assert set(ids["corrections_first"]) == set(ids["lema"])
    assert [row.kind for row in texts(tmp_path / "corrections_first")] == ["correction"] * 10 + ["cot"] * 30


def test_a_mix_may_be_bounded_by_tokens_with_loss(tmp_path: Path, corrections: Path) -> None:
    bounded = {
        arm: build(recipe(arm=arm, equal_loss_tokens=400, corrections=given), tmp_path / arm)[0]
        for arm, given in (("cot", ()), ("lema", (corrections,)))
    }
    for made in bounded.values():
        assert 360 < made.counts["loss_tokens"] <= 400
    with pytest.raises(UserError, match="--equal_examples and --equal_loss_tokens contradict"):
        build(recipe(equal_examples=3, equal_loss_tokens=1000), tmp_path / "both")
    with pytest.raises(UserError, match="equal_loss_tokens=100000, but this mix ends after"):
        build(recipe(equal_loss_tokens=100_000), tmp_path / "few")


# --- arms that learn from something else than corrections -------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, corrections: Path) -> dict[str, tuple[Path, ...]]:
    """What arms read: corrections, attempts right and wrong, critiques."""
    wrong = [rows.attempt(problem) for problem in TRAIN[:30]]
    right = [rows.attempt(problem, text=rows.RIGHT, verdict="right", answer="7") for problem in TRAIN[:30]]
    records.write(tmp_path / "attempts.jsonl", [*wrong, *right])
    records.write(tmp_path / "critiques.jsonl", [rows.critique(one) for one in (*wrong, *right)])
    found = {
        "corrections": corrections,
        "attempts": tmp_path / "attempts.jsonl",
        "critiques": tmp_path / "critiques.jsonl",
    }
    return {name: (path,) for name, path in found.items()}


ALL = ("lema", "rft", "inline:0", "inline_restart", "critique:0.3", "negatives", "mixed:lema@0.14,inline:0@0.14")


def built(tmp_path: Path, files: dict[str, tuple[Path, ...]], arm: str, **more: Any) -> tuple[Any, list[Example]]:
    given = {name: paths for name, paths in files.items() if reads(arm, name)}
    if "attempts" in given:
        more["own_attempts"] = False
    made, _ = build(
        recipe(arm=arm, **given, **{"equal_examples": 40} | more), tmp_path / f"made-{arm.replace(':', '-')}"
    )
    return made, texts(tmp_path / f"made-{arm.replace(':', '-')}")


def test_every_arm_replaces_the_same_chain_of_thought(tmp_path: Path, files: dict[str, tuple[Path, ...]]) -> None:
    gold = {}
    for arm in ALL:
        made, found = built(tmp_path, files, arm)
        assert len(found) == 40
        gold[arm] = [(row.problem_id, row.completion) for row in found if row.source == "gold"]
        assert made.prompt_style == ("tagged" if arm == "negatives" else "paper")
        if arm == "negatives":
            told = {row.kind: row.prompt.split("\n")[0] for row in found}
            assert told == {"cot": "Write a correct solution.", "negative": "Write a solution with a mistake in it."}
    assert {len(rows) for rows in gold.values()} == {29}
    assert len({frozenset(rows) for rows in gold.values()}) == 1


def test_a_critique_has_its_share_of_right_attempts(tmp_path: Path, files: dict[str, tuple[Path, ...]]) -> None:
    made, _ = built(tmp_path, files, "critique:0.3@0.5")
    assert made.kinds == {"cot": 20, "critique_wrong": 14, "critique_right": 6}


def test_a_mixed_arm_takes_each_attempt_once(tmp_path: Path, files: dict[str, tuple[Path, ...]]) -> None:
    made, found = built(tmp_path, files, "mixed:lema@0.2,inline@0.2,critique:0@0.2")
    assert made.kinds == {"cot": 16, "correction": 8, "inline": 8, "critique_wrong": 8}
    own = [row.problem_id for row in found if row.kind != "cot"]
    assert len(set(own)) == len(own)


def test_rounds_share_the_chain_of_thought(tmp_path: Path, corrections: Path) -> None:
    asked = {"arm": "lema", "corrections": (corrections,)}
    whole, *parts = (
        build(recipe(**asked, equal_examples=count, skip_cot=skip), tmp_path / f"{count}-{skip}")
        and {row.id for row in texts(tmp_path / f"{count}-{skip}") if row.kind == "cot"}
        for count, skip in ((50, 0), (25, 0), (25, 18))
    )
    assert parts[0] | parts[1] == whole
    assert not parts[0] & parts[1]


@pytest.mark.parametrize(
    ("arm", "verdicts", "found"),
    [
        ("rft", ["wrong"], "own right attempts: 3 rows, 3 wrong.*lema_jax.sample"),
        ("negatives", ["right"], "wrong attempts: 3 rows, 3 right.*lema_jax.sample"),
        (
            "critique",
            ["wrong"],
            "wants 50% right attempts, but there are critiques of 0 right and 3 wrong ones.*--critique",
        ),
    ],
)
def test_an_arm_without_its_rows_says_how_many_and_which_command_makes_them(
    tmp_path: Path, arm: str, verdicts: list[str], found: str
) -> None:
    made = [rows.attempt(problem, verdict=verdicts[0]) for problem in TRAIN[:3]]
    records.write(tmp_path / "a.jsonl", made)
    records.write(tmp_path / "c.jsonl", map(rows.critique, made))
    given = {"critiques": (tmp_path / "c.jsonl",)} if arm == "critique" else {"attempts": (tmp_path / "a.jsonl",)}
    with pytest.raises(UserError, match=found):
        build(recipe(arm=arm, **given), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"arm": "rft"}, "--arm=rft needs --attempts, files made by `python -m lema_jax.sample`"),
        ({"arm": "critique"}, "needs --critiques, files made by `python -m lema_jax.correct --critique`"),
        ({"arm": "mixed:lema@0.1,rft@0.1"}, "needs --corrections"),
        ({"arm": "lema:2"}, "lema takes none"),
        ({"arm": "cot", "critiques": ("a",)}, "--critiques is for the arm critique"),
        ({"arm": "rft:2", "attempts": ("a",), "paths_a_question": 3}, "says what --paths_a_question says"),
        ({"arm": "cot", "wrong_step_weight": 0}, "--wrong_step_weight is for the arms inline, inline_restart"),
        ({"arm": "rft@0.2", "attempts": ("a",)}, "names a share; give --equal_examples"),
        ({"arm": "inline:0", "corrections": ("a",), "export": ("jsonl",)}, "--export writes no weights of the loss"),
        ({"skip_cot": 3}, "--skip_cot is of an equalised mix"),
    ],
)
def test_what_an_arm_does_not_take_is_refused(fields: dict[str, Any], found: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(found)):
        build(recipe(**fields), tmp_path / "out")
