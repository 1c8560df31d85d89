"""From rows to a data set: gather, filter, tokenise, mix, write, as a `Recipe` says. Every filter is counted."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from lema_jax import digests, records, stage, tasks
from lema_jax.data import arms, card, curate, dataset, examples, exports, gather, pairs, tokenizer
from lema_jax.data.card import Card
from lema_jax.data.curate import Candidate, Pool
from lema_jax.data.dataset import Counts
from lema_jax.data.encode import Encoded, Limits
from lema_jax.errors import UserError
from lema_jax.records import Example, Problem
from lema_jax.stage import group, option
from lema_jax.storage import RunFolder
from lema_jax.tasks import last_number, sources

_Paths = Sequence[Path | str]


@dataclasses.dataclass(frozen=True)
class Recipe(stage.Config):
    """The inputs and settings of a data set. Equal recipes over equal inputs give equal bytes."""

    task: str = option(help=f"Task that the questions are of: {tasks.LISTED}.")
    arm: str | None = option(
        None,
        "What is trained on besides chain of thought; by default and for cot, which leaves --corrections out, nothing. "
        f"The preference arms are pairs instead, for train's objective preference. One of {', '.join(arms.ARMS)}.",
    )
    attempts: _Paths = option(
        (),
        "Files made by sample; their right attempts are chain of thought, or chosen over the wrong in preference arms.",
        paths=True,
    )
    corrections: _Paths = option((), "Files made by correct; their kept corrections are examples.", paths=True)
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
        "Share of corrections in an equalised mix (the paper's GSM8K data has 0.28); other mixes take all.",
        low=0,
        high=1,
        above=True,
    )
    dev_questions: int = option(0, "Hold so many training questions out, as dev/; none of them is trained on.", low=0)
    overlap: str = option(
        "refuse", "What to do about training questions that give a test one away.", choices=("refuse", "drop", "keep")
    )
    export: Sequence[str] = option((), f"Also write other trainers' formats: {', '.join(exports.FORMS)}.")
    seed: int = option(0, "Seed of what is drawn: dev questions, the mix, its order.", low=0, high=2**63 - 1)

    def problems(self) -> list[str]:
        if self.arm is not None and self.arm not in arms.ARMS:
            return [f"--arm={self.arm} must be one of {', '.join(arms.ARMS)}"]
        found = []
        if self.arm is None and self.corrections:
            found.append("--corrections without --arm; --arm=lema learns from them, --arm=cot leaves them out")
        if self.row.pairs and not (self.learnt or self.attempts):
            needed = "--corrections (pairs at the first wrong step), or " if self.row.example else ""
            found.append(f"--arm={self.arm} needs {needed}--attempts with right and wrong ones at the same questions")
        if self.row.example is not None and not self.row.pairs and not self.corrections:
            found.append(f"--arm={self.arm} needs --corrections")
        if self.row.pairs and (
            lost := [name for name in self.export if name in exports.FORMS and name != "preference"]
        ):
            found.append(f"--export={','.join(lost)} has no place for the rejected text; give --export=preference")
        if not (self.gold_rationales or self.attempts or self.learnt):
            found.append("there is nothing to learn from: give --gold_rationales, --attempts or --corrections")
        if (self.tokenizer is None) == (self.train_tokenizer is None):
            found.append("give either --tokenizer (a folder that has one) or --train_tokenizer (the size of a new one)")
        if len(self.equalised) > 1:
            found.append(f"{' and '.join(f'--{name}' for name in self.equalised)} contradict each other; give one")
        if "correction_share" in stage.changed(self) and not self.equalised:
            found.append("--correction_share is of an equalised mix; give --equal_examples or --equal_tokens with it")
        if unknown := [name for name in self.export if name not in exports.FORMS]:
            found.append(f"--export={','.join(unknown)} is none of {', '.join(exports.FORMS)}")
        elif "preference" in self.export and not (self.learnt or self.row.pairs):
            found.append("--export=preference makes pairs from corrections; there are none")
        return found

    @property
    def equalised(self) -> list[str]:
        """The options that bound the mix."""
        names = ("equal_examples", "equal_tokens", "equal_loss_tokens")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def learnt(self) -> tuple[Path, ...]:
        """The files of corrections that shape the mix: none in the arm `cot`."""
        return () if self.row.example is None else tuple(map(Path, self.corrections))

    @property
    def row(self) -> arms.Arm:
        """The arm's row."""
        return arms.ARMS[self.arm or "cot"]

    @property
    def data_folder(self) -> Path | None:
        """`data_dir` as a path."""
        return Path(self.data_dir) if self.data_dir else None


