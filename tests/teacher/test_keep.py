"""Each keep rule says yes to a good correction and no to the one fault it is there for."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.records import Attempt, Problem, Verdict
from lema_jax.teacher import keep
from lema_jax.teacher.parse import Parts

STEPS = ("Tom has 3 * 4 = 12 pens.", "He gives 5 away: 12 + 5 = 17.", "The answer is 17.")
GOOD = Parts((2,), "Giving away takes pens from him.", 2, ("He keeps 12 - 5 = 7 pens.", "The answer is 7."))


def attempt(steps=STEPS, gold="7", question="How many pens does Tom keep?") -> Attempt:
    problem = Problem(id="arithmetic/train/0", task="arithmetic", split="train", question=question, gold=gold)
    return Attempt(
        id="a", problem=problem, student="s", sampling={}, prompt="p", text="\n".join(steps), answer="17",
        verdict=Verdict.WRONG, prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


def broken(parts: Parts, of: Attempt | None = None) -> list[str]:
    """The names of all the rules that the correction breaks."""
    of = of or attempt()
    return [name for name, passes in keep.RULES.items() if not passes(of, keep.align(of, parts))]


def test_a_good_correction_breaks_no_rule():
    assert broken(GOOD) == []
    assert keep.first_broken(attempt(), GOOD) == ""


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("wrong_answer", {"steps": (*GOOD.steps[:-1], "The answer is 8.")}),
        ("wrong_answer", {"steps": GOOD.steps[:-1]}),
        ("no_such_step", {"named": (2, 4)}),
        ("same_step", {"steps": ("he gives 5 away: 12+5 = 17", "No: 12 - 5 = 7.", "The answer is 7.")}),
        ("no_explanation", {"explanation": ""}),
        ("no_explanation", {"explanation": "..."}),
        ("tells_answer", {"explanation": "The given answer is 7, so this is wrong."}),
        ("tells_answer", {"explanation": "It misses the gold."}),
        ("tells_answer", {"steps": ("By the ground truth he keeps 12 - 5 = 7.", "The answer is 7.")}),
        ("false_equation", {"steps": ("He keeps 12 - 6 = 7 pens.", "The answer is 7.")}),
    ],
)
def test_each_fault_breaks_its_rule_alone(rule, change):
    parts = dataclasses.replace(GOOD, **change)
    assert broken(parts) == [rule]
    assert keep.first_broken(attempt(), parts) == rule


SLIP = ("Tom has 3 * 4 = 12 pens.", "He keeps 12 - 5 = 8 pens.", "The answer is 8.")


@pytest.mark.parametrize(
    ("explanation", "kept"),
    [
        ("12 - 5 is 7, not 8.", True),
        ("He should keep 7.0 pens.", True),
        ("The subtraction is wrong.", True),
        ("The pens are miscounted.", True),
        ("There is a calculation error.", True),
        ("The question asks for the pens that Tom keeps, but 8 is the number of all pens.", False),
        ("The pens of both have to be added.", False),
    ],
)
def test_what_mends_a_sum_says_so(explanation, kept):
    parts = dataclasses.replace(GOOD, explanation=explanation)
    assert broken(parts, attempt(SLIP)) == ([] if kept else ["other_reason"])


def test_a_step_whose_equation_stands_is_not_the_wrong_one():
    steps = ("In all Tom has 3 * 4 = 12 pens.", "He keeps 12 - 5 = 7 pens.", "The answer is 7.")
    parts = Parts((1,), "The pens have to be counted.", 1, steps)
    assert broken(parts, attempt(SLIP)) == ["later_step"]
    mended = dataclasses.replace(parts, steps=("Tom has 4 * 3 = 12 pens.", *steps[1:]))
    assert broken(mended, attempt(SLIP)) == []
    planned = ("Tom has 3 * 4 = 12 pens, which is the answer.", "The answer is 12.")
    assert broken(parts, attempt(planned)) == []


def test_another_reason_is_none_where_more_than_the_sum_is_mended():
    """A step may compute the wrong thing, and that wrongly."""
    reason = dataclasses.replace(GOOD, explanation="Giving away takes pens from him.")
    assert broken(reason, attempt((STEPS[0], "He gives 5 away: 12 + 5 = 18.", "The answer is 18."))) == []
    said = dataclasses.replace(reason, steps=("He keeps 7 pens.", "The answer is 7."))
    assert broken(said, attempt(SLIP)) == []


def test_a_kept_sum_with_another_value():
    parts = dataclasses.replace(GOOD, steps=("So 3 * 4 = 13 and 13 - 6 = 7.", "The answer is 7."))
    assert broken(parts) == ["rewrites_kept_steps", "false_equation"]


def test_the_explanation_may_quote_the_false_equation():
    assert broken(dataclasses.replace(GOOD, explanation="It says 12 + 5 = 18, but pens are given away.")) == []


def test_a_step_that_the_attempt_lacks():
    assert broken(dataclasses.replace(GOOD, named=(4,), first=4)) == ["no_such_step"]
    assert "no_such_step" in broken(dataclasses.replace(GOOD, named=(0,)))


def test_a_solution_from_another_step():
    assert broken(dataclasses.replace(GOOD, first=3)) == ["starts_elsewhere"]
    rewritten = dataclasses.replace(GOOD, first=1, steps=("Tom has a dozen.", *GOOD.steps))
    assert broken(rewritten) == ["rewrites_kept_steps", "starts_elsewhere"]


@pytest.mark.parametrize("first", [1, None])
def test_restated_kept_steps_are_left_out(first):
    restated = dataclasses.replace(GOOD, first=first, steps=("tom has 3 * 4  = 12 pens", *GOOD.steps))
    assert keep.align(attempt(), restated) == GOOD


def test_an_unnumbered_solution_starts_at_the_named_step():
    assert keep.align(attempt(), dataclasses.replace(GOOD, first=None)) == GOOD


def test_the_first_of_several_named_steps_counts():
    assert broken(dataclasses.replace(GOOD, named=(3, 2))) == []


def test_rounding_is_no_contradiction():
    of = attempt(("Each pays 10 / 3 = 3.33.", *STEPS[1:]))
    rounded = dataclasses.replace(GOOD, steps=("Since 10 / 3 = 3.333 that leaves 7.", "The answer is 7."))
    assert broken(rounded, of) == []


def test_gold_may_be_what_the_question_is_about():
    of = attempt(question="How many gold coins does Tom keep?")
    assert broken(dataclasses.replace(GOOD, explanation="He gives gold coins away."), of) == []
    assert broken(dataclasses.replace(GOOD, explanation="The gold answer is 7."), of) == ["tells_answer"]


def test_without_a_named_step_only_the_rest_is_ruled():
    assert broken(dataclasses.replace(GOOD, named=(), first=None)) == []
    same = Parts((), "Nothing to mend.", None, STEPS)
    assert broken(same, attempt(gold="17")) == ["same_step"]


step_texts = st.lists(st.text(max_size=40), max_size=6)
numbers = st.lists(st.integers(-2, 12), max_size=3)


@given(step_texts, numbers, st.text(max_size=40), st.none() | st.integers(-2, 12), step_texts)
def test_no_correction_makes_a_rule_raise(original, named, explanation, first, steps):
    of = attempt(original)
    parts = keep.align(of, Parts(tuple(named), explanation, first, tuple(steps)))
    assert keep.first_broken(of, parts) in ("", *keep.RULES)


@given(st.lists(st.text("abc =+", min_size=1), min_size=1, max_size=5).map(tuple), st.data())
def test_what_passes_continues_the_attempt(original, data):
    """A kept correction and the attempt's kept prefix make one path that differs from the attempt."""
    of = attempt(original)
    step = data.draw(st.integers(1, len(original)))
    parts = keep.align(of, dataclasses.replace(GOOD, named=(step,), first=data.draw(st.none() | st.integers(1, 6))))
    if keep.first_broken(of, parts) == "":
        assert parts.first == step
        assert [*original[: step - 1], *parts.steps] != list(original)
