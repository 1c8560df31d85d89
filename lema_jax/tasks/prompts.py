"""How questions are asked: by the paper's zero-shot prompt, or in another form that a model was trained on."""

import functools
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from lema_jax import storage, tasks
from lema_jax.errors import UserError
from lema_jax.records import Problem

STYLES = ("paper", "wizardmath", "few_shot", "chat")
_NUMBER = re.compile(r"[-+$€£]*\d[\d.,/ ]*%?")


def style(name: str, examples: str | Path | None, render: Callable[[str], str]) -> Callable[[Problem], str]:
    """What makes the prompt of a problem in the style of that name, one of STYLES.

    Args:
      examples: for `few_shot`, a file of worked examples; the package's own where it is None.
      render: for `chat`, what makes a prompt of a user's message by the model's own template.

    Raises:
      UserError: a file that cannot be read, or that another style does not take; and what `render` raises.
    """
    if examples is not None and name != "few_shot":
        raise UserError(f"--examples={examples} is for --prompt_style=few_shot, not for {name}")
    match name:
        case "wizardmath":
            return wizardmath
        case "few_shot":
            return functools.partial(few_shot, None if examples is None else _read(examples))
        case "chat":
            render("Hello.")  # a template that is missing or at fault is told of now, not in the middle of a run
            return lambda problem: render(request(problem))
    return lambda problem: tasks.get(problem.task).prompt(problem)


def stop(style: str) -> tuple[str, ...]:
    """Texts at which an answer in a style has ended: after worked examples a model goes on with its own question.

    `wizardmath` has none, as the authors asked it (WizardMath's own script stops at `Instruction` and `Response`); what
    a model asks itself after its answer is not read as one (`cues.statements`).
    """
    return ("\n\nQuestion:",) if style == "few_shot" else ()


def wizardmath(problem: Problem) -> str:
    """The prompt that the authors asked WizardMath models with, byte for byte (their released test files).

    It is that of WizardMath's own script and a line break at the end.

    Raises:
      UserError: a question with choices, for which there is none.
    """
    if problem.choices:
        raise UserError(f"--prompt_style=wizardmath is for mathematics; question {problem.id} has choices")
    return (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{problem.question}\n\n### Response: Let's think step by step.\n"
    )


def few_shot(examples: str | None, problem: Problem) -> str:
    """Worked examples (Wei et al. 2022), then the paper's prompt from its `Question:` on, as they have the instruction.

    Args:
      examples: their text; the package's own for the problem's family where it is None.
    """
    text = worked_examples(family(problem)) if examples is None else examples
    return f"{text}\n\nQuestion:{tasks.get(problem.task).prompt(problem).partition('Question:')[2]}"


def request(problem: Problem) -> str:
    """The paper's request as a chat model's user would put it."""
    asked, _, _ = tasks.get(problem.task).prompt(problem).rpartition("Answer: ")
    return f"{asked}Let's think step by step, and end with `The answer is …`."


def family(problem: Problem) -> str:
    """Whose worked examples serve, by the kind of the answer: `csqa` (a choice), `gsm8k` (a number), else `math`."""
    if problem.choices:
        return "csqa"
    return "math" if problem.task == "math" or not _NUMBER.fullmatch(problem.gold) else "gsm8k"


@functools.cache
def worked_examples(family: str) -> str:
    """The package's own worked examples of chain of thought for a family, without white space at their ends."""
    file = resources.files("lema_jax.tasks") / "worked_examples" / f"{family}.txt"
    return file.read_text(encoding="utf-8").strip()


def _read(file: str | Path) -> str:
    try:
        return storage.read_text(file).strip()
    except UserError as error:
        raise UserError(f"--examples: {error}") from None
