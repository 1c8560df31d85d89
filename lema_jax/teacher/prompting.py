"""The text that asks a chat teacher: worked examples from a file, the case at hand, and the form that is asked for.

A prompt file holds an instruction and worked examples in the paper's three-part structure (section 2.1). The case
takes the place of its line `{case}`, so text may stand after it: the package's own files ask there for their form. A
file without that line ends in the case and the cue that a reply goes on from, as the authors' released prompts do.
"""

import dataclasses
import re
from importlib import resources
from pathlib import Path

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.records import Attempt, Problem, row_id
from lema_jax.tasks.prompts import family
from lema_jax.tasks.steps import original_answer, original_solution, split_steps

CASE = "{case}"  # the line of a prompt file that the question and its original solution take the place of
_CASE_LINE = re.compile(rf"^[ \t]*{re.escape(CASE)}[ \t]*$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What asks for a correction, around the case at hand."""

    id: str  # the file's name and a hash of its text, such as `gsm8k@1a2b3c4d`: another text is another prompt
    before: str
    after: str = ""  # empty: the prompt ends in the case and its cue


def asks_step(problem: Problem) -> bool:
    """Whether a correction names a step; the paper asks for none where the answer is one of several choices."""
    return not problem.choices


def load(problem: Problem, prompt_file: str | Path | None = None) -> Prompt:
    """The prompt in `prompt_file`, or the package's own for the problem's family.

    Raises:
      UserError: the file cannot be read, lacks the cue that replies to this task are read by, or has several cases.
    """
    name = family(problem) if prompt_file is None else Path(prompt_file).name
    text = packaged(name) if prompt_file is None else _read(prompt_file)
    if _cue(problem) not in text:
        raise UserError(
            f"--prompt_file: {prompt_file} never says {_cue(problem)!r}, which a correction of the task"
            f" {problem.task} begins with; give a file whose worked examples do"
        )
    before, *after = _CASE_LINE.split(text)
    if len(after) > 1:
        raise UserError(
            f"--prompt_file: {prompt_file} has {len(after)} lines {CASE}; keep the one for the case at hand"
        )
    return Prompt(f"{name}@{row_id(text=text)[:8]}", before.strip(), "".join(after).strip())


def packaged(name: str) -> str:
    """The package's own prompt of that name, without white space at its ends."""
    return (resources.files("lema_jax.teacher") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").strip()


def correction(prompt: Prompt, attempt: Attempt) -> str:
    """The whole prompt: what stands before the case, the attempt, and what stands after it or the reply's cue."""
    problem = attempt.problem
    if asks_step(problem):
        case = original_solution(problem.question, split_steps(attempt.text))
    else:
        case = original_answer(problem.question, problem.choices, attempt.text)
    if prompt.after:
        case = f"{case.removesuffix(_cue(problem)).rstrip()}\n\n{prompt.after}"
    return f"{prompt.before}\n\n{case}".lstrip()


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
