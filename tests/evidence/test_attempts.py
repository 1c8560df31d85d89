"""The page of attempts: counts that add up, every verdict to read, texts shown as they are."""

import re

import pytest

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.evidence import attempts, drawn
from lema_jax.records import Attempt, Verdict
from tests import made_runs
from tests.html_page import Parsed

TEXTS = {
    "r": "One is 1.\n\nSo \\(\\frac{2}{1} = \\boxed{2}\\).",
    "w": "It is 9.",
    "u": "Well,\nlet\nus\nsee.\n",
    "t": "Let us",
}


def attempt(number: int, letter: str = "w", **fields) -> Attempt:
    problem = made_runs.problem(number, meta={"level": number % 3})
    given = {
        "student": "small", "sampling": {"temperature": 0.7}, "prompt": "Why?", "text": TEXTS[letter], "answer": "9",
        "verdict": made_runs.LETTERS[letter], "prompt_tokens": 3, "completion_tokens": 50 * (number + 1),
    }  # fmt: skip
    return Attempt(id=f"{letter}{number}", problem=problem, **given | fields)


def made(letters: str, **fields) -> list[Attempt]:
    return [attempt(number, letter, **fields) for number, letter in enumerate(letters)]


def page(rows, name="a.jsonl", **how) -> Parsed:
    return Parsed(attempts.html(attempts.facts(rows), rows, name, **how))


def test_counts_add_up():
    rows = [*made("rrwut"), *made("rw", student="big")]
    rows = [row.model_copy(update={"id": str(number)}) for number, row in enumerate(rows)]
    found = attempts.facts(rows)
    assert attempts.finding(found).startswith("3 of 7 attempts are right (42.9 %")
    assert "2 of 5 questions have at least one" in attempts.finding(found)
    lines = {line[0]: line for line in attempts.rows(found)}
    assert lines["small"][1:8] == ("5", "5", "2", "1", "1", "1", "0")
    assert lines["big"][1:] == ("2", "2", "1", "1", "0", "0", "0", "75.0")
    assert "small" in attempts.text(found)


def test_each_item_has_its_verdict_and_a_value_for_every_filter():
    rows = [*made("rwutrw")]
    parsed = page(rows)
    items = parsed.items()
    assert [item["data-kinds"] for item in items] == [row.verdict.value for row in rows]
    names = [name for tag, attributes in parsed.tags if tag == "select" for name in [attributes["name"]]]
    fields = [name for name in names if name.startswith("field-")]
    assert len(fields) >= 3  # level, steps, length
    for item in items:
        assert {f"data-{name}" for name in fields} < item.keys()
    said = " ".join(" ".join(parsed.text).split())
    assert "101 to 200 tokens" in said
    assert "Up to 40 of every verdict" in said


def test_formulas_are_drawn_and_the_text_stands_as_written_too():
    parsed = page(made("r"))
    assert [tag for tag, _ in parsed.tags].count("mfrac") == 2  # in the text and in its steps
    assert TEXTS["r"] in "".join(parsed.text)
    steps = [tag for tag, _ in parsed.tags].count("li")
    assert steps == len(attempts.split_steps(TEXTS["r"]))


def test_many_attempts_are_drawn_by_verdict_and_seed():
    rows = made("w" * 200 + "r" * 3)
    ids = [{item["data-kinds"] for item in page(rows, seed=seed).items()} for seed in (0, 1)]
    assert ids == [{"wrong", "right"}] * 2
    numbers = drawn.numbers([row.verdict for row in rows], attempts.EACH, 0)
    assert len(numbers) == attempts.EACH + 3
    assert numbers == drawn.numbers([row.verdict for row in rows], attempts.EACH, 0)
    assert numbers != drawn.numbers([row.verdict for row in rows], attempts.EACH, 1)


@pytest.mark.slow
@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\\(\\text{<b>x}\\)"])
def test_text_of_models_stays_text(evil):
    row = attempt(0, text=evil, student=evil, answer=evil, prompt=evil, sampling={evil: evil})
    row = row.model_copy(update={"problem": row.problem.model_copy(update={"question": evil, "gold": evil})})
    plain = page([attempt(0, text="x")])
    parsed = page([row, attempt(1)], evil)
    assert len(parsed.scripts) == len(plain.scripts) == 1
    assert {tag for tag, _ in parsed.tags} - {tag for tag, _ in plain.tags} <= {
        "math",
        "mrow",
        "mtext",
        "select",
        "option",
    }
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]


@pytest.mark.parametrize(
    ("value", "name"), [(0, "up to 3 steps"), (3, "up to 3 steps"), (4, "4 to 6 steps"), (99, "over 10 steps")]
)
def test_buckets(value, name):
    assert drawn.bucket(value, drawn.STEPS, "steps") == name


def test_buckets_are_in_the_order_of_their_sizes():
    sizes = [drawn.bucket(size, drawn.TOKENS, "tokens") for size in (1, 150, 300, 500, 5000)]
    assert sorted(set(sizes), key=drawn.order) == sizes


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UserError, match="has no attempts"):
        attempts.load(tmp_path / "a.jsonl")
    records.write(tmp_path / "a.jsonl", made("r"))
    assert [fact.verdict for fact in attempts.load(tmp_path / "a.jsonl")] == [Verdict.RIGHT]


def test_the_title_is_the_file():
    text = attempts.html(attempts.facts(made("r")), made("r"), "a.jsonl")
    assert re.search("<title>Attempts in a.jsonl</title>", text)
