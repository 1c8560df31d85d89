"""Other ways to ask than the paper's zero-shot prompt, for models that were trained on another form."""

from collections.abc import Callable, Sequence

from lema_jax.records import Problem
from lema_jax.tasks import Task


def wizardmath(problem: Problem) -> str:
    """WizardMath's chain-of-thought prompt (Luo et al. 2023), the instruction format of Alpaca with a cue."""
    return (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{problem.question}\n\n### Response: Let's think step by step."
    )


def few_shot(task: Task, shots: Sequence[Problem], problem: Problem) -> str:
    """Solved problems before the one to solve (Wei et al. 2022), all in the form of the paper's prompt.

    A base model goes on with a question of its own after its answer; extraction does not look at that.
    """
    solved = (_asked(task, shot) + task.completion(shot) for shot in shots)
    return "\n\n".join([*solved, _asked(task, problem)])


def chat(task: Task, problem: Problem, template: Callable[[list[dict[str, str]]], str]) -> str:
    """The paper's request as a user's message, rendered by a chat model's own template.

    Args:
      template: such as `functools.partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)`.
    """
    request, _, _ = task.prompt(problem).rpartition("Answer: ")
    asked = f"{request}Let's think step by step, and end with `The answer is …`."
    return template([{"role": "user", "content": asked}])


def _asked(task: Task, problem: Problem) -> str:
    """The prompt from `Question:` on: the instruction above it would be repeated with every shot."""
    return "Question:" + task.prompt(problem).partition("Question:")[2]
