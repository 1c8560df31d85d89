"""Greedy accuracy of weights during training."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from lema_jax import tasks
from lema_jax.checkpoint import Metadata
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.generation import student
from lema_jax.generation.engine import Completion
from lema_jax.generation.memory import CacheTooLarge
from lema_jax.generation.student import Student
from lema_jax.model.config import Compute
from lema_jax.model.decode import Sampling
from lema_jax.model.llama import Llama
from lema_jax.records import Problem, Verdict
from lema_jax.tasks import prompts

ROWS = 32


def judge(
    problems: Sequence[Problem], tokenizer_folder: str, compute: Compute, max_new_tokens: int
) -> Callable[[Metadata, Mesh], Callable[[dict[str, Any]], float]]:
    """A function of a model's metadata and mesh that returns a function from variables to accuracy on `problems`.

    Args:
      problems: asked as the model is trained to be (`Metadata.prompt_style`).
      tokenizer_folder: folder with the tokenizer.
      compute: layout and dtypes of the variables.

    Raises:
      UserError: (the last of these functions) a cache that does not fit the devices' memory, in however small a batch.
    """

    def make(metadata: Metadata, mesh: Mesh) -> Callable[[dict[str, Any]], float]:
        model = Llama(metadata.config, dataclasses.replace(compute, remat="none"), metadata.lora)
        loaded = tokenizer.load(tokenizer_folder)
        prompt = prompts.style(metadata.prompt_style, None, lambda message: message)
        asked = [prompt(problem) for problem in problems]

        def accuracy(variables: dict[str, Any]) -> float:
            one, right = Student(model, variables, loaded, mesh, metadata.eos_ids), 0
            for done in completions(one, min(ROWS, len(problems))):
                _, verdict = tasks.grade(problems[done.index], done.text, truncated=done.truncated)
                right += verdict is Verdict.RIGHT
            return right / len(problems)

        def completions(one: Student, rows: int) -> list[Completion]:
            engine = student.engine(one, rows=rows, sampling=Sampling(), max_new_tokens=max_new_tokens)
            try:
                return list(engine.complete(asked))
            except CacheTooLarge as error:
                if error.fits:
                    return completions(one, error.fits)
                raise UserError(
                    f"dev: {error.found}, where not even the smallest batch fits; lower dev.max_new_tokens, or set "
                    "dev.questions=0"
                ) from None

        return accuracy

    return make
