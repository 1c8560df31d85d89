"""The mix of an arm: as much of everything as of the other arms, and the same corrections."""

from pathlib import Path

import pytest

from lema_jax import records
from lema_jax.data import card
from lema_jax.data.build import build
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
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
