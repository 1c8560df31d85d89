"""Runs a study's jobs: in this process one after the other, or in several processes."""

import contextlib
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lema_jax import disk, interrupts, lock, records
from lema_jax.errors import UserError
from lema_jax.evidence import curves
from lema_jax.interrupts import Interrupted
from lema_jax.planning import forecast
from lema_jax.planning.jobs import Board, Job, Outcome
from lema_jax.records import Attempt, Prediction
from lema_jax.teacher import endpoint
from lema_jax.teacher.chat import Reply

Run = Mapping[str, Callable[[Any], Any]]  # a job's kind -> its stage's function
Cores = frozenset[int]
_PARENT = "LEMA_STUDY_PROCESS"
_LOOK_S = 0.2
BUSY = os.EX_TEMPFAIL  # the exit code of a job that another process runs


def here(board: Board, plan: Sequence[Job], run: Run) -> Iterator[Job]:
    """Runs what is missing in this process, in order; yields each job when it has ended."""
    for job in plan:
        if not board.is_done(job):
            if waits := _waits(board, plan, job):
                print(f"{_place(plan, job)} not run: it needs {', '.join(waits)}", flush=True)
                continue
            print(f"{_place(plan, job)} … (what it prints is in {board.path(job, 'log')})", flush=True)
            try:
                one(board, job, run)
            except lock.Busy as error:
                print(f"{_place(plan, job)} is run by another process: {error}", flush=True)
                continue
            _tell(board, plan, job)
            yield job


