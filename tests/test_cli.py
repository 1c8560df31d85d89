"""How commands start and end: the lock, the signals, the disks, the threads, the pipes."""

import errno
import importlib
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lema_jax import build_data, disk, flagged, lock, storage, train
from lema_jax.errors import UserError
from lema_jax.parallel.watchdog import Watchdog
from tests import commands

BUILD = ("--task=arithmetic", "--limit=60", "--overlap=keep", "--train_tokenizer=800")
PRELUDE = """
import dataclasses, os, sys, time
from collections.abc import Sequence
from lema_jax import cli, interrupts, stage
from lema_jax.stage import option

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    out: str = option("", "Place to write.")
    paths: Sequence[str] = option((), "Paths.", paths=True)
    seconds: float = option(0.0, "Seconds to work.")

def command(run):
    cli.Command("test", "A test.", Config, stage.function(run)).main()
"""


def start(code: str, *argv: object, **how) -> subprocess.Popen:
    command = [sys.executable, "-c", PRELUDE + code, *map(str, argv)]
    how = {"preexec_fn": heed_hangups, **how}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def heed_hangups() -> None:
    """The tests may run under nohup, whose children ignore SIGHUP too."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ended(process: subprocess.Popen, seconds: float = 60) -> tuple[int, str, str]:
    try:
        said = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, *said


HOLDS = """
def run(config):
    print("in", flush=True)
    time.sleep(60)
command(run)
"""


def test_the_second_command_is_told_who_writes_and_a_dead_one_locks_nothing(tmp_path):
    out = tmp_path / "new" / "out"
    holder = start(HOLDS, f"--out={out}")
    assert holder.stdout.readline() == "in\n"
    code, _, said = ended(start(HOLDS, f"--out={out}"))
    assert code == 1
    assert len(said.splitlines()) == 1
    assert f"{out} is being written by" in said
    assert f"process {holder.pid} on " in said
    assert " since " in said
    holder.kill()
    ended(holder)
    assert (tmp_path / "new" / "out.lock").exists()  # which is not the lock
    third = start(HOLDS, f"--out={out}")
    assert third.stdout.readline() == "in\n"
    third.send_signal(signal.SIGINT)
    assert ended(third)[0] == 130
    assert not (tmp_path / "new" / "out.lock").exists()


def test_a_lock_leaves_nothing_behind(tmp_path):
    with lock.held(tmp_path / "a" / "b" / "c", "this"):
        assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.lock"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "link").symlink_to("real")
    with lock.held(tmp_path / "link", "this"), pytest.raises(UserError), lock.held(tmp_path / "real", "that"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")
def test_a_pipe_is_written_and_needs_no_lock():
    read, write = os.pipe()
    with open(read) as reader:
        out = f"/dev/fd/{write}"  # as /dev/stdout leads to one
        with lock.held(out, "this"), lock.held(out, "that"):
            storage.write(out, "the page")
        os.close(write)
        assert reader.read() == "the page"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "work",
    [
        "time.sleep(60)",
        "while True: pass",
        "import threading; threading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
    ],
)
def test_a_signal_ends_a_command_at_once_in_one_line(tmp_path, number, work):
    process = start(f"def run(config):\n    print('in', flush=True)\n    {work}\ncommand(run)")
    process.stdout.readline()
    began = time.monotonic()
    process.send_signal(number)
    code, _, said = ended(process)
    assert time.monotonic() - began < 30  # of the 60 s that it would work
    assert code == 128 + number
    assert said.split("\n") == [
        "",
        f"interrupted ({number.name}): what was finished is kept, and the same command goes on from there",
        "",
    ]


HEEDS = """
noticed = []
def run(config):
    with interrupts.heeded(noticed.append, "saving"):
        print("in", flush=True)
        while not noticed: time.sleep(0.01)
    print("saved", flush=True)
    time.sleep(config.seconds)
