"""The launchers against stand-ins for the clouds' own tools, which record what they are told (see cloud.py)."""

import json
import os
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
SLICE = ["--name=lema", "--zone=us-west4-a"]
TYPE = "--type=v5litepod-8"
TRAIN = ["--", "-m", "lema_jax.train", "--config.out=gs://bucket/it's here"]


class World:
    """A folder first on PATH that holds the stand-ins, and the world that they share."""

    def __init__(self, folder: Path):
        self.file, self.bin = folder / "world.json", folder / "bin"
        self.bin.mkdir()
        for name in ("gcloud", "xpk", "kubectl", "srun", "scontrol", "sbatch", "sky"):
            shutil.copy(Path(__file__).parent / "cloud.py", self.bin / name)
            (self.bin / name).chmod(0o755)
        self.set()

    def set(self, *lives: dict, **fields) -> None:
        self.file.write_text(json.dumps({"lives": list(lives), "calls": [], **fields}))

    def run(self, script: str, *words: str, typed: str = "") -> subprocess.CompletedProcess:
        path = f"{self.bin}:{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "WORLD": str(self.file), "POLL_SECONDS": "0", "QUICK_SECONDS": "0"}
        env["RUNS"] = str(self.bin)
        return subprocess.run(
            ["bash", str(LAUNCH / script), *words], env=env, input=typed, capture_output=True, text=True, timeout=60
        )

    def calls(self) -> list[str]:
        return [" ".join(call) for call in json.loads(self.file.read_text())["calls"]]

    def done(self) -> list[str]:
        """What changed something, in a word each."""
        verbs = {
            "queued-resources create": "create",
            "queued-resources delete": "delete",
            "tpu-vm scp": "copy",
            "setup.sh": "setup",
            "again.sh": "start",
        }
        found = []
        for call in self.calls():
            if "exit_code 2>" not in call:
                found += [short for verb, short in verbs.items() if verb in call]
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def life(states: str, workers: str = "running") -> dict:
    return {"states": states.split(), "workers": [text.replace("+", "\n") for text in workers.split()]}


LAUNCHED = ["create", "copy", "setup", "start"]


@pytest.mark.slow
def test_a_run_from_nothing_to_its_end(world):
    world.set(life("WAITING_FOR_RESOURCES PROVISIONING ACTIVE", "idle running running+0 0"))
    ended = world.run("tpu_vm.sh", "run", *SLICE, TYPE, "--spot", "--yes", *TRAIN)
    assert (ended.returncode, world.done()) == (0, LAUNCHED), ended.stderr
    assert "PROVISIONING" in ended.stdout
    assert "costs money until" in ended.stdout
    (create,) = (call for call in world.calls() if "create" in call)
    assert create == (
        "gcloud compute tpus queued-resources create lema --zone=us-west4-a --node-id=lema "
        "--accelerator-type=v5litepod-8 --runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    (start,) = (call for call in world.calls() if "again.sh" in call and "exit_code 2>" not in call)
    assert "lema_jax.train" in start


@pytest.mark.slow
@pytest.mark.parametrize(
    "gone", ["SUSPENDED", *(pytest.param(state, marks=pytest.mark.long) for state in ("SUSPENDING", "FAILED"))]
)
def test_preempted_in_the_middle_it_is_asked_for_again_and_goes_on(world, gone):
    first, second = life(f"PROVISIONING ACTIVE ACTIVE {gone}", "idle running"), life("ACTIVE", "idle running 0")
    world.set(first, second)
    ended = world.run("tpu_vm.sh", "run", *SLICE, TYPE, "--yes", *TRAIN)
    assert (ended.returncode, world.done()) == (0, [*LAUNCHED, "delete", *LAUNCHED]), ended.stderr


@pytest.mark.slow
def test_a_request_that_fails_in_the_queue_is_made_again(world):
    world.set(life("WAITING_FOR_RESOURCES FAILED"), life("ACTIVE", "idle 0"))
    ended = world.run("tpu_vm.sh", "run", *SLICE, TYPE, "--yes", *TRAIN)
    assert (ended.returncode, world.done()) == (0, ["create", "delete", *LAUNCHED]), ended.stderr


@pytest.mark.long
def test_workers_that_lost_the_run_are_started_again(world):
    world.set(life("ACTIVE", "idle running idle idle running 0"))
    ended = world.run("tpu_vm.sh", "run", *SLICE, TYPE, "--yes", *TRAIN)
    assert (ended.returncode, world.done()) == (0, [*LAUNCHED, "copy", "setup", "start"]), ended.stderr


@pytest.mark.slow
def test_the_same_command_again_watches_what_runs(world):
    world.set(life("ACTIVE", "running running 0"), alive=True)
    ended = world.run("tpu_vm.sh", "run", *SLICE, TYPE, "--yes", *TRAIN)
    assert (ended.returncode, world.done()) == (0, []), ended.stderr


@pytest.mark.slow
def test_a_command_that_fails_ends_the_run_and_keeps_the_slice(world):
    world.set(life("ACTIVE", "idle running 1+0"))
    ended = world.run("tpu_vm.sh", "run", *SLICE, TYPE, "--yes", *TRAIN)
    assert (ended.returncode, world.done()) == (1, LAUNCHED)
    assert "exit code 1; lema is kept" in ended.stderr


def test_a_cloud_that_does_not_answer_is_told_of(world):
    world.set(broken="ERROR: PERMISSION_DENIED: tpu.nodes.get")
    ended = world.run("tpu_vm.sh", "run", *SLICE, TYPE, "--yes", *TRAIN)
    assert ended.returncode == 1
    assert "PERMISSION_DENIED" in ended.stderr
    assert "gcloud does not answer" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "create", "delete", "stop"])
