"""Several samples a question, errata, and served models: rows, resume, summaries, contradictions."""

import functools
import json

import pytest

from lema_jax import evaluate, records
from lema_jax.data import tokenizer
from lema_jax.evidence import runs
from lema_jax.evidence.summary import summarize
from lema_jax.records import Prediction, Verdict
from lema_jax.tasks import arithmetic, prompts
from tests import commands, tiny
from tests.teacher.wire_server import Act, Server, completion, error

succeeds = functools.partial(commands.succeeds, evaluate.command)
fails = functools.partial(commands.fails, evaluate.command)

SAMPLED = ("--task=arithmetic", "--limit=3", "--max_new_tokens=8", "--temperature=1.5", "--top_p=0.9", "--seed=3")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    asked = [arithmetic.prompt(problem) for problem in arithmetic.load("test")[:50]]
    tokenizer.save(tokenizer.train_bpe(asked, tiny.CONFIG.vocab_size), root / "data" / "tokenizer")
    return tiny.model_folder(root / "model", root / "data")


def read(folder) -> list[Prediction]:
    return list(records.read(folder / "predictions.jsonl", Prediction))


@pytest.mark.slow
def test_samples_are_the_same_whatever_the_batch_their_number_and_a_restart(model, tmp_path):
    given = (f"--checkpoint={model}", *SAMPLED)
    printed = succeeds(*given, "--samples=4", "--batch_size=8", f"--out={tmp_path / 'four'}")
    rows = read(tmp_path / "four")
    assert [(row.problem.id, row.sample) for row in rows] == [
        (f"arithmetic/test/{number}", sample) for number in range(3) for sample in range(4)
    ]
    assert len({row.text for row in rows}) > 6
    for words in ("n = 3 × 4 samples", "avg@4 ", "pass@2 ", "pass@4 ", "maj@4 "):
        assert words in printed
    summary = json.loads((tmp_path / "four" / "summary.json").read_text())
    assert (summary["n"], summary["samples"], summary["temperature"], summary["seed"]) == (3, 4, 1.5, 3)
    assert summary["pass_at"].keys() == {"1", "2", "4"}
    run = runs.load(tmp_path / "four", "run")
    assert (run.samples, len(run.predictions), run.summary) == (4, 3, summarize(rows))
    # Two samples in another batch, then two more, from a file that a kill left torn.
    two = tmp_path / "two"
    succeeds(*given, "--samples=2", "--batch_size=2", f"--out={two}")
    assert read(two) == [row for row in rows if row.sample < 2]
    lines = (two / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (two / "predictions.jsonl").write_bytes(lines[3] + lines[0] + lines[1][:40])
    succeeds(*given, "--samples=4", "--batch_size=2", f"--out={two}")
    assert read(two) == rows
    assert "holds answers to something else" in fails(*given, "--samples=4", "--seed=4", f"--out={two}")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("--samples=2",), "--temperature=0 is greedy, and has no --samples=2"),
        (("--top_p=0.5",), "--temperature=0 is greedy"),
        (("--samples=2", "--temperature=1", "--harness"), "--samples=2 is of --task, without --harness"),
        (("--model=m",), "--checkpoint is not for a served --model"),
        (("--base_url=http://127.0.0.1:1/v1",), "--base_url is not for a --checkpoint"),
        (("--dry_run",), "--dry_run is not for a --checkpoint"),
        (("--errata=platinum",), "is of gsm8k/test, not of arithmetic/test"),
        (("--errata=none.jsonl",), "there is no such file"),
    ],
)
def test_a_contradiction_is_one_line(model, tmp_path, given, complaint):
    flags = (f"--checkpoint={model}", "--task=arithmetic", "--limit=2", f"--out={tmp_path / 'out'}", *given)
    complained = fails(*flags)
    assert complained.splitlines()[-1].startswith("error: ")
    assert complaint in complained
    assert not (tmp_path / "out").exists()


def served(server, out, *more):
    where = ("--model=some/model", f"--base_url={server.url}", "--concurrency=1", "--prompt_style=chat")
    return (*where, "--task=arithmetic", "--limit=3", f"--out={out}", *more)


def test_a_served_model_is_asked_greedily_and_once(tmp_path):
    problems = arithmetic.load("test")[:3]
    asked = [prompts.request(problem) for problem in problems]
    texts = (f"So.\nThe answer is {problems[0].gold}.", "The answer is 123", "7 is")
    told = [completion(text, "length" if text == "7 is" else "stop") for text in texts]
    with Server(lambda body, times: Act(told[asked.index(body["messages"][0]["content"])])) as server:
        estimate = succeeds(*served(server, tmp_path / "out", "--dry_run"))
        assert "3 requests to ask" in estimate
        assert not server.asked
        assert not (tmp_path / "out").exists()
        printed = succeeds(*served(server, tmp_path / "out"))
        assert {body["temperature"] for body in server.bodies} == {0.0}
        assert all("top_p" not in body and "seed" not in body for body in server.bodies)
        assert succeeds(*served(server, tmp_path / "out")) == printed
        assert len(server.asked) == 3
    rows = read(tmp_path / "out")
    assert [row.problem for row in rows] == problems
    assert [row.verdict for row in rows] == [Verdict.RIGHT, Verdict.WRONG, Verdict.TRUNCATED]
    assert {row.checkpoint for row in rows} == {"some/model"}
    assert [row.paper for row in rows] == [True, False, False]
    assert "some_model on arithmetic_test: 33.3 % right" in printed
    assert runs.load(tmp_path / "out", "served").summary.n == 3


def test_samples_of_a_served_model_and_what_it_answered_before_it_failed(tmp_path):
    """An endpoint that refuses in the middle: what was paid for is kept, and only the rest is asked for again."""
    flags = ("--samples=2", "--temperature=0.5", "--seed=1")
    says = lambda text: Act(completion(text))
    with Server(lambda body, times: says("The answer is 1.") if len(server.asked) < 4 else error("no", 401)) as server:
        fails(*served(server, tmp_path / "out", *flags))
        server.asked.clear()
        server.behave = lambda body, times: says("The answer is 2.")
        succeeds(*served(server, tmp_path / "out", *flags))
        assert len(server.asked) == 3
    rows = read(tmp_path / "out")
    assert [(row.problem.id, row.sample) for row in rows] == [
        (f"arithmetic/test/{number}", sample) for number in range(3) for sample in range(2)
    ]
    assert sum(row.text == "The answer is 1." for row in rows) == 3


@pytest.mark.slow
def test_one_file_by_two_paths_and_one_prompt_by_two_styles_are_one_evaluation(model, tmp_path, monkeypatch):
    (tmp_path / "own.jsonl").write_text("".join(f'{{"question": "{n} + 1?", "gold": {n + 1}}}\n' for n in range(3)))
    monkeypatch.chdir(tmp_path)
    given = (f"--checkpoint={model}", "--max_new_tokens=4", f"--out={tmp_path / 'out'}")
    succeeds(*given, "--task=jsonl:own.jsonl", "--limit=1")
    succeeds(*given, f"--task=jsonl:{tmp_path / 'own.jsonl'}", "--prompt_style=plain")
    assert {row.problem.task for row in read(tmp_path / "out")} == {f"jsonl:{tmp_path / 'own.jsonl'}"}
    assert {row.prompt_style for row in read(tmp_path / "out")} == {"plain"}
    assert len(runs.load(tmp_path / "out", "run").predictions) == 3
