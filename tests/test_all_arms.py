"""Studies of real stages with every arm, in rounds, and with new questions: small, but through every file that the
stages exchange."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lema_jax import records, tasks
from lema_jax.records import Attempt, Example, Prediction, Problem, Verdict
from lema_jax.teacher import reference
from tests import commands
from tests.teacher.wire_server import Act, Server, completion
from tests.test_whole_loop import command

ROOT = Path(__file__).parents[1]
ARMS = (
    "cot", "lema", "corrections_first", "rft:2@0.05", "inline:0", "inline_restart", "critique:0@0.2", "negatives",
    "mixed:lema@0.1,inline:0@0.1",
)  # fmt: skip
KINDS = {
    "cot": {"cot"},
    "lema": {"cot", "correction"},
    "corrections_first": {"cot", "correction"},
    "rft:2@0.05": {"cot", "own"},
    "inline:0": {"cot", "inline"},
    "inline_restart": {"cot", "inline"},
    "critique:0@0.2": {"cot", "critique_wrong"},
    "negatives": {"cot", "negative"},
    "mixed:lema@0.1,inline:0@0.1": {"cot", "correction", "inline"},
}
FILE = """
from lema_jax.planning.config import Attempts, Evolution, Teacher
from tests.studies import small
def get_config():
    config = small({out!r}, seeds=(0,), attempts=Attempts(questions={questions}, max_new_tokens=64), {more})
    config.pretraining.train.steps = {steps}
    return config
"""


def written(file: Path, out: Path, more: str, questions: int, steps: int) -> Path:
    file.write_text(FILE.format(out=str(out), questions=questions, more=more, steps=steps))
    return file


@pytest.mark.long
def test_every_arm_through_every_stage(tmp_path: Path) -> None:
    out = tmp_path / "study"
    file = written(tmp_path / "config.py", out, f"arms={ARMS!r}", questions=400, steps=400)  # some are right
    command("study", f"--config={file}")
    content = json.loads((out / "study.json").read_text())
    assert {job["state"] for job in content["jobs"]} == {"done"}
    folders = {one["arm"]: out / one["folder"] for one in content["data"]}
    made = {arm: list(records.read(folder / "examples.jsonl", Example)) for arm, folder in folders.items()}
    assert {arm: {row.kind for row in rows} for arm, rows in made.items()} == KINDS
    assert {len(rows) for rows in made.values()} == {24}
    asked = {}
    for one in content["evaluations"]:
        rows = list(records.read(out / one["folder"] / "predictions.jsonl", Prediction))
        asked[one["arm"]] = rows[0].prompt_style
        assert rows[0].prompt.startswith("Write a correct solution.") is (one["arm"] == "negatives")
    assert asked == {arm: "tagged" if arm == "negatives" else "paper" for arm in ("student", *ARMS)}
    assert "negatives's prompts differ from cot's" in (out / "report.txt").read_text()


@pytest.mark.long
@pytest.mark.parametrize("start", ["student", "last"])
def test_two_rounds_killed_and_resumed(tmp_path: Path, start: str) -> None:
    """Killed three times, it ends as it would have undisturbed; its second round learns from the first one's model."""
    out = tmp_path / "study"
    more = f"arms=('cot', 'negatives'), rounds=2, round_start={start!r}"
    file = written(tmp_path / "config.py", out, more, questions=40, steps=40)
    moments = random.Random(0)
    for _ in range(3):
        killed = subprocess.Popen(
            [sys.executable, "-m", "lema_jax.study", f"--config={file}"], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(10, 40))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    command("study", f"--config={file}")
    content = json.loads((out / "study.json").read_text())
    assert {job["state"] for job in content["jobs"]} == {"done"}
    named = {job["name"]: job["id"] for job in content["jobs"]}
    fresh = next(out.glob(f"sample/*{named['sample attempts negatives.2rounds seed 0 round 2']}.jsonl"))
    first = next(out.glob(f"sample/*{named['sample attempts']}.jsonl"))
    rows, before = (list(records.read(path, Attempt)) for path in (fresh, first))
    assert {row.prompt.split("\n")[0] for row in rows} == {"Write a correct solution."}  # as it was trained
    assert {row.student for row in rows}.isdisjoint(row.student for row in before)
    folders = {one["arm"]: out / one["folder"] for one in content["data"]}
    counts = {
        arm: json.loads((folder / "card.json").read_text())["counts"]["examples"] for arm, folder in folders.items()
    }
    assert counts == {"cot": 24, "negatives": 24, "negatives.2rounds": 24 if start == "student" else 12}
    of = {row.source for row in records.read(folders["negatives.2rounds"] / "examples.jsonl", Example)}
    students = {row.student for row in rows} | ({row.student for row in before} if start == "student" else set())
    assert of - {"gold"} <= students
    assert of & {row.student for row in rows}
    assert "negatives.2rounds" in (out / "report.txt").read_text()


class Solver:
    """A chat model that knows the task: it corrects as the reference teacher does, and makes questions of others."""

    def __init__(self) -> None:
        train = tasks.get("arithmetic").load("train")
        self.new = iter(train[9000:])
        self.known = {problem.question: problem for problem in train}

    def __call__(self, body: dict[str, Any], times: int) -> Act:
        said = body["messages"][-1]["content"]
        if said.endswith("\nNew Question:"):
            problem = next(self.new)
            self.known[problem.question] = problem
            return Act(completion(problem.question))
        (problem,) = (one for question, one in self.known.items() if question in said)
        if (found := re.search(r"Original Solution:\n\{\n(.*?)\n\}", said, re.DOTALL)) is None:
            return Act(completion(f"{problem.rationale}\nThe answer is {problem.gold}."))
        attempt = Attempt(
            id="a", problem=problem, student="s", sampling={}, prompt="p", text=found[1], answer="", prompt_tokens=1,
            verdict=Verdict.WRONG, completion_tokens=1,
        )  # fmt: skip
        return Act(completion(reference.reply(attempt)))


@pytest.mark.long
def test_new_questions_of_a_chat_teacher_join_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in commands.ENDPOINT.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "study"
    with Server(Solver()) as server:
        more = f"""arms=("cot", "lema@0.9"), evolution=Evolution(count=24),
        teacher=Teacher("openai", model="m", base_url={server.url!r})"""
        file = written(tmp_path / "config.py", out, more, questions=40, steps=40)
        command("study", f"--config={file}")
        asked = len(server.asked)
        assert "done in" not in command("study", f"--config={file}")
        assert len(server.asked) == asked  # nothing is paid for twice
    content = json.loads((out / "study.json").read_text())
    assert {job["state"] for job in content["jobs"]} == {"done"}
    named = {job["name"]: job["id"] for job in content["jobs"]}
    made = list(records.read(next(out.glob(f"evolve/*{named['evolve questions']}.jsonl")), Problem))
    assert {row.split for row in made} == {"evolved"}
    attempts = list(records.read(next(out.glob(f"sample/*{named['sample attempts evolved']}.jsonl")), Attempt))
    assert {row.problem.id for row in attempts} == {row.id for row in made}
    folders = {one["arm"]: out / one["folder"] for one in content["data"]}
    learnt = {
        arm: {row.problem_id for row in records.read(folder / "examples.jsonl", Example)}
        for arm, folder in folders.items()
    }
    assert not any("/evolved/" in id for id in learnt["cot"])
    assert any("/evolved/" in id for id in learnt["lema@0.9"])
