"""Reports as a command and as a function."""

import dataclasses
import functools
import json

import pytest

from lema_jax import records, report
from lema_jax.data import build
from lema_jax.data.card import Card
from lema_jax.evidence import data_set
from lema_jax.records import Attempt, Correction, Example, Pair, PathScore, Verdict
from tests import commands, made_runs
from tests.html_page import Parsed

succeeds = functools.partial(commands.succeeds, report.command)
fails = functools.partial(commands.fails, report.command)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [made_runs.write_letters(root / name, v) for name, v in (("cot", "rwwwu" * 20), ("lema", "rrwwt" * 20))]


def test_one_table_one_sentence_and_answers_to_read(folders):
    printed = succeeds(f"--runs={folders[0]},{folders[1]}", "--show=2")
    table, sentence, *shown = printed.split("\n\n")
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["cot", "lema"]
    assert "lema answers 20.0 points more of the 100 questions right than cot" in sentence
    assert len(shown) == 2
    assert all(text.startswith("── fixed: arithmetic/test/") for text in shown)


def test_baseline_and_names_turn_the_comparison_round(folders):
    printed = succeeds(f"--runs={folders[0]},{folders[1]}", "--names=A,B", "--baseline=B", "--show=0")
    assert "A answers 20.0 points fewer of the 100 questions right than B" in printed
    assert "──  " in printed
    assert "fixed" not in printed


