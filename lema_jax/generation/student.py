"""A student: the model of a folder on a mesh, which answers questions into a file, each answer durable when counted."""

import dataclasses
import datetime
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from lema_jax import checkpoint, tasks
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.generation.engine import Engine
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel.mesh import MeshConfig, make_mesh, undivided_heads
from lema_jax.parallel.watchdog import Watchdog
from lema_jax.records import Appender, Attempt, Prediction, Problem, Verdict

Answer = TypeVar("Answer", Attempt, Prediction)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A wanted answer: `id` is that of its row, and seeds it when sampling."""

    id: str
    problem: Problem
    prompt: str


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """A model folder's step on a mesh; `eos_ids` are the end tokens of its metadata."""

    model: Llama
    variables: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerFast
    mesh: Mesh
    eos_ids: tuple[int, ...]


def read(
    folder: str | Path, step: int, dtype: str, *, fsdp: int = 1, tensor: int = 1, weights: str | None = None
) -> Student:
    """The student of a model folder's step, with weights and activations in `dtype`.

    Args:
      fsdp, tensor: devices that weights are sharded over (see `MeshConfig`); weights are replicated over the remaining
        factor of the devices, and rows are sharded over `data` and `fsdp`.
      weights: format that kernels are stored in, one of `config.KERNELS`; by default dense, or the format that adapters
        were trained upon.

    Raises:
      UserError: a mesh that the devices do not form or that does not divide the heads, and what
        `checkpoint.load_weights` and `tokenizer.load` raise.
    """
    on_cpu = jax.default_backend() == "cpu"
    compute = Compute(dtype=dtype, param_dtype=dtype, scan_layers=not on_cpu)
    mesh = make_mesh(MeshConfig(data=-1, fsdp=fsdp, tensor=tensor))
    if found := undivided_heads(tensor, checkpoint.read_metadata(folder).config.num_heads):
        raise UserError(found[0])  # before minutes of reading
    loaded = tokenizer.load(folder)
    metadata, variables = checkpoint.load_weights(folder, mesh, compute, step, kernels=weights, transposed=on_cpu)
    return Student(Llama(metadata.config, compute, metadata.lora), variables, loaded, mesh, metadata.eos_ids)


def engine(student: Student, **how: Any) -> Engine:
    """The student's decoding engine; `how`: settings of `Engine`."""
    return Engine(student.model, student.variables, student.tokenizer, student.mesh, eos_ids=student.eos_ids, **how)


def answer(
    asked: Sequence[Asked], file: Appender[Answer], engine: Callable[[int], Engine], row: Callable[..., Answer]
) -> None:
    """Answers what `file` lacks.

    A resumed run prefills each prompt as the first run would. In decoding, the cache length, and so the rounding of
    sums over it, depends on the other answers in flight (in float32 SmolLM2's last layer differs by up to 2e-4): where
    two tokens are that close, a resumed run may choose the other one. `Engine`'s `fixed_shapes` prevents that.

    Args:
      asked: every wanted answer, those in the file included.
      file: the rows of an earlier run, to which new ones are appended as they end.
      engine: makes the engine for that many answers; called only where one is missing, with the count of all, so that
        a resumed run has the first run's batch.
      row: makes a row; called with id, problem, prompt, text, answer, verdict, prompt_tokens and completion_tokens.
    """
    missing = {index for index, one in enumerate(asked) if one.id not in file.rows}
    if missing:
        seeds = [int(one.id[:8], 16) for one in asked]
        kept = [file.rows[one.id].verdict for one in asked if one.id in file.rows]
        progress = _Progress(len(asked), len(kept), kept.count(Verdict.RIGHT))
        made = engine(len(asked))
        with Watchdog("answer") as watchdog:
            for done in made.complete([one.prompt for one in asked], seeds, missing):
                one = asked[done.index]
                extracted, verdict = None, Verdict.PROMPT_TOO_LONG
                if not done.too_long:
                    extracted, verdict = tasks.grade(one.problem, done.text, truncated=done.truncated)
                counts = {"prompt_tokens": done.prompt_tokens, "completion_tokens": done.completion_tokens}
                shared: dict[str, Any] = {"id": one.id, "problem": one.problem, "prompt": one.prompt}
                file.append(row(**shared, text=done.text, answer=extracted, verdict=verdict, **counts))
                progress.add(verdict, done.completion_tokens)
                watchdog.alive(f"question {one.problem.id}")
        print(f"decoding: {made.tally}")


class _Progress:
    """Answers done, share right, tokens a second, time left: a line rewritten in a terminal, new lines elsewhere."""

    def __init__(self, total: int, done: int, right: int):
        self._total, self._done, self._right = total, done, right
        self._answered, self._tokens, self._began = 0, 0, time.monotonic()
        self._live, self._printed = sys.stdout.isatty(), self._began

    def add(self, verdict: Verdict, tokens: int) -> None:
        self._done += 1
        self._right += verdict is Verdict.RIGHT
        self._tokens += tokens
        self._answered += 1
        left, now = self._total - self._done, time.monotonic()
        if left and now - self._printed < (0.5 if self._live else 10):
            return
        self._printed, passed = now, now - self._began
        speed, still = self._tokens / passed, datetime.timedelta(seconds=round(passed / self._answered * left))
        line = (
            f"{self._done:,}/{self._total:,} answered, {self._right / self._done:.1%} right, {speed:,.0f} tokens/s, "
            f"{still} left"
        )
        print(
            "\r\033[K" + line if self._live else line,
            end="" if self._live and left else "\n",
            flush=True,
        )
