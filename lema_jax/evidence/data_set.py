"""The report of a training data set: its kinds and sources, and examples to read, token by token with the loss mask."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.evidence import charts, drawn, page, table
from lema_jax.records import Example, Pair

EACH = 20  # examples of a kind and source on the page
MOST = 120  # examples on the page, at most

Token = tuple[str, bool]  # text, and whether it has loss


@dataclass(frozen=True, slots=True)
class Fact:
    """An example without its texts; `prompt` and `completion` are their lengths in characters."""

    kind: str
    source: str
    prompt: int
    completion: int


def examples(folder: Path) -> Iterator[Example]:
    """The rows of a data set's `examples.jsonl`: pairs where the first line has a rejected text, else examples.

    Raises:
      UserError: a file that is missing or malformed.
    """
    file = folder / "examples.jsonl"
    first = b""
    with contextlib.suppress(OSError), open(file, "rb") as opened:  # `records.read` reports a file that is missing
        first = opened.readline()
    return records.read(file, Pair if b'"rejected":' in first else Example)


def load(folder: Path) -> list[Fact]:
    """The facts of the examples in a folder that `build_data` made.

    Raises:
      UserError: a file that is missing, malformed or empty.
    """
    found = [Fact(row.kind, row.source, len(row.prompt), len(row.completion)) for row in examples(folder)]
    if not found:
        raise UserError(f"{folder}/examples.jsonl has no examples; run build_data again")
    return found


def text(found: Sequence[Fact], summary: str) -> str:
    """The report for the terminal; `summary` is the data card's (`card.summary`)."""
    return f"{summary}\n\n{table.text_table(HEADER, rows(found))}"


HEADER = ("who wrote the completion", "kind", "examples", "characters of a prompt", "of a completion")


def rows(found: Sequence[Fact]) -> list[tuple[str, ...]]:
    """Rows of the table with the header `HEADER`, one a source and kind, the most frequent first."""
    lines = []
    for (source, kind), count in Counter((row.source, row.kind) for row in found).most_common():
        own = [row for row in found if (row.source, row.kind) == (source, kind)]
        means = [sum(sizes) / count for sizes in ([row.prompt for row in own], [row.completion for row in own])]
        lines.append((source, kind, f"{count:,}", *(f"{mean:,.0f}" for mean in means)))
    return lines


def html(
    found: Sequence[Fact],
    examples: Iterable[Example],
    name: str,
    *,
    summary: str,
    funnel: Mapping[str, int],
    tokens: Callable[[Sequence[Example]], list[list[Token]]] | None,
    seed: int = 0,
) -> str:
    """The report as an HTML page, with examples of each kind and source, drawn at random (seeded), to read.

    Args:
      found: facts of all examples.
      examples: the examples, in the same order.
      summary: the data card's (`card.summary`).
      funnel: rows that each filter left out, and rows that remain, by name.
      tokens: tokenises examples; None where the data set has no tokenizer.
    """
    numbers = sorted(drawn.numbers([(row.kind, row.source) for row in found], EACH, seed))[:MOST]
    wanted = set(numbers)
    shown = [row for number, row in enumerate(examples) if number in wanted]
    split = tokens(shown) if tokens is not None else [[] for _ in shown]
    fields = [
        {
            "written by": row.source,
            "length": drawn.bucket(len(tokenized), drawn.TOKENS, "tokens")
            if tokenized
            else drawn.bucket(len(row.completion), (200, 400, 800, 1600), "characters"),
        }
        for row, tokenized in zip(shown, split)
    ]
    filters = drawn.filters(fields)
    return page.render(
        "data.html",
        title=f"Training data in {name}",
        lead=f"{len(found):,} examples; {len(shown):,} of them to read",
        summary=summary.splitlines(),
        funnel=charts.bars(funnel, "rows") if funnel else None,
        sources=(HEADER, rows(found)),
        kinds=list(dict.fromkeys(row.kind for row in found)),
        filters=filters,
        items=[
            {"row": row, "tokens": tokenized, "fields": [values[str(chosen["key"])] for chosen in filters]}
            for row, tokenized, values in zip(shown, split, fields)
        ],
        tokenized=tokens is not None,
        each=EACH,
        seed=seed,
    )