def build(recipe: Recipe, out: Path) -> tuple[Card, bool]:
    """Makes the data set `out`, or finds it made. Returns its card, and whether it was made now.

    It is written atomically: a kill leaves nothing, or a complete data set.

    Raises:
      UserError: a recipe that contradicts itself, an unreadable input, overlap with test questions, nothing left after
        a filter, or an `out` that holds something else.
    """
    stage.require(recipe)
    training = tasks.get(recipe.task).load("train", recipe.data_folder)
    identity = _identity(recipe, training)
    folder, made = RunFolder(out), card.read(out)
    if folder.is_made(lambda: _difference(made, identity)):
        assert made is not None  # a folder without a card differs
        dataset.check(out, all_files=True)
        return made, False
    chosen = _choose(recipe, training)
    with folder.fresh() as fresh:
        return _write(recipe, identity, chosen, fresh), True


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The contents of a data set."""

    pools: list[Pool]
    mixed: list[Candidate]
    encoded: dict[str, Encoded]  # by example id
    tokenizer: PreTrainedTokenizerFast
    dev: list[Problem]
    overlap: dict[str, Any]


def _choose(recipe: Recipe, training: Sequence[Problem]) -> _Chosen:
    pools = _gather(recipe, training)
    dev = curate.hold_out(training, recipe.dev_questions, recipe.seed)
    for pool in pools:
        pool.filter(curate.not_of(dev), "of a dev question")
    overlap = _leave_out_overlap(recipe, pools)
    curate.leave_out_repeated(pools)
    chosen = _tokenizer(recipe, pools)
    encoded = _encode([row.example for pool in pools for row in pool.candidates], chosen, recipe.limits)
    for pool in pools:
        pool.filter(lambda row: row.example.id in encoded, "over-long")
        if recipe.row.example not in (None, examples.correction):
            _leave_out_long_corrections(pool, chosen, recipe.limits)
        curate.require_some(pool)
    mixed = _mix(recipe, pools, encoded)
    return _Chosen(pools, mixed, encoded, chosen, dev, overlap)


def _write(recipe: Recipe, identity: dict[str, Any], chosen: _Chosen, folder: Path) -> Card:
    tokenizer.save(chosen.tokenizer, folder / "tokenizer")
    counts = _write_set(folder, [row.example for row in chosen.mixed], chosen.encoded)
    if chosen.dev:
        _write_dev(folder / "dev", chosen.dev, chosen.tokenizer, recipe.limits)
    if recipe.export:
        exports.write(recipe.export, chosen.mixed, folder / "exports")
    corrected = [row.correction.attempt for row in chosen.mixed if row.correction is not None]
    made = Card(
        recipe=identity,
        left_out={pool.name: [[why, count] for why, count in pool.left_out] for pool in chosen.pools},
        kinds=dict(Counter(row.example.kind for row in chosen.mixed)),
        sources=dict(Counter(row.example.source for row in chosen.mixed).most_common()),
        students=dict(Counter(attempt.student for attempt in corrected).most_common()),
        counts=dataclasses.asdict(counts),
        questions=len({curate.normal(row.problem.question) for row in chosen.mixed}),
        overlap=chosen.overlap,
        tokenizer=tokenizer.fingerprint(chosen.tokenizer),
        closed=sum(row.closed for row in chosen.mixed),
        files={str(file.relative_to(folder)): _sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()},
    )
    card.write(made, folder)
    return made


def _gather(recipe: Recipe, training: Sequence[Problem]) -> list[Pool]:
    """The pools of the recipe, chain of thought first."""
    if recipe.row.pairs:
        return _gather_pairs(recipe)
    pools = []
    if recipe.gold_rationales or recipe.attempts:
        gold = [problem for problem in training[: recipe.limit] if problem.rationale]
        if recipe.gold_rationales and not gold:
            raise UserError(
                f"the task {recipe.task} has no gold rationales; give --nogold_rationales, and right attempts by "
                "--attempts"
            )
        taken, attempts = gold if recipe.gold_rationales else [], map(Path, recipe.attempts)
        pools.append(gather.chain_of_thought(recipe.task, taken, attempts, read_last_number=recipe.read_last_number))
    if recipe.arm == "lema_no_step" and any(problem.choices for problem in training):
        raise UserError(f"arm=lema_no_step: a correction of {recipe.task} names no step; choose another arm")
    if (example := recipe.row.example) is not None:
        pools.append(gather.corrections(recipe.task, recipe.learnt, example))
    return pools


def _gather_pairs(recipe: Recipe) -> list[Pool]:
    """The pools of an arm of preference pairs.

    Raises:
      UserError: there is not a single pair.
    """
    pools = []
    if recipe.learnt and recipe.row.example is not None:
        pools.append(gather.corrections(recipe.task, recipe.learnt, recipe.row.example))
    if recipe.attempts:
        files = map(Path, recipe.attempts)
        pools.append(gather.solution_pairs(recipe.task, files, read_last_number=recipe.read_last_number))
    if not any(pool.candidates for pool in pools):
        raise UserError(
            f"--arm={recipe.arm} found 0 preference pairs ({'; '.join(pool.counts() for pool in pools)}); "
            "lema_jax.correct makes those of steps, one of each kept correction (--corrections), and lema_jax.sample "
            "--samples=4 those of solutions, one of each wrong attempt where its question has a right one (--attempts)"
        )
    return [pool for pool in pools if pool.candidates]


def _leave_out_overlap(recipe: Recipe, pools: Sequence[Pool]) -> dict[str, Any]:
    """Applies the overlap policy; returns the sets checked and the number of questions found."""
    required = recipe.overlap != "keep"  # with keep, the test sets need not be available
    tests, unchecked = gather.held_out(recipe.task, recipe.data_folder, required=required)
    overlap = curate.Overlap(itertools.chain.from_iterable(tests.values()))
    questions = {row.problem.question: row.problem.id for pool in pools for row in pool.candidates}
    found = {question: test for question in questions if (test := overlap.find(question)) is not None}
    if found and recipe.overlap == "refuse":
        pairs = ", ".join(f"{questions[question]} with {test}" for question, test in itertools.islice(found.items(), 3))
        raise UserError(
            f"{len(found)} training questions overlap with test questions ({pairs}); --overlap=drop leaves them out, "
            "--overlap=keep trains on them"
        )
    if recipe.overlap == "drop":
        for pool in pools:
            pool.filter(lambda row: row.problem.question not in found, "of a test question")
    checked = {name: len(problems) for name, problems in tests.items()}
    return {"policy": recipe.overlap, "checked": checked, "unchecked": unchecked, "found": len(found)}


def _tokenizer(recipe: Recipe, pools: Sequence[Pool]) -> PreTrainedTokenizerFast:
    if recipe.tokenizer is not None:
        return tokenizer.load(recipe.tokenizer)
    assert recipe.train_tokenizer is not None
    rows = (row.example for pool in pools for row in pool.candidates)
    texts = (text for example in rows for text in (example.prompt, example.completion))
    return tokenizer.train_bpe(itertools.chain(texts, examples.interface()), recipe.train_tokenizer)


def _encode(rows: Sequence[Example], tokenizer: PreTrainedTokenizerFast, limits: Limits) -> dict[str, Encoded]:
    """Example id -> ids and weights, without examples over a limit."""
    return {row.id: ids for row, ids in zip(rows, pairs.encode(rows, tokenizer, limits)) if ids is not None}


def _leave_out_long_corrections(pool: Pool, tokenizer: PreTrainedTokenizerFast, limits: Limits) -> None:
    """Keeps the corrections that are within the limits in full too, so that all arms learn from the same ones."""
    full = {row.correction.id: examples.correction(row.correction) for row in pool.candidates if row.correction}
    fitting = _encode(list(full.values()), tokenizer, limits)
    pool.filter(
        lambda row: row.correction is None or full[row.correction.id].id in fitting, "over-long as a full correction"
    )


def _mix(recipe: Recipe, pools: Sequence[Pool], encoded: dict[str, Encoded]) -> list[Candidate]:
    """The examples of the data set, in order; the others are counted in their pools."""
    corrections = [row for pool in pools for row in pool.candidates if row.correction is not None]
    cot = [row for pool in pools for row in pool.candidates if row.correction is None]
    share = recipe.correction_share if recipe.equalised and not recipe.row.pairs else None
    # Ranked by correction id, not by the arm's rendering: all arms draw the same corrections.
    name = lambda row: row.correction.id if row.correction else row.example.id
    stream = curate.mix(cot, corrections, name, recipe.seed, share)
    if recipe.equal_examples is not None:
        mixed = curate.first_examples(stream, recipe.equal_examples)
    elif recipe.equal_tokens is not None:
        mixed = curate.first_tokens(stream, recipe.equal_tokens, lambda row: len(encoded[row.example.id].tokens))
    elif recipe.equal_loss_tokens is not None:
        with_loss = lambda row: int(encoded[row.example.id].weights.sum())
        mixed = curate.first_tokens(stream, recipe.equal_loss_tokens, with_loss, "equal_loss_tokens")
    else:
        mixed = list(stream)
    drawn = {row.example.id for row in mixed}
    for pool in pools:
        pool.filter(lambda row: row.example.id in drawn, "not drawn")
    return _arranged(recipe.row, mixed, pools)


def _arranged(arm: arms.Arm, mixed: list[Candidate], pools: Sequence[Pool]) -> list[Candidate]:
    """The mix as the arm trains on it: without its corrections, or with them first."""
    if arm.displaced:
        for pool in pools:
            pool.filter(lambda row: row.correction is None, "left out by the arm")
        return [row for row in mixed if row.correction is None]
    return sorted(mixed, key=lambda row: row.correction is None) if arm.first else mixed


def _write_set(folder: Path, rows: Sequence[Example], encoded: dict[str, Encoded]) -> Counts:
    records.write(folder / "examples.jsonl", rows)
    return dataset.write_records([encoded[row.id] for row in rows], folder)


def _write_dev(folder: Path, dev: Sequence[Problem], tokenizer: PreTrainedTokenizerFast, limits: Limits) -> None:
    """Writes the held-out questions, and their gold rationales as a data set, equal for all arms."""
    records.write(folder / "problems.jsonl", dev)
    rows = [examples.cot(row, tasks.get(row.task).completion(row), "gold") for row in dev if row.rationale]
    encoded = _encode(rows, tokenizer, limits)
    if encoded:
        _write_set(folder, [row for row in rows if row.id in encoded], encoded)


def _identity(recipe: Recipe, training: Sequence[Problem]) -> dict[str, Any]:
    """Everything that determines the data, as JSON: settings by value, inputs by content."""
    settings = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
    del settings["data_dir"]
    limits = {"prompt": recipe.limits.max_prompt, "completion": recipe.limits.max_completion}
    return settings | {
        "arm": recipe.arm or "cot",
        "limits": limits | {"tokens": recipe.limits.max_tokens},
        "attempts": [[Path(path).name, _sha256(Path(path))] for path in recipe.attempts],
        "corrections": [[path.name, _sha256(path)] for path in recipe.learnt],
        "tokenizer": recipe.tokenizer and tokenizer.fingerprint(tokenizer.load(recipe.tokenizer)),
        "export": list(recipe.export),
        "training_questions": sources.digest(training),
    }


def _difference(made: Card | None, identity: dict[str, Any]) -> str:
    """In what a data set differs from the one that `identity` describes; empty where it does not."""
    if made is None:
        return "it is no data set of build_data's"
    differing = [key for key in identity if identity[key] != made.recipe.get(key)]  # an earlier version has fewer keys
    return f"a data set of other settings or inputs ({', '.join(differing)})" if differing else ""


def _sha256(path: Path) -> str:
    try:
        return digests.sha256([path])[0]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
