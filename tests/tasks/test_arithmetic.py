"""Our own word problems: their working recomputes, their splits are disjoint, and they are the same for all time."""

import hashlib
import re

import pytest

from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import arithmetic, expressions, stories

MARK = re.compile(r"<<([^<>=]+)=(\d+)>>")


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Problem]]:
    return {split: arithmetic.load(split) for split in arithmetic.SPLITS}


@pytest.mark.slow
def test_sizes_and_ids(splits):
    assert {split: len(problems) for split, problems in splits.items()} == {
        "train": 20_000,
        "dev": 500,
        "test": 2_000,
        "ood": 1_000,
    }
    ids = [problem.id for problems in splits.values() for problem in problems]
    assert len(set(ids)) == len(ids)


def test_no_question_occurs_twice_and_ood_has_templates_of_its_own(splits):
    questions = [problem.question for problems in splits.values() for problem in problems]
    assert len(set(questions)) == len(questions)
    templates = {split: {problem.meta["template"] for problem in problems} for split, problems in splits.items()}
    assert templates["train"] == templates["dev"] == templates["test"]
    assert len(templates["train"]) == len(arithmetic.TEMPLATES) >= 25
    assert len(templates["ood"]) == len(arithmetic.HELD_OUT) >= 20
    assert not templates["train"] & templates["ood"]


def test_the_problems_are_the_same_for_all_time(splits):
    digests = {
        split: hashlib.sha256(
            "".join(problem.question + problem.rationale for problem in problems).encode()
        ).hexdigest()
        for split, problems in splits.items()
    }
    assert {split: digest[:16] for split, digest in digests.items()} == {
        "train": "4667927d7394a676",
        "dev": "e84081a3710b1a43",
        "test": "1ce6568909600cee",
        "ood": "7f79db9b92946cd3",
    }


@pytest.mark.parametrize("template", arithmetic.TEMPLATES + arithmetic.HELD_OUT, ids=lambda t: t.name)
def test_every_working_recomputes_to_its_gold_from_numbers_at_hand(template, splits):
    problems = [
        problem
        for split in ("dev", "test", "ood")
        for problem in splits[split]
        if problem.meta["template"] == template.name
    ]
    assert len(problems) >= 50
    for problem in problems:
        known = {int(number) for number in re.findall(r"\d+", problem.question)} | {2}  # "half", two sides
        lines = problem.rationale.splitlines()
        assert 2 <= len(lines) == problem.meta["steps"] <= 6
        for line in lines:
            ((expression, result),) = MARK.findall(line)
            assert expressions.exact(expression) == int(result)
            assert {int(number) for number in re.findall(r"\d+", expression)} <= known
            known.add(int(result))
        assert problem.gold == result
        numbers = {int(number) for number in re.findall(r"\d+", problem.question + problem.rationale)}
        assert numbers <= set(range(stories.LARGEST + 1))


def test_the_common_form_has_every_number_after_a_space_and_ends_in_the_gold_answer(splits):
    for problem in splits["dev"] + splits["ood"]:
        completion = arithmetic.completion(problem)
        assert "<<" not in completion
        assert not re.search(r"[^ \d]\d|^\d", problem.question + "\n" + completion)
        assert len(problem.question.split()) <= 45
        assert arithmetic.same(arithmetic.extract(completion, problem), problem.gold)


def test_an_unknown_split_is_the_users_mistake():
    with pytest.raises(UserError, match=r"no split 'validation'.*train, dev, test, ood"):
        arithmetic.load("validation")
