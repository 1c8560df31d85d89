"""SVAMP and ASDiv: the publishers' files, and equality of rounded golds."""

import pytest

from lema_jax.errors import UserError
from lema_jax.records import Verdict
from lema_jax.tasks import asdiv, get, grade, svamp
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


def test_asdiv_compares_to_as_many_decimals_as_its_gold_has():
    assert asdiv.same("4/3", "1.33")
    assert asdiv.same("1.333", "1.33")
    assert not asdiv.same("1.34", "1.33")
    assert not asdiv.same("5.4", "5")


def test_a_story_without_a_full_stop_gets_one():
    assert join("Dan had 3 dollars", "How much?") == "Dan had 3 dollars. How much?"
    assert join("Dan had 3 dollars. ", " How much?") == "Dan had 3 dollars. How much?"
    assert join("If Dan had 3 dollars,", "how much?") == "If Dan had 3 dollars, how much?"
