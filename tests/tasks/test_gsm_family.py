"""GSM8K's relatives and AIME: the publishers' files as lines and as Parquet, and errata."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from lema_jax import tasks
from lema_jax.errors import UserError
from lema_jax.evidence import clusters
from lema_jax.records import Verdict
from lema_jax.tasks import aime, errata, gsm8k, gsm8k_platinum, gsm_plus, gsm_symbolic, sources

SOLVED = "She has 3 * 4 = <<3*4=12>>12 pens.\n#### 12"
ROWS = {
    "gsm8k_platinum": {"question": "How many pens?", "answer": SOLVED, "cleaning_status": "consensus"},
    "gsm1k": {"question": "How many pens?", "answer": "12"},
    "gsm_symbolic": {"question": "How many?", "answer": SOLVED, "original_question": "How many pens?", "id": 3},
    "aime": {"problem": "Find $n$.", "answer": "012", "solution": "It is $\\boxed{012}$."},
    "gsm_plus": {
        "question": "How many?",
        "solution": SOLVED,
        "answer": "12",
        "perturbation_type": "digit expansion",
        "seed_question": "How many pens?",
        "seed_solution": SOLVED,
        "seed_answer": "12",
    },
}
SPLITS = {"gsm_symbolic": "main", "aime": "2024", "gsm_plus": "test"}


def source(name):
    module = tasks.get(name)
    found = module._SOURCE if hasattr(module, "_SOURCE") else module._SOURCES[SPLITS[name]]
    return found[0] if isinstance(found, tuple) else found


def written(folder, name, rows, form):
    """The rows as the publisher's file, in one of its forms."""
    file = folder / source(name).name
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    match form:
        case "lines":
            file.write_text(lines)
        case "gzipped":
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(lines.encode()))
        case "parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), file.with_suffix(".parquet"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_publishers_file_is_read_in_each_of_its_forms(name, tmp_path):
    rows = [ROWS[name] | {"question": f"Number {n}: how many?"} for n in range(source(name).count)]
    split = SPLITS.get(name, "test")
    task = tasks.get(name)
    found = [task.load(split, written(tmp_path / form, name, rows, form)) for form in ("lines", "gzipped", "parquet")]
    assert found[0] == found[1] == found[2]
    assert len({problem.id for problem in found[0]}) == source(name).count
    problem = found[0][-1]
    assert (problem.task, problem.split, problem.gold) == (name, split, "12")
    assert tasks.grade(problem, task.completion(problem), truncated=False) == ("12", Verdict.RIGHT)
    assert problem.question in task.prompt(problem)


