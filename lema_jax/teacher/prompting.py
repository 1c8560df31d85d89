"""The text that asks a chat teacher: worked examples from a file, then the case at hand.

The files in `prompts/` have the layout of the authors' released ones, so either can be given: an instruction, worked
examples in the paper's three-part structure (section 2.1), nothing after the last one.
"""

from importlib import resources
from pathlib import Path

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.records import Attempt, Problem
from lema_jax.tasks.prompts import family
from lema_jax.tasks.steps import original_answer, original_solution, split_steps


def asks_step(problem: Problem) -> bool:
    """Whether a correction names a step; the paper asks for none where the answer is one of several choices."""
    return not problem.choices


def worked_examples(problem: Problem, prompt_file: str | Path | None = None) -> str:
    """The text of `prompt_file`, or of the package's own file for the problem's family.

    Raises:
      UserError: the file cannot be read, or lacks the cue that replies to this task are read by.
    """
    text = packaged(family(problem)) if prompt_file is None else _read(prompt_file)
    if _cue(problem) not in text:
        raise UserError(
            f"--prompt_file: {prompt_file} never says {_cue(problem)!r}, which a correction of the task"
            f" {problem.task} begins with; give a file whose worked examples do"
        )
    return text


def packaged(name: str) -> str:
    """The package's own prompt of that name, without white space at its ends."""
    return (resources.files("lema_jax.teacher") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").strip()


def correction(examples: str, attempt: Attempt) -> str:
    """The whole prompt: the worked examples and the attempt, up to the cue that the reply goes on from."""
    problem = attempt.problem
    if asks_step(problem):
        case = original_solution(problem.question, split_steps(attempt.text))
    else:
        case = original_answer(problem.question, problem.choices, attempt.text)
    return f"{examples}\n\n{case}"


def evolution(problem: Problem) -> str:
    """The prompt for a new question from a seed question (section 2.3)."""
    return f"{packaged('evolve')}\n\nQuestion: {problem.question}\nNew Question:"


def _read(file: str | Path) -> str:
    try:
        return storage.read_text(file).strip()
    except UserError as error:
        raise UserError(f"--prompt_file: {error}") from None


def _cue(problem: Problem) -> str:
    return "Incorrect Step:" if asks_step(problem) else "Mistakes:"
