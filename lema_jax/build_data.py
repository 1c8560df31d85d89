"""Makes training data: chain of thought and corrections, filtered, mixed, tokenised.

Reads   a task's gold rationales; `sample`'s attempts (right ones become chain of thought); `correct`'s corrections, and
        for the arm critique its critiques.
Writes  --out: an ArrayRecord data set that TFDS and `train` read, with its tokenizer, its examples as text, and a card.

  python -m lema_jax.build_data --task=gsm8k --arm=lema --corrections=runs/corrections.jsonl \\
      --tokenizer=models/smollm2 --equal_examples=4000 --out=data/lema

A fair comparison builds two arms with the same --seed and --equal_examples (or --equal_tokens). Corrections then are
--correction_share of their arm, or less where they run out, and all the chain of thought beside them is in the other
arm too: the arms differ in nothing but what the corrections replace.

--arm=preference makes pairs for `train`'s objective preference instead: a wrong step and its correction, of each
correction; with --attempts a wrong and a right solution, of each wrong attempt whose question has a right one.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from lema_jax import cli, stage, storage
from lema_jax.data import card
from lema_jax.data.build import build, look
from lema_jax.data.card import Card
from lema_jax.data.encode import Limits
from lema_jax.data.recipe import Recipe
from lema_jax.records import Example
from lema_jax.stage import option

__all__ = ["Config", "Limits", "Result", "command", "run"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """What `run` makes, and where."""

    out: Path | str = option(help="Folder of the data set to make.")
    dry_run: bool = option(False, "Write nothing; print the counts and three examples of each kind.")

    def writes(self) -> Path | str | None:
        return None if self.dry_run else self.out


@dataclasses.dataclass(frozen=True)
class Result:
    """The data set. `new`: it was made now; else it was there, made of the same inputs, or this is a dry run."""

    out: Path
    card: Card
    new: bool


@stage.function
def run(config: Config) -> Result:
    """Makes the data set, or finds it made.

    Raises:
      UserError: a recipe that contradicts itself, an unreadable input, overlap with test questions, nothing left after
        a filter, or an `out` that holds something else.
    """
    if config.arm == "cot" and config.corrections:
        print("--arm=cot is chain of thought alone: the corrections are left out")
    out = storage.on_disk(config.out)
    if config.dry_run:
        planned, examples = look(config)
        for text in _to_read(examples):
            print(f"{text}\n")
        print(card.summary(planned))
        return Result(out, planned, new=False)
    made, new = build(config, out)
    print(card.summary(made))
    print(f"wrote {out}" if new else f"{out} is there already, made of the same inputs; nothing to do")
    return Result(out, made, new)


_EACH = 3  # examples of a kind that a dry run prints


def _to_read(examples: Sequence[Example]) -> Iterator[str]:
    """The first examples of each kind as text; what stands in ⟦ ⟧ has no loss."""
    for kind in dict.fromkeys(row.kind for row in examples):
        for number, row in enumerate([row for row in examples if row.kind == kind][:_EACH], start=1):
            completion = row.completion
            for start, end in reversed(row.without_loss):
                completion = f"{completion[:start]}⟦{completion[start:end]}⟧{completion[end:]}"
            yield f"--- {kind} {number}: {row.problem_id}, by {row.source}\n⟦{row.prompt}⟧\n{completion}"


command = cli.Command("build_data", __doc__, Config, run)
if __name__ == "__main__":
    command.main()
