"""Evaluation as a command and as a function: several checkpoints and tasks, resume, scores, mistakes."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import jax
import pytest

from lema_jax import checkpoint, evaluate, records
from lema_jax.checkpoint import Metadata
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.evidence import runs
from lema_jax.generation import student
from lema_jax.generation.decoding import Decoding
from lema_jax.records import Attempt, PathScore, Prediction, Verdict
from lema_jax.tasks import arithmetic, prompts
from lema_jax.weights import names
from lema_jax.weights.merge import Merged
from tests import commands, made_runs, tiny

SHORT = ("--max_new_tokens=8", "--batch_size=8")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two model folders of one shape, and of other weights."""
    root = tmp_path_factory.mktemp("models")
    asked = [arithmetic.prompt(problem) for problem in arithmetic.load("test")[:50]]
    tokenizer.save(tokenizer.train_bpe(asked, tiny.CONFIG.vocab_size), root / "data" / "tokenizer")
    return [tiny.model_folder(root / name, root / "data", seed) for seed, name in enumerate(("a", "b"))]


succeeds = functools.partial(commands.succeeds, evaluate.command)
fails = functools.partial(commands.fails, evaluate.command)


def read(folder: Path) -> list[Prediction]:
    return list(records.read(folder / "predictions.jsonl", Prediction))


@pytest.mark.slow
def test_one_checkpoint_and_one_task_write_into_out(models, tmp_path):
    out = tmp_path / "out"
    printed = succeeds(f"--checkpoint={models[0]}", "--task=arithmetic", "--limit=9", f"--out={out}", *SHORT)
    assert "9 questions are too few to show any difference" in printed.splitlines()[0]
    rows = read(out)
    assert [row.problem for row in rows] == arithmetic.load("test")[:9]
    assert all(row.paper is arithmetic.official_grader(row.text, row.problem) for row in rows)
    assert all(row.prompt == arithmetic.prompt(row.problem) for row in rows)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["task"], summary["split"], summary["n"], summary["paper"]) == ("arithmetic", "test", 9, 0.0)
    assert summary["checkpoint"] == rows[0].checkpoint
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "summary.json"]


@pytest.mark.slow
def test_a_model_that_learnt_from_tags_is_asked_under_the_tag_for_right_solutions(models, tmp_path):
    folder = shutil.copytree(models[0], tmp_path / "tagged")
    trained = dataclasses.replace(checkpoint.read_metadata(folder), prompt_style="tagged")
    checkpoint.write_metadata(folder, trained)
    problem = arithmetic.load("test")[0]
    for style, asked, prompt in (
        ("paper", "tagged", prompts.tagged(problem)),
        ("plain", "plain", arithmetic.prompt(problem)),
    ):
        given = ("--task=arithmetic", "--limit=9", f"--prompt_style={style}", *SHORT)
        succeeds(f"--checkpoint={folder}", f"--out={tmp_path / style}", *given)
        rows = read(tmp_path / style)
        assert rows[0].prompt == prompt
        assert {row.prompt_style for row in rows} == {asked}
    checkpoint.write_metadata(folder, dataclasses.replace(trained, prompt_style="loud"))
    complained = fails(f"--checkpoint={folder}", "--task=arithmetic", f"--out={tmp_path / 'c'}")
    assert "prompt_style='loud' must be one of paper, tagged" in complained


def test_a_killed_run_goes_on_to_the_same_file(models, tmp_path, monkeypatch):
    given = (f"--checkpoint={models[0]}", "--task=arithmetic", "--limit=9", f"--out={tmp_path}", *SHORT)
    succeeds(*given)
    complete = (tmp_path / "predictions.jsonl").read_bytes()
    lines = complete.splitlines(keepends=True)
    (tmp_path / "predictions.jsonl").write_bytes(b"".join([lines[4], lines[1], lines[7][:100]]))  # as rows end; torn
    (tmp_path / "summary.json").unlink()
    succeeds(*given)
    assert (tmp_path / "predictions.jsonl").read_bytes() == complete
    monkeypatch.setattr(student, "read", lambda *_: pytest.fail("weights are read though nothing is missing"))
    succeeds(*given)
    assert (tmp_path / "predictions.jsonl").read_bytes() == complete


