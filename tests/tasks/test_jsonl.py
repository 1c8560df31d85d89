"""A user's own task, and the task table."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.records import Verdict
from lema_jax.tasks import phrases

ROWS = [
    {"question": "2 + 3?", "gold": 5, "id": "sum"},
    {"question": "A half?", "gold": "\\frac12", "split": "test", "rationale": "1 / 2."},
    {"question": "Where?", "gold": "bank", "choices": ["bank", "mall"]},
    {"question": "3 + 3?", "gold": "6", "split": "train"},
]


def write(path, rows) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return f"jsonl:{path}"


def test_rows_are_graded_by_what_their_gold_is(tmp_path):
    task = tasks.get(write(tmp_path / "mine.jsonl", ROWS))
    number, formula, choice = task.load("test")
    assert [problem.id for problem in (number, formula, choice)] == ["mine/test/sum", "mine/test/1", "mine/test/2"]
    assert [problem.question for problem in task.load("train")] == ["2 + 3?", "Where?", "3 + 3?"]
    for problem, right, wrong in [(number, "$5.00", "6"), (formula, "$0.5$", "$0.6$"), (choice, "(A)", "(B)")]:
        assert tasks.grade(problem, f"The answer is {right}.", truncated=False)[1] is Verdict.RIGHT
        assert tasks.grade(problem, f"The answer is {wrong}.", truncated=False)[1] is Verdict.WRONG
        assert tasks.grade(problem, "I do not know.", truncated=False)[1] is Verdict.UNPARSED
        assert tasks.grade(problem, task.completion(problem), truncated=False)[1] is Verdict.RIGHT
        assert task.official_grader(task.completion(problem), problem)
    assert "Candidate Answers: bank, mall." in task.prompt(choice)
    assert task.prompt(number) == tasks.get("gsm8k").prompt(number)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("St. Louis", ["St. Louis, Missouri", "st louis", "**St. Louis**"], ["St. Paul", "St", "Louis"]),
        ("J. R. R. Tolkien", ["J.R.R. Tolkien", "J. R. R. Tolkien. He wrote it"], ["J", "J. K. Rowling", "Tolkien"]),
        ("E. coli", ["E. coli, a bacterium"], ["E", "E. bacteria"]),
        ("to be or not to be", ["To be, or not to be"], ["to be"]),
        ("Yes, because it rains.", ["yes because it rains"], ["Yes, because I like it."]),
    ],
)
def test_a_gold_of_words_is_read_whole(tmp_path, gold, right, wrong):
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [{"question": "Who?", "gold": gold}])).load("test")
    for said, verdict in [*((one, Verdict.RIGHT) for one in right), *((one, Verdict.WRONG) for one in wrong)]:
        for text in (f"Let me think.\nThe answer is {said}.", f"Answer: {said}", f"$\\boxed{{\\text{{{said}}}}}$"):
            assert tasks.grade(problem, text, truncated=False)[1] is verdict, text
    for text in ("I do not know who that would have been.", "The answer is not known to me."):
        assert tasks.grade(problem, text, truncated=False)[1] is Verdict.UNPARSED, text


@pytest.mark.parametrize(
    ("end", "gold"),
    [("The answer is 12.", 12), ("So the answer is 12 pens.", 12), ("#### 12", "12 "), ("The answer is $x$.", "$x$")],
)
def test_a_rationale_that_states_its_answer_states_it_once(tmp_path, end, gold):
    row = {"question": "q", "gold": gold, "rationale": f"3 * 4 = 12\r\nSo it is.\r\n{end}\n"}
    task = tasks.get(write(tmp_path / "mine.jsonl", [row]))
    (problem,) = task.load("test")
    assert task.completion(problem) == f"3 * 4 = 12\nSo it is.\nThe answer is {str(gold).strip()}."


@pytest.mark.parametrize(
    ("gold", "end"),
    [
        (12, "The answer is the product of 3 and 4."),
        (12, "The answer is 3 * 4 = 12, since each has 4 pens."),
        ("blue", "The answer is blue because of scattering."),
        ("Paris", "The answer is the capital, Paris."),
        ("50%", "The answer is 0.5."),
    ],
)
def test_a_last_line_that_says_more_than_gold_stays(tmp_path, gold, end):
    row = {"question": "q", "gold": gold, "rationale": f"First.\n{end}"}
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [row])).load("test")
    assert problem.rationale == f"First.\n{end}"


def test_a_question_with_two_golds_is_named(tmp_path, caplog):
    rows = [{"question": "How many?", "gold": gold, "split": "test"} for gold in (5, "5.0", 6)]
    tasks.get(write(tmp_path / "mine.jsonl", rows)).load("test")
    assert "questions that stand twice with other golds, in lines 1 and 3 ('5', '6')" in caplog.text
    assert "1 and 2" not in caplog.text


def test_a_whole_number_of_a_column_of_floats_has_no_point(tmp_path):
    task = tasks.get(write(tmp_path / "mine.jsonl", [{"question": "q", "gold": 61.0}, {"question": "p", "gold": 1.5}]))
    assert [problem.gold for problem in task.load("test")] == ["61", "1.5"]


def test_a_gold_that_ends_in_a_full_stop_has_one_in_a_completion(tmp_path):
    task = tasks.get(write(tmp_path / "mine.jsonl", [{"question": "q", "gold": "5 dollars. "}]))
    (problem,) = task.load("test")
    assert task.completion(problem) == "The answer is 5 dollars."


@pytest.mark.parametrize("gold", ["New York", "U.S.", "ten", "one half", "Paris (France)", "F", "(A) yes", "x > 3"])
def test_other_golds_are_no_phrases(gold):
    assert not phrases.is_one(gold)


def test_a_last_line_that_is_a_gold_of_words_states_it(tmp_path):
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [{"question": "Who?", "gold": "Dr. Smith"}])).load("test")
    assert tasks.grade(problem, "I know who it was.\nDr. Smith.", truncated=False)[1] is Verdict.RIGHT


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q"}, r"mine\.jsonl:2: no gold; found question"),
        ({"question": "q", "gold": " "}, r":2: gold: is empty"),
        ({"question": "q", "gold": "a", "split": 5}, r":2: split: 5 is no text; name the split"),
        ({"question": "q", "gold": "a", "answer": 5}, r":2: unknown key 'answer'; a row has choices, gold"),
        ({"question": "q", "gold": "a", "choices": ["b"]}, r":2: gold: 'a' is none of the choices"),
        ({"question": 5, "gold": "a"}, r":2: question: Input should be a valid string"),
        ({"question": "q", "gold": "a", "id": "sum"}, r":2: id 'sum' is that of line 1 already"),
        ("{", r":2: not JSON"),
        ({"question": "q", "gold": None}, r":2: gold: null is no answer; write it as text or as a number"),
        ({"question": "q", "gold": True}, r":2: gold: true is no answer"),
        ({"question": "q", "gold": ["3"]}, r":2: gold: \[\"3\"\] is no answer"),
        ('{"question": "q", "gold": NaN}', r":2: gold: NaN is no answer"),
        (
            {"question": "q", "gold": 12, "rationale": "a\nThe answer is 13."},
            r":2: rationale: ends in the answer '13'",
        ),
        ({"question": "q", "gold": 12, "rationale": ["a"]}, r":2: rationale: .* is no text; write a step on each line"),
        ({"question": "q", "gold": "#### 12"}, r":2: gold: '#### 12' could not be answered: .* reads '12'"),
        ({"question": "q", "gold": "50 (fifty)"}, r":2: gold: '50 \(fifty\)' could not be answered: .* reads '50'"),
        ({"question": "q", "gold": "C", "choices": ["B", "C", "A"]}, r":2: gold: 'C' could not be answered"),
        ({"question": None, "gold": "a"}, r":2: question: is empty"),
        ({"question": "q", "gold": "a", "choices": False}, r":2: choices: false is no list of texts"),
        ({"question": "q", "gold": "5", "choices": "5 6"}, r':2: choices: "5 6" is no list of texts'),
        ({"question": "q", "gold": 5, "choices": ["5", "6"]}, r":2: gold: 5 is none of the choices .* the text of one"),
        ({"question": "q", "gold": "5 MW", "choices": ["5 MW", "5 mW"]}, r"'5 mW' would count as the gold '5 MW'"),
        ({"question": "q", "gold": "yes", "choices": ["Yes", "yes"]}, r"'Yes' would count as the gold 'yes'"),
        ({"question": "q", "gold": "3", "rationale": "1 + 2 = 4\n#### 4"}, r"ends in the answer '4', but gold is '3'"),
        ('{"question": "a \\ud800 b", "gold": "3"}', r":2: has half of a character"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, said):
    with pytest.raises(UserError, match=said):
        tasks.get(write(tmp_path / "mine.jsonl", [ROWS[0], row])).load("test")


def test_null_is_as_if_the_key_were_not_there(tmp_path):
    """As a table of questions of several kinds is written."""
    row = {"question": "q", "gold": 3, "choices": None, "rationale": None, "id": None, "split": None}
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [row])).load("train")
    assert (problem.id, problem.gold, problem.choices, problem.rationale) == ("mine/train/0", "3", (), "")


def test_an_id_and_the_number_of_another_line_are_two(tmp_path):
    rows = [{"question": "q", "gold": 3, "id": "1"}, {"question": "r", "gold": 4}]
    with pytest.raises(UserError, match=r":2: id '1' is that of line 1 already; .* its line's number"):
        tasks.get(write(tmp_path / "mine.jsonl", rows)).load("train")


def test_blank_lines_are_no_rows(tmp_path):
    assert len(tasks.get(write(tmp_path / "mine.jsonl", [ROWS[0], "", " ", ROWS[3], ""])).load("train")) == 2


@pytest.mark.parametrize(("number", "gold"), [(0.00001, "0.00001"), (1e19, "1" + "0" * 19), (-2.50, "-2.5"), (7, "7")])
def test_a_number_is_written_without_an_exponent(tmp_path, number, gold):
    task = tasks.get(write(tmp_path / "mine.jsonl", [{"question": "q", "gold": number}]))
    (problem,) = task.load("test")
    assert problem.gold == gold
    assert tasks.grade(problem, f"The answer is {gold}.", truncated=False)[1] is Verdict.RIGHT


def test_the_line_of_the_answer_is_no_step(tmp_path):
    row = {"question": "q", "gold": 3, "rationale": "She has 1 + 2 = 3.\n#### 3"}
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [row])).load("train")
    assert problem.rationale == "She has 1 + 2 = 3."


def test_lists_of_numbers_are_no_number(tmp_path):
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [{"question": "q", "gold": "1,2,10"}])).load("test")
    assert tasks.grade(problem, "The answer is 1,2,10.", truncated=False)[1] is Verdict.RIGHT
    assert tasks.grade(problem, "The answer is 1210.", truncated=False)[1] is Verdict.WRONG


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("2024-05-01", ["2024-05-01", "2024-5-1", "2024–05–01", "2024/05/01"], ["2024-01-05", "2023-04-01", "2018"]),
        ("5/1/2024", ["5/1/2024", "05/01/2024"], ["1/5/2024", "10/2/2024"]),
        ("3-2", ["3-2", "3 - 2", "3 to 2"], ["4-3", "1", "2-3", "3/2"]),
        ("10-12", ["10–12", "10 to 12", "$10-12$"], ["8-10", "-2"]),
    ],
)
def test_a_date_a_score_and_a_range_are_no_sums(tmp_path, gold, right, wrong):
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [{"question": "q", "gold": gold}])).load("test")
    verdicts = lambda said: {one: tasks.grade(problem, f"The answer is {one}.", truncated=False)[1] for one in said}
    assert verdicts(right) == dict.fromkeys(right, Verdict.RIGHT)
    assert verdicts(wrong) == dict.fromkeys(wrong, Verdict.WRONG)


@pytest.mark.parametrize(
    ("gold", "other"),
    [("Paris, London", "London, Paris"), ("xy", "yx"), ("no solution", "none"), ("10 cm", "10 m"), ("5%", "5")],
)
def test_another_choice_is_wrong_however_alike_it_reads_as_a_formula(tmp_path, gold, other):
    row = {"question": "q", "gold": gold, "choices": [other, gold, "4"]}
    (problem,) = tasks.get(write(tmp_path / "mine.jsonl", [row])).load("test")
    assert tasks.grade(problem, f"The answer is {gold}.", truncated=False)[1] is Verdict.RIGHT
    assert tasks.grade(problem, "The answer is (A).", truncated=False)[1] is Verdict.WRONG
    assert tasks.grade(problem, "The answer is (B).", truncated=False)[1] is Verdict.RIGHT


def test_a_rationale_of_many_signs_takes_linear_time(tmp_path):
    row = {"question": "q", "gold": "3", "rationale": "#### x" + " " * 100_000 + "y" + "#" * 100_000 + "\nIt is 3."}
    assert len(tasks.get(write(tmp_path / "mine.jsonl", [row])).load("train")) == 1


@given(
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.one_of(st.text(max_size=20), st.floats(), st.integers(), st.none(), st.booleans()),
    st.one_of(st.none(), st.lists(st.text(max_size=9), max_size=4)),
)
def test_whatever_a_row_says_its_gold_can_be_answered_or_the_row_is_refused(tmp_path_factory, question, gold, choices):
    path = tmp_path_factory.mktemp("own") / "mine.jsonl"
    task = tasks.get(write(path, [{"question": question, "gold": gold, "choices": choices}]))
    try:
        (problem,) = task.load("test")
    except UserError as error:
        problem, said = None, str(error)
    if problem is None:
        assert "mine.jsonl:1: " in said
    else:
        assert tasks.grade(problem, task.completion(problem), truncated=False)[1] is Verdict.RIGHT


def test_a_file_that_is_missing_or_has_nothing_of_the_split(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        tasks.get("jsonl:nowhere.jsonl").load("test")
    with pytest.raises(UserError, match=r"no problem of split 'dev'; its rows name train \(1\)"):
        tasks.get(write(tmp_path / "mine.jsonl", ROWS[3:])).load("dev")


def test_every_name_is_a_task_with_the_functions_of_one():
    for name in tasks.NAMES:
        task = tasks.get(name)
        assert task.SPLITS
        for function in ("load", "prompt", "completion", "extract", "same", "official_grader"):
            assert callable(getattr(task, function))
    with pytest.raises(UserError, match=r"no task 'gsm'; choose one of aime, arithmetic, .*jsonl:PATH"):
        tasks.get("gsm")


def test_a_cut_text_is_right_or_truncated_but_never_wrong(tmp_path):
    problem = tasks.get(write(tmp_path / "mine.jsonl", ROWS)).load("test")[0]
    assert tasks.grade(problem, "The answer is 5. And", truncated=True) == ("5", Verdict.RIGHT)
    assert tasks.grade(problem, "The answer is 6. And", truncated=True) == ("6", Verdict.TRUNCATED)
    assert tasks.grade(problem, "2 + 3 is", truncated=True) == (None, Verdict.TRUNCATED)


@pytest.mark.parametrize("text", ["The answer is 5", "#### $5", "4. 2 + 3 is 5\n5", "\\boxed{5", "5"])
def test_a_number_that_may_be_cut_in_two_is_no_answer(tmp_path, text):
    problem = tasks.get(write(tmp_path / "mine.jsonl", ROWS)).load("test")[0]
    assert tasks.grade(problem, text, truncated=False) == ("5", Verdict.RIGHT)
    assert tasks.grade(problem, text, truncated=True) == (None, Verdict.TRUNCATED)
    assert tasks.grade(problem, f"{text}\n", truncated=True) == ("5", Verdict.RIGHT)
    assert tasks.grade(problem, f"The answer is 53.\n{text}", truncated=True) == ("53", Verdict.TRUNCATED)


def test_the_number_of_a_list_that_is_cut_off_is_no_answer(tmp_path):
    problem = tasks.get(write(tmp_path / "mine.jsonl", ROWS)).load("test")[0]
    for end in ("", ".", ". ", ". The"):
        assert tasks.grade(problem, f"4. And so on.\n5{end}", truncated=True) == (None, Verdict.TRUNCATED)


def test_rows_that_name_a_split_are_held_out(tmp_path):
    task = tasks.get(write(tmp_path / "mine.jsonl", [*ROWS, {"question": "4 + 4?", "gold": "8", "split": "late"}]))
    held_out = {split: [problem.question for problem in found] for split, found in task.held_out(unnamed=False).items()}
    assert held_out == {"test": ["A half?"], "late": ["4 + 4?"]}
    unnamed = task.held_out(unnamed=True)
    assert [problem.question for problem in unnamed["test"]] == ["2 + 3?", "A half?", "Where?"]
