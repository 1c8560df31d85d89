"""The evolve command, run as a user runs it, against a chat endpoint on this machine."""

import collections
import functools
from pathlib import Path

import pytest

from lema_jax import evolve, records, tasks
from lema_jax.records import Attempt, Correction, Problem, Verdict
from lema_jax.teacher.chat_model import ChatModel
from lema_jax.teacher.endpoint import Endpoint
from lema_jax.teacher.evolution import LeftOut
from tests import commands
from tests.teacher.wire_server import Act, Server, completion, error

succeeds = functools.partial(commands.succeeds, evolve.command)
fails = functools.partial(commands.fails, evolve.command)


@functools.cache
def split(name: str) -> list[Problem]:
    return tasks.get("arithmetic").load(name)


def correction(number: int, *, rejected: str = "", copy: int = 0) -> Correction:
    problem = split("train")[number]
    attempt = Attempt(
        id="a", problem=problem, student="s", sampling={}, prompt="p", text="t", answer="1", verdict=Verdict.WRONG,
        prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip
    return Correction(id=f"c{number}-{copy}", attempt=attempt, teacher="t", text="t", rejected=rejected)


@pytest.fixture
def files(tmp_path):
    rows = [*(correction(n, copy=copy) for n in range(4) for copy in range(n)), correction(9, rejected="tells_answer")]
    records.write(tmp_path / "corrections.jsonl", rows)
    return f"--corrections={tmp_path / 'corrections.jsonl'}", f"--out={tmp_path / 'evolved.jsonl'}", "--count=12"


def chat_flags(server: Server, *more) -> tuple[str, ...]:
    return (f"--base_url={server.url}", "--model=m", *more)


class Model:
    """Makes a new question of each seed, and answers it as `answers` says."""

    def __init__(self, answers=("7", "7", "8"), questions=None):
        self.answers, self.questions = answers, questions or {}
        self.made: list[str] = []
        self.seeds: list[str] = []

    def __call__(self, body, times) -> Act:
        asked = body["messages"][0]["content"]
        if asked.endswith("\nNew Question:"):
            self.seeds.append(asked.rpartition("\n\nQuestion: ")[2].removesuffix("\nNew Question:"))
            made = self.questions.get(len(self.made), f"A farmer of tale {len(self.made)} has 7 hens. How many?")
            self.made.append(made)
            return Act(completion(f"New Question: {made}"))
        answer = self.answers[(times - 1) % len(self.answers)]
        return Act(completion(f"He has them.\nThe answer is {answer}." if answer else "Who knows?"))


def problems(tmp_path: Path) -> list[Problem]:
    return list(records.read(tmp_path / "evolved.jsonl", Problem))


@pytest.mark.slow
def test_new_problems_with_the_answer_that_most_agree_on(files, tmp_path):
    model = Model()
    with Server(model) as server:
        said = succeeds(*files, *chat_flags(server))
        assert "12 new problems from 12 seeds" in said
        assert len(server.asked) == 12 + 3 * 12
        before = (tmp_path / "evolved.jsonl").read_bytes()
        succeeds(*files, *chat_flags(server))
        assert len(server.asked) == 48
    assert (tmp_path / "evolved.jsonl").read_bytes() == before
    made = problems(tmp_path)
    assert {row.question for row in made} == set(model.made)
    for row in made:
        assert (row.task, row.split, row.gold) == ("arithmetic", "evolved", "7")
        assert row.id.startswith("arithmetic/evolved/")
        assert row.meta.keys() == {"seed", "teacher", "votes"}
        assert (row.meta["teacher"], row.meta["votes"]) == ("m", 2)
    drawn = collections.Counter(row.meta["seed"] for row in made)
    assert set(drawn) <= {f"arithmetic/train/{n}" for n in (1, 2, 3)}  # kept corrections alone; 0 has none
    train = split("train")
    assert collections.Counter(model.seeds) == {train[int(id.split("/")[2])].question: n for id, n in drawn.items()}


@pytest.mark.slow
def test_the_function_counts_what_the_command_prints(files, tmp_path, monkeypatch):
    for name, value in commands.ENDPOINT.items():
        monkeypatch.setenv(name, value)
    with Server(Model(questions={0: "I am sorry."})) as server:
        result = evolve.run(
            evolve.Config(
                corrections=(tmp_path / "corrections.jsonl",),
                out=tmp_path / "evolved.jsonl",
                count=3,
                chat=ChatModel(model="m"),
                endpoint=Endpoint(base_url=server.url),
            )
        )
        again = ("--count=3", f"--base_url={server.url}", "--model=m")
        said = succeeds(*files[:2], *again)
        assert len(server.asked) == 3 + 3 * 2  # the command asks for nothing twice
    assert "2 new problems from 3 seeds" in said
    assert (result.seeds, result.made, result.left_out) == (3, 2, {"no question in the reply": 1})
    assert len(problems(tmp_path)) == result.made
    assert len(list(records.read(result.left_out_file, LeftOut))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("answers", [("1", "2", "3"), ("1", None, None), (None,)])
def test_questions_whose_answers_differ_are_left_out(files, tmp_path, answers):
    with Server(Model(answers)) as server:
        said = succeeds(*files, *chat_flags(server))
    assert "0 new problems" in said
    assert "12 left out: no two answers agree" in said
    assert problems(tmp_path) == []


@pytest.mark.slow
def test_what_is_left_out_before_it_is_answered(files, tmp_path):
    test = split("test")[0].question
    thought = "Hm.</think>New Question: A fox has 7 tails. How many?"  # of a model whose template opens the thought
    questions = {
        0: "I am sorry.",
        1: "A hen has 2 legs. How many?",
        2: "a hen  has 2 legs. How many?",
        3: test,
        4: thought,
    }
    with Server(Model(questions=questions)) as server:
        said = succeeds(*files, *chat_flags(server, "--concurrency=1"))
        assert len(server.asked) == 12 + 3 * 9
    assert "9 new problems from 12 seeds" in said
    listed = {row.question: row.why for row in records.read(tmp_path / "evolved.left_out.jsonl", LeftOut)}
    assert listed == {
        "": "no question in the reply",
        "a hen has 2 legs. How many?": "a repeated question",
        test: "gives a test question away",
    }
    for why in listed.values():
        assert f"1 left out: {why}" in said
    made = {row.question for row in problems(tmp_path)}
    assert test not in made
    assert "A fox has 7 tails. How many?" in made


@pytest.mark.slow
def test_random_seeds_come_from_the_training_split(tmp_path):
    model = Model()
    flags = ("--seeds=random", "--task=arithmetic", f"--out={tmp_path / 'evolved.jsonl'}", "--count=6")
    with Server(model) as server:
        succeeds(*flags, *chat_flags(server, "--seed=3"))
    assert set(model.seeds) <= {row.question for row in split("train")}
    assert len(set(model.seeds)) > 1


def test_a_dry_run_asks_and_writes_nothing(files, tmp_path):
    with Server(Model()) as server:
        said = succeeds(*files, *chat_flags(server, "--dry_run", "--usd_per_million=1,2"))
        assert not server.asked
    assert "questions: 12 requests" in said
    assert "answers to all of them: 36 requests" in said
    assert [path.name for path in tmp_path.iterdir()] == ["corrections.jsonl"]


@pytest.mark.slow
def test_a_spent_budget_keeps_what_it_bought_and_goes_on_later(files, tmp_path):
    with Server(Model()) as server:
        said = fails(*files, *chat_flags(server, "--max_tokens_total=4000"))
        assert "the same command goes on" in said
        assert 0 < len(server.asked) < 48
        assert "12 new problems" in succeeds(*files, *chat_flags(server))
        assert len(server.asked) == 48


@pytest.mark.slow
def test_a_start_that_failed_leaves_no_files(files, tmp_path):
    with Server(lambda body, times: error("Who are you?", 401)) as server:
        assert "see OPENAI_API_KEY" in fails(*files, *chat_flags(server))
    assert not (tmp_path / "evolved.jsonl").exists()
    assert not (tmp_path / "evolved.replies.jsonl").exists()


def test_user_mistakes_get_one_clear_line(files, tmp_path):
    records.write(tmp_path / "rejected.jsonl", [correction(9, rejected="tells_answer")])
    out = f"--out={tmp_path / 'e.jsonl'}"
    assert "was kept" in fails(f"--corrections={tmp_path / 'rejected.jsonl'}", out, "--model=m")
    assert "needs --corrections" in fails(out, "--model=m")
    assert "needs --task" in fails(out, "--model=m", "--seeds=random")
    assert "--temperature=0" in fails(*files, "--model=m", "--temperature=0")
    assert "--model" in fails(*files)