@pytest.mark.slow
def test_several_checkpoints_and_tasks_share_weights_and_programs(models, tmp_path, monkeypatch):
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"question": f"What is {n} + 2?", "gold": str(n + 2)}) + "\n" for n in range(9)))
    out, tests = tmp_path / "out", f"--task=arithmetic,jsonl:{own}"
    compiled, reads = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )

    def counted(folder, *rest, read=student.read, **mesh):
        reads.append((folder, len(compiled)))
        return read(folder, *rest, **mesh)

    monkeypatch.setattr(student, "read", counted)
    both = f"--checkpoint={models[0]},{models[1]}@0"
    again = ("--limit=9", *SHORT, "--batch_size=16")  # a batch that no other test here has compiled for
    given = (both, tests, "--split=ood,test", "--harness", f"--out={out}", *again)
    try:
        printed = succeeds(*given)
    finally:
        jax.monitoring.clear_event_listeners()
    assert [folder for folder, _ in reads] == [str(models[0]), str(models[1])]
    assert 0 < len(compiled) == reads[1][1]  # the second checkpoint compiled nothing
    folders = [out / name / test for name in ("a", "b@0") for test in ("arithmetic_ood", "own_test")]
    for folder in folders:
        assert len(runs.load(folder, "run").predictions) == 9
        assert len(list(folder.glob("samples_*.jsonl"))) == len(list(folder.glob("results_*.json"))) == 1
    assert printed.count("by the official grader") == 4
    texts = [[row.text for row in read(folder)] for folder in folders]
    assert texts[0] != texts[2]
    alone = tmp_path / "alone"
    succeeds(f"--checkpoint={models[1]}", "--task=arithmetic", "--split=ood", f"--out={alone}", *again)
    assert (alone / "predictions.jsonl").read_bytes() == (folders[2] / "predictions.jsonl").read_bytes()


@pytest.mark.slow
def test_adapters_answer_the_same_merged_or_not(models, tmp_path):
    metadata, adapters = checkpoint.read_metadata(models[0]), tiny.variables(lora=tiny.LORA)["lora"]
    base = names.Tree(tiny.variables()["params"], names.table(tiny.CONFIG), "the base")
    merged = names.load_model(Merged(base, adapters, tiny.LORA), tiny.CONFIG)
    upon = Metadata(tiny.CONFIG, "of-adapters", tiny.LORA, str(models[0]), f"{metadata.lineage}@0")
    checkpoint.save_model(tmp_path / "adapters", upon, adapters, models[0] / "tokenizer")
    checkpoint.save_model(tmp_path / "merged", Metadata(tiny.CONFIG, "of-merged"), merged, models[0] / "tokenizer")
    folders = (tmp_path / "adapters", tmp_path / "merged", models[0])
    given = ("--task=arithmetic", "--limit=9", "--max_new_tokens=40", "--batch_size=8", f"--out={tmp_path / 'out'}")
    succeeds(f"--checkpoint={','.join(map(str, folders))}", *given)
    rows = (read(tmp_path / "out" / folder.name / "arithmetic_test") for folder in folders)
    unmerged, of_merged, bare = ([row.text for row in of_one] for of_one in rows)
    assert unmerged == of_merged
    assert all(one != other for one, other in zip(unmerged, bare))


@pytest.mark.slow
def test_a_prompt_is_answered_on_the_terminal(models, tmp_path):
    problem = arithmetic.load("test")[0]
    printed = succeeds(f"--checkpoint={models[0]}", f"--prompt={arithmetic.prompt(problem)}", *SHORT)
    succeeds(f"--checkpoint={models[0]}", "--task=arithmetic", "--limit=1", f"--out={tmp_path}", *SHORT)
    assert printed == read(tmp_path)[0].text + "\n"


@pytest.mark.slow
def test_sharded_weights_answer_the_same(models, tmp_path):
    given = (f"--checkpoint={models[0]}", "--task=arithmetic", "--limit=9", *SHORT)
    succeeds(*given, f"--out={tmp_path / 'unsharded'}")
    succeeds(*given, "--fsdp=2", "--tensor=2", f"--out={tmp_path / 'sharded'}")
    assert [row.text for row in read(tmp_path / "sharded")] == [row.text for row in read(tmp_path / "unsharded")]


