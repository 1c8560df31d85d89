"""SVAMP and ASDiv: the publishers' files, and equality of rounded golds."""

from fractions import Fraction

import pytest

from lema_jax.errors import UserError
from lema_jax.records import Verdict
from lema_jax.tasks import asdiv, get, grade, gsm_plus, svamp
from lema_jax.tasks.word_problems import join


@pytest.mark.parametrize(("name", "count"), [("svamp", 1_000), ("asdiv", 2_084)])
def test_the_publishers_file_loads_whole_and_its_golds_are_right(name, count, data_dir):
    task = get(name)
    problems = task.load("test", data_dir)
    assert len(problems) == count == len({problem.id for problem in problems})
    for problem in problems:
        text = f"It is so. The answer is {problem.gold}."
        assert grade(problem, text, truncated=False)[1] is Verdict.RIGHT
        assert task.official_grader(text, problem)
    with pytest.raises(UserError, match="no split 'train'"):
        task.load("train", data_dir)


def test_a_broken_svamp_file_is_named_with_the_entry(data_dir, tmp_path):
    whole = (data_dir / "svamp" / "SVAMP.json").read_text()
    file = tmp_path / "SVAMP.json"
    for content, said in [
        (whole[:-5], "SVAMP.json: not JSON"),
        ("{}", "expected a list"),
        (whole.replace('"Answer": 51.0', '"Anser": 51.0', 1), "entry 0: no Answer; found ID"),
        (whole.replace('"Answer": 51.0', '"Answer": "many"', 1), "entry 0: Answer: 'many' is no number"),
        (whole.replace('"Answer": 51.0', '"Answer": 52.0', 1), "differ from the publisher's"),
        (whole.replace('"ID": "chal-1"', '"ID": "chal-1"}, {"ID": "chal-0"', 1), "entry 0: no Body and no Question"),
    ]:
        file.write_text(content)
        with pytest.raises(UserError, match=said):
            svamp.load("test", tmp_path)


def test_a_broken_asdiv_file_is_named_with_the_place(data_dir, tmp_path):
    file = tmp_path / "ASDiv.xml"
    whole = (data_dir / "asdiv" / "ASDiv.xml").read_text()
    for content, said in [
        (whole[:-50], "not XML"),
        (whole.replace("<Answer>9 (apples)</Answer>", "", 1), "Problem nluds-0001: no Answer"),
        (whole.replace("9 (apples)", "some (apples)", 1), "2083 problems, where the publisher's has 2084"),
    ]:
        file.write_text(content)
        with pytest.raises(UserError, match=said):
            asdiv.load("test", tmp_path)


@pytest.mark.parametrize("task", [asdiv, gsm_plus])
def test_decimals_are_compared_to_as_many_as_the_gold_has_and_at_least_two(task):
    for answer, gold in [("4/3", "1.33"), ("1.333", "1.33"), ("3.3333", "3.333"), ("$1.20", "1.2"), ("5.0", "5")]:
        assert task.same(answer, gold)
    for answer, gold in [("1.34", "1.33"), ("3.33", "3.333"), ("$1.25", "1.2"), ("$1.15", "1.2"), ("5.4", "5")]:
        assert not task.same(answer, gold)


def test_no_decimal_gold_of_asdiv_is_met_by_an_amount_that_the_authors_call_wrong(data_dir):
    golds = [problem for problem in asdiv.load("test", data_dir) if "." in problem.gold]
    assert len(golds) == 61
    for problem in golds:
        for cents in (-5, -4, -1, 1, 4, 5):
            text = f"The answer is ${float(Fraction(problem.gold) + Fraction(cents, 100)):.2f}."
            assert not asdiv.official_grader(text, problem)
            assert grade(problem, text, truncated=False)[1] is Verdict.WRONG, (text, problem.gold)


def test_a_story_without_a_full_stop_gets_one():
    assert join("Dan had 3 dollars", "How much?") == "Dan had 3 dollars. How much?"
    assert join("Dan had 3 dollars. ", " How much?") == "Dan had 3 dollars. How much?"
    assert join("If Dan had 3 dollars,", "how much?") == "If Dan had 3 dollars, how much?"