command(run)
"""


def test_a_heeded_signal_lets_the_work_end_and_the_second_ends_it():
    process = start(HEEDS)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, out, said = ended(process)
    assert (code, out) == (130, "saved\n")
    assert "saving" in said
    process = start(HEEDS, "--seconds=60")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "saved\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert ended(process, 10)[0] == 130


def test_what_a_shell_ignores_stays_ignored():
    process = start(
        "def run(config):\n    print('in', flush=True)\n    time.sleep(1)\n    print('out')\ncommand(run)",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert ended(process)[:2] == (0, "out\n")


def test_a_closed_pipe_and_a_full_output():
    code = "def run(config):\n    for n in range(100000): print(n)\ncommand(run)"
    process = start(code)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", PRELUDE + code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("OSError(28, 'No space left on device')", "OUT: No space left on device ("),
        ("OSError(122, 'Disk quota exceeded', '/x/y')", "/x/y: Disk quota exceeded; the quota"),
        ("RuntimeError('INTERNAL: \"/x/y\": No space left on device [os error 28]')", "/x/y: No space left on device"),
        ("PermissionError(13, 'Permission denied', '/x/y')", "/x/y: Permission denied; choose another place"),
        ("OSError(30, 'Read-only file system', '/x/y')", "/x/y: Read-only file system; choose"),
        ("OSError(36, 'File name too long', '/x/y')", "/x/y: File name too long; choose a shorter name"),
        ("IsADirectoryError(21, 'Is a directory', '/x/y')", "/x/y: Is a directory; name a file"),
        ("NotADirectoryError(20, 'Not a directory', '/x/y')", "/x/y: Not a directory; a part"),
        ("OSError(24, 'Too many open files', '/x/y')", "/x/y: Too many open files; let"),
        ("OSError(27, 'File too large', '/x/y')", "/x/y: File too large"),
        ("OSError(22, 'Invalid argument')", "Invalid argument (in "),
    ],
)
def test_a_disks_errors_are_one_line(tmp_path, raised, expected):
    process = start(f"def run(config):\n    raise {raised}\ncommand(run)", f"--out={tmp_path / 'OUT'}")
    code, _, said = ended(process)
    assert code == 1
    assert len(said.splitlines()) == 1
    assert expected in said
    assert list(tmp_path.iterdir()) == []


def test_a_cause_counts_and_a_fault_of_ours_keeps_its_traceback():
    error = ValueError("cannot save")
    error.__cause__ = OSError(28, "No space left on device", "/a/b")
    assert disk.explain(error, None).startswith("/a/b: No space left on device")
    code, _, said = ended(start("def run(config):\n    raise KeyError('ours')\ncommand(run)"))
    assert code == 1
    assert "Traceback" in said
    environment = os.environ | {"LEMA_TRACEBACK": "1"}
    code, _, said = ended(start("def run(config):\n    open('/nowhere/x')\ncommand(run)", env=environment))
    assert "Traceback" in said
    assert "error: /nowhere/x: No such file or directory" in said


@pytest.mark.long
def test_a_limit_of_a_files_size_and_that_the_same_command_goes_on(tmp_path):
    flags = (*BUILD, f"--out={tmp_path / 'out'}")
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "_", sys.executable, "-m", "lema_jax.build_data", *flags]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []
    commands.succeeds(build_data.command, *flags)


def test_paths_may_have_commas(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a,b", "c", "d,e,f"):
        Path(name).mkdir()
    parse = flagged._PathsParser().parse
    assert parse("a,b") == ["a,b"]
    assert parse("a,b@200,c,d,e,f@best") == ["a,b@200", "c", "d,e,f@best"]
    assert parse("x,y") == ["x", "y"]
    assert parse('"x,y",z') == ["x,y", "z"]
    assert parse("") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({"JAX_NUM_CPU_DEVICES": "8"}, "32"),
        ({"XLA_FLAGS": "--a --xla_force_host_platform_device_count=4"}, "16"),
        ({"JAX_NUM_CPU_DEVICES": "8", "NPROC": "2"}, "32"),
        ({"JAX_NUM_CPU_DEVICES": "8", "NPROC": "64"}, "64"),
        ({"JAX_NUM_CPU_DEVICES": "1"}, "None"),
    ],
)
def test_virtual_devices_get_their_threads_in_every_command(given, threads):
    environment = {k: v for k, v in os.environ.items() if k not in ("NPROC", "JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    process = start("command(lambda config: print(os.environ.get('NPROC')))", env=environment | given)
    assert ended(process)[:2] == (0, f"{threads}\n")


def test_silence_is_told_until_something_comes(capsys):
    with Watchdog("step", minutes=0.005) as watchdog:
        watchdog.alive("step 3")
        time.sleep(1)
    assert "no step after step 3 for 0.005 minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("x = 1", "has no get_config()"),
        ("def get_config(:", "invalid syntax"),
        ("def get_config():\n    raise KeyError('gone')", "config.py:2: KeyError: 'gone'"),
        ("def get_config():\n    raise ValueError('no such setting')", "config.py:2: ValueError: no such setting"),
        ("def get_config():\n    return {}", "must return a TrainConfig, but returned a dict"),
        (None, "config.py is not there"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "config.py").write_text(content)
    said = commands.fails(train.command, f"--config={tmp_path / 'config.py'}")
    assert len(said.splitlines()) == 1, said
    assert expected in said


@pytest.mark.parametrize(
    ("given", "twice"),
    [("a,b", None), ("a,a", "a"), ("a,b,./a", "a"), ("a/,a", "a/"), ("a@1,a@2", None), ("none,none", "none")],
)
def test_a_path_stands_once_in_a_list(tmp_path, given, twice):
    for name in "ab":
        (tmp_path / name).mkdir()
    code = "command(lambda config: print(len(config.paths)))"
    status, _, complained = ended(start(code, f"--paths={given}", cwd=tmp_path, env=WITH_US))
    if twice is None:
        assert (status, complained) == (0, "")
    else:
        assert (status, complained) == (1, f"error: --paths={given} names {twice} twice; name it once\n")


WITH_US = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 42), (signal.SIGINT, 130)])
def test_a_trainer_that_is_stopped_while_its_libraries_load_is_run_again(tmp_path, number, code):
    (tmp_path / "jax.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), WITH_US["PYTHONPATH"]])}
    command = [sys.executable, "-m", "lema_jax.train"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | paths, cwd=tmp_path
    )
    assert process.stdout.readline() == "loading\n"
    process.send_signal(number)
    found, _, said = ended(process, 10)
    assert (found, len(said.split("\n\n"))) == (code, 1), said


@pytest.mark.parametrize(
    ("error", "hinders"),
    [
        *((OSError(number, os.strerror(number), "/x"), True) for number in sorted(disk._HINDRANCES)),
        (MemoryError(), True),
        (ValueError('RESOURCE_EXHAUSTED: Error reading "/x": Too many open files'), True),
        (ValueError('PERMISSION_DENIED: Error opening "/x": Permission denied [source locations]'), True),
        (ValueError("INTERNAL: std::bad_alloc"), True),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/x"), False),
        (ValueError("DATA_LOSS: Error reading zstd-compressed data"), False),
        (KeyError("metadata"), False),
    ],
)
def test_what_hinders_and_what_is_damage(error, hinders):
    assert disk.hinders(error) is hinders
    outer = ValueError("cannot be read")
    outer.__cause__ = error
    assert disk.hinders(ExceptionGroup("several", [KeyError("x"), outer])) is hinders


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.steeps=3", "--config.steeps: there is no such field; did you mean steps? the fields are those of"),
        ("--config.optimizer.rate=3", "--config.optimizer.rate: there is no such field; did you mean optimizer."),
        ("--config.zzz=3", "--config.zzz: there is no such field; the fields are those of lema_jax/training/config.py"),
    ],
)
def test_a_misspelt_field_is_told_the_nearest(flag, said):
    assert said in commands.fails(train.command, "--config=configs/arithmetic_student.py", flag)


def test_too_little_memory_is_one_line():
    found, _, said = ended(start("def run(config):\n    bytearray(1 << 60)\ncommand(run)"))
    assert (found, len(said.splitlines())) == (1, 1), said
    assert "error: not enough memory (in lema_jax/" in said


def test_a_device_that_does_not_hold_an_array_is_one_line():
    found, _, said = ended(
        start("import jax\ndef run(config):\n    jax.numpy.zeros(1 << 50).block_until_ready()\ncommand(run)")
    )
    assert (found, len(said.splitlines())) == (1, 1), said
    assert "error: not enough memory (in lema_jax/" in said


COMMANDS = {
    "train": "--config={config} --config.out={out}",
    "build_data": "--task=arithmetic --train_tokenizer=800 --out={out}",
    "convert": "--checkpoint={out}/none --out={out}",
    "evaluate": "--checkpoint={out}/none --task=arithmetic --out={out}",
    "sample": "--checkpoint={out}/none --task=arithmetic --out={out}",
    "correct": "--attempts={out}/none --teacher=reference --out={out}",
    "evolve": "--corrections={out}/none --model=m --out={out}",
    "report": "--runs={out}/none --out={out}",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_who_writes_there(tmp_path, command):
    out, config = tmp_path / "out", tmp_path / "config.py"
    config.write_text(
        "from lema_jax.training.config import DataConfig, TrainConfig\n"
        "def get_config():\n    return TrainConfig(out='', data=DataConfig())\n"
    )
    given = COMMANDS[command].format(out=out, config=config).split()
    with lock.held(out, "the first"):
        said = commands.fails(importlib.import_module(f"lema_jax.{command}").command, *given)
    assert len(said.splitlines()) == 1, said
    assert said.startswith(f"error: {out} is being written by the first, process {os.getpid()} on ")


def test_the_package_names_every_command(capsys):
    runpy.run_module("lema_jax", run_name="__main__")
    named = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert named == COMMANDS.keys() | {"study", "aot"}
