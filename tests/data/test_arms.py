"""The table of arms: what each makes of corrections, and how a study names them."""

import pytest

from lema_jax.data import arms
from lema_jax.data.arms import ARMS
from lema_jax.errors import UserError
from tests.data import rows


def test_every_arm_but_two_makes_something_of_a_correction() -> None:
    row = rows.correction()
    made = {name: arm.example(row).id for name, arm in ARMS.items() if arm.example is not None}
    assert ARMS.keys() - made.keys() == {"cot", "preference_solutions"}
    same = {made.pop(name) for name in ("lema", "cot_part", "corrections_first")}  # they differ in the mix alone
    assert len(same) == 1
    assert len(same | set(made.values())) == len(made) + 1


def test_an_arm_has_a_source() -> None:
    assert all(arm.source for arm in ARMS.values())


@pytest.mark.parametrize(
    ("name", "parsed"), [("cot", ("cot", None)), ("lema@0.1", ("lema", 0.1)), ("lema@1", ("lema", 1))]
)
def test_a_name_is_a_row_and_maybe_a_share(name: str, parsed: tuple[str, float | None]) -> None:
    assert arms.parse(name) == parsed


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lemma", "no arm 'lemma'; the arms are cot, cot_part"),
        ("", "no arm ''"),
        ("cot@0.5", "learns from none; write cot"),
        ("preference@0.5", "has nothing else; write preference"),
        *((f"lema@{share}", "above 0 and at most 1") for share in ("", "0", "-1", "1.01", "nan", "inf", "much")),
    ],
)
def test_what_names_no_arm_is_refused(name: str, found: str) -> None:
    with pytest.raises(UserError, match=found):
        arms.parse(name)