def test_what_costs_or_destroys_asks_first(world, verb):
    world.set(life("ACTIVE", "idle 0"), alive=verb in ("delete", "stop"))
    ended = world.run("tpu_vm.sh", verb, *SLICE, TYPE, *TRAIN, typed="n\n")
    assert (ended.returncode, world.calls()) == (1, [])
    assert "nothing was done" in ended.stderr
    assert world.run("tpu_vm.sh", verb, *SLICE, TYPE, *TRAIN, typed="y\n").returncode == 0
    assert world.calls() != []


@pytest.mark.parametrize("verb", ["create", "setup", "start", "run", "tail", "stop", "fetch", "delete"])
def test_a_dry_run_says_the_commands_and_calls_nothing(world, verb):
    ended = world.run("tpu_vm.sh", verb, *SLICE, TYPE, "--project=p", "--dry_run", "--from=gs://a", "--to=b", *TRAIN)
    assert (ended.returncode, world.calls()) == (0, []), ended.stderr
    assert ended.stdout.startswith(("gcloud ", "tar ", "mkdir ", "=="))


def test_what_a_dry_run_says_is_what_is_done(world):
    def commands(*flags):
        return world.run("tpu_vm.sh", "start", *SLICE, *flags, *TRAIN)

    told = commands("--dry_run").stdout
    world.set(life("ACTIVE"), alive=True)
    commands()
    spoken = subprocess.run(["bash", "-c", f"printf '%s ' {told}"], capture_output=True, text=True).stdout.strip()
    assert spoken == world.calls()[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say create, setup"),
        (["fly"], "say create, setup"),
        (["create", "--zone=z", TYPE], "--name is missing"),
        (["create", *SLICE], "--type is missing"),
        (["start", *SLICE], "what to run is missing"),
        (["create", *SLICE, TYPE, "--sopt"], "unknown argument --sopt"),
        (["fetch", "--from=gs://a"], "--to is missing"),
    ],
)
def test_wrong_words_are_one_message_and_no_call(world, words, message):
    ended = world.run("tpu_vm.sh", *(words or ["", *SLICE]), *([] if len(words) != 1 else SLICE))
    assert (ended.returncode, world.calls()) == (2, [])
    assert message in ended.stderr


