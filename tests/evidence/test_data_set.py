"""The page of a data set: what it is made of, and examples with what has loss."""

import pytest

from lema_jax import records
from lema_jax.errors import UserError
from lema_jax.evidence import data_set
from lema_jax.records import Example
from tests.html_page import Parsed


def example(number: int, kind: str = "cot", source: str = "gold", **fields) -> Example:
    given = {"prompt": f"What is {number} + 1?", "completion": "It is \\(\\frac{4}{2}\\).\nThe answer is 2."}
    return Example(id=f"{kind}{number}", kind=kind, problem_id=f"p{number}", source=source, **given | fields)


ROWS = [example(0), example(1), example(2, "correction", "gpt")]


def found(rows):
    return [data_set.Fact(row.kind, row.source, len(row.prompt), len(row.completion)) for row in rows]


def page(rows=ROWS, tokens=None, **how) -> Parsed:
    given = {"summary": "3 examples", "funnel": {"corrections: rejected": 2}} | how
    return Parsed(data_set.html(found(rows), rows, "set", tokens=tokens, **given))


def in_words(rows):
    return [
        [(word, False) for word in row.prompt.split()] + [(word, True) for word in row.completion.split()]
        for row in rows
    ]


def test_a_line_for_each_source_and_kind():
    assert data_set.rows(found(ROWS)) == [("gold", "cot", "2", "14", "39"), ("gpt", "correction", "1", "14", "39")]
    assert "3 examples" in data_set.text(found(ROWS), "3 examples")


def test_examples_are_found_by_kind_and_source_and_formulas_are_drawn():
    parsed = page()
    assert [item["data-kinds"] for item in parsed.items()] == ["cot", "cot", "correction"]
    assert len({item["data-field-0"] for item in parsed.items()}) == 2
    assert "mfrac" in {tag for tag, _ in parsed.tags}
    assert "corrections: rejected" in " ".join(parsed.text)
    assert "as written" in parsed.text


def test_tokens_with_loss_are_marked_and_the_others_are_not():
    parsed = page(tokens=in_words)
    tags = [tag for tag, _ in parsed.tags]
    per_example = 5, 7
    assert (tags.count("i"), tags.count("b")) == tuple(3 * count for count in per_example)
    said = " ".join(" ".join(parsed.text).split())
    assert said.count("12 tokens, 7 with loss") == 3
    assert "Tokens are shaded in turn" in said


def test_many_examples_are_drawn_by_kind_and_source():
    rows = [example(n, source=f"s{n % 2}") for n in range(100)]
    assert len(page(rows).items()) == 2 * data_set.EACH
    assert len(page([example(n, source=f"s{n}") for n in range(500)]).items()) == data_set.MOST


def test_text_of_models_stays_text():
    evil = "<script>alert(1)</script>"
    row = example(0, kind=evil, source=evil, prompt=evil, completion=f"\\(\\text{{{evil}}}\\)")
    parsed = page([row], lambda rows: [[(evil, False), (evil, True)]], summary=evil, funnel={evil: 1})
    assert len(parsed.scripts) == 1
    assert "alert" not in parsed.scripts[0]


def test_an_empty_one_is_refused(tmp_path):
    records.write(tmp_path / "examples.jsonl", [])
    with pytest.raises(UserError, match="has no examples"):
        data_set.load(tmp_path)
    records.write(tmp_path / "examples.jsonl", ROWS)
    assert data_set.load(tmp_path) == found(ROWS)
