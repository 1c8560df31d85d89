"""Prompt styles × graders of one checkpoint."""

import pytest

from lema_jax.errors import UserError
from lema_jax.evidence import sensitivity, stats
from lema_jax.evidence.runs import Run
from tests import made_runs

TEXTS = ("The answer is {}.", "So.\n#### {}", "It is {}. Bye, 7 times!", "The answer is 0.")


def run(style, texts, checkpoint="one"):
    rows = []
    for number, text in enumerate(texts):
        problem = made_runs.problem(number)
        verdict = made_runs.LETTERS["r" if "{}" in text else "w"]
        row = made_runs.prediction(problem, verdict, checkpoint, text.replace("{}", problem.gold))
        rows.append(row.model_copy(update={"prompt_style": style}))
    return Run(style, style, tuple(rows))


def test_the_same_answers_are_graded_by_each_rule():
    found = sensitivity.measure([run("paper", TEXTS), run("chat", [TEXTS[0]] * 4)])
    of = lambda style: {grader: measure.value for grader, measure in found.accuracy[style].items()}
    assert of("paper") == {"robust": 0.75, "official": 0.25, "harness strict": 0.25, "harness flexible": 0.5}
    assert of("chat") == {"robust": 1, "official": 1, "harness strict": 0, "harness flexible": 1}
    assert found.accuracy["paper"]["robust"].interval == stats.wilson(3, 4)
    assert (found.spread, found.by_grader(), found.by_style()) == (1, 1, 0.75)
    said = sensitivity.text(found)
    assert "75.0 % (" in said
    assert "one on 4 questions of arithmetic/test: choices that are not the model move accuracy by 100.0 points" in said


def test_what_is_not_one_checkpoint_in_several_styles_is_refused():
    with pytest.raises(UserError, match="chat is of checkpoint two, paper of one: --sensitivity is of one"):
        sensitivity.measure([run("paper", TEXTS), run("chat", TEXTS, "two")])
    with pytest.raises(UserError, match="both have the prompt style paper"):
        sensitivity.measure([run("paper", TEXTS), run("paper", TEXTS)])
    assert "by one grader" not in sensitivity.text(sensitivity.measure([run("paper", TEXTS)]))
