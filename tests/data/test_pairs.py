"""Preference pairs: what they say, how they are tokenised, that both of a pair share a row, and what has none."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lema_jax import records
from lema_jax.data import batches, build, card, dataset, exports, gather, pairs, tokenizer
from lema_jax.data.batches import DataConfig
from lema_jax.data.encode import Encoded, Limits
from lema_jax.errors import UserError
from lema_jax.evidence import data_set
from lema_jax.records import Example, Pair, Verdict
from lema_jax.tasks.steps import split_steps
from tests.data import rows
from tests.data.building import TRAIN, corrections, recipe, task

__all__ = ["corrections", "task"]  # fixtures

NO_LIMITS = Limits(None, None, None)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return tokenizer.train_bpe(["\n".join(rows.STEPS), "12 - 5 = 7 are left.\n"], 700)


@given(step=st.integers(1, 3), last=st.booleans())
def test_both_texts_are_the_right_steps_and_one_more(step: int, last: bool) -> None:
    row = rows.correction(step=step, steps=rows.CORRECTED[1:] if last else rows.CORRECTED)
    pair = pairs.at_wrong_step(row)
    tried = split_steps(row.attempt.text)
    assert pair.prefix == "".join(f"{one}\n" for one in tried[: step - 1])
    assert pair.rejected == "".join(f"{one}\n" for one in tried)[: len(pair.rejected)]
    assert pair.rejected.endswith("\n") == (step < 3)  # the last step is followed by the end
    chosen = pair.completion.removeprefix(pair.prefix)
    assert chosen == (rows.CORRECTED[1] if last else rows.CORRECTED[0] + "\n")


@given(step=st.integers(1, 3))
def test_both_sequences_are_the_prompt_and_a_completion_with_loss_after_the_prefix(
    words: PreTrainedTokenizerFast, step: int
) -> None:
    pair = pairs.at_wrong_step(rows.correction(step=step))
    (encoded,) = pairs.encode([pair], words, NO_LIMITS)
    assert encoded is not None
    assert encoded.chosen is not None
    sides = ((slice(None, encoded.chosen), pair.completion), (slice(encoded.chosen, None), pair.rejected))
    for side, text in sides:
        tokens, learnt = encoded.tokens[side], encoded.weights[side] == 1
        end = "" if text.endswith("\n") else "</s>"
        assert words.decode(tokens) == f"<s>{pair.prompt}{text}{end}"
        assert words.decode(tokens[learnt]) == text.removeprefix(pair.prefix) + end
        assert not learnt[: learnt.argmax()].any()
    first, second = (encoded.tokens[side][encoded.weights[side] == 0] for side, _ in sides)
    assert np.array_equal(first, second)


class Merging:
    """A tokenizer of two letters a token, some of which reach over the end of a prefix."""

    eos_token_id, bos_token_id = 0, None

    def __call__(self, texts: list[str] | str, add_special_tokens: bool = True) -> "Merging":
        split = lambda text: [int.from_bytes(text[at : at + 2].encode(), "big") for at in range(0, len(text), 2)]
        self.input_ids = split(texts) if isinstance(texts, str) else [split(text) for text in texts]
        return self


def test_a_token_over_the_prefixs_end_has_loss() -> None:
    pair = Pair(
        id="p", kind="step_pair", problem_id="q", source="t", prompt="Q?", prefix="abc", completion="abcXY",
        rejected="abcZ",
    )  # fmt: skip
    (encoded,) = pairs.encode([pair], Merging(), NO_LIMITS)  # type: ignore[arg-type]
    assert encoded is not None
    assert (encoded.chosen, encoded.weights.tolist()) == (
        5,
        [0, 0, 1, 1, 1, 0, 0, 1, 1],
    )  # Q? ab cX Y eos, Q? ab cZ eos


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"rejected": "She has 8.\n"}, r"pair p7 of question q: its rejected does not begin with the prefix 'Ann"),
        ({"completion": "No.", "rejected": "Yes."}, r"pair p7 .* its completion and its rejected does not begin"),
        ({"rejected": "Ann has 12.\nSo 7.\n"}, r"pair p7 of question q prefers a text to itself"),
    ],
)
def test_a_pair_without_a_common_prefix_is_named(
    words: PreTrainedTokenizerFast, change: dict[str, str], found: str
) -> None:
    texts = {"completion": "Ann has 12.\nSo 7.\n", "prefix": "Ann has 12.\n", "rejected": "Ann has 12.\nSo 8.\n"}
    pair = Pair(id="p7", kind="step_pair", problem_id="q", source="t", prompt="Q: ", **texts | change)
    with pytest.raises(UserError, match=found):
        pairs.encode([pair], words, NO_LIMITS)


@pytest.mark.parametrize("limit", ["max_prompt", "max_completion", "max_tokens"])
def test_a_pair_over_a_limit_is_left_out(words: PreTrainedTokenizerFast, limit: str) -> None:
    pair = pairs.at_wrong_step(rows.correction())
    (encoded,) = pairs.encode([pair], words, NO_LIMITS)
    assert encoded is not None
    start = len(words(pair.prompt).input_ids)
    longest = max(encoded.chosen or 0, len(encoded.tokens) - (encoded.chosen or 0)) - start
    size = {"max_prompt": start, "max_completion": longest, "max_tokens": len(encoded.tokens)}[limit]
    for allowed, there in ((size, True), (size - 1, False)):
        (found,) = pairs.encode(
            [pair], words, Limits(**{"max_prompt": None, "max_completion": None} | {limit: allowed})
        )
        assert (found is not None) == there


def attempts(file: Path) -> Path:
    """Two questions: one with two right and three wrong attempts, two of which say the same; one with wrong ones."""
    texts = [(0, "right", "So 7.\nThe answer is 7."), (0, "right", "#### 7"), (0, "wrong", "The answer is 8.")]
    texts += [(0, "wrong", "So 9.\n#### 9"), (0, "wrong", "The answer is 8."), (0, "unparsed", "Well.")]
    texts += [(1, "wrong", "The answer is 8.")]
    made = [
        rows.attempt(TRAIN[number], text=text, verdict=verdict, answer=text.rstrip(".")[-1], prompt=str(place))
        for place, (number, verdict, text) in enumerate(texts)
    ]
    records.write(file, made)
    return file


def test_every_wrong_solution_is_compared_with_a_right_one_of_its_question(tmp_path: Path) -> None:
    pool = gather.solution_pairs("gsm8k", [attempts(tmp_path / "attempts.jsonl")])
    made = [row.example for row in pool.candidates]
    assert [(row.completion, row.rejected) for row in made if isinstance(row, Pair)] == [
        ("So 7.\nThe answer is 7.", "The answer is 8."),
        ("The answer is 7.", "So 9.\nThe answer is 9."),  # in turn; all end in the same sentence
    ]
    assert len(made) + sum(count for _, count in pool.left_out) == 7
    assert dict(pool.left_out)[f"at questions with {Verdict.WRONG} ones alone"] == 1


def test_a_right_solution_of_a_question_that_looks_alike_is_not_what_is_preferred(tmp_path: Path) -> None:
    power, number = (
        rows.problem(place, question=f"What is {text}?", gold=gold)
        for place, (text, gold) in enumerate((("2³", "8"), ("23", "23")))
    )
    made = [
        rows.attempt(power, text="The answer is 8.", verdict="right", answer="8", prompt="a"),
        rows.attempt(number, text="The answer is 24.", verdict="wrong", answer="24", prompt="b"),
    ]
    records.write(file := tmp_path / "attempts.jsonl", made)
    assert gather.solution_pairs("gsm8k", [file]).candidates == []


def test_a_data_set_of_pairs(tmp_path: Path, corrections: Path) -> None:
    wanted = recipe(
        arm="preference",
        corrections=(corrections,),
        attempts=(attempts(tmp_path / "attempts.jsonl"),),
        export=("preference",),
    )
    made, _ = build.build(wanted, out := tmp_path / "out")
    assert made.kinds == {"step_pair": 30, "solution_pair": 2}
    assert dataset.has_pairs(out)
    texts = list(records.read(out / "examples.jsonl", Pair))
    words, data = tokenizer.load(out), dataset.Records(out)
    assert data.chosen is not None
    for record, chosen, row in zip(data, data.chosen, texts, strict=True):
        both = (record["tokens"][:chosen], record["tokens"][chosen:])
        assert [words.decode(one, skip_special_tokens=True) for one in both] == [
            row.prompt + row.completion,
            row.prompt + row.rejected,
        ]
    exported = (out / "exports" / exports.FORMS["preference"][0]).read_text().splitlines()
    assert len(exported) == 32
    assert len(data_set.load(out)) == 32
    assert all(isinstance(row, Pair) for row in data_set.examples(out))
    assert "32 examples" in card.summary(made)


def test_as_many_pairs_as_asked_for_and_all_of_them_corrections(tmp_path: Path, corrections: Path) -> None:
    wanted = {"arm": "preference", "corrections": (corrections,)}
    made, _ = build.build(recipe(**wanted, equal_examples=20), tmp_path / "out")
    assert made.kinds == {"step_pair": 20}
    with pytest.raises(UserError, match="equal_examples=31, but this mix ends after 30"):
        build.build(recipe(**wanted, equal_examples=31), tmp_path / "more")


def test_without_pairs_the_error_names_what_makes_them(tmp_path: Path) -> None:
    rejected, alone = tmp_path / "corrections.jsonl", tmp_path / "attempts.jsonl"
    records.write(rejected, [rows.correction(rejected="no_step")])
    records.write(alone, [rows.attempt()])
    said = r"found 0 preference pairs \({}.*lema_jax.correct makes .*lema_jax.sample --samples=4"
    with pytest.raises(UserError, match=said.format("corrections: 1 rows, 1 rejected; 0 left")):
        build.build(recipe(arm="preference", corrections=(rejected,)), tmp_path / "out")
    with pytest.raises(
        UserError, match=said.format("pairs of solutions: 1 rows, 1 at questions with wrong ones alone")
    ):
        build.build(recipe(arm="preference_solutions", attempts=(alone,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"arm": "preference"}, "--arm=preference needs --corrections (pairs at the first wrong step), or --attempts"),
        ({"arm": "preference_solutions", "corrections": ("c",)}, "--arm=preference_solutions needs --attempts"),
        (
            {"arm": "preference", "attempts": ("a",), "export": ("jsonl",)},
            "--export=jsonl has no place for the rejected",
        ),
    ],
)
def test_a_recipe_that_cannot_make_pairs(fields: dict[str, object], found: str) -> None:
    (problem,) = recipe(**fields).problems()
    assert found in problem


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 99), packing=st.booleans())
def test_both_of_a_pair_are_segments_of_one_row(
    tmp_path_factory: pytest.TempPathFactory, seed: int, packing: bool
) -> None:
    random = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("pairs")
    sizes = random.integers(2, 12, (9, 2))
    learnt = lambda a, b: np.r_[0, np.ones(a - 1), 0, np.ones(b - 1)].astype(np.uint8)
    made = [
        Encoded(np.arange(1, a + b + 1, dtype=np.int32) + 100 * k, learnt(a, b), a) for k, (a, b) in enumerate(sizes)
    ]
    dataset.write_records(made, folder)
    assert dataset.lengths(folder)[:, 2].tolist() == sizes[:, 0].tolist()
    found = {}
    for rows_of in batches.once(DataConfig(str(folder), 3, 32, packing=packing)):
        for row in range(3):
            segments = rows_of["segment_ids"][row]
            assert segments.max() % 2 == 0
            assert packing or segments.max() <= 2
            for number in range(1, segments.max() + 1):
                there = segments == number
                assert rows_of["positions"][row][there].tolist() == list(range(there.sum()))
                (record,) = set(rows_of["records"][row][there].tolist())
                found[record, 1 - number % 2] = rows_of["tokens"][row][there].tolist()
    for k, side in itertools.product(range(9), (0, 1)):
        chosen = made[k].chosen
        assert found[k, side] == made[k].tokens[slice(None, chosen) if side == 0 else slice(chosen, None)].tolist()


def test_examples_that_are_no_pairs_read_as_before(tmp_path: Path) -> None:
    build.build(recipe(), out := tmp_path / "out")
    assert not dataset.has_pairs(out)
    assert all(type(row) is Example for row in data_set.examples(out))
