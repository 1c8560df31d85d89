"""Verdicts on texts of every kind that was ever misread: `graders.jsonl`, one `task, text, gold, right` a line."""

import json
from pathlib import Path

import pytest

from lema_jax.records import Problem, Verdict
from lema_jax.tasks import grade

CASES = [json.loads(line) for line in Path(__file__).with_name("graders.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=[f"{case['task']}-{case['text'][:40]}" for case in CASES])
def test_the_verdict_is_what_a_person_would_say(case):
    problem = Problem(id="p", task=case["task"], split="test", question="How many?", gold=case["gold"])
    assert (grade(problem, case["text"], truncated=False)[1] is Verdict.RIGHT) == case["right"], case