@pytest.mark.slow
def test_the_function_returns_what_the_command_prints_and_writes(models, tmp_path, capsys):
    """Without absl's flags: several tests of one checkpoint, and the text of a prompt."""
    decoding = Decoding(max_new_tokens=8, batch_size=8)
    asked = {"task": ["arithmetic"] * 2, "split": ["test", "ood"], "limit": 5, "decoding": decoding}
    result = evaluate.run(evaluate.Config(checkpoint=[models[0]], out=tmp_path / "out", **asked))
    assert [(one.checkpoint, one.test) for one in result.answered] == [
        ("a", "arithmetic_test"),
        ("a", "arithmetic_ood"),
    ]
    for one in result.answered:
        assert one.folder == tmp_path / "out" / "a" / one.test
        written = json.loads((one.folder / "summary.json").read_text())
        assert (written["n"], written["right"], written["accuracy"]) == (5, one.summary.right, one.summary.accuracy)
    assert (result.scored, result.texts) == ((), ())
    prompt = arithmetic.prompt(arithmetic.load("test")[0])
    capsys.readouterr()
    (text,) = evaluate.run(evaluate.Config(checkpoint=[models[0]], prompt=prompt, decoding=decoding)).texts
    assert capsys.readouterr().out == text + "\n" == read(tmp_path / "out/a/arithmetic_test")[0].text + "\n"


def test_a_config_that_contradicts_itself_names_every_rule(tmp_path):
    config = evaluate.Config(checkpoint=[], task=["gsm8k"], split=["a", "b"])
    with pytest.raises(UserError) as refused:
        evaluate.run(config)
    for words in ("--checkpoint names no model folder", "--out is missing", "--split has 2 splits for 1 tasks"):
        assert words in str(refused.value)
    assert evaluate.Config(checkpoint=["a"], prompt="1 + 1?", out=tmp_path).writes() is None


@pytest.mark.slow
def test_a_question_that_the_context_cannot_hold_is_counted_apart(models, tmp_path):
    own = tmp_path / "own.jsonl"
    long = "How many are " + "1 and " * 300 + "1?"
    own.write_text("".join(json.dumps({"question": q, "gold": "2"}) + "\n" for q in ("What is 1 + 1?", long)))
    printed = succeeds(f"--checkpoint={models[0]}", f"--task=jsonl:{own}", f"--out={tmp_path / 'out'}", *SHORT)
    assert "1 prompts too long" in printed
    assert read(tmp_path / "out")[1].verdict is Verdict.PROMPT_TOO_LONG
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["n"], summary["prompt_too_long"]) == (2, 1)


@pytest.fixture
def attempts(tmp_path):
    """Three attempts at each of four questions: right, wrong, and truncated."""
    made = []
    for problem in arithmetic.load("train")[:4]:
        for number, verdict in enumerate((Verdict.RIGHT, Verdict.WRONG, Verdict.TRUNCATED)):
            fields = {"student": "s", "sampling": {}, "prompt": "Q: ", "prompt_tokens": 1, "completion_tokens": 1}
            text = f"{problem.question} The answer is {number}."
            name = f"{problem.id}/{number}"
            made.append(Attempt(id=name, problem=problem, text=text, answer=None, verdict=verdict, **fields))
    records.write(tmp_path / "attempts.jsonl", made)
    return tmp_path / "attempts.jsonl"


@pytest.mark.slow
def test_scores_of_right_and_wrong_paths_resume(models, attempts, tmp_path):
    out = tmp_path / "scores"
    given = (f"--checkpoint={models[0]}", f"--score={attempts}", "--batch_size=8", f"--out={out}")
    printed = succeeds(*given)
    scores = list(records.read(out / "scores.jsonl", PathScore))
    assert [one.right for one in scores] == [True, False] * 4
    assert all(one.nll > 0 and one.tokens > 5 for one in scores)
    assert "ΔPPL" in printed
    assert "4 questions with both, 0 without" in printed
    complete = (out / "scores.jsonl").read_bytes()
    (out / "scores.jsonl").write_bytes(complete[:500])
    succeeds(*given)
    assert [one.id for one in records.read(out / "scores.jsonl", PathScore)] == [one.id for one in scores]
    assert "scores of something else" in fails(f"--checkpoint={models[1]}", f"--score={attempts}", f"--out={out}")


@pytest.mark.slow
def test_an_attempt_that_cannot_be_read_is_asked_of_the_model_once(models, attempts, tmp_path, monkeypatch):
    rows = list(records.read(attempts, Attempt))
    longer = rows[1].model_copy(update={"id": "long", "text": "1 and " * 400})
    records.write(attempts, [*rows, longer])
    given = (f"--checkpoint={models[0]}", f"--score={attempts}", "--batch_size=8", f"--out={tmp_path / 'out'}")
    printed = succeeds(*given)
    assert "1 attempts are empty or longer than the model's context" in printed
    monkeypatch.setattr(student, "read", lambda *_: pytest.fail("weights are read though nothing is missing"))
    assert succeeds(*given).splitlines()[-1] == printed.splitlines()[-1]  # ΔPPL


