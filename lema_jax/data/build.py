"""From rows to a data set: gather, filter, tokenise, mix, write, as a `Recipe` says. Every filter is counted."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedTokenizerFast

from lema_jax import digests, records, stage, tasks
from lema_jax.data import arms, card, curate, dataset, examples, exports, gather, inline, pairs, tokenizer
from lema_jax.data.card import Card
from lema_jax.data.curate import Candidate, Pool
from lema_jax.data.dataset import Counts
from lema_jax.data.encode import Encoded, Limits
from lema_jax.data.recipe import Recipe
from lema_jax.errors import UserError
from lema_jax.records import Example, Problem, Verdict
from lema_jax.storage import RunFolder
from lema_jax.tasks import sources


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


def look(recipe: Recipe) -> tuple[Card, list[Example]]:
    """The card and the examples of the data set that `build` would make; writes nothing.

    Raises:
      UserError: what `build` raises.
    """
    stage.require(recipe)
    training = tasks.get(recipe.task).load("train", recipe.data_folder)
    chosen = _choose(recipe, training)
    rows = [row.example for row in chosen.mixed]
    counts = dataset.count([chosen.encoded[row.id] for row in rows])
    return _card(recipe, _identity(recipe, training), chosen, counts), rows


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The contents of a data set."""

    pools: list[Pool]
    mixed: list[Candidate]
    encoded: dict[str, Encoded]  # by example id
    tokenizer: PreTrainedTokenizerFast
    dev: list[Problem]
    dev_loss: Pool  # the gold rationales of `dev`, on which a run measures its loss
    overlap: dict[str, Any]


def _choose(recipe: Recipe, training: Sequence[Problem]) -> _Chosen:
    pools = _gather(recipe, training)
    dev = curate.hold_out(training, recipe.dev_questions, recipe.seed)
    for pool in pools:
        pool.filter(curate.not_of(dev), "of a dev question")
    overlap = _leave_out_overlap(recipe, pools)
    curate.leave_out_repeated(pools)
    chosen = _tokenizer(recipe, pools)
    dev_loss = _dev_loss(dev)
    rows = [row.example for pool in (*pools, dev_loss) for row in pool.candidates]
    encoded = _encode(rows, chosen, recipe.limits)
    dev_loss.filter(lambda row: row.example.id in encoded, "over-long")
    shortened = bool(recipe.learnt) and any(part.row.example is not examples.correction for part in recipe.parts)
    for pool in pools:
        pool.filter(lambda row: row.example.id in encoded, "over-long")
        if shortened:
            _leave_out_long_corrections(pool, chosen, recipe.limits)
        curate.require_some(pool)
    mixed = _mix(recipe, pools, encoded)
    return _Chosen(pools, mixed, encoded, chosen, dev, dev_loss, overlap)


