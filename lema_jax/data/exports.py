"""The same data in the forms that other trainers read."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lema_jax import storage, tasks
from lema_jax.data import examples
from lema_jax.data.curate import Candidate
from lema_jax.tasks.steps import split_steps

Rows = Iterator[dict[str, object]]


def prompt_completion(rows: Iterable[Candidate]) -> Rows:
    """`prompt` and `completion`: the authors' trainer and TRL's `SFTTrainer`."""
    for row in rows:
        yield {"prompt": row.example.prompt, "completion": row.example.completion}


def messages(rows: Iterable[Candidate]) -> Rows:
    """Hugging Face's conversations: the prompt is the user's turn, the completion the assistant's."""
    for row in rows:
        turns = (("user", row.example.prompt), ("assistant", row.example.completion))
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def preference(rows: Iterable[Candidate]) -> Rows:
    """`prompt`, `chosen`, `rejected` for TRL's `DPOTrainer`: one pair a correction, at the first wrong step.

    The prompt is the task's and the steps that were right; the student's wrong step is rejected, the teacher's first
    corrected one chosen (step-wise DPO, arXiv 2406.18629). Where no step is named the pair is of whole answers.
    """
    for row in rows:
        if (correction := row.correction) is None:
            continue
        prompt, corrected = tasks.get(row.problem.task).prompt(row.problem), examples.corrected_steps(correction)
        if correction.step is None:
            yield {"prompt": prompt, "chosen": "\n".join(corrected), "rejected": correction.attempt.text.strip()}
            continue
        steps = split_steps(correction.attempt.text)
        kept = "".join(f"{step}\n" for step in steps[: correction.step - 1])
        yield {
            "prompt": prompt + kept,
            "chosen": corrected[0],
            "rejected": steps[correction.step - 1],
        }


# What `--export` may name: the file, and what makes its rows.
FORMS: dict[str, tuple[str, Callable[[Iterable[Candidate]], Rows]]] = {
    "jsonl": ("prompt_completion.jsonl", prompt_completion),
    "messages": ("messages.jsonl", messages),
    "preference": ("preference.jsonl", preference),
}


def write(names: Sequence[str], rows: Sequence[Candidate], folder: Path) -> None:
    """Writes the named forms of `rows` into `folder`, made where it is absent."""
    for name in names:
        file, form = FORMS[name]
        with storage.replacing(folder / file) as opened:
            opened.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in form(rows))