def one(board: Board, job: Job, run: Run) -> None:
    """Runs a job and records its outcome. An error of any kind fails this job alone.

    Raises:
      Interrupted: a signal came; the job's work is saved, and it is done or goes on the next time.
      Busy: another process runs it, whose outcome is the job's.
    """
    began = time.monotonic()
    log = board.path(job, "log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "a", encoding="utf-8", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            result = run[job.kind](job.config)
            measured = _measured(job, result, board.out / job.out)
            outcome = Outcome("done", round(time.monotonic() - began, 2), **measured)
        except (Interrupted, lock.Busy):
            raise
        except Exception as error:
            if (number := interrupts.noticed()) is not None:
                raise Interrupted(f"{job.name}: {error}", number) from error
            traceback.print_exception(error)
            line = str(error) if isinstance(error, UserError) else disk.explain(error, job.out)
            line = line or f"{type(error).__name__}: {error}"
            seconds = round(time.monotonic() - began, 2)
            outcome = Outcome("failed", seconds, error=line, **_paid_before(board.out / job.out))
    board.settle(job, outcome)
    if (number := interrupts.noticed()) is not None:
        raise Interrupted(interrupts.line(number), number)


def _measured(job: Job, result: Any, out: Path) -> dict[str, Any]:
    """Tokens, dollars, and the counts that are worth keeping, of a stage's result."""
    match job.kind:
        case "data":
            return {"tokens": result.card.counts["tokens"], "facts": {"kinds": result.card.kinds}}
        case "train":
            _, tokens = curves.read(out)["tokens"]
            return {"tokens": round(sum(tokens)), "facts": {"step": result.step, "loss": result.loss}}
        case "correct" | "critique":
            facts = {"mistakes": result.mistakes, "kept": result.kept, "rejected": dict(result.rejected)}
            return _paid(out) | {"facts": facts}
        case "evolve":
            return _paid(out) | {"facts": {"made": result.made, "left_out": dict(result.left_out)}}
        case "sample":
            return {"tokens": _tokens(out, Attempt), "facts": {"verdicts": dict(result.verdicts)}}
        case "evaluate":
            (answered,) = result.answered
            facts = {"n": answered.summary.n, "accuracy": answered.summary.accuracy}
            return {"tokens": _tokens(out / "predictions.jsonl", Prediction), "facts": facts}
    raise AssertionError(job.kind)


def _tokens(path: Path, kind: type[Attempt] | type[Prediction]) -> int:
    return sum(row.prompt_tokens + row.completion_tokens for row in records.read(path, kind))


def _paid(out: Path) -> dict[str, Any]:
    """Tokens and dollars of a chat teacher's replies, of all starts; none of the reference teacher's."""
    kept_in = endpoint.replies_of(out)
    replies = list(records.read(kept_in, Reply)) if kept_in.exists() else []
    tokens = sum(reply.prompt_tokens + reply.completion_tokens for reply in replies)
    return {"tokens": tokens, "usd": sum(reply.cost_usd or 0.0 for reply in replies)}


def _paid_before(out: Path) -> dict[str, Any]:
    """`_paid` of a job that failed, which may have failed at these very replies."""
    try:
        return _paid(out)
    except (UserError, OSError):
        return {}


def _waits(board: Board, plan: Sequence[Job], job: Job) -> list[str]:
    """The names of the jobs that it needs and that are not done."""
    return [other.name for other in plan if other.id in job.needs and not board.is_done(other)]


def named(board: Board, plan: Sequence[Job], id: str, run: Run) -> Iterator[Job]:
    """Runs the one job of that id, where it is not done; yields it when it has ended.

    Raises:
      UserError: there is none, it needs jobs that are not done, or it failed.
      SystemExit: another process runs it; the code is BUSY.
    """
    found = [job for job in plan if job.id == id]
    if not found:
        raise UserError(f"--job={id} is none of this study's {len(plan)} jobs; --plan lists them")
    (job,) = found
    if board.is_done(job):
        print(f"{job.name} is done already")
        return
    if waits := _waits(board, plan, job):
        raise UserError(f"{job.id} ({job.name}) needs {', '.join(waits)}; run them first")
    _end_with_parent()
    try:
        one(board, job, run)
    except lock.Busy as error:
        print(f"{job.name} is run by another process: {error}", file=sys.stderr)
        raise SystemExit(BUSY) from None
    yield job
    if (outcome := board.outcome(job)).state != "done":
        raise UserError(f"{job.name}: {outcome.error}")
    print(f"{job.name} done in {forecast.clock(outcome.seconds)}")


def _place(plan: Sequence[Job], job: Job) -> str:
    return f"[{plan.index(job) + 1}/{len(plan)}] {job.name}"


def _tell(board: Board, plan: Sequence[Job], job: Job) -> None:
    found = board.outcome(job)
    how = f"done in {forecast.clock(found.seconds)}" if found.state == "done" else f"FAILED: {found.error}"
    print(f"{_place(plan, job)} {how}", flush=True)


# --- several processes ------------------------------------------------------------------------------------------------


def in_processes(board: Board, plan: Sequence[Job], count: int) -> Iterator[Job]:
    """Runs what is missing in at most `count` processes at a time, each job in one of its own; yields each that ended.

    Jobs that run at a time have each its share of this machine's cores. The processes end with this one, which waits
    for them to save their work where a signal ends it.
    """
    done = {job.id for job in plan if board.is_done(job)}
    waiting = [job for job in plan if job.id not in done]
    running: dict[str, tuple[Job, subprocess.Popen, Cores]] = {}
    cores = _cores()
    free = shares(cores, count)
    turn = threading.Lock()

    def stop() -> None:
        turn.acquire()  # for good: a signal's thread calls this, and nothing is to be started or recorded after
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.wait()

    with interrupts.cleaning(stop):
        while waiting or running:
            ended = []
            with turn:
                ready = [job for job in waiting if done.issuperset(job.needs)]
                alone = len(ready) == 1 and not running
                for job in ready[: len(free)]:
                    waiting.remove(job)
                    if board.is_done(job):  # by another process meanwhile
                        done.add(job.id)
                        continue
                    share = free.pop(0)
                    print(f"{_place(plan, job)} … (what it prints is in {board.path(job, 'log')})", flush=True)
                    running[job.id] = job, _started(board, job, cores if alone else share), share
                if not running and not any(done.issuperset(job.needs) for job in waiting):
                    break  # the others need jobs that failed, or that another process runs
                for job, process, share in list(running.values()):
                    if process.poll() is not None:
                        del running[job.id]
                        free.append(share)
                        if process.returncode == BUSY:
                            print(f"{_place(plan, job)} is run by another process", flush=True)
                            continue
                        if board.outcome(job).state == "missing":
                            line = f"its process ended with code {process.returncode}; see {board.path(job, 'log')}"
                            board.settle(job, Outcome("failed", error=line))
                        if board.is_done(job):
                            done.add(job.id)
                        _tell(board, plan, job)
                        ended.append(job)
            yield from ended
            time.sleep(_LOOK_S)
    for job in waiting:
        print(f"{_place(plan, job)} not run: it needs {', '.join(_waits(board, plan, job))}", flush=True)


def shares(cores: Cores, count: int) -> list[Cores]:
    """The cores of each of `count` processes: equal parts, or all of them where they are too few or unknown."""
    each = len(cores) // count
    in_order = sorted(cores)
    return [frozenset(in_order[each * i : each * (i + 1)]) or cores for i in range(count)]


def _cores() -> Cores:
    """Those that this process may use; none where the system does not say."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


@contextlib.contextmanager
def on(cores: Cores) -> Iterator[None]:
    """Within, what this thread starts runs on these cores alone."""
    before = _cores()
    if cores == before:
        yield
        return
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _started(board: Board, job: Job, cores: Cores) -> subprocess.Popen:
    log = board.path(job, "log")
    log.parent.mkdir(parents=True, exist_ok=True)
    board.path(job, "json").unlink(missing_ok=True)  # of an earlier failure
    command = [sys.executable, "-m", "lema_jax.study", f"--study={board.out}", f"--job={job.id}"]
    with open(log, "a") as file, on(cores):
        return subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {_PARENT: str(os.getpid())})


def _end_with_parent() -> None:
    """Ends this process when the one that started it for a job is gone, also by kill -9."""
    parent = os.environ.get(_PARENT, "")
    if not parent.isdecimal():
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
