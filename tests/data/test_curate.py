"""What is kept and what is left out: the properties that a fair comparison of arms stands on."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import tasks
from lema_jax.data import curate, examples
from lema_jax.data.curate import Candidate, Overlap, Pool
from lema_jax.errors import UserError
from tests.data import rows

COT = [f"c{number}" for number in range(300)]
CORRECTIONS = [f"x{number}" for number in range(120)]


def mixed(cot: list[str], other: list[str], share: float | None, seed: int = 0) -> list[str]:
    if share is None:
        return curate.ranked([*cot, *other], str, seed)
    return list(curate.mix(curate.ranked(cot, str, seed), [(curate.ranked(other, str, seed), share)]))


def candidate(text: str, number: int = 0) -> Candidate:
    problem = rows.problem(number)
    return Candidate(problem, examples.cot(problem, text, "gold"))


# The mix.


@given(
    cot=st.sets(st.integers(0, 99), min_size=1),
    other=st.sets(st.integers(100, 199)),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_every_beginning_of_a_mix_has_the_share(cot: set[int], other: set[int], share: float, seed: int) -> None:
    stream = list(curate.mix(sorted(cot), [(curate.ranked(other, str, seed), share)]))
    assert len(set(stream)) == len(stream)
    for length in range(len(stream) + 1):
        special = sum(row >= 100 for row in stream[:length])
        assert special <= share * length + 0.5 + 1e-9  # never more than half an example too many …
        assert special >= share * length - 0.5 - 1e-9 or special == len(other)  # … or too few, while there are more
        assert special == min(curate.nearest(share, length), len(other))
    assert cot <= set(stream)  # it ends for want of chain of thought only


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=4), data=st.data())
def test_every_beginning_has_the_shares_of_several_and_no_row_is_lost(sizes: list[int], data: st.DataObject) -> None:
    shares = [data.draw(st.floats(0.01, 0.9 / len(sizes))) for _ in sizes]
    others = [
        ([(part, number) for number in range(size)], share) for part, (size, share) in enumerate(zip(sizes, shares))
    ]
    cot = [(-1, number) for number in range(80)]
    stream = list(curate.mix(cot, others))
    assert len(set(stream)) == len(stream)
    assert [row for row in stream if row[0] == -1] == cot  # all of it, in its order
    for length in range(len(stream) + 1):
        for part, (size, share) in enumerate(zip(sizes, shares)):
            count = sum(row[0] == part for row in stream[:length])
            assert share * length - len(sizes) <= count <= share * length + 1 or count == size


def test_of_no_chain_of_thought_the_others_share_the_mix() -> None:
    stream = list(curate.mix([], [(["a", "b", "c"], 0.1), (["x", "y", "z"], 0.1)]))
    assert sorted(stream) == ["a", "b", "c", "x", "y", "z"]
    assert {*stream[:2]} == {"a", "x"}


def test_what_two_others_were_made_of_is_taken_once() -> None:
    stream = list(curate.mix(range(90), [([100, 101, 102], 0.1), ([200, 201, 202], 0.1)], lambda row: row % 100))
    special = [row for row in stream if row >= 100]
    assert len({row % 100 for row in special}) == len(special) == 3
    assert {row // 100 for row in special} == {1, 2}


def test_without_a_share_all_is_taken() -> None:
    assert sorted(mixed(COT, CORRECTIONS, None)) == sorted(COT + CORRECTIONS)


def test_the_order_of_what_comes_in_makes_no_difference() -> None:
    for share in (None, 0.28):
        assert mixed(COT, CORRECTIONS, share) == mixed(COT[::-1], CORRECTIONS[::-1], share)
        assert mixed(COT, CORRECTIONS, share) != mixed(COT, CORRECTIONS, share, seed=1)


def test_the_chain_of_thought_of_one_arm_is_in_the_other() -> None:
    alone = curate.first_examples(mixed(COT, [], 0.28), 200)
    with_corrections = curate.first_examples(mixed(COT, CORRECTIONS, 0.28), 200)
    kinds = Counter(row[0] for row in with_corrections)
    assert kinds == {"c": 144, "x": 56}
    assert {row for row in with_corrections if row[0] == "c"} == set(alone[:144])


def test_corrections_that_run_out_are_made_up_for() -> None:
    few = curate.first_examples(mixed(COT, CORRECTIONS[:10], 0.28), 200)
    assert Counter(row[0] for row in few) == {"c": 190, "x": 10}


def test_equal_examples_are_exact_or_refused() -> None:
    assert len(curate.first_examples(iter(COT), 300)) == 300
    with pytest.raises(UserError, match="equal_examples=301, but this mix ends after 300"):
        curate.first_examples(iter(COT), 301)


@given(sizes=st.lists(st.integers(1, 50), min_size=1), budget=st.integers(1, 1000))
def test_equal_tokens_come_within_one_example(sizes: list[int], budget: int) -> None:
    if budget > sum(sizes):
        with pytest.raises(UserError, match=f"equal_tokens={budget}, but this mix ends after {sum(sizes)}"):
            curate.first_tokens(sizes, budget, int)
        return
    if budget < sizes[0]:
        with pytest.raises(UserError, match=f"equal_tokens={budget}, but the first example alone has {sizes[0]}"):
            curate.first_tokens(sizes, budget, int)
        return
    taken = curate.first_tokens(sizes, budget, int)
    assert taken == sizes[: len(taken)]
    assert sum(taken) <= budget
    assert len(taken) == len(sizes) or sum(taken) + sizes[len(taken)] > budget


# Repeated texts, dev questions.


def test_the_first_of_equal_texts_is_kept_in_all_pools_together() -> None:
    first = Pool("first", [candidate("One  step."), candidate("ONE step. ")], [])
    second = Pool("second", [candidate("one\nstep."), candidate("one step", 0), candidate("One step.", 1)], [])
    kept = first.candidates[0]
    curate.leave_out_repeated([first, second])
    assert first.candidates == [kept]
    assert [row.example.completion for row in second.candidates] == ["one step", "One step."]
    assert (first.left_out, second.left_out) == ([("repeated", 1)], [("repeated", 1)])


@given(count=st.integers(0, 39), seed=st.integers(0, 5))
def test_dev_questions_are_chosen_by_question_and_seed(count: int, seed: int) -> None:
    problems = [rows.problem(number) for number in range(40)]
    dev = curate.hold_out(problems, count, seed)
    assert len(dev) == count
    assert [row for row in problems if row in dev] == dev
    again = curate.hold_out(problems[::-1], count, seed)
    assert {row.id for row in again} == {row.id for row in dev}
    assert {row.id for row in curate.hold_out(problems, 39, seed)} >= {row.id for row in dev}


def test_a_question_asked_twice_is_held_out_once() -> None:
    problems = [rows.problem(0), rows.problem(0, split="other"), rows.problem(1)]
    for seed in range(6):
        assert len(curate.hold_out(problems, 1, seed)) == 1


def test_dev_may_not_take_all() -> None:
    with pytest.raises(UserError, match="dev_questions=3 must be below the 3 distinct questions"):
        curate.hold_out([rows.problem(number) for number in range(3)], 3, 0)


def test_a_held_out_question_is_left_out_in_every_guise() -> None:
    keep = curate.not_of([rows.problem(1)])
    asked_again = rows.problem(9, question=rows.problem(1).question.upper() + " ")
    evolved = rows.problem(10, question="Other words.", meta={"seed": rows.problem(1).id})
    of_another = rows.problem(11, question="More words.", meta={"seed": rows.problem(2).id})
    made = [
        Candidate(p, candidate("x").example)
        for p in (rows.problem(1), asked_again, evolved, of_another, rows.problem(2))
    ]
    assert [keep(row) for row in made] == [False, False, False, True, True]


# Overlap with test questions.

QUESTION = (
    "A baker in Oslo fills 4 trays with 12 rolls each, sells 30 rolls for 2 dollars, and gives 5 away. "
    "How many are left?"
)


@pytest.mark.parametrize(
    "training",
    [
        QUESTION,
        QUESTION.upper().replace(",", " ,").replace(".", ""),
        QUESTION.replace("A baker", "Once a baker"),
        "Think hard! " + QUESTION + " Explain.",
        QUESTION.replace("Oslo", "Rome").replace("rolls", "buns"),
        QUESTION.replace("4 trays with 12 rolls", "12 trays with 4 rolls"),
        "On a Monday in May, long ago, things were so. " + QUESTION + " Give 3 reasons, or more, if you please.",
    ],
)
def test_the_same_question_in_disguise_is_found(training: str) -> None:
    assert Overlap([rows.problem(7, question=QUESTION)]).find(training) == "gsm8k/train/7"


@pytest.mark.parametrize(
    "training",
    [
        QUESTION.replace("12", "13"),
        QUESTION[: len(QUESTION) // 2],
        "How many are left?",
        "",
    ],
)
def test_a_question_of_its_own_is_not(training: str) -> None:
    assert Overlap([rows.problem(7, question=QUESTION)]).find(training) is None


def test_every_test_question_that_one_overlaps_with_is_found() -> None:
    tests = [rows.problem(n, question=text) for n, text in enumerate((QUESTION, QUESTION.upper(), "What is 2 + 2?"))]
    assert set(Overlap(tests).all(QUESTION)) == {"gsm8k/train/0", "gsm8k/train/1"}
    assert list(Overlap(tests).all("How many are left?")) == []


def test_a_test_question_is_found_beside_another_of_its_id() -> None:
    """Own files of one name have the same ids."""
    disguised = "On a Monday in May, long ago, things were so. " + QUESTION
    longer = " ".join(f"Box {number} is heavy." for number in range(100))
    overlap = Overlap([rows.problem(7, question=QUESTION), rows.problem(7, question=longer)])
    assert overlap.find(disguised) == "gsm8k/train/7"


def test_short_questions_are_compared_whole() -> None:
    overlap = Overlap([rows.problem(1, question="What is 2 + 2?")])
    assert overlap.find("what is 2+2") == "gsm8k/train/1"
    assert overlap.find("What is 2 + 3?") is None
    assert overlap.find("What is 2 * 2?") is None


@pytest.mark.parametrize(
    ("test", "training", "same"),
    [
        ("He sold 1,200 pens and 300 books. How many?", "He sold 1200 pens and 300 books. How many?", True),
        ("What is 3 × 4?", "What is 3 * 4?", True),
        ("What is 7 − 2?", "What is 7 - 2?", True),
        ("What is 8 ÷ 2?", "What is 8/2?", True),
        ("What is 2^3?", "What is 2**3?", True),
        ("She reads pages 10-20 of a long book. How many?", "She reads pages 10 to 20 of a long book. How many?", True),
        ("小明有3个苹果，又买了4个。他一共有多少个苹果？", "小红有3个苹果，又买了4个。她一共有多少个苹果？", True),
        ("小明有3个苹果，又买了4个。他一共有多少个苹果？", "小红有3支笔，丢了4支。她还有多少支笔？", False),
    ],
)
def test_numbers_and_scripts_in_other_writing(test: str, training: str, same: bool) -> None:
    assert bool(Overlap([rows.problem(1, question=test)]).find(training)) is same


def test_questions_of_one_text_with_other_choices_are_two() -> None:
    first, second, shuffled = (
        rows.problem(number, question="Which one is prime?", choices=choices, gold=gold)
        for number, (choices, gold) in enumerate(
            [(("four", "seven"), "seven"), (("six", "eleven"), "eleven"), (("seven", "four"), "seven")]
        )
    )
    assert len(curate.hold_out([first, second], 1, 0)) == 1
    keep = curate.not_of([first])
    assert [keep(Candidate(p, candidate("x").example)) for p in (first, second, shuffled)] == [False, True, False]


@given(text=st.text())
def test_normal_text_is_normal(text: str) -> None:
    once = curate.normal(text)
    assert curate.normal(once.upper().lower()) == curate.normal(once.upper().casefold())
    assert not re.search(r"\s\s|^\s|\s$", once)


def test_gsm8k_train_gives_no_test_question_away_but_knows_its_own(data_dir: Path) -> None:
    task = tasks.get("gsm8k")
    test = task.load("test", data_dir)
    overlap = Overlap(test)
    assert not any(overlap.find(problem.question) for problem in task.load("train", data_dir)[:2000])
    assert all(overlap.find(f"{problem.question} Show your work.") for problem in test[:200])


# Counting.


def test_an_empty_pool_tells_which_filter_emptied_it() -> None:
    pool = Pool("corrections", [candidate("a"), candidate("b")], [("rejected", 5)])
    curate.require_some(pool)
    pool.filter(lambda row: False, "over-long")
    with pytest.raises(UserError, match=r"nothing is left .*corrections: 7 rows, 5 rejected, 2 over-long; 0 left"):
        curate.require_some(pool)