@pytest.mark.slow
def test_status_and_fetch(world):
    world.set(life("ACTIVE", "running+0"), alive=True)
    told = world.run("tpu_vm.sh", "status", *SLICE).stdout
    assert "lema: ACTIVE" in told
    assert "running 0" in told
    world.set()
    assert "lema: NONE" in world.run("tpu_vm.sh", "status", *SLICE).stdout
    world.run("tpu_vm.sh", "fetch", "--from=gs://b/run", f"--to={world.bin.parent}/run")
    assert world.calls()[-1] == f"gcloud storage rsync --recursive gs://b/run {world.bin.parent}/run"


def again(world: World, tmp_path: Path, codes: str) -> tuple[int, int]:
    """(Exit code, times run) of a command that ends with these codes, one after the other."""
    script = tmp_path / "command.sh"
    count = tmp_path / "n"
    count.write_text("0")
    script.write_text(f'codes=({codes}); n=$(cat {count}); echo $((n + 1)) > {count}; exit "${{codes[n]}}"')
    ended = world.run("again.sh", "bash", str(script))
    return ended.returncode, int(count.read_text())


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("0", (0, 1)),
        ("42 42 0", (0, 3)),
        ("42 7 0", (7, 2)),
        ("137", (137, 1)),
        ("143 42 0", (0, 3)),  # 143: SIGTERM before the command could heed it
    ],
)
def test_a_saved_stop_goes_on_and_everything_else_ends(world, tmp_path, codes, expected):
    assert again(world, tmp_path, codes) == expected


def test_being_told_to_stop_passes_on_and_is_final(tmp_path):
    child = "trap 'sleep 0.3; echo saved; exit 42' TERM; echo ready; while true; do sleep 0.05; done"
    run = subprocess.Popen(["bash", str(LAUNCH / "again.sh"), "bash", "-c", child], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGTERM)
    assert (run.stdout.readline(), run.wait(10)) == ("saved\n", 42)


def test_stops_that_come_at_once_are_a_fault(tmp_path):
    began = time.monotonic()
    run = subprocess.run(["bash", str(LAUNCH / "again.sh"), "bash", "-c", "exit 42"], capture_output=True, text=True)
    assert (run.returncode, time.monotonic() - began < 30) == (42, True)
    assert "giving up" in run.stderr


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (42, True), (1, False)])
def test_slurm_queues_a_stopped_run_again(world, monkeypatch, code, requeued):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    world.set(code=code)
    assert world.run("gpu_slurm.sbatch", "--config=c").returncode == code
    assert ("scontrol requeue 7" in world.calls()) is requeued
    assert world.calls()[0].endswith("-m lema_jax.train --config=c")


def test_gke_makes_a_job_that_begins_again(world):
    where = ["--name=lema", "--cluster=c", "--zone=z"]
    words = ["start", *where, TYPE, "--image=i", *TRAIN]
    told = world.run("gke_xpk.sh", "start", "--dry_run", *words[1:])
    assert (told.returncode, world.calls()) == (0, [])
    assert world.run("gke_xpk.sh", *words).returncode == 0
    (call,) = world.calls()
    assert call.startswith(
        "xpk workload create --workload=lema --cluster=c --zone=z --tpu-type=v5litepod-8 --num-slices=1"
    )
    assert "--max-restarts=50" in call
    world.set()
    assert world.run("gke_xpk.sh", "delete", *where, typed="n\n").returncode == 1
    assert world.calls() == []
    assert world.run("gke_xpk.sh", "delete", *where, "--yes").returncode == 0
    assert world.calls() == ["xpk workload delete --workload=lema --cluster=c --zone=z --force"]
    assert world.run("gke_xpk.sh", "start", *where).returncode == 2


def test_skypilot_begins_again_on_the_same_code():
    told = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert told["resources"]["job_recovery"]["recover_on_exit_codes"] == [42]
    assert "lema_jax.train" in told["run"]
    assert set(told["envs"]) == {"CONFIG", "OUT", "DATA", "INIT", "EXTRAS"}
    extras = tomllib.loads((LAUNCH.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(told["envs"]["EXTRAS"].split(",")) <= set(extras)
    assert "$EXTRAS" in told["setup"]


def test_scripts_are_clean():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; it is in the extra [test]")
    scripts = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
    checked = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
