"""The report door, run as a user runs it."""

import dataclasses
import json
import subprocess
import sys

import pytest

from lema_jax import records
from lema_jax.data import build
from lema_jax.data.card import Card
from lema_jax.evidence import data_set
from lema_jax.records import Attempt, Correction, Example, PathScore, Verdict
from tests import made_runs
from tests.html_page import Parsed


def report(*flags):
    return subprocess.run([sys.executable, "-m", "lema_jax.report", *flags], capture_output=True, text=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [made_runs.write_letters(root / name, v) for name, v in (("cot", "rwwwu" * 20), ("lema", "rrwwt" * 20))]


def test_one_table_one_sentence_and_answers_to_read(folders):
    done = report(f"--runs={folders[0]},{folders[1]}", "--show=2")
    assert done.returncode == 0, done.stderr
    table, sentence, *shown = done.stdout.split("\n\n")
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["cot", "lema"]
    assert "lema answers 20.0 points more of the 100 questions right than cot" in sentence
    assert len(shown) == 2
    assert all(text.startswith("── fixed: arithmetic/test/") for text in shown)


def test_baseline_and_names_turn_the_comparison_round(folders):
    done = report(f"--runs={folders[0]},{folders[1]}", "--names=A,B", "--baseline=B", "--show=0")
    assert "A answers 20.0 points fewer of the 100 questions right than B" in done.stdout
    assert "──  " in done.stdout
    assert "fixed" not in done.stdout


def test_user_mistakes_get_one_clear_line_and_an_exit_code(folders):
    done = report(f"--runs={folders[0]}", "--baseline=x")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "error: --baseline=x is none of the runs: cot\n"


def test_what_each_mistake_is_told(folders, tmp_path):
    cot, lema = folders
    other = made_runs.write_letters(tmp_path / "other", "rrr")
    told = errors_of(
        [],
        [f"--runs={cot},{lema}", "--names=a"],
        [f"--runs={tmp_path / 'nowhere'}"],
        [f"--runs={cot},", str(lema)],
        [f"--runs={cot},{other}"],
        [f"--runs={cot}", f"--out={cot}", "--show=0"],
        [f"--runs={cot},{lema}", "--by_task"],
        [f"--runs={cot}", "--corrections=c.jsonl"],
        ["--attempts=nowhere.jsonl"],
        [f"--attempts={cot / 'predictions.jsonl'}"],
        [f"--data={cot},{lema}"],
        ["--attempts=a.jsonl", "--corrections=c.jsonl"],
        ["--corrections=nowhere.jsonl"],
        [f"--runs={cot}", f"--data={cot}", f"--out={tmp_path / 'r.html'}", "--show=0"],
    )
    expected = ("--runs=folder", "for 2 folders or files", "cannot read", "unexpected argument", "97 only in")
    expected += ("cannot write",)
    expected += ("--by_task needs --names", "give either --runs")
    expected += ("cannot read nowhere.jsonl", "this is a file of predictions", "a page shows one data set")
    expected += ("give either --runs", "cannot read nowhere.jsonl", "has no card.json")
    assert all(words in error for words, error in zip(expected, told, strict=True))


def errors_of(*command_lines):
    """The UserError of each command line; one process for all, and not this one: flags are global."""
    script = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from lema_jax import errors, report
for arguments in json.loads(sys.argv[1]):
    with flagsaver.flagsaver():
        try:
            report.main(flags.FLAGS(["report", *arguments]))
        except errors.UserError as error:
            print("told: " + json.dumps(str(error)))
"""
    done = subprocess.run([sys.executable, "-c", script, json.dumps(command_lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("told: ")]


def test_the_page_is_written_and_training_curves_are_asked_for_by_folder(folders, tmp_path):
    training = tmp_path / "train"
    training.mkdir()
    (training / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    out = tmp_path / "new" / "report.html"
    done = report(f"--runs={folders[0]},{folders[1]}", f"--training={training}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    text = out.read_text()
    assert "Training" in text
    assert "lema answers 20.0 points more" in text


def test_checkpoints_are_chosen_on_dev(folders, tmp_path):
    devs = [
        made_runs.write(
            tmp_path / name,
            [
                made_runs.prediction(made_runs.problem(500 + i), made_runs.LETTERS[letter], name)
                for i, letter in enumerate(letters)
            ],
        )
        for name, letters in (("cot", "rrw"), ("lema", "rww"))
    ]
    done = report(f"--runs={folders[0]},{folders[1]}", f"--dev={devs[0]},{devs[1]}", "--show=0")
    assert "Chosen on dev: cot (66.7 % of 3 dev questions), on test 20.0 %" in done.stdout
    assert "Best on test: lema, 40.0 %" in done.stdout


def test_several_tasks_are_set_out_arms_down_tasks_across(folders, tmp_path):
    out = tmp_path / "tasks.html"
    done = report(f"--runs={folders[0]},{folders[1]}", "--names=cot,lema", "--by_task", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "arithmetic/test (n=100)" in done.stdout
    assert "40.0 (+20.0*)" in done.stdout
    assert "40.0 (+20.0*)" in out.read_text()


def test_filters_of_the_training_data_are_counted_on_the_page(folders, tmp_path):
    filters = {"left_out": {"corrections": [["rejected", 12]]}, "kinds": {"cot": 34}}
    card = {field.name: {} for field in dataclasses.fields(Card)} | filters
    (tmp_path / "card.json").write_text(json.dumps(card))
    done = report(f"--runs={folders[0]}", f"--data={tmp_path}", f"--out={tmp_path / 'r.html'}")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "r.html").read_text()
    assert ">corrections: rejected</text>" in text
    assert ">trained on: cot</text>" in text


def test_attempts_are_counted_and_shown(tmp_path):
    verdicts = (Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSED)
    rows = [
        Attempt(
            id=verdict.value, problem=made_runs.problem(1), student="small", sampling={}, prompt="Why?",
            text=r"So \(x = \frac{1}{2}\) & that is it.", answer=None, verdict=verdict, prompt_tokens=1,
            completion_tokens=9,
        )
        for verdict in verdicts
    ]  # fmt: skip
    records.write(tmp_path / "attempts.jsonl", rows)
    out = tmp_path / "a.html"
    done = report(f"--attempts={tmp_path / 'attempts.jsonl'}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "1 of 3 attempts are right (33.3 %" in done.stdout
    assert [item["data-kinds"] for item in Parsed(out.read_text()).items()] == [verdict.value for verdict in verdicts]
    assert "<mfrac>" in out.read_text()


@pytest.mark.slow
def test_a_data_set_is_shown_with_its_own_tokens(tmp_path):
    recipe = build.Recipe(task="arithmetic", limit=30, train_tokenizer=800, overlap="drop")
    made, _ = build.build(recipe, tmp_path / "set")
    done = report(f"--data={tmp_path / 'set'}", f"--out={tmp_path / 'd.html'}")
    assert done.returncode == 0, done.stderr
    assert f"{made.counts['examples']:,} examples" in done.stdout
    parsed = Parsed((tmp_path / "d.html").read_text())
    shown = list(records.read(tmp_path / "set" / "examples.jsonl", Example))
    said = "".join(parsed.text)
    assert len(parsed.items()) == min(len(shown), data_set.EACH)
    assert sum(f"{row.completion}</s>" in said for row in shown) == len(parsed.items())
    assert [tag for tag, _ in parsed.tags].count("b") > [tag for tag, _ in parsed.tags].count("summary")


def test_corrections_are_audited(tmp_path):
    problem = made_runs.problem(1)
    attempt = Attempt(
        id="a", problem=problem, student="small", sampling={}, prompt="", text="It is 3.", answer="3",
        verdict=Verdict.WRONG, prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip
    rows = [
        Correction(id=str(i), attempt=attempt, teacher="t", text="", rejected="no_explanation" * i) for i in range(2)
    ]
    records.write(tmp_path / "corrections.jsonl", rows)
    done = report(f"--corrections={tmp_path / 'corrections.jsonl'}", f"--out={tmp_path / 'c.html'}")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 corrections are kept (50.0 %" in done.stdout
    assert "no_explanation" in (tmp_path / "c.html").read_text()


def test_scores_say_how_well_each_checkpoint_tells_right_paths_from_wrong_ones(tmp_path):
    for name, wrong in (("cot", 7.0), ("lema", 14.0)):
        fields = {"checkpoint": name, "tokens": 10}
        rows = [PathScore(id=f"r{n}", problem_id=f"{n}", right=True, nll=7.0, **fields) for n in range(20)]
        rows += [PathScore(id=f"w{n}", problem_id=f"{n}", right=False, nll=wrong, **fields) for n in range(20)]
        records.write(tmp_path / name / "scores.jsonl", rows)
    done = report(f"--scores={tmp_path}/cot/scores.jsonl,{tmp_path}/lema/scores.jsonl")
    assert done.returncode == 0, done.stderr
    cot, lema = done.stdout.splitlines()
    assert cot.startswith("cot: ΔPPL 0.000, 95 % interval 0.000 to 0.000")
    assert lema.startswith("lema: ΔPPL 2.041")  # e^1.4 - e^0.7
    assert "20 questions with both, 0 without" in lema
