"""Exports of a data set in the formats of other trainers."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lema_jax import storage
from lema_jax.data import pairs
from lema_jax.data.curate import Candidate
from lema_jax.records import Pair

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
    """`prompt`, `chosen`, `rejected` for TRL's `DPOTrainer`: the pairs, or one of each correction; see `pairs`.

    The prompt is the task's, followed by the right steps.
    """
    for row in rows:
        if isinstance(row.example, Pair):
            pair = row.example
        elif row.correction is not None:
            pair = pairs.at_wrong_step(row.correction)
        else:
            continue
        chosen, rejected = (text.removeprefix(pair.prefix).strip("\n") for text in (pair.completion, pair.rejected))
        yield {"prompt": pair.prompt + pair.prefix, "chosen": chosen, "rejected": rejected}


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
