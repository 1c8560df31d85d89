"""MATH: the publisher's files, and the bars of its grader."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Problem, Verdict
from lema_jax.tasks import cues, grade, math, sources


@pytest.fixture(scope="module")
def problems(data_dir) -> list[Problem]:
    return [problem for split in math.SPLITS for problem in math.load(split, data_dir)]


def test_every_problem_loads_and_those_without_gold_are_reported(data_dir, caplog):
    with caplog.at_level("WARNING"):
        assert len(math.load("train", data_dir)) == 7_498
    assert "train/number_theory/7115.json, train/number_theory/7117.json" in caplog.text
    assert len(math.load("test", data_dir)) == 5_000
    assert len(math.load("500", data_dir)) == 500
    subjects = {problem.meta["subject"] for problem in math.load("test", data_dir)}
    assert len(subjects) == 7
    assert {problem.meta["level"] for problem in math.load("test", data_dir)} == {1, 2, 3, 4, 5}


# "Therefore, $6$ is our answer. Please note that we have not boxed the correct answer": the publisher's gold is 12.
MISBOXED = "test/prealgebra/177.json"


@pytest.mark.slow
@pytest.mark.parametrize("every", [25, pytest.param(1, marks=pytest.mark.long)])
def test_every_gold_equals_itself_and_is_read_from_its_solution(problems, every):
    for problem in problems[::every]:
        if problem.meta["path"] == MISBOXED:
            continue
        assert math.same(problem.gold, problem.gold), problem.gold
        for text in (problem.rationale, math.completion(problem), f"so $\\boxed{{{problem.gold}}}$."):
            assert grade(problem, text, truncated=False)[1] is Verdict.RIGHT, (problem.meta["path"], text[-200:])


@pytest.mark.slow
def test_random_pairs_of_different_golds_are_equal_only_where_they_are_the_same_number(problems):
    rng = random.Random(0)
    golds = [problem.gold for problem in problems]
    pairs = [(rng.choice(golds), rng.choice(golds)) for _ in range(12_000)]
    pairs = [pair for pair in pairs if pair[0] != pair[1]][:10_000]
    assert len(pairs) == 10_000
    equal = {frozenset(pair) for pair in pairs if math.same(*pair)}
    assert equal == TRUE_EQUALITIES


# Looked at one by one: a name, a degree sign, a unit.
TRUE_EQUALITIES = {
    frozenset({"5", "x=5"}),
    frozenset({"2", "x = 2"}),
    frozenset({"6", "6^{\\circ}"}),
    frozenset({"3", "3\\text{ cm}"}),
}


def test_verdicts_equal_those_stated_with_the_hard_cases(data_dir):
    cases = [row for _, row in sources.read_jsonl(data_dir / "answer_extraction_cases.jsonl", ("task",))]
    cases = [case for case in cases if case["task"] == "math"]
    assert len(cases) == 13
    for case in cases:
        problem = Problem(id="p", task="math", split="test", question="", gold=case["gold"])
        verdict = grade(problem, case["output"], truncated=False)[1]
        # The one without a gold answer can be neither right nor, in truth, wrong: `load` leaves it out.
        assert (verdict is Verdict.RIGHT) == bool(case["output_is_correct"]), case["why"]
        if case["gold"]:
            assert math.same(math.extract(case["gold_raw"], problem) or "", case["gold"])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is $\\frac{1}{2}$.", "$\\frac{1}{2}$"),
        ("The answer is \\(x = 5\\), since 5 works.", "\\(x = 5\\)"),
        ("The answer is: \\[ 3.5 \\]", "3.5"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is therefore $5$ apples", "$5$"),
        ("The answer is $2$ and $3$.", "$2$ and $3$"),
        ("So \\boxed{\\{1, 2\\}}.", "\\{1, 2\\}"),
        ("So \\boxed 2", "2"),
        ("\\boxed{4}. Indeed the answer is plausible.", "4"),
        ("\\boxed{}", None),
        ("\\[ \\boxed{} \\] The answer is 6.", "6"),
        ("no answer", None),
    ],
)
def test_what_counts_as_the_answer(text, answer):
    assert math.extract(text, Problem(id="p", task="math", split="test", question="", gold="1")) == answer


HALF = Problem(id="p", task="math", split="test", question="", gold="\\frac{1}{2}")
PROSE = st.text(st.characters(exclude_characters="\\$:#*", codec="utf-8"), max_size=200).filter(
    lambda text: not list(cues.statements(text))
)


@given(st.text(max_size=300) | st.text("0123456789.$\\{}()[]^_ boxedfracanswer The is:\n", max_size=300))
@settings(max_examples=300)
def test_no_text_raises_in_extraction(text):
    for statement in (text, f"The answer is {text}", f"\\boxed{{{text}"):
        assert math.extract(statement, HALF) != ""


@given(before=PROSE, after=PROSE, stated=st.sampled_from(["\\boxed{\\frac12}", "The answer is $\\frac12$."]))
def test_prose_around_a_statement_changes_nothing(before, after, stated):
    assert grade(HALF, f"{before}\n{stated}\n{after}", truncated=False)[1] is Verdict.RIGHT


@pytest.mark.parametrize("text", ["9^{9^{9}}", "{" * 100_000, "\0" * 1_000, "\\boxed{" * 20_000, "\\frac" * 20_000])
def test_hostile_answers_are_graded_and_not_right(text):
    for statement in (text, f"The answer is {text}", f"\\boxed{{{text}}}"):
        assert grade(HALF, statement, truncated=False)[1] is not Verdict.RIGHT


def test_the_publishers_folders_load_as_the_single_files_do(tmp_path, data_dir, monkeypatch):
    rows = [row for _, row in sources.read_jsonl(data_dir / "math" / "test.jsonl", ("unique_id",))]
    for row in rows[:30]:
        file = tmp_path / "MATH" / row.pop("unique_id")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(row))
    with pytest.raises(UserError, match="30 problems, where the publisher's has 5000"):
        math.load("test", tmp_path)
    monkeypatch.setattr(sources, "check", lambda source, path, problems: problems)
    fields = {"question", "gold", "rationale", "meta"}
    loaded = {problem.meta["path"]: problem.model_dump(include=fields) for problem in math.load("test", tmp_path)}
    whole = {problem.meta["path"]: problem.model_dump(include=fields) for problem in math.load("test", data_dir)}
    assert len(loaded) == 30
    assert loaded.items() <= whole.items()


def test_a_solution_without_a_box_is_named(tmp_path, data_dir):
    lines = (data_dir / "math" / "test.jsonl").read_text().splitlines()
    lines[4] = json.dumps(json.loads(lines[4]) | {"solution": "It is 5."})
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"test\.jsonl:5: solution: has no"):
        math.load("test", tmp_path)


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_refined_answers_of_a_real_model_are_right_however_they_are_written(name, data_dir):
    """Of the 100 of MATH only 85 are the gold letter by letter; the others are equal to it, looked at one by one."""
    task = tasks.get(name)
    by_question = {" ".join(problem.question.split()): problem for problem in task.load("train", data_dir)}
    rows = json.loads((data_dir / "mathcritique" / f"Meta-Llama-3-8B-{name}-sftdata_0_new.json").read_text())
    assert len(rows) == 100
    for row in rows:
        question = row["instruction"].partition(" Please also give your final")[0]
        problem = by_question[" ".join(question.split())]
        assert grade(problem, row["output"], truncated=False)[1] is Verdict.RIGHT