def _write(recipe: Recipe, identity: dict[str, Any], chosen: _Chosen, folder: Path) -> Card:
    tokenizer.save(chosen.tokenizer, folder / "tokenizer")
    counts = _write_set(folder, [row.example for row in chosen.mixed], chosen.encoded)
    if chosen.dev:
        _write_dev(folder / "dev", chosen)
    if recipe.export:
        exports.write(recipe.export, chosen.mixed, folder / "exports")
    files = {str(file.relative_to(folder)): _sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    made = _card(recipe, identity, chosen, counts, files)
    card.write(made, folder)
    return made


def _card(
    recipe: Recipe,
    identity: dict[str, Any],
    chosen: _Chosen,
    counts: Counts,
    files: Mapping[str, str] = MappingProxyType({}),
) -> Card:
    learnt = [row.attempt for row in chosen.mixed if row.attempt is not None]
    counted = [*chosen.pools, chosen.dev_loss] if chosen.dev else chosen.pools
    return Card(
        recipe=identity,
        left_out={pool.name: [[why, count] for why, count in pool.left_out] for pool in counted},
        kinds=dict(Counter(row.example.kind for row in chosen.mixed)),
        sources=dict(Counter(row.example.source for row in chosen.mixed).most_common()),
        students=dict(Counter(attempt.student for attempt in learnt).most_common()),
        counts=dataclasses.asdict(counts),
        questions=len({curate.asked(row.problem) for row in chosen.mixed}),
        overlap=chosen.overlap,
        tokenizer=tokenizer.fingerprint(chosen.tokenizer),
        prompt_style=recipe.prompt_style,
        closed=sum(row.closed for row in chosen.mixed),
        files=dict(files),
    )


def _gather(recipe: Recipe, training: Sequence[Problem]) -> list[Pool]:
    """The pools of the recipe, chain of thought first."""
    if recipe.parts[0].row.pairs:
        return _gather_pairs(recipe)
    pools = []
    apart = any(part.row.reads == "right attempts" for part in recipe.parts)  # they are the arm's own examples
    attempts = recipe.attempts if recipe.own_attempts and not apart else ()
    if recipe.gold_rationales or attempts:
        gold = [problem for problem in training[: recipe.limit] if problem.rationale]
        if recipe.gold_rationales and not gold:
            raise UserError(
                f"the task {recipe.task} has no gold rationales; give --nogold_rationales, and right attempts by "
                "--attempts"
            )
        taken, read = gold if recipe.gold_rationales else [], recipe.read_last_number
        pools.append(gather.chain_of_thought(recipe.task, taken, map(Path, attempts), read_last_number=read))
    for part in recipe.parts:
        if part.row.needs_steps and any(problem.choices for problem in training):
            raise UserError(f"arm={part.name}: a correction of {recipe.task} names no step; choose another arm")
        if part.row.example is not None:
            pools.append(_own(recipe, part, part.row.example))
    if recipe.prompt_style == "tagged":
        for pool in pools:
            pool.candidates = list(map(_tagged, pool.candidates))
    return pools


def _gather_pairs(recipe: Recipe) -> list[Pool]:
    """The pools of an arm of preference pairs.

    Raises:
      UserError: there is not a single pair.
    """
    pools = []
    if recipe.learnt and (example := recipe.parts[0].row.example) is not None:
        pools.append(gather.corrections(recipe.task, recipe.learnt, example))
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


def _tagged(row: Candidate) -> Candidate:
    return dataclasses.replace(row, example=examples.tagged(row.example, row.problem), untagged=row.example.id)


def _own(recipe: Recipe, part: arms.Part, example: Callable[[Any], Example]) -> Pool:
    """The pool of a part's own examples; one that is empty names the command that fills it.

    Raises:
      UserError: there are no rows for it.
    """
    task, attempts, how = recipe.task, tuple(map(Path, recipe.attempts)), {"read_last_number": recipe.read_last_number}
    match part.row.reads:
        case "right attempts":
            pool = gather.own_paths(task, attempts, example, most=int(recipe.option(part)), seed=recipe.seed, **how)
        case "wrong attempts":
            pool = gather.wrong_attempts(task, attempts, example, **how)
        case "critiques":
            pool = gather.critiques(task, tuple(map(Path, recipe.critiques)), example)
            pool.right_share = float(recipe.option(part))
        case _:
            pool = gather.corrections(task, recipe.learnt, example)
    if part.row.option == "wrong_step_weight":
        pool.candidates = [
            dataclasses.replace(row, example=inline.weighted(row.example, row.correction, int(recipe.option(part))))
            for row in pool.candidates
            if row.correction
        ]
    pool.share = part.share or recipe.correction_share
    if len(recipe.parts) > 1:
        pool.name = f"{pool.name} ({part.name})"
    curate.require_some(pool)
    _require_both(pool)
    return pool


def _require_both(pool: Pool) -> None:
    """Refuses critiques of right or wrong attempts alone where both are asked for, and of the other kind alone."""
    if pool.right_share is not None:
        count = Counter(row.attempt.verdict for row in pool.candidates if row.attempt)
        wanted = [(Verdict.RIGHT, pool.right_share), (Verdict.WRONG, 1 - pool.right_share)]
        if missing := [verdict for verdict, share in wanted if share and not count[verdict]]:
            right, wrong = count[Verdict.RIGHT], count[Verdict.WRONG]
            raise UserError(
                f"the arm critique wants {pool.right_share:.0%} right attempts, but there are critiques of {right:,} "
                f"right and {wrong:,} wrong ones; {pool.remedy} of {missing[0]} attempts, or change --right_share"
            )


def _dev_loss(dev: Sequence[Problem]) -> Pool:
    """The gold rationales of dev questions."""
    gold = [row for row in dev if row.rationale]
    rows = [Candidate(row, examples.cot(row, tasks.get(row.task).completion(row), "gold")) for row in gold]
    return Pool("dev loss", rows, [("without a rationale", len(dev) - len(gold))])


def _leave_out_overlap(recipe: Recipe, pools: Sequence[Pool]) -> dict[str, Any]:
    """Applies the overlap policy; returns the sets checked and the number of questions found."""
    required = recipe.overlap != "keep"  # with keep, the test sets need not be available
    tests, unchecked = gather.held_out(recipe.task, recipe.data_folder, required=required, tests=recipe.tests)
    overlap = curate.Overlap(itertools.chain.from_iterable(tests.values()))
    questions = {row.problem.question: row.problem.id for pool in pools for row in pool.candidates}
    found = {question: test for question in questions if (test := overlap.find(question)) is not None}
    if found and recipe.overlap == "refuse":
        pairs = ", ".join(f"{questions[question]} with {test}" for question, test in itertools.islice(found.items(), 3))
        raise UserError(
            f"{len(found)} training questions overlap with test questions, or are the same with other names ({pairs}; "
            f"the first: {next(iter(found))[:80]!r}); --overlap=drop leaves them out, --overlap=keep trains on them"
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
    draw = lambda pool: curate.drawn(pool, recipe.seed)
    if recipe.equalised and not recipe.parts[0].row.pairs:
        cot = [row for pool in pools if pool.share is None for row in draw(pool)][recipe.skip_cot :]
        own = [(draw(pool), pool.share) for pool in pools if pool.share is not None]
        stream = curate.mix(cot, own, (lambda row: row.attempt and row.attempt.id) if len(own) > 1 else None)
    else:
        rows = [row for pool in pools for row in draw(pool)]
        stream = iter(curate.ranked(rows, lambda row: row.name, recipe.seed))
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
    return _arranged(recipe.parts[0].row, mixed, pools)


def _arranged(arm: arms.Arm, mixed: list[Candidate], pools: Sequence[Pool]) -> list[Candidate]:
    """The mix as the arm trains on it: without its own examples, or with them first."""
    if arm.displaced:
        for pool in pools:
            pool.filter(lambda row: row.attempt is None, "left out by the arm")
        return [row for row in mixed if row.attempt is None]
    return sorted(mixed, key=lambda row: row.attempt is None) if arm.first else mixed


def _write_set(folder: Path, rows: Sequence[Example], encoded: dict[str, Encoded]) -> Counts:
    records.write(folder / "examples.jsonl", rows)
    return dataset.write_records([encoded[row.id] for row in rows], folder)


def _write_dev(folder: Path, chosen: _Chosen) -> None:
    """Writes the held-out questions, and their gold rationales as a data set, equal for all arms."""
    records.write(folder / "problems.jsonl", chosen.dev)
    if rows := [row.example for row in chosen.dev_loss.candidates]:
        _write_set(folder, rows, chosen.encoded)


_LATER = ("own_attempts", "critiques", "paths_a_question", "wrong_step_weight", "right_share", "skip_cot", "tests")


def _identity(recipe: Recipe, training: Sequence[Problem]) -> dict[str, Any]:
    """Everything that determines the data, as JSON: settings by value, inputs by content."""
    settings = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
    del settings["data_dir"]
    for name in _LATER:  # at their defaults, data sets of earlier versions are of the same recipe
        if settings[name] == getattr(Recipe, name):
            del settings[name]
    limits = {"prompt": recipe.limits.max_prompt, "completion": recipe.limits.max_completion}
    if recipe.critiques:
        settings["critiques"] = [[Path(path).name, _sha256(Path(path))] for path in recipe.critiques]
    if recipe.tests:
        files = [Path(name.removeprefix(tasks.OWN)) for name in recipe.tests]
        settings["tests"] = [[path.name, _sha256(path)] for path in files]
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
    differing += [key for key in _LATER if key in made.recipe and key not in identity]
    return f"a data set of other settings or inputs ({', '.join(differing)})" if differing else ""


def _sha256(path: Path) -> str:
    try:
        return digests.sha256([path])[0]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