NO_WEIGHTS = lambda *_, **__: pytest.fail("weights are read before all is checked")


def test_attempts_between_which_nothing_can_be_compared_are_refused_before_weights_are_read(
    models, attempts, tmp_path, monkeypatch
):
    monkeypatch.setattr(student, "read", NO_WEIGHTS)
    records.write(attempts, [row for row in records.read(attempts, Attempt) if row.verdict is Verdict.WRONG])
    complained = fails(f"--checkpoint={models[0]}", f"--score={attempts}", f"--out={tmp_path / 'out'}")
    assert "none of its questions has both a right and a wrong attempt" in complained


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ({"question": "1 + 1?", "gold": "2"}, "holds answers to something else"),
        ({"question": "Which?", "gold": "a", "choices": ["a", "b"]}, "--prompt_style=wizardmath is for mathematics"),
    ],
    ids=["a file of other answers", "a style that cannot ask"],
)
def test_what_is_wrong_with_the_second_test_is_said_before_the_first_is_answered(
    models, tmp_path, monkeypatch, second, complaint
):
    monkeypatch.setattr(student, "read", NO_WEIGHTS)
    own, out = tmp_path / "own.jsonl", tmp_path / "out"
    own.write_text(json.dumps(second) + "\n")
    records.write(
        out / "a" / "own_test" / "predictions.jsonl", [made_runs.prediction(made_runs.problem(1), Verdict.RIGHT)]
    )
    given = (f"--checkpoint={models[0]}", f"--task=arithmetic,jsonl:{own}", "--limit=2", f"--out={out}")
    assert complaint in fails(*given, "--prompt_style=wizardmath")
    assert [path.name for path in (out / "a").iterdir()] == ["own_test"]


def broken(models, tmp_path, what):
    """The folder of the first model, without one of its parts."""
    shutil.copytree(models[0], tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / what)
    return tmp_path / "broken"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"limit": "0"}, "--limit"),
        ({"task": "gsm9k"}, "no task 'gsm9k'; choose one of "),
        ({"split": "exam"}, "no split 'exam'; there are: train, dev, test, ood"),
        ({"split": "test,dev"}, "2 splits for 1 tasks"),
        ({"task": "arithmetic,arithmetic"}, "two of the name arithmetic_test"),
        ({"task": ""}, "one of --task=name,name, --score"),
        ({"task": "jsonl:{tmp}/none.jsonl"}, "there is no such file"),
        ({"task": "jsonl:{tmp}/own.jsonl"}, "own.jsonl:2: gold"),
        ({"task": "gsm8k", "data_dir": "{tmp}"}, "gsm8k/test.jsonl"),
        ({"checkpoint": "{tmp}/none"}, "is no model folder"),
        ({"checkpoint": "{a}@7"}, "no checkpoint at step 7; it has [0]"),
        ({"checkpoint": "{a}@best"}, "no checkpoint that was tried on dev"),
        ({"checkpoint": "{a},{a}"}, "names {a} twice"),
        ({"checkpoint": "{a}@0,{a}/@0"}, "two of the name a@0"),
        ({"checkpoint": ""}, "--checkpoint names no model folder"),
        ({"weights": "int4"}, "weights=int4 must be one of"),
        ({"tensor": "3"}, "not a layout of 8 devices"),
        ({"tensor": "8"}, "must divide"),
        ({"score": "{tmp}/own.jsonl"}, "one of --task=name,name, --score"),
        ({"checkpoint": "{tmp}/own.jsonl"}, "is no model folder"),
        ({"checkpoint": "{tmp}"}, "is no model folder"),
        ({"out": "{tmp}/own.jsonl"}, "cannot write"),
        ({"task": "", "score": "{tmp}/none.jsonl"}, "cannot read"),
        ({"task": "", "score": "{tmp}/none.jsonl", "prompt_style": "chat"}, "--prompt_style is not for --score"),
        ({"task": "", "score": "{tmp}/none.jsonl", "cache": "int8"}, "--cache is not for --score"),
        ({"task": "", "score": "{tmp}/none.jsonl", "split": "dev"}, "--split is not for --score"),
        ({"task": "", "prompt": "1 + 1?", "limit": "1"}, "--limit is not for --prompt"),
        ({"task": "", "prompt": "1 + 1?", "prompt_style": "few_shot"}, "--prompt is asked as it stands"),
        ({"prompt_style": "chat"}, "has no chat template"),
        ({"prompt_style": "few_shot", "examples": "{tmp}/none.txt"}, "--examples: cannot read"),
        ({"examples": "{tmp}/own.jsonl"}, "is for --prompt_style=few_shot, not for paper"),
    ],
)
def test_a_mistake_is_one_line(models, tmp_path, given, complaint):
    (tmp_path / "own.jsonl").write_text('{"question": "1 + 1?", "gold": "2"}\n{"question": "2 + 2?", "gold": ""}\n')
    usual = {"checkpoint": "{a}", "task": "arithmetic", "limit": "2", "out": "{tmp}/out"}
    flags = [f"--{k}={v.format(a=models[0], tmp=tmp_path)}" for k, v in (usual | given).items()]
    complained = fails(*flags)
    assert complained.startswith("error: ")
    assert complained.count("\n") == 1, complained
    assert complaint.format(a=models[0]) in complained
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.parametrize(("what", "complaint"), [("tokenizer", "no tokenizer in"), ("checkpoints", "no checkpoint")])
def test_a_model_folder_that_lacks_a_part_is_named(models, tmp_path, what, complaint):
    folder = broken(models, tmp_path, what)
    complained = fails(f"--checkpoint={folder}", "--task=arithmetic", f"--out={tmp_path}/out")
    assert complained.count("\n") == 1
    assert complaint in complained
    assert str(folder) in complained


