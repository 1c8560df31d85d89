"""The table of arms: what each makes of corrections, and how a study names them."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.data import arms
from lema_jax.data.arms import ARMS, Part
from lema_jax.errors import UserError
from tests.data import rows

READ = {
    "corrections": rows.correction(),
    "critiques": rows.critique(),
    "right attempts": rows.attempt(text=rows.RIGHT, verdict="right", answer="7"),
    "wrong attempts": rows.attempt(),
}


def test_every_arm_but_two_makes_something_of_its_rows() -> None:
    made = {name: arm.example(READ[arm.reads]).id for name, arm in ARMS.items() if arm.example is not None}
    assert ARMS.keys() - made.keys() == {"cot", "preference_solutions"}
    same = {made.pop(name) for name in ("lema", "cot_part", "corrections_first")}  # they differ in the mix alone
    assert len(same) == 1
    assert len(same | set(made.values())) == len(made) + 1


def test_an_arm_has_a_source() -> None:
    assert all(arm.source for arm in ARMS.values())


PARSED: dict[str, tuple[Part, ...]] = {
    "cot": (Part("cot"),),
    "lema@0.1": (Part("lema", share=0.1),),
    "lema@1": (Part("lema", share=1),),
    "rft:3": (Part("rft", 3),),
    "inline:0@0.2": (Part("inline", 0, 0.2),),
    "critique:0.25": (Part("critique", 0.25),),
    "mixed:lema@0.1, inline:0@0.2": (Part("lema", share=0.1), Part("inline", 0, 0.2)),
}


@pytest.mark.parametrize("name", PARSED)
def test_a_name_is_a_row_and_maybe_a_value_and_a_share(name: str) -> None:
    assert arms.parse(name) == PARSED[name]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lemma", "no arm 'lemma'; the arms are cot, cot_part"),
        ("", "no arm ''"),
        ("cot@0.5", "learns from none; write cot"),
        ("preference@0.5", "has nothing else; write preference"),
        *((f"lema@{share}", "above 0 and at most 1") for share in ("", "0", "-1", "1.01", "nan", "inf", "much")),
        ("lema:3", "lema takes none; rft, inline, inline_restart, critique do"),
        *(
            (f"rft:{most}", "paths_a_question must be a whole number from 1")
            for most in ("", "0", "1.5", "nan", "inf", "x")
        ),
        *((f"inline:{weight}", "must be a whole number from 0 to 1") for weight in ("2", "0.5", "-1")),
        ("critique:1.1", "right_share must be a number from 0 to 1"),
        ("mixed:", "no arm ''"),
        ("mixed:lema@0.1,inline", "must name a share for each part"),
        ("mixed:lema@0.6,inline@0.6", "shares of 1.2 together"),
        ("mixed:lema@0.1,lema@0.2", "names a part twice"),
        ("mixed:cot_part@0.1,lema@0.2", "cot_part is about a whole mix"),
        ("mixed:mixed:lema@0.1", "no arm 'mixed'"),
        ("mixed:lema@0.1", "mixes one part; write lema@0.1"),
    ],
)
def test_what_names_no_arm_is_refused(name: str, found: str) -> None:
    with pytest.raises(UserError, match=re.escape(found)):
        arms.parse(name)


@pytest.mark.slow
@given(
    st.text(max_size=30)
    | st.from_regex(r"(mixed:)?(lema|rft|inline):?[0-9.]{0,3}@?[0-9.]{0,4}(,lema@0.1)?", fullmatch=True)
)
def test_any_text_is_an_arm_or_a_named_error(text: str) -> None:
    with contextlib.suppress(UserError):
        assert all(part.name in ARMS for part in arms.parse(text))


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("cot, lema@0.1", ("cot", "lema@0.1")),
        ("cot,mixed:lema@0.1,inline@0.2,rft", ("cot", "mixed:lema@0.1,inline@0.2", "rft")),
        (
            "cot,mixed:lema@0.1,rft@0.2,mixed:lema@0.2,rft@0.1",
            ("cot", "mixed:lema@0.1,rft@0.2", "mixed:lema@0.2,rft@0.1"),
        ),
        ("mixed:lema@0.1,inline", ("mixed:lema@0.1,inline",)),  # refused by name, rather than read as two
    ],
)
def test_arms_are_listed_with_commas_and_a_mixed_one_keeps_its_own(text: str, listed: tuple[str, ...]) -> None:
    assert arms.listed([text]) == listed
    assert arms.listed(listed) == listed
