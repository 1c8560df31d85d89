"""The recipe of a data set: its inputs and settings, and the rules between them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lema_jax import stage, tasks
from lema_jax.data import arms, exports
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
from lema_jax.stage import group, option
from lema_jax.tasks import last_number

_Paths = Sequence[Path | str]
_MADE_BY = {
    "corrections": "files made by `python -m lema_jax.correct`",
    "critiques": "files made by `python -m lema_jax.correct --critique`",
    "attempts": "files made by `python -m lema_jax.sample`",
}


@dataclasses.dataclass(frozen=True)
class Recipe(stage.Config):
    """The inputs and settings of a data set. Equal recipes over equal inputs give equal bytes."""

    task: str = option(help=f"Task that the questions are of: {tasks.LISTED}.")
    arm: str | None = option(
        None,
        "What is trained on besides chain of thought; by default and for cot, which leaves --corrections out, nothing."
        " The preference arms are pairs instead, for train's objective preference."
        f" One of {', '.join(arms.ARMS)}, or several by their shares: mixed:lema@0.14,inline@0.14.",
    )
    attempts: _Paths = option(
        (),
        "Files made by sample; their right attempts are chain of thought, and examples of the arms rft (right ones) and"
        " negatives (wrong ones), or chosen over the wrong in preference arms.",
        paths=True,
    )
    own_attempts: bool = option(
        True, "Take the right attempts of --attempts as chain of thought; the arm rft takes them as its examples only."
    )
    corrections: _Paths = option((), "Files made by correct; their kept corrections are examples.", paths=True)
    critiques: _Paths = option((), "Files made by correct --critique; their kept critiques are examples.", paths=True)
    paths_a_question: int = option(
        4, "The most right attempts of a question in the arm rft; their equations differ.", low=1, high=10**6
    )
    wrong_step_weight: int = option(
        1,
        "Weight of the loss on the wrong step of an example of the arms inline and inline_restart: 0 or 1.",
        low=0,
        high=1,
    )
    right_share: float = option(0.5, "Share of right attempts among those that the arm critique judges.", low=0, high=1)
    data_dir: Path | str | None = option(None, "Folder with the publishers' files; by default the variable LEMA_DATA.")
    read_last_number: bool = option(False, last_number.HELP)
    gold_rationales: bool = option(True, "Take the training split's gold rationales as chain of thought.")
    limit: int | None = option(None, "Take gold rationales of the first so many training questions only.", low=1)
    tokenizer: Path | str | None = option(None, "Tokenizer: of a model folder, a data set, or a Hugging Face folder.")
    train_tokenizer: int | None = option(
        None, "Train a tokenizer with so many ids on the examples instead.", low=1, high=2**20
    )
    limits: Limits = group(Limits)
    equal_examples: int | None = option(None, "Mix exactly so many examples.", low=1)
    equal_tokens: int | None = option(None, "Mix as many examples as have so many tokens.", low=1, high=10**15)
    equal_loss_tokens: int | None = option(
        None, "Mix as many examples as have so many tokens with loss: those of completions.", low=1, high=10**15
    )
    correction_share: float = option(
        0.28,
        "Share of an equalised mix that is the arm's own: corrections, or what it learns from instead (the paper's"
        " GSM8K data has 0.28). Other mixes take all.",
        low=0,
        high=1,
        above=True,
    )
    skip_cot: int = option(
        0,
        "Leave out so much chain of thought of an equalised mix, in examples, that is drawn first: an earlier round has"
        " it.",
        low=0,
    )
    dev_questions: int = option(0, "Hold so many training questions out, as dev/; none of them is trained on.", low=0)
    overlap: str = option(
        "refuse", "What to do about training questions that give a test one away.", choices=("refuse", "drop", "keep")
    )
    tests: Sequence[str] = option(
        (),
        "Tasks of your own (jsonl:PATH) that a model of this data is tested on: overlap with their questions is looked"
        " for too, also with those of rows that name no split. The other tasks' tests are looked at anyway.",
        paths=True,
    )
    export: Sequence[str] = option((), f"Also write other trainers' formats: {', '.join(exports.FORMS)}.")
    seed: int = option(0, "Seed of what is drawn: dev questions, the mix, its order.", low=0, high=2**63 - 1)

    def problems(self) -> list[str]:
        try:
            self.parts  # noqa: B018 (it parses)
        except UserError as error:
            return [f"--arm={self.arm}: {error}"]
        return list(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.arm is None and self.corrections:
            yield "--corrections without --arm; --arm=lema learns from them, --arm=cot leaves them out"
        row = self.parts[0].row
        if row.pairs and not (self.learnt or self.attempts):
            needed = "--corrections (pairs at the first wrong step), or " if row.example else ""
            yield f"--arm={self.arm} needs {needed}--attempts with right and wrong ones at the same questions"
        if row.pairs and (lost := [name for name in self.export if name in exports.FORMS and name != "preference"]):
            yield f"--export={','.join(lost)} has no place for the rejected text; give --export=preference"
        for kind in () if row.pairs else ("corrections", "critiques", "attempts"):
            if self._reads(kind) and not getattr(self, kind):
                yield f"--arm={self.arm} needs --{kind}, {_MADE_BY[kind]}"
        if self.critiques and not self._reads("critiques"):
            yield f"--critiques is for the arm critique, not for {self.arm}"
        if not (self.gold_rationales or self.attempts or self.learnt or self.critiques):
            yield "there is nothing to learn from: give --gold_rationales, --attempts or --corrections"
        if (self.tokenizer is None) == (self.train_tokenizer is None):
            yield "give either --tokenizer (a folder that has one) or --train_tokenizer (the size of a new one)"
        if len(self.equalised) > 1:
            yield f"{' and '.join(f'--{name}' for name in self.equalised)} contradict each other; give one"
        if published := [name for name in self.tests if not name.startswith(tasks.OWN)]:
            yield f"--tests={','.join(published)}: name tasks of your own, {tasks.OWN}PATH; others are looked at anyway"
        yield from self._shares()
        yield from self._options()
        if unknown := [name for name in self.export if name not in exports.FORMS]:
            yield f"--export={','.join(unknown)} is none of {', '.join(exports.FORMS)}"
        elif "preference" in self.export and not (self.learnt or row.pairs):
            yield "--export=preference makes pairs from corrections; there are none"

    def _shares(self) -> Iterator[str]:
        given = "correction_share" in stage.changed(self)
        if self.skip_cot and not self.equalised:
            yield "--skip_cot is of an equalised mix; give --equal_examples with it"
        if given and not self.equalised:
            yield "--correction_share is of an equalised mix; give --equal_examples or --equal_tokens with it"
        elif any(part.share for part in self.parts):
            if not self.equalised:
                yield f"--arm={self.arm} names a share; give --equal_examples or --equal_tokens with it"
            elif given:
                yield f"--arm={self.arm} names a share, and --correction_share another; leave one out"

    def _options(self) -> Iterator[str]:
        """The options of one arm's: whether this arm takes them, and they are given once."""
        taken = {part.row.option for part in self.parts}
        for name in ("paths_a_question", "wrong_step_weight", "right_share"):
            if name in stage.changed(self):
                takers = [other for other, arm in arms.ARMS.items() if arm.option == name]
                if name not in taken:
                    yield f"--{name} is for the arms {', '.join(takers)}, not for {self.arm or 'cot'}"
                elif any(part.value is not None for part in self.parts if part.row.option == name):
                    yield f"--arm={self.arm} says what --{name} says; leave one out"
        if self.export and any(self.option(part) == 0 for part in self.parts if part.row.option == "wrong_step_weight"):
            yield "--export writes no weights of the loss; leave it out, or take --wrong_step_weight=1"

    def _reads(self, kind: str) -> bool:
        return arms.reads(self.arm or "cot", kind)

    @property
    def equalised(self) -> list[str]:
        """The options that bound the mix."""
        names = ("equal_examples", "equal_tokens", "equal_loss_tokens")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def learnt(self) -> tuple[Path, ...]:
        """The files of corrections that shape the mix: none in an arm that learns from none."""
        return tuple(map(Path, self.corrections)) if self._reads("corrections") else ()

    @property
    def parts(self) -> tuple[arms.Part, ...]:
        """The arm's parts; of most arms one."""
        return arms.parse(self.arm or "cot")

    def option(self, part: arms.Part) -> Any:
        """The value of the option of a part's arm."""
        return getattr(self, part.row.option) if part.value is None else part.value

    @property
    def prompt_style(self) -> str:
        """How its questions are asked, one of `prompts.TRAINED`."""
        return "tagged" if any(part.row.tagged for part in self.parts) else "paper"

    @property
    def data_folder(self) -> Path | None:
        """`data_dir` as a path."""
        return Path(self.data_dir) if self.data_dir else None