@pytest.mark.slow
def test_predictions_of_another_evaluation_are_left_alone(models, tmp_path):
    given = ("--task=arithmetic", "--limit=3", f"--out={tmp_path}", *SHORT)
    succeeds(f"--checkpoint={models[0]}", *given)
    before = (tmp_path / "predictions.jsonl").read_bytes()
    for other in ((f"--checkpoint={models[1]}", *given), (f"--checkpoint={models[0]}", *given, "--limit=2")):
        assert "holds answers to something else (model " in fails(*other)
        assert (tmp_path / "predictions.jsonl").read_bytes() == before


def test_a_question_with_another_gold_is_another_question(models, tmp_path):
    """Answers graded by the former gold are not reused."""
    given = (f"--checkpoint={models[0]}", f"--task=jsonl:{tmp_path}/own.jsonl", f"--out={tmp_path}/out", *SHORT)
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "1 + 1?", "gold": "3", "id": "a"}\n')
    succeeds(*given)
    before = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    own.write_text('{"question": "1 + 1?", "gold": "2", "id": "a", "rationale": "One and one."}\n')
    complained = fails(*given)
    assert "holds answers to something else (model " in complained
    assert "gold" in complained
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == before
    own.write_text('{"question": "1 + 1?", "gold": "3", "id": "a", "rationale": "One and two."}\n')  # shapes no answer
    succeeds(*given)


@pytest.mark.slow
def test_another_way_to_ask_is_recorded_and_never_mixed_with_the_papers(models, tmp_path):
    """Chat: by the template in the model's folder, which came with its tokenizer."""
    shutil.copytree(models[0], tmp_path / "a")
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    (tmp_path / "a" / "tokenizer" / "chat_template.jinja").write_text(template)
    given = (f"--checkpoint={tmp_path / 'a'}", "--task=arithmetic", "--limit=3", f"--out={tmp_path / 'out'}", *SHORT)
    succeeds(*given, "--prompt_style=chat")
    rows = read(tmp_path / "out")
    assert {row.prompt_style for row in rows} == {"chat"}
    assert all(row.prompt.startswith("[user]Please solve ") and row.prompt.endswith("[assistant]") for row in rows)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["prompt_style"] == "chat"
    read_by = tokenizer.load(tmp_path / "a")  # begins a text with BOS, which this template does not write
    for row in rows:
        chat = [{"role": "user", "content": row.prompt.removeprefix("[user]").removesuffix("[assistant]")}]
        assert row.prompt_tokens == len(read_by.apply_chat_template(chat, add_generation_prompt=True).input_ids)
    for style in ("paper", "wizardmath", "few_shot"):
        complained = fails(*given, f"--prompt_style={style}")
        assert "holds answers to something else" in complained
        assert "prompt" in complained
    assert read(tmp_path / "out") == rows
