"""A study as a command and a function: what it runs, in which order, and what it does after a failure or a kill."""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lema_jax import lock, records, study, study_jobs
from lema_jax.errors import UserError
from lema_jax.planning import config as configs
from lema_jax.planning.config import Mix, Teacher, Test
from lema_jax.planning.jobs import Board
from lema_jax.records import Prediction
from lema_jax.teacher import endpoint
from lema_jax.teacher.chat import Reply
from tests import commands, made_runs
from tests.data import rows
from tests.studies import small

ROOT = Path(__file__).parents[1]
FILE = """
from tests.studies import small
def get_config():
    return small({out!r})
"""


class Stages:
    """Stages that only act: each writes a little, notes that it ran, and fails where the test says so."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.kept = 3

    def stage(self, kind: str, real: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(config: Any) -> Any:
            if getattr(config, "dry_run", False):
                return real(config)
            out = Path(config.config.out if kind == "train" else config.out)
            name = out.name.rpartition("-")[0]
            self.ran.append(f"{kind} {name}")
            print(f"this is {kind}")
            if error := self.fails.get(f"{kind} {name}"):
                raise error
            return getattr(self, kind)(config, out)

        return run

    def data(self, config: Any, out: Path) -> Any:
        out.mkdir(parents=True)
        (out / "card.json").touch()
        return SimpleNamespace(card=SimpleNamespace(counts={"tokens": 100}, kinds={"cot": 3}))

    def train(self, config: Any, out: Path) -> Any:
        out.mkdir(parents=True)
        lines = ('{"step": 1, "loss": 0.5, "tokens": 40}', '{"step": 2, "loss": 0.4, "tokens": 50}')
        (out / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return SimpleNamespace(step=1, loss=0.5)

    def sample(self, config: Any, out: Path) -> Any:
        records.write(out, [rows.attempt(rows.problem(number)) for number in range(3)])
        return SimpleNamespace(verdicts={"wrong": 3})

    def correct(self, config: Any, out: Path) -> Any:
        records.write(out, [])
        return SimpleNamespace(mistakes=3, kept=self.kept, rejected={})

    def evaluate(self, config: Any, out: Path) -> Any:
        drawn = random.Random(out.name)
        rows = made_runs.predictions("".join(drawn.choices("rw", k=12)), checkpoint=out.name)
        made_runs.write(out, rows)
        right = sum(row.verdict == "right" for row in rows)
        summary = SimpleNamespace(n=len(rows), accuracy=right / len(rows))
        return SimpleNamespace(answered=(SimpleNamespace(summary=summary),))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    acting = Stages()
    monkeypatch.setattr(study, "_RUN", {kind: acting.stage(kind, real) for kind, real in study._RUN.items()})
    return acting


def begin(out: Path, **changes: Any) -> study.Result:
    return study.run(study.Config(config=small(out, **changes)))


def test_it_runs_every_job_once_and_reports(tmp_path: Path, stages: Stages, capsys: pytest.CaptureFixture) -> None:
    result = begin(tmp_path / "a")
    assert len(result.done) == len(stages.ran) == 17
    assert not result.failed + result.missing
    assert stages.ran[:2] == ["data student", "train student"]
    assert "this is" not in capsys.readouterr().out
    assert (tmp_path / "a" / "report.html").read_text().startswith("<!")
    log = next((tmp_path / "a" / "jobs").glob("*.log"))
    assert log.read_text().startswith("this is ")
    assert begin(tmp_path / "a").done == result.done
    assert len(stages.ran) == 17


@pytest.mark.slow
def test_another_arm_or_seed_runs_only_what_it_adds(tmp_path: Path, stages: Stages) -> None:
    begin(tmp_path / "a")
    before = len(stages.ran)
    begin(tmp_path / "a", arms=("cot", "lema", "cot_part"))
    endings = {"data": "", "train": "", "evaluate": "-arithmetic-test"}
    ended = lambda arm, seed: [f"{kind} {arm}-seed-{seed}{end}" for kind, end in endings.items()]
    assert stages.ran[before:] == [*ended("cot_part", 0), *ended("cot_part", 1)]
    before = len(stages.ran)
    begin(tmp_path / "a", seeds=(7,))
    assert stages.ran[before:] == [*ended("cot", 7), *ended("lema", 7)]


@pytest.mark.slow
def test_a_job_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, stages: Stages, capsys: pytest.CaptureFixture
) -> None:
    stages.fails = {
        "train lema-seed-0": UserError("disk full"),
        "data cot-seed-1": ValueError("our fault"),
    }
    result = begin(tmp_path / "a")
    assert result.failed == ("train lema seed 0", "data cot seed 1")
    assert len(result.missing) == 3
    assert len(result.done) == 12
    printed = capsys.readouterr().out
    assert "train lema seed 0 FAILED: disk full" in printed
    assert "data cot seed 1 FAILED: ValueError: our fault" in printed
    assert "evaluate lema seed 0 arithmetic/test not run: it needs train lema seed 0" in printed
    states = {job["name"]: job["state"] for job in json.loads((tmp_path / "a/study.json").read_text())["jobs"]}
    assert states["train lema seed 0"] == "failed"
    stages.fails = {}
    assert not begin(tmp_path / "a").failed
    assert len(stages.ran) == 14 + 5


@pytest.mark.slow
def test_the_command_ends_with_1_where_a_job_failed(tmp_path: Path, stages: Stages) -> None:
    file = tmp_path / "config.py"
    file.write_text(FILE.format(out=str(tmp_path / "a")))
    stages.fails = {"correct corrections": UserError("no teacher")}
    assert commands.run(study.command, f"--config={file}").returncode == 1
    missing = commands.succeeds(study.command, f"--config={file}", "--waves").split()  # launchers submit these
    assert missing
    commands.succeeds(study.command, f"--config={file}", "--plan")
    ids = {job["name"]: job["id"] for job in json.loads((tmp_path / "a" / "study.json").read_text())["jobs"]}
    assert "is done already" in commands.succeeds(study.command, f"--config={file}", f"--job={ids['train student']}")
    assert "no teacher" in commands.fails(study.command, f"--config={file}", f"--job={ids['correct corrections']}")
    stages.fails = {}
    assert "The page is at" in commands.succeeds(study.command, f"--study={tmp_path / 'a'}")


@pytest.mark.slow
def test_a_plan_runs_nothing_and_writes_nothing(tmp_path: Path, stages: Stages) -> None:
    file = tmp_path / "config.py"
    file.write_text(FILE.format(out=str(tmp_path / "a")))
    printed = commands.succeeds(study.command, f"--config={file}", "--plan", "--config.seeds=0,1,2")
    assert "2 arms, 3 seeds, 1 tests; 23 jobs" in printed
    assert "arithmetic/test: " in printed
    assert "(12 questions)" in printed
    assert "formula" in printed
    assert not (tmp_path / "a").exists()
    assert not stages.ran
    begin(tmp_path / "a")
    assert "measured" in commands.succeeds(study.command, f"--config={file}", "--plan")


def own_file(path: Path, count: int, **fields: str) -> str:
    lines = (
        f"{name} has {n} pens and buys {n + 2} more. How many?" for n in range(1, 10) for name in ("Ann", "Bo", "Cy")
    )
    row = lambda question: {"question": question, "gold": "7", "rationale": "3 + 4 = 7", **fields}
    path.write_text("".join(json.dumps(row(line)) + "\n" for line in itertools.islice(lines, count)))
    return f"jsonl:{path}"


@pytest.mark.parametrize("apart", [True, False], ids=["two files", "one file without splits"])
def test_what_is_tested_on_is_not_trained_on(tmp_path: Path, stages: Stages, apart: bool) -> None:
    trained = own_file(tmp_path / "train.jsonl", 27)
    tested = own_file(tmp_path / "test.jsonl", 27) if apart else trained
    config = small(tmp_path / "a", task=trained, tests=(Test(tested),), mix=Mix(amount=20))
    for plan in (True, False):  # a plan refuses what the run does
        with pytest.raises(
            UserError, match=r"27 of the 27 training questions of jsonl:.* are questions of config\.tests"
        ):
            study.run(study.Config(config=config, plan=plan))
    config.mix.overlap = "keep"
    study.run(study.Config(config=config, plan=True))


def test_a_part_of_the_questions_that_is_tested_on_is_left_out(tmp_path: Path, stages: Stages) -> None:
    trained, tested = own_file(tmp_path / "train.jsonl", 27), own_file(tmp_path / "test.jsonl", 9)
    config = small(tmp_path / "a", task=trained, tests=(Test(tested),), mix=Mix(amount=18))
    plan = study_jobs.compose(config)
    assert all(job.config.tests == (tested,) for job in plan if job.kind == "data")
    study.run(study.Config(config=config, plan=True))
    config.mix.amount = 19
    with pytest.raises(UserError, match="there are 18 gold rationales"):
        study.run(study.Config(config=config, plan=True))
    before = {job.name: job.id for job in plan}
    own_file(tmp_path / "test.jsonl", 8)
    after = {job.name: job.id for job in study_jobs.compose(config)}
    assert all(before[name] != after[name] for name in before if name.startswith("data"))


def test_a_plan_says_once_what_a_chat_teacher_costs(
    tmp_path: Path, stages: Stages, capsys: pytest.CaptureFixture
) -> None:
    teacher = Teacher("openai", model="gpt-4o", base_url="http://127.0.0.1:9/v1", samples=2, temperature=0.5)
    plan = lambda: study.run(study.Config(config=small(tmp_path / "a", teacher=teacher), plan=True))
    plan()
    assert "at most 80 requests to gpt-4o" in capsys.readouterr().out
    stages.fails = {"correct corrections": UserError("no network")}
    begin(tmp_path / "a", teacher=teacher)
    capsys.readouterr()
    plan()
    printed = capsys.readouterr().out
    assert printed.count("6 requests to ask") == 1
    assert printed.count("at most about $") == 1


def test_a_plan_says_what_the_correction_leaves_and_never_more_questions_than_there_are(
    tmp_path: Path, stages: Stages, capsys: pytest.CaptureFixture
) -> None:
    tests = (Test("arithmetic", "ood", 5000), Test("arithmetic", "test", 1))
    study.run(study.Config(config=small(tmp_path / "a", tests=tests, seeds=(0,)), plan=True))
    printed = " ".join(capsys.readouterr().out.split())
    assert "after the correction for 4 comparisons, if two arms" in printed  # lema and the student, on two tests
    assert "with the one seed of each arm as it is" in printed
    assert "points (1,000 questions, in 20 clusters of questions of one template: it may be larger)" in printed
    assert "arithmetic/test: too few to show any difference (1 questions)" in printed


def test_what_a_chat_teacher_was_paid_counts_also_where_its_job_failed(tmp_path: Path, stages: Stages) -> None:
    reply = Reply(id="1", text="", finish="stop", model="m", prompt_tokens=100, completion_tokens=20, cost_usd=0.25)

    def fails(config: Any, out: Path) -> Any:
        records.write(endpoint.replies_of(out), [reply, reply.model_copy(update={"id": "2"})])
        raise UserError("the budget has no room")

    stages.correct = fails  # type: ignore[method-assign]
    begin(tmp_path / "a")
    jobs = {job["name"]: job for job in json.loads((tmp_path / "a/study.json").read_text())["jobs"]}
    job = jobs["correct corrections"]
    assert (job["state"], job["tokens"], job["usd"]) == ("failed", 240, 0.5)


def test_a_job_that_another_process_runs_is_not_recorded_as_failed(tmp_path: Path, stages: Stages) -> None:
    stages.fails = {"train student": lock.Busy("train is being written by process 7")}
    result = begin(tmp_path / "a")
    assert (result.failed, "train student" in result.missing, study.command.code(result)) == ((), True, 1)
    stages.fails = {}
    assert not begin(tmp_path / "a").missing


def test_processes_that_write_a_study_at_a_time_lose_nothing(tmp_path: Path, stages: Stages) -> None:
    """Each job of an array writes study.json when it begins and ends."""
    begin(tmp_path / "a")
    board, config = Board(tmp_path / "a"), small(tmp_path / "a")
    plan = study_jobs.compose(config)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(board.write, configs.as_dict(config), plan) for _ in range(40)]:
            one.result()
    assert len(json.loads((tmp_path / "a" / "study.json").read_text())["jobs"]) == len(plan)


def test_a_study_whose_file_was_removed_finds_its_jobs_done(tmp_path: Path, stages: Stages) -> None:
    begin(tmp_path / "a")
    (tmp_path / "a" / "study.json").unlink()
    before = len(stages.ran)
    assert begin(tmp_path / "a").done
    assert len(stages.ran) == before


@pytest.mark.slow
def test_what_a_training_costs_is_what_it_saw(tmp_path: Path, stages: Stages) -> None:
    begin(tmp_path / "a")
    content = json.loads((tmp_path / "a" / "study.json").read_text())
    assert {job["tokens"] for job in content["jobs"] if job["kind"] == "train"} == {90}


@pytest.mark.slow
def test_jobs_by_their_ids_in_waves(tmp_path: Path, stages: Stages) -> None:
    file = tmp_path / "config.py"
    file.write_text(FILE.format(out=str(tmp_path / "a")))
    waves = [line.split() for line in commands.succeeds(study.command, f"--config={file}", "--waves").splitlines()]
    assert sum(map(len, waves)) == 17
    late = commands.fails(study.command, f"--config={file}", f"--job={waves[-1][0]}")
    assert "run them first" in late
    assert "is none of this study's 17 jobs" in commands.fails(study.command, f"--config={file}", "--job=0000000000")
    for wave in waves:
        for id in reversed(wave):
            commands.succeeds(study.command, f"--config={file}", f"--job={id}")
    assert "is done already" in commands.succeeds(study.command, f"--config={file}", f"--job={waves[0][0]}")
    assert commands.succeeds(study.command, f"--config={file}", "--waves").strip() == ""
    assert len(stages.ran) == 17
    assert "The page is at" in commands.succeeds(study.command, f"--study={tmp_path / 'a'}")


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path, stages: Stages) -> None:
    with pytest.raises(UserError, match="there are 100 gold rationales"):
        begin(tmp_path / "a", mix=Mix(amount=101, questions=100))
    with pytest.raises(UserError, match="no model folder"):
        begin(tmp_path / "a", pretraining=None, student=str(tmp_path / "none"))
    with pytest.raises(UserError, match="correct corrections: --samples=2 at --temperature=0 would all be the same"):
        begin(tmp_path / "a", teacher=Teacher("openai", model="m", samples=2))
    with pytest.raises(UserError, match="give either --config"):
        study.run(study.Config())
    with pytest.raises(UserError, match="holds no study"):
        study.run(study.Config(study=tmp_path / "none"))
    assert not stages.ran
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_corrections_that_are_not_there_stop_the_arms_that_want_them(tmp_path: Path, stages: Stages) -> None:
    stages.kept = 0
    begin(tmp_path / "a", arms=("cot", "lema"))
    with pytest.raises(UserError, match=r"no correction that was kept .*but the arms lema want some"):
        begin(tmp_path / "a", arms=("cot", "lema"))
    assert not begin(tmp_path / "a", arms=("cot",)).failed


@pytest.mark.slow
def test_a_folder_has_one_student_and_one_task(tmp_path: Path, stages: Stages) -> None:
    begin(tmp_path / "a")
    other = small().pretraining
    assert other is not None
    other.tokenizer_ids = 900
    with pytest.raises(UserError, match="holds a study of another pretraining"):
        begin(tmp_path / "a", pretraining=other)


@pytest.mark.slow
def test_the_student_answers_too_and_several_tests_are_told_apart(tmp_path: Path, stages: Stages) -> None:
    tests = (Test("arithmetic", "test", 12), Test("arithmetic", "ood", 12))
    begin(tmp_path / "a", tests=tests)
    content = json.loads((tmp_path / "a" / "study.json").read_text())
    assert content["tests"] == ["arithmetic/test", "arithmetic/ood"]
    assert len(content["evaluations"]) == 2 * (1 + 4)
    assert {one["arm"] for one in content["evaluations"]} == {"student", "cot", "lema"}
    assert all((tmp_path / "a" / one["folder"] / "summary.json").exists() for one in content["evaluations"])
    assert {(one["arm"], one["seed"]) for one in content["trainings"]} == {
        (arm, s) for arm in ("cot", "lema") for s in (0, 1)
    }


# --- real stages ------------------------------------------------------------------------------------------------------


def answers(folder: Path) -> dict[str, str]:
    """What every arm and seed answered, by the name of its job."""
    found = {}
    for file in sorted(folder.glob("evaluate/*/predictions.jsonl")):
        texts = [(row.problem.id, row.text, row.verdict) for row in records.read(file, Prediction)]
        found[file.parent.name] = hashlib.sha256(repr(texts).encode()).hexdigest()
    return found


def process(file: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lema_jax.study", f"--config={file}", *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.long
def test_killed_at_random_moments_it_ends_with_the_same_answers(tmp_path: Path) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / f"{name}.py").write_text(FILE.format(out=str(tmp_path / name)))
    began = time.monotonic()
    undisturbed = process(tmp_path / "undisturbed.py", "--jobs=2")
    printed, _ = undisturbed.communicate()
    assert undisturbed.returncode == 0, printed
    duration, moments = time.monotonic() - began, random.Random(0)
    for number in range(10):
        killed = process(tmp_path / "killed.py", *(["--jobs=2"] if number % 2 else []))
        with contextlib.suppress(subprocess.TimeoutExpired):
            killed.wait(duration * moments.uniform(0.1, 0.6))
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    time.sleep(3)  # its processes notice that it is gone
    again = process(tmp_path / "killed.py")
    printed, _ = again.communicate()
    assert again.returncode == 0, printed
    assert answers(tmp_path / "killed") == answers(tmp_path / "undisturbed")
    text = lambda name: (tmp_path / name / "report.txt").read_text().split("\n\n")[0]
    assert text("killed") == text("undisturbed")