@pytest.mark.parametrize("name", ROWS)
def test_a_file_that_is_absent_cut_off_or_of_other_content_is_one_line(name, tmp_path):
    task, split, row = tasks.get(name), SPLITS.get(name, "test"), ROWS[name]
    with pytest.raises(UserError, match=r"there is neither .* get it from https://"):
        task.load(split, tmp_path)
    with pytest.raises(UserError, match=f"1 problems, where the publisher's has {source(name).count}"):
        task.load(split, written(tmp_path / "short", name, [row], "lines"))
    with pytest.raises(UserError, match=r":1: answer: "):
        task.load(split, written(tmp_path / "words", name, [row | {"answer": "many"}], "lines"))
    with pytest.raises(UserError, match=r":1: no answer; found"):
        task.load(split, written(tmp_path / "less", name, [{k: v for k, v in row.items() if k != "answer"}], "lines"))
    torn = tmp_path / "torn" / source(name).name
    torn.parent.mkdir(parents=True)
    torn.with_suffix(".parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="not Parquet"):
        task.load(split, tmp_path / "torn")
    with pytest.raises(UserError, match="no split 'exam'; there"):
        task.load("exam", tmp_path)


def test_a_year_of_aime_in_two_files_is_one_split(tmp_path):
    for part, start in (("I", 0), ("II", 15)):
        file = tmp_path / "AIME2025" / f"aime2025-{part}.jsonl"
        file.parent.mkdir(exist_ok=True)
        rows = [{"question": f"Find ${n}$.", "answer": str(n)} for n in range(start, start + 15)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = aime.load("2025", tmp_path)
    assert [(problem.id, problem.gold) for problem in problems] == [(f"aime/2025/{n}", str(n)) for n in range(30)]
    assert tasks.grade(problems[7], "So $n = \\boxed{007}$.", truncated=False)[1] is Verdict.RIGHT
    assert tasks.grade(problems[7], "So $n = \\boxed{008}$.", truncated=False)[1] is Verdict.WRONG


def test_gsm_plus_is_the_publishers_and_clustered_by_seed_question(data_dir, caplog):
    problems = gsm_plus.load("testmini", data_dir)
    assert len(problems) == 2_100
    assert "left out the 300 questions of the kind 'critical thinking'" in caplog.text
    found = clusters.find(problems)
    assert (found.count, found.by) == (300, "seed question")
    assert {problem.meta["kind"] for problem in problems}.isdisjoint({gsm_plus.UNANSWERABLE})
    assert len({problem.meta["kind"] for problem in problems}) == 7
    for problem in problems:
        assert tasks.grade(problem, f"The answer is {problem.gold}.", truncated=False)[1] is Verdict.RIGHT
    seeds = gsm_plus.load("seeds", data_dir)
    assert [seed.question for seed in seeds] == list(dict.fromkeys(p.meta["seed_question"] for p in problems))
    tested = {
        sources.digest([problem.model_copy(update={"rationale": ""})]) for problem in gsm8k.load("test", data_dir)
    }
    assert {sources.digest([seed.model_copy(update={"rationale": ""})]) for seed in seeds} <= tested


def test_the_instances_of_a_template_are_a_cluster(tmp_path):
    row = ROWS["gsm_symbolic"]
    rows = [row | {"question": f"{n}?", "original_question": f"{n // 50}?"} for n in range(5_000)]
    assert clusters.find(gsm_symbolic.load("main", written(tmp_path, "gsm_symbolic", rows, "lines"))).count == 100


def platinum(folder, problems):
    """GSM8K-Platinum's file with these problems, and as many others as it needs."""
    rows = [{"question": p.question, "answer": f"So.\n#### {p.gold}", "cleaning_status": "verified"} for p in problems]
    rows += [ROWS["gsm8k_platinum"] | {"question": f"{n}?"} for n in range(1_209 - len(rows))]
    return written(folder, "gsm8k_platinum", rows, "parquet")


def test_errata_of_gsm8k_are_what_platinum_changed(tmp_path):
    problems = [
        sources.problem("here", id=f"gsm8k/test/{n}", task="gsm8k", split="test", question=f"What is  {n}?", gold=gold)
        for n, gold in enumerate(("5", "1,000", "7", "8"))
    ]
    kept = [
        problems[0].model_copy(update={"question": "What is 0?"}),
        problems[1].model_copy(update={"gold": "1000"}),
        problems[3].model_copy(update={"gold": "9"}),
    ]
    mended = errata.mend(problems, "platinum", platinum(tmp_path, kept))
    assert [(problem.id, problem.gold) for problem in mended.problems] == [
        ("gsm8k/test/0", "5"),
        ("gsm8k/test/1", "1,000"),
        ("gsm8k/test/3", "9"),
    ]
    assert str(mended) == "errata: 1 questions left out, 1 golds changed; 3 left"
    others = [problem.model_copy(update={"task": "svamp"}) for problem in problems]
    with pytest.raises(UserError, match=r"is of gsm8k/test, not of svamp/test"):
        errata.mend(others, "platinum", tmp_path)
    with pytest.raises(UserError, match="get it from"):
        errata.mend(problems, "platinum", tmp_path / "nothing")


def test_errata_of_a_users_own(tmp_path):
    problems = [
        sources.problem("here", id=f"a/{n}", task="svamp", split="test", question=f"{n}?", gold="5") for n in range(3)
    ]
    file = tmp_path / "errata.jsonl"

    def mended(*rows):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return errata.mend(problems, str(file))

    found = mended({"id": "a/1", "gold": None}, {"id": "a/2", "gold": "6"})
    assert [(problem.id, problem.gold) for problem in found.problems] == [("a/0", "5"), ("a/2", "6")]
    assert (found.left_out, found.changed) == (1, 1)
    for rows, said in [
        ([{"id": "b/1", "gold": "6"}], r"errata.jsonl:1: id: the test has no question 'b/1'"),
        ([{"id": "a/1", "gold": " "}], r"errata.jsonl:1: gold: is empty"),
        ([{"id": "a/1", "gold": "see the note"}], r"errata.jsonl:1: gold: \"see the note\" is no answer of svamp"),
        ([{"id": "a/1", "gold": [6]}], r"errata.jsonl:1: gold: \[6\] is no answer"),
        (
            [{"id": "a/1", "gold": "6"}, {"id": "a/1", "gold": "7"}],
            r"errata.jsonl:2: id: 'a/1' stands on an earlier line",
        ),
        ([{"id": f"a/{n}", "gold": None} for n in range(3)], "leaves out all 3 questions"),
    ]:
        with pytest.raises(UserError, match=said):
            mended(*rows)
    with pytest.raises(UserError, match="there is no such file"):
        errata.mend(problems, str(tmp_path / "none.jsonl"))


def test_platinum_says_how_its_golds_were_checked(tmp_path):
    problems = gsm8k_platinum.load("test", platinum(tmp_path, []))
    assert {problem.meta["cleaning"] for problem in problems} == {"consensus"}
