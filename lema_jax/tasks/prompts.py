"""Prompt styles: the paper's zero-shot prompt, or another form that a model was trained on."""

import functools
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from lema_jax import storage, tasks
from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import cues

STYLES = ("paper", "plain", "tagged", "wizardmath", "few_shot", "chat")
TRAINED = ("paper", "tagged")  # what a model may be trained in; `paper` asks each model as it was trained
_NUMBER = re.compile(r"[-+$€£]*\d[\d.,/ ]*%?")


def style(name: str, examples: str | Path | None, render: Callable[[str], str]) -> Callable[[Problem], str]:
    """The function from problem to prompt for a style, one of STYLES.

    Args:
      examples: for `few_shot`, a file of worked examples; by default the package's own.
      render: for `chat`, the model's chat template applied to a user's message.

    Raises:
      UserError: the file cannot be read, or the style takes none; and what `render` raises.
    """
    if examples is not None and name != "few_shot":
        raise UserError(f"--examples={examples} is for --prompt_style=few_shot, not for {name}")
    match name:
        case "wizardmath":
            return wizardmath
        case "few_shot":
            return functools.partial(few_shot, None if examples is None else _read(examples))
        case "tagged":
            return tagged
        case "chat":
            render("Hello.")  # a missing or faulty template fails now, not in the middle of a run
            return lambda problem: render(request(problem))
    return lambda problem: tasks.get(problem.task).prompt(problem)


def tagged(problem: Problem, *, right: bool = True) -> str:
    """The paper's prompt under a tag that asks for a right or a wrong solution (NAT, arXiv 2402.11651).

    A model that learns from both is asked for a right one. NAT leaves the words open; these are ours.
    """
    tag = "Write a correct solution." if right else "Write a solution with a mistake in it."
    return f"{tag}\n{tasks.get(problem.task).prompt(problem)}"


def of_model(style: str, trained: str) -> str:
    """The style that a model is asked in: `paper` stands for the one that it was trained in, `trained`."""
    return trained if style == "paper" else style


def stop(style: str) -> tuple[str, ...]:
    """Stop strings of a style: after worked examples a model continues with a question of its own.

    `wizardmath` has none, like the authors' run (WizardMath's own script stops at `Instruction` and `Response`);
    grading ignores a question after the answer (`cues.statements`).
    """
    return ("\n\nQuestion:",) if style == "few_shot" else ()


def wizardmath(problem: Problem) -> str:
    """The authors' prompt for WizardMath models, byte for byte (their released test files).

    It is the prompt of WizardMath's own script with a line break at the end.

    Raises:
      UserError: a question with choices; the style has no prompt for it.
    """
    if problem.choices:
        raise UserError(f"--prompt_style=wizardmath is for mathematics; question {problem.id} has choices")
    return (
        f"{cues.INSTRUCTION}. Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\n{problem.question}\n\n### Response: Let's think step by step.\n"
    )


def few_shot(examples: str | None, problem: Problem) -> str:
    """Worked examples (Wei et al. 2022), then the paper's prompt from `Question:` on.

    Args:
      examples: their text; by default the package's own for the problem's family.
    """
    text = worked_examples(family(problem)) if examples is None else examples
    return f"{text}\n\nQuestion:{tasks.get(problem.task).prompt(problem).partition('Question:')[2]}"


def request(problem: Problem) -> str:
    """The paper's request as the message of a chat model's user."""
    instruction, _, _ = tasks.get(problem.task).prompt(problem).rpartition("Answer: ")
    return f"{instruction}Let's think step by step, and end with `The answer is …`."


def family(problem: Problem) -> str:
    """The task whose worked examples fit the answer: `csqa` (a choice), `gsm8k` (a number), else `math`."""
    if problem.choices:
        return "csqa"
    return "math" if problem.task in ("math", "aime") or not _NUMBER.fullmatch(problem.gold) else "gsm8k"


@functools.cache
def worked_examples(family: str) -> str:
    """The package's own chain-of-thought examples for a family, stripped."""
    file = resources.files("lema_jax.tasks") / "worked_examples" / f"{family}.txt"
    return file.read_text(encoding="utf-8").strip()


def _read(file: str | Path) -> str:
    try:
        return storage.read_text(file).strip()
    except UserError as error:
        raise UserError(f"--examples: {error}") from None
