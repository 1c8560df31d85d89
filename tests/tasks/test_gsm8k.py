"""GSM8K: the publisher's files, the paper's prompt, and verdicts of others on real answers."""

import re
import shutil
from pathlib import Path

import pytest

from lema_jax.errors import UserError
from lema_jax.records import Verdict
from lema_jax.tasks import answers, grade, gsm8k, sources


@pytest.fixture(scope="module")
def test_problems(data_dir):
    return gsm8k.load("test", data_dir)


def read(path: Path) -> list[dict]:
    return [row for _, row in sources.read_jsonl(path, ())]


def fold(text: str) -> str:
    return " ".join(text.split())


def test_the_publishers_files_load_whole(data_dir, test_problems):
    train = gsm8k.load("train", data_dir)
    assert (len(train), len(test_problems)) == (7_473, 1_319)
    assert all(re.fullmatch(r"-?\d+(\.\d+)?", problem.gold) for problem in train + test_problems)
    assert sum(problem.gold.startswith("-") for problem in train + test_problems) == 5
    assert not any("####" in problem.rationale for problem in train + test_problems)


def test_the_prompt_is_the_papers(data_dir, test_problems):
    papers = [row["prompt"] for row in read(data_dir / "lema" / "gsm8k_test.jsonl")]
    ours = [gsm8k.prompt(problem) for problem in test_problems]
    assert [fold(prompt) for prompt in ours] == [fold(prompt) for prompt in papers]
    # The white space of the question aside, nothing is folded: frame and line ends are the paper's.
    frame = re.compile(
        r"(Please solve the following math problem\.\nQuestion: ).*(\nAnswer: Let's think step by step\.\n)"
    )
    assert {frame.fullmatch(prompt).groups() for prompt in papers} == {
        re.compile(frame.pattern, re.DOTALL).fullmatch(prompt).groups() for prompt in ours
    }


def test_the_gold_completion_is_graded_right(data_dir):
    for problem in gsm8k.load("train", data_dir):
        text = gsm8k.completion(problem)
        assert "<<" not in text
        assert grade(problem, text, truncated=False)[1] == Verdict.RIGHT, problem.id


def test_verdicts_equal_those_published_with_the_6b_answers(data_dir, test_problems):
    by_question = {problem.question: problem for problem in test_problems}
    rows = read(data_dir / "gsm8k" / "example_model_solutions_6b.jsonl")
    graded = 0
    for row in rows:
        problem = by_question[row["question"]]
        for model in ("6b_finetuning", "6b_verification"):
            verdict = grade(problem, row[model]["solution"], truncated=False)[1]
            assert (verdict == Verdict.RIGHT) == row[model]["is_correct"], (problem.id, model)
            graded += 1
    assert graded == 2_638


def test_verdicts_equal_those_stated_with_the_hard_cases(data_dir):
    cases = read(data_dir / "answer_extraction_cases.jsonl")
    cases = [case for case in cases if case["task"] == "gsm8k"]
    assert len(cases) == 5
    for case in cases:
        answer = answers.final_number(case["output"])
        assert (answer is not None and gsm8k.same(answer, case["gold_raw"])) == case["output_is_correct"], case["why"]


@pytest.fixture
def broken(tmp_path, data_dir) -> Path:
    """A copy of the test file that a test may spoil."""
    (tmp_path / "gsm8k").mkdir()
    return Path(shutil.copy(data_dir / "gsm8k" / "test.jsonl", tmp_path / "gsm8k" / "test.jsonl"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [*lines[:41], lines[41][:50], *lines[42:]], r"test\.jsonl:42: not JSON"),
        (lambda lines: [*lines[:41], '{"question": "How many?"}', *lines[42:]], r"test\.jsonl:42: no answer; found"),
        (lambda lines: [*lines[:41], "[1, 2]", *lines[42:]], r"test\.jsonl:42: expected an object"),
        (lambda lines: [*lines[:3], '{"question": "q", "answer": "4"}'], r"test\.jsonl:4: answer: does not end in"),
        (lambda lines: lines[:-1], r"1318 problems, where the publisher's has 1319"),
        (lambda lines: [lines[0].replace("16 eggs", "17 eggs"), *lines[1:]], r"the texts differ from the publisher's"),
        (lambda lines: [lines[0].encode().decode("latin1")[:-5] + "\udcff", *lines[1:]], r":1: not UTF-8 text"),
    ],
)
def test_a_broken_file_is_named_with_the_place(broken, spoil, said):
    lines = spoil(broken.read_text().splitlines())
    broken.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=said):
        gsm8k.load("test", broken.parents[1])


def test_a_file_may_lie_in_the_data_folder_itself_or_be_named_by_the_environment(broken, monkeypatch):
    assert len(gsm8k.load("test", broken.parent)) == 1_319
    monkeypatch.setenv("LEMA_DATA", str(broken.parents[1]))
    assert len(gsm8k.load("test")) == 1_319


def test_no_data_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv("LEMA_DATA", raising=False)
    with pytest.raises(UserError, match=r"--data_dir or LEMA_DATA .*https://"):
        gsm8k.load("test")
    with pytest.raises(UserError, match=r"neither .*gsm8k/test\.jsonl nor .*get it from https://"):
        gsm8k.load("test", tmp_path)
    with pytest.raises(UserError, match="no split 'dev'"):
        gsm8k.load("dev", tmp_path)


def test_a_download_is_checked_and_kept(tmp_path):
    served = tmp_path / "served.jsonl"
    served.write_text("content\n")
    source = sources.Source("kind/file.jsonl", 1, "", served.as_uri())
    sha256 = "434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53"
    path = sources.download(source, sha256, tmp_path / "data")
    assert path.read_text() == "content\n"
    served.write_text("another\n")
    assert sources.download(source, sha256, tmp_path / "data").read_text() == "content\n"  # what is there stays
    with pytest.raises(UserError, match="expected " + sha256):
        sources.download(source, sha256, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    served.unlink()
    with pytest.raises(UserError, match=r"cannot download .*save it as kind/file\.jsonl"):
        sources.download(source, sha256, tmp_path / "elsewhere")