def test_a_baseline_that_is_no_run_is_one_line_and_nothing_is_printed(folders):
    done = commands.run(report.command, f"--runs={folders[0]}", "--baseline=x")
    assert done == commands.Done(1, "", "error: --baseline=x is none of the runs: cot\n")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "--runs=folder"),
        (["--runs={cot},{lema}", "--names=a"], "for 2 folders or files"),
        (["--runs={tmp}/nowhere"], "cannot read"),
        (["--runs={cot},", "{lema}"], "unexpected argument"),
        (["--runs={cot},"], "nothing between two commas"),
        (["--runs={cot},{other}"], "97 only in"),
        (["--runs={cot}", "--out={cot}", "--show=0"], "cannot write"),
        (["--runs={cot},{lema}", "--by_task"], "--by_task needs --names"),
        (["--runs={cot},{lema}", "--by_task", "--names=a"], "for 2 folders or files"),
        (["--runs={cot}", "--corrections=c.jsonl"], "give either --runs"),
        (["--runs={cot}", "--study={tmp}"], "give either --runs"),
        (["--study={tmp}", "--names=cot"], "--names is of --runs"),
        (["--attempts=a.jsonl", "--baseline=cot"], "--baseline is of --runs"),
        (["--corrections=c.jsonl", "--by_task"], "--by_task is of --runs"),
        (["--scores=a.jsonl", "--training={tmp}"], "--training is of --runs"),
        (["--runs={cot},{lema}", "--by_task", "--names=a,b", "--dev={cot},{lema}"], "--dev is of runs of one task"),
        (["--study={tmp}", "--data={cot}"], "--data is of --runs"),
        (["--study={tmp}"], "is {tmp} a folder that study made?"),
        (["--runs={cot}", "--show=-1"], "show=-1 must be at least 0"),
        (["--attempts=nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["--attempts={cot}/predictions.jsonl"], "this is a file of predictions"),
        (["--data={cot},{lema}"], "a page shows one data set"),
        (["--attempts=a.jsonl", "--corrections=c.jsonl"], "give either --runs"),
        (["--corrections=nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["--scores=a.jsonl", "--out={tmp}/s.html"], "has no page"),
        (["--sensitivity"], "give either --runs"),
        (["--sensitivity", "--runs={cot}", "--pair={lema}"], "--sensitivity takes --runs=folder,folder of one"),
        (["--sensitivity", "--runs={cot}", "--out={tmp}/s.html"], "no page"),
        (["--sensitivity", "--runs={cot},{lema}"], "--sensitivity is of one; compare several without it"),
        (["--pair={cot},{lema}", "--runs={cot}"], "--pair has 2 folders for 1 of --runs"),
        (["--pair={lema}", "--runs={cot}"], "give runs of one checkpoint"),
        (["--runs={cot}", "--data={cot}", "--out={tmp}/r.html", "--show=0"], "has no card.json"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_page(folders, tmp_path, flags, expected):
    places = {"cot": folders[0], "lema": folders[1], "tmp": tmp_path}
    places["other"] = made_runs.write_letters(tmp_path / "other", "rrr")
    complained = fails(*(flag.format(**places) for flag in flags))
    assert complained.count("\n") == 1, complained
    assert expected.format(**places) in complained
    assert not list(tmp_path.glob("*.html"))


def test_the_function_returns_what_the_command_prints(folders, tmp_path, capsys):
    result = report.run(report.Config(runs=folders, show=0, out=tmp_path / "page.html"))
    assert [arm.name for arm in result.arms] == ["cot", "lema"]
    assert result.comparisons["lema"].difference == pytest.approx(0.2)
    assert result.page == tmp_path / "page.html"
    assert result.page.exists()
    assert f"The page is at {result.page}" in capsys.readouterr().out
    by_task = report.run(report.Config(runs=folders, names=["cot", "lema"], by_task=True))
    assert by_task.by_task["arithmetic/test"].comparisons["lema"].difference == pytest.approx(0.2)
    assert by_task.page is None


def test_the_page_is_written_and_training_curves_are_asked_for_by_folder(folders, tmp_path):
    training = tmp_path / "train"
    training.mkdir()
    (training / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    out = tmp_path / "new" / "report.html"
    printed = succeeds(f"--runs={folders[0]},{folders[1]}", f"--training={training}", f"--out={out}")
    assert str(out) in printed
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
    printed = succeeds(f"--runs={folders[0]},{folders[1]}", f"--dev={devs[0]},{devs[1]}", "--show=0")
    assert "Chosen on dev: cot (66.7 % of 3 dev questions), on test 20.0 %" in printed
    assert "Best on test: lema, 40.0 %" in printed


def test_several_tasks_are_set_out_arms_down_tasks_across(folders, tmp_path):
    out = tmp_path / "tasks.html"
    printed = succeeds(f"--runs={folders[0]},{folders[1]}", "--names=cot,lema", "--by_task", f"--out={out}")
    assert "arithmetic/test (n=100)" in printed
    assert "40.0 (+20.0*)" in printed
    assert "40.0 (+20.0*)" in out.read_text()


@pytest.mark.parametrize("row", [Example, functools.partial(Pair, rejected="9")], ids=["examples", "pairs"])
def test_filters_of_the_training_data_are_counted_on_the_page(folders, tmp_path, row):
    filters = {"left_out": {"corrections": [["rejected", 12]]}, "kinds": {"cot": 34}}
    card = {field.name: {} for field in dataclasses.fields(Card)} | filters
    (tmp_path / "card.json").write_text(json.dumps(card))
    prompt = "Please solve.\nQuestion: What is  7 + 1?\nAnswer: Let's think step by step.\n"
    example = {"kind": "cot", "problem_id": "a", "source": "gold", "prompt": prompt, "completion": "8"}
    records.write(tmp_path / "examples.jsonl", [row(id="a", **example)])
    printed = succeeds(f"--runs={folders[0]}", f"--data={tmp_path}", f"--out={tmp_path / 'r.html'}")
    assert "cot  not overlapping  99 " in printed
    assert "cot      overlapping   1 " in printed
    text = (tmp_path / "r.html").read_text()
    assert "Questions that training data gives away, and others" in text
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
    printed = succeeds(f"--attempts={tmp_path / 'attempts.jsonl'}", f"--out={out}")
    assert "1 of 3 attempts are right (33.3 %" in printed
    assert [item["data-kinds"] for item in Parsed(out.read_text()).items()] == [verdict.value for verdict in verdicts]
    assert "<mfrac>" in out.read_text()


@pytest.mark.long
def test_a_data_set_is_shown_with_its_own_tokens(tmp_path):
    recipe = build.Recipe(task="arithmetic", limit=30, train_tokenizer=800, overlap="drop")
    made, _ = build.build(recipe, tmp_path / "set")
    printed = succeeds(f"--data={tmp_path / 'set'}", f"--out={tmp_path / 'd.html'}")
    assert f"{made.counts['examples']:,} examples" in printed
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
    printed = succeeds(f"--corrections={tmp_path / 'corrections.jsonl'}", f"--out={tmp_path / 'c.html'}")
    assert "1 of 2 corrections are kept (50.0 %" in printed
    assert "no_explanation" in (tmp_path / "c.html").read_text()


def test_scores_say_how_well_each_checkpoint_tells_right_paths_from_wrong_ones(tmp_path):
    for name, wrong in (("cot", 7.0), ("lema", 14.0)):
        fields = {"checkpoint": name, "tokens": 10}
        rows = [PathScore(id=f"r{n}", problem_id=f"{n}", right=True, nll=7.0, **fields) for n in range(20)]
        rows += [PathScore(id=f"w{n}", problem_id=f"{n}", right=False, nll=wrong, **fields) for n in range(20)]
        records.write(tmp_path / name / "scores.jsonl", rows)
    printed = succeeds(f"--scores={tmp_path}/cot/scores.jsonl,{tmp_path}/lema/scores.jsonl")
    cot, lema = printed.splitlines()
    assert cot.startswith("cot: ΔPPL 0.000, 95 % interval 0.000 to 0.000")
    assert lema.startswith("lema: ΔPPL 2.041")  # e^1.4 - e^0.7
    assert "20 questions with both, 0 without" in lema


def test_a_study_is_read_by_its_folder(tmp_path):
    folder = made_runs.write_study(tmp_path / "study", {"cot": 0.5, "lema": 0.3})
    printed = succeeds(f"--study={folder}", f"--out={tmp_path / 'study.html'}")
    assert printed.startswith("Learning from mistakes hurts on arithmetic/test")
    assert "The answer" in (tmp_path / "study.html").read_text()
    result = report.run(report.Config(study=folder))
    assert result.study.tests["arithmetic/test"].comparisons["lema"].difference < 0
    assert result.page is None
