"""Drawing seeds, reading new questions out of prose, and the vote."""

import collections

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import tasks
from lema_jax.records import Problem
from lema_jax.teacher import evolution

QUESTION = "Tom has 3 pens and buys 4 more. How many pens has he now?"


def problem(number: int) -> Problem:
    return Problem(id=f"arithmetic/train/{number}", task="arithmetic", split="train", question=f"{number}?", gold="1")


def test_seeds_come_from_the_list_alone_as_often_as_it_has_them():
    listed = [problem(0)] * 3 + [problem(1)]
    drawn = evolution.draw_seeds(listed, 4000, seed=7)
    times = collections.Counter(one.id for one in drawn)
    assert set(times) == {"arithmetic/train/0", "arithmetic/train/1"}
    assert times["arithmetic/train/0"] == pytest.approx(3000, abs=200)
    assert drawn == evolution.draw_seeds(listed, 4000, seed=7)
    assert drawn != evolution.draw_seeds(listed, 4000, seed=8)


@pytest.mark.parametrize(
    "reply",
    [
        QUESTION,
        f" {QUESTION}\n",
        QUESTION.replace("more. ", "more.\n\n"),
        f"New Question: {QUESTION}",
        f"**New Question:** {QUESTION}",
        f"### New problem:\n{QUESTION}",
        f"Here is a new problem that practises the same idea:\n\n{QUESTION}",
        f"Here is an evolved question:\n{QUESTION}",
        f"Here's a new question: {QUESTION}",
        f"Sure! Here is a new question:\n\n{QUESTION}",
        f"**Here is the rewritten problem:**\n{QUESTION}",
        f"```\n{QUESTION}\n```",
        f'"{QUESTION}"',
        f"{QUESTION}\n\nSolution: 3 + 4 = 7.",
        f"{QUESTION}\n**Answer:** 7",
        f"New Question: {QUESTION}\n\nThe answer is 7.",
        f"{QUESTION} Therefore, the final answer is 7. Shall I make another?",
        f"{QUESTION}\n\nStep 1: What are 3 + 4? 7.",
        f"### Evolved Problem\n\n{QUESTION}",
        f"**Evolved Question**\n{QUESTION}",
        f"Sure! I changed the story, but not the idea.\n\n{QUESTION}",
        f"{QUESTION}\n\nNote: the answer should be 7.",
        f"{QUESTION}\n\n(This version changes the numbers, as you see.)\n\nLet's solve: 3 + 4 = 7.",
        f"New Question: {QUESTION}\n\nNew Question: Ann has 2 pens. How many has she?",
    ],
)
def test_the_question_in_a_reply(reply):
    assert evolution.read_question(reply) == QUESTION


@pytest.mark.parametrize(
    "question",
    [
        "The answer is m/n in lowest terms. Find m + n.",
        "If the answer is 5, what is x?",
        "Here is the ratio of pens to a problem sheet, 3 to 4. How many pens are there?",
        "Ann has 3 pens.\n\nLet's say she loses 1. How many?",
        "A shop sells pens.\n\nThe problem is that 3 are broken. How many are left?",
        "Here lives a farmer.\n\nHe has 3 cows. How many?",
        "I am a farmer with a problem.\n\nI have 3 cows. How many?",
        "Solve for x: 2x = 6.\n\n(Note: x is positive.)",
    ],
)
def test_a_question_about_an_answer_is_whole(question):
    assert evolution.read_question(question) == " ".join(question.split())


@pytest.mark.parametrize("reply", ["", "I'm sorry, I can't do that.", "New Question:", "Solution: 7. Why?"])
def test_no_question(reply):
    assert evolution.read_question(reply) == ""


@given(st.text() | st.text(alphabet="*#_ New Question:\n?", max_size=100))
def test_any_reply_gives_one_line_or_nothing(reply):
    question = evolution.read_question(reply)
    assert "\n" not in question
    assert question == question.strip()


@pytest.mark.parametrize(
    ("answers", "agreed"),
    [
        (["7", "7", "7"], ("7", 3)),
        (["8", "7", "7"], ("7", 2)),
        (["7", None, "7.0"], ("7", 2)),
        (["7", "8", "9"], None),
        (["7", None, None], None),
        ([None, None, None], None),
        ([], None),
    ],
)
def test_the_majority_stands_for_gold(answers, agreed):
    assert evolution.majority(tasks.get("arithmetic"), answers) == agreed
