"""Sentences and columns report the numbers, whichever way they fall."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.evidence import compare, stats, table
from lema_jax.evidence.runs import Run
from tests import made_runs


def comparison(baseline, other):
    arms = compare.arms(
        [Run(n, n, tuple(made_runs.predictions(v, n))) for n, v in (("cot", baseline), ("lema", other))]
    )
    return compare.compare(*arms)


def test_sentence_of_a_gain_and_of_the_same_loss():
    gain = table.sentence(comparison("r" * 60 + "w" * 40, "r" * 80 + "w" * 20))
    loss = table.sentence(comparison("r" * 80 + "w" * 20, "r" * 60 + "w" * 40))
    assert gain.startswith("lema answers 20.0 points more of the 100 questions right than cot (80.0 % against 60.0 %")
    assert loss.startswith("lema answers 20.0 points fewer of the 100 questions right than cot (60.0 % against 80.0 %")
    for said in (gain, loss):
        assert "p < 0.0001" in said
        assert "Significant at the 5 % level." in said
        assert "another seed" in said


def test_sentence_of_noise_names_what_could_have_been_seen():
    noise = comparison("rw" * 50 + "rrrwww", "wr" * 50 + "rrrrww")
    said = table.sentence(noise)
    assert "Not significant" in said
    assert f"{100 * noise.detectable():.1f} points or more" in said


def test_sentence_where_nothing_or_too_little_differs():
    assert "exactly the same" in table.sentence(comparison("rwr", "rwr"))
    assert "too few questions" in table.sentence(comparison("rw" * 20, "rw" * 19 + "rr"))
    assert "as many of the 40 questions right" in table.sentence(comparison("rw" * 20, "wr" * 20))


def test_sentence_warns_of_other_prompts():
    alike = comparison("rw" * 20, "rr" * 20)
    assert "asked" not in table.sentence(alike)
    chat = dataclasses.replace(alike.other, style="chat")
    warned = table.sentence(dataclasses.replace(alike, other=chat, reworded=40))
    assert warned.startswith(table.sentence(alike))
    assert "40 of their prompts differ (chat against paper)" in warned


def test_sentence_across_seeds_says_so():
    seeds = (("a", "w", "1"), ("b", "r", "2"), ("b", "r", "3"))
    runs = [Run(name, name, tuple(made_runs.predictions(letter * 30, seed))) for name, letter, seed in seeds]
    said = table.sentence(compare.compare(*compare.arms(runs)))
    assert "McNemar" not in said
    assert "t test over seeds and questions p < 0.0001" in said
    assert "The interval covers 2 training seeds of b and 1 of a, and questions. a is one checkpoint" in said


def test_sentence_of_single_runs_names_their_clusters():
    rows = [made_runs.problem(i, meta={"template": i % 5}) for i in range(20)]
    runs = [
        Run(name, name, tuple(made_runs.prediction(row, made_runs.LETTERS[letter], name) for row in rows))
        for name, letter in (("a", "w"), ("b", "r"))
    ]
    said = table.sentence(compare.compare(*compare.arms(runs)))
    assert "t test over clusters of questions p < 0.0001" in said
    assert "covers 5 clusters of questions of one template. One training run each" in said


def test_several_comparisons_are_corrected_for_their_number():
    strong, weak = comparison("w" * 100, "r" * 30 + "w" * 70), comparison("w" * 100, "r" * 6 + "w" * 94)
    assert weak.significant
    assert table.several({"weak": weak}) == ""
    said = table.several({"strong": strong, "weak": weak, "as weak": weak})
    assert "3 comparisons" in said
    assert said.endswith("significant: strong (p < 0.0001).")


def test_table_lines_up_and_holds_the_counts():
    case = comparison("rrwut" * 10, "rrrrr" * 10)
    header, rows = table.layout([case.baseline, case.other], {"lema": case})
    lines = table.text_table(header, rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert rows[0] == (
        "cot",
        "40.0 %",
        "50",
        table.span(stats.wilson(20, 50)),
        "10",
        "10",
        "10",
        "baseline",
        "",
        "",
        "",
    )
    assert rows[1][7] == "+60.0"
    assert rows[1][9:] == ("< 0.0001", "McNemar")
    assert "official grader" not in header  # it did not run


def test_prompts_that_were_too_long_have_a_column_where_there_are_any():
    case = comparison("rrwutl" * 10, "rrrrrr" * 10)
    header, rows = table.layout([case.baseline, case.other], {"lema": case})
    assert dict(zip(header, rows[0]))["prompt too long"] == "10"
    assert "prompt too long" not in table.layout([case.other], {})[0]


@pytest.mark.parametrize(("p", "said"), [(1.0, "1"), (0.0312, "0.031"), (0.00012, "0.00012"), (9e-6, "< 0.0001")])
def test_p_values_keep_two_digits(p, said):
    assert table.p_value(p) == said


def questions(count):
    return [made_runs.problem(number) for number in range(count)]


def test_before_a_run_says_what_that_many_questions_show():
    size = 100 * stats.detectable_paired(200, 0.1)
    assert f"200 questions show 4 times in 5 is {size:.1f} points (if 10.0 %" in table.before_a_run(questions(200))
    assert "5 questions are too few to show any difference" in table.before_a_run(questions(5))
    clustered = [made_runs.problem(number, meta={"template": number // 10}) for number in range(200)]
    said = table.before_a_run(clustered)
    assert said.startswith(table.before_a_run(questions(200)).partition(";")[0])
    assert "they are in 20 clusters of questions of one template, so it may be larger" in said


@given(st.text(max_size=3000))
def test_quoted_text_cannot_drive_the_terminal(text):
    quoted = table.quote(text)
    assert all(line.startswith("  │") for line in quoted.split("\n"))
    assert all(c.isprintable() or c in "\n\t" for c in quoted)
    assert len(quoted) < 60_000


def test_escape_sequences_are_written_out_and_long_texts_truncated():
    assert table.quote("\x1b[31mred\r") == "  │ \\x1b[31mred"
    assert table.quote("x" * 5000).endswith("(3,500 more characters)")
