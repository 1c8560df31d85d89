"""How questions are asked, by every style."""

import pytest

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import gsm8k, prompts

ASKED = Problem(id="p", task="gsm8k", split="test", question="How many?", gold="5", rationale="2 + 3 = <<2+3=5>>5.")
CHOICE = Problem(id="c", task="csqa", split="dev", question="Where?", gold="bank", choices=("bank", "mall"))


def ask(problem: Problem, style: str, examples=None, render=lambda message: f"<user>{message}<assistant>") -> str:
    return prompts.style(style, examples, render)(problem)


def test_the_papers_prompt_is_the_tasks_own():
    assert ask(ASKED, "paper") == gsm8k.prompt(ASKED)


def test_wizardmath_is_asked_as_the_authors_did():
    """The text of their `gsm8k_test_wizardmath_prompt.jsonl`, with its line break at the end."""
    assert ask(ASKED, "wizardmath") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHow many?\n\n### Response: Let's think step by step.\n"
    )
    with pytest.raises(UserError, match="wizardmath is for mathematics; question c has choices"):
        ask(CHOICE, "wizardmath")


@pytest.mark.parametrize("problem", [ASKED, CHOICE])
def test_worked_examples_end_where_the_model_goes_on(problem):
    asked = ask(problem, "few_shot")
    instruction, *shots, case = asked.split("\n\nQuestion: ")
    assert instruction.startswith("Please ")
    assert len(shots) == 4
    assert all("\nAnswer: Let's think step by step.\n" in shot and "\nThe answer is " in shot for shot in shots)
    assert tasks.get(problem.task).prompt(problem).endswith(f"\nQuestion: {case}")
    assert prompts.stop("few_shot") == ("\n\nQuestion:",)


def test_worked_examples_of_ones_own(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("Solve.\n\nQuestion: 1?\nAnswer: The answer is 1.\n\n")
    assert ask(ASKED, "few_shot", file) == (
        "Solve.\n\nQuestion: 1?\nAnswer: The answer is 1.\n\nQuestion: How many?\nAnswer: Let's think step by step.\n"
    )
    with pytest.raises(UserError, match=r"--examples: cannot read .*none\.txt"):
        ask(ASKED, "few_shot", tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"is for --prompt_style=few_shot, not for paper"):
        ask(ASKED, "paper", file)


@pytest.mark.parametrize("between", ["\n\n", "\n", " ", "<|endoftext|>"])
@pytest.mark.parametrize("style", ["paper", "plain", "tagged", "wizardmath", "few_shot", "chat"])
@pytest.mark.parametrize(
    ("problem", "other"), [(ASKED, "7"), (ASKED.model_copy(update={"task": "math"}), "7"), (CHOICE, "mall")]
)
def test_an_answer_that_goes_on_with_the_prompt_of_any_style_is_read_before_it(problem, other, style, between):
    asked = ask(ASKED if style == "wizardmath" else problem, style, render=str)  # which has no prompt for choices
    goes_on = f"{between}{asked}So it is.\nThe answer is {other}."
    task = tasks.get(problem.task)
    assert task.extract(f"It is so.\nThe answer is {problem.gold}.{goes_on}", problem) == problem.gold
    assert task.extract(f"It is so.{goes_on}", problem) is None  # another question's answer is none to this one


@pytest.mark.parametrize("problem", [ASKED, CHOICE])
def test_an_answer_that_begins_with_its_prompt_is_read_behind_it(problem):
    text = f"{ask(problem, 'paper')}So it is.\nThe answer is {problem.gold}."
    assert tasks.get(problem.task).extract(text, problem) == problem.gold


def test_wizardmath_is_stopped_by_nothing_as_the_authors_did():
    assert prompts.stop("wizardmath") == prompts.stop("paper") == ()


def test_chat_is_rendered_by_the_models_own_template():
    end = "\nLet's think step by step, and end with `The answer is …`.<assistant>"
    assert ask(ASKED, "chat") == f"<user>Please solve the following math problem.\nQuestion: How many?{end}"
    assert ask(CHOICE, "chat").endswith(f"\nQuestion: Where?\nCandidate Answers: bank, mall.{end}")


def test_a_template_at_fault_is_told_of_before_anything_is_asked():
    def broken(message: str) -> str:
        raise UserError("no chat template")

    with pytest.raises(UserError, match="no chat template"):
        prompts.style("chat", None, broken)
