"""The text that asks a chat teacher: worked examples from a file, then the case at hand.

The files in `prompts/` have the layout of the authors' released ones, so either can be given: an instruction, worked
examples in the paper's three-part structure (section 2.1), nothing after the last one.
"""

from importlib import resources
from pathlib import Path

from lema_jax.errors import UserError
from lema_jax.records import Attempt, Problem
from lema_jax.tasks.steps import original_solution, split_steps

_FAMILIES = {"arithmetic": "gsm8k", "gsm8k": "gsm8k", "math": "math", "csqa": "csqa"}


def asks_step(problem: Problem) -> bool:
    """Whether a correction names a step; the paper asks for none where the answer is one of several choices."""
    return not problem.choices


def worked_examples(problem: Problem, prompt_file: str | Path | None = None) -> str:
    """The text of `prompt_file`, or of the package's own file for the family of the problem's task.

    Raises:
      UserError: the file cannot be read, or lacks the cue that replies to this task are read by; a task without a file.
    """
    if prompt_file is None:
        if problem.task not in _FAMILIES:
            raise UserError(f"there are no worked examples for the task {problem.task}; give some by --prompt_file")
        text = packaged(_FAMILIES[problem.task])
    else:
        try:
            text = Path(prompt_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--prompt_file: cannot read {prompt_file}: {error}") from None
    if _cue(problem) not in text:
        raise UserError(
            f"--prompt_file: {prompt_file} never says {_cue(problem)!r}, which a correction of the task"
            f" {problem.task} begins with; give a file whose worked examples do"
        )
    return text.strip()


def packaged(name: str) -> str:
    """The package's own prompt of that name, without white space at its ends."""
    return (resources.files("lema_jax.teacher") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").strip()


def correction(examples: str, attempt: Attempt) -> str:
    """The whole prompt: the worked examples and the attempt, up to the cue that the reply goes on from."""
    problem = attempt.problem
    if asks_step(problem):
        case = original_solution(problem.question, split_steps(attempt.text))
    else:
        case = (
            f"Question: {problem.question}\nCandidate Answers: {', '.join(problem.choices)}.\n"
            f"Original Answer:\n{{\n{attempt.text.strip()}\n}}\n{_cue(problem)}"
        )
    return f"{examples}\n\n{case}"


def evolution(problem: Problem) -> str:
    """The prompt for a new question from a seed question (section 2.3)."""
    return f"{packaged('evolve')}\n\nQuestion: {problem.question}\nNew Question:"


def _cue(problem: Problem) -> str:
    return "Incorrect Step:" if asks_step(problem) else "Mistakes:"
