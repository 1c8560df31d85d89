"""A training data set looked at: what it is made of, and examples to read as the model will, with what has loss."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.evidence import charts, drawn, page, table
from lema_jax.records import Example

EACH = 20  # examples of a kind and source that are drawn to be read
MOST = 120  # examples on the page

Token = tuple[str, bool]  # its text, and whether it has loss


@dataclass(frozen=True, slots=True)
class Fact:
    """What counts of an example; lengths in characters."""

    kind: str
    source: str
    prompt: int
    completion: int


def load(folder: Path) -> list[Fact]:
    """What counts of the examples of a folder that `build_data` made.

    Raises:
      UserError: there are none.
    """
    rows = records.read(folder / "examples.jsonl", Example)
    found = [Fact(row.kind, row.source, len(row.prompt), len(row.completion)) for row in rows]
    if not found:
        raise UserError(f"{folder}/examples.jsonl holds no examples; run build_data again")
    return found


def text(found: Sequence[Fact], summary: str) -> str:
    """The data set for the terminal; `summary` is its card's."""
    return f"{summary}\n\n{table.text_table(HEADER, rows(found))}"


HEADER = ("who wrote the completion", "kind", "examples", "characters of a prompt", "of a completion")


def rows(found: Sequence[Fact]) -> list[tuple[str, ...]]:
    """Lines of a table with the header `HEADER`, the most frequent first."""
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
    """The data set as one page, with examples of each kind and source, drawn at random (seeded), to be read.

    Args:
      summary: what the card says in a few lines.
      funnel: how many rows each filter left out, and what remained.
      tokens: makes tokens of examples, where there is a tokenizer.
    """
    numbers = sorted(drawn.numbers([(row.kind, row.source) for row in found], EACH, seed))[:MOST]
    wanted = set(numbers)
    shown = [row for number, row in enumerate(examples) if number in wanted]
    split = tokens(shown) if tokens is not None else [[] for _ in shown]
    fields = [
        {
            "written by": row.source,
            "length": drawn.bucket(len(cut), drawn.TOKENS, "tokens")
            if cut
            else drawn.bucket(len(row.completion), (200, 400, 800, 1600), "characters"),
        }
        for row, cut in zip(shown, split)
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
            {"row": row, "tokens": cut, "fields": [values[str(chosen["key"])] for chosen in filters]}
            for row, cut, values in zip(shown, split, fields)
        ],
        tokenized=tokens is not None,
        each=EACH,
        seed=seed,
    )
