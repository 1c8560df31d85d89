"""Prompts for a chat teacher: instruction, worked examples, the case to correct or judge, and the format of the reply.

A prompt file holds an instruction and worked examples in the paper's three-part structure (section 2.1). The case
takes the place of its line `{case}`, so text may stand after it: the package's own files ask there for their form. A
file without that line ends in the case and the cue that a reply goes on from, as the authors' released prompts do.

A user's file is one message. The package's own are a conversation: each worked example is a case and the correction
that answered it, as a small chat model copies from the examples of one long message.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Collection, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.records import Attempt, Correction, Critique, Problem, row_id
from lema_jax.tasks.prompts import family
from lema_jax.tasks.steps import original_answer, original_solution, proposed, split_steps
from lema_jax.teacher.chat import Message

CASE = "{case}"  # the line of a prompt file that the question and its original solution take the place of
_CASE_LINE = re.compile(rf"^[ \t]*{re.escape(CASE)}[ \t]*$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The parts of a request for a correction, around the case to correct."""

    id: str  # the file's name and a hash of all the rest, such as `gsm8k@1a2b3c4d`: what asks otherwise is another
    before: str
    after: str = ""  # empty: the prompt ends in the case and its cue
    examples: tuple[tuple[str, str], ...] = ()  # a case and its correction each, that were said in turns


def asks_step(problem: Problem) -> bool:
    """Whether a correction names a step; the paper asks for none where the answer is one of several choices."""
    return not problem.choices


def _case(attempt: Attempt) -> str:
    problem = attempt.problem
    if asks_step(problem):
        return original_solution(problem.question, split_steps(attempt.text))
    return original_answer(problem.question, problem.choices, attempt.text)


@dataclasses.dataclass(frozen=True)
class Form:
    """What a teacher is asked to write.

    Attributes:
      name: in words.
      files: how the names of the package's own prompt files begin.
      cue: of a problem, what the reply begins with.
      case: the block of an attempt, which ends in the cue.
    """

    name: str
    files: str
    cue: Callable[[Problem], str]
    case: Callable[[Attempt], str]


CORRECTION = Form("correction", "", lambda problem: "Incorrect Step:" if asks_step(problem) else "Mistakes:", _case)
CRITIQUE = Form(
    "critique",
    "critique_",
    lambda problem: "Critique:",
    lambda attempt: proposed(attempt.problem.question, attempt.problem.choices, attempt.text),
)


def load(problem: Problem, prompt_file: str | Path | None = None, form: Form = CORRECTION) -> Prompt:
    """The prompt in `prompt_file`, or the package's own for the problem's family.

    Raises:
      UserError: the file cannot be read, lacks the cue that replies to this task are read by, or has several cases.
    """
    name, cue = f"{form.files}{family(problem)}" if prompt_file is None else Path(prompt_file).name, form.cue(problem)
    text = packaged(name) if prompt_file is None else _read(prompt_file)
    if cue not in text:
        raise UserError(
            f"--prompt_file: {prompt_file} never says {cue!r}, which a {form.name} of the task"
            f" {problem.task} begins with; give a file whose worked examples do"
        )
    before, *after = _CASE_LINE.split(text)
    if len(after) > 1:
        raise UserError(
            f"--prompt_file: {prompt_file} has {len(after)} lines {CASE}; keep the one for the case to correct"
        )
    if prompt_file is not None:
        return Prompt(f"{name}@{row_id(text=text)[:8]}", before.strip(), "".join(after).strip())
    instruction, *shown = _EXAMPLE.split(before.strip())
    examples = tuple((case.rstrip(), cue + said) for case, _, said in (one.partition(cue) for one in shown))
    parts: dict[str, Any] = {"before": instruction, "after": "".join(after).strip(), "examples": examples}
    return Prompt(f"{name}@{row_id(**parts)[:8]}", **parts)


_EXAMPLE = re.compile(r"\n\n(?=Question: )")


def packaged(name: str) -> str:
    """The package's own prompt of that name, without white space at its ends."""
    return (resources.files("lema_jax.teacher") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").strip()


def messages(prompt: Prompt, attempt: Attempt, form: Form = CORRECTION) -> list[Message]:
    """The messages: what stands before the case, the attempt, and what stands after it or the reply's cue.

    The instruction is in the first message of the user's: not every model's template has a system message.
    """
    case = form.case(attempt)
    if prompt.after:
        case = f"{case.removesuffix(form.cue(attempt.problem)).rstrip()}\n\n{prompt.after}"
    turns = [turn for example in prompt.examples for turn in example] + [case]
    turns[0] = f"{prompt.before}\n\n{turns[0]}".lstrip()
    return [{"role": "assistant" if number % 2 else "user", "content": turn} for number, turn in enumerate(turns)]


def asked_otherwise(rows: Iterable[Correction | Critique], prompts: Collection[Prompt], form: Form = CORRECTION) -> str:
    """Which of the rows other prompts asked for, in words; empty where none did."""
    ours = {prompt.id for prompt in prompts}
    others = collections.Counter(row.prompt for row in rows if row.prompt and row.prompt not in ours)
    if not others:
        return ""
    return (
        f"{others.total():,} {form.name}s were asked for by another prompt ({', '.join(sorted(others))}) than this"
        f" run's ({', '.join(sorted(ours))}): they stay, and this run asks by its own for each mistake"
    )


def evolution(problem: Problem) -> str:
    """The prompt for a new question from a seed question (section 2.3)."""
    return f"{packaged('evolve')}\n\nQuestion: {problem.question}\nNew Question:"


def _read(file: str | Path) -> str:
    try:
        return storage.read_text(file).strip()
    except UserError as error:
        raise UserError(f"--prompt_file: {error}") from None
