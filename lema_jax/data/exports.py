"""Exports of a data set in the formats of other trainers."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lema_jax import storage, tasks
from lema_jax.data import examples
from lema_jax.data.curate import Candidate
from lema_jax.tasks.steps import split_steps
from lema_jax.tasks.thinking import spoken

Json = Iterator[dict[str, object]]


def prompt_completion(rows: Iterable[Candidate]) -> Json:
    """`prompt` and `completion`: the authors' trainer and TRL's `SFTTrainer`."""
    for row in rows:
        yield {"prompt": row.example.prompt, "completion": row.example.completion}


def messages(rows: Iterable[Candidate]) -> Json:
    """Hugging Face's conversations: the prompt is the user's turn, the completion the assistant's."""
    for row in rows:
        turns = (("user", row.example.prompt), ("assistant", row.example.completion))
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def preference(rows: Iterable[Candidate]) -> Json:
    """`prompt`, `chosen`, `rejected` for TRL's `DPOTrainer`: one pair per correction, at the first wrong step.

    The prompt is the task's, followed by the right steps; the student's wrong step is rejected, the teacher's first
    corrected one chosen (step-wise DPO, arXiv 2406.18629). If no step is named, the pair is of full answers.
    """
    for row in rows:
        if (correction := row.correction) is None:
            continue
        prompt, corrected = tasks.get(row.problem.task).prompt(row.problem), examples.corrected_steps(correction)
        if correction.step is None:
            answer = spoken(correction.attempt.text).text.strip()
            yield {"prompt": prompt, "chosen": "\n".join(corrected), "rejected": answer}
            continue
        steps = split_steps(correction.attempt.text)
        right = "".join(f"{step}\n" for step in steps[: correction.step - 1])
        yield {"prompt": prompt + right, "chosen": corrected[0], "rejected": steps[correction.step - 1]}


# Names for `--export`: the file, and the function that makes its rows.
FORMS: dict[str, tuple[str, Callable[[Iterable[Candidate]], Json]]] = {
    "jsonl": ("prompt_completion.jsonl", prompt_completion),
    "messages": ("messages.jsonl", messages),
    "preference": ("preference.jsonl", preference),
}


def write(names: Sequence[str], rows: Sequence[Candidate], folder: Path) -> None:
    """Writes `rows` in the named formats into `folder`, created if absent."""
    for name in names:
        file, form = FORMS[name]
        with storage.replacing(folder / file) as opened:
            opened.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in form(rows))
