"""The models that are evaluated, by name: a step of a model folder, or a model that an endpoint serves."""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path

from lema_jax import checkpoint, storage
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.records import Problem
from lema_jax.tasks import prompts


@dataclasses.dataclass(frozen=True)
class Model:
    """A step of a model folder, or a served model, which has none.

    `name`: of the folder of its results. `identity`: in their rows. `style`: how it is asked. `prompt`: makes a
    question's prompt.
    """

    name: str
    identity: str
    style: str
    prompt: Callable[[Problem], str]
    folder: str = ""
    step: int = 0


def served(name: str, style: str, examples: str | Path | None) -> Model:
    """The model that an endpoint knows by that name; prompts of the style `chat` are messages, as it has the template.

    Raises:
      UserError: what `prompts.style` raises.
    """
    return Model(re.sub(r"[^\w.-]", "_", name), name, style, prompts.style(style, examples, lambda message: message))


def of_folder(given: str, step: int | None, style: str, examples: str | Path | None) -> Model:
    """The model of `FOLDER`, `FOLDER@STEP` or `FOLDER@best`.

    Args:
      step: of a folder that names none; the last by default.
      style, examples: of its prompts, see `prompts.style`.

    Raises:
      UserError: no model folder, no such step, or a style that it has no template for.
    """
    folder, _, which = given.rpartition("@")
    if not folder or not (which.isdecimal() or which == "best") or storage.place(given).exists():
        folder, which = given, ""
    place = storage.place(folder) if storage.is_remote(folder) else Path(folder).resolve()
    name = place.name + (f"@{which}" if which else "")
    metadata = checkpoint.read_metadata(folder)  # first, so that what is no model folder is reported as such
    step = int(which) if which.isdecimal() else step
    if which == "best":
        step = checkpoint.best_step(folder)
    elif step is None:
        step = checkpoint.latest_step(folder)
    elif step not in checkpoint.steps(folder):
        raise UserError(f"{folder} has no checkpoint at step {step}; it has {checkpoint.steps(folder)}")
    as_chat = functools.partial(tokenizer.as_chat, tokenizer=tokenizer.load(folder))
    style = prompts.of_model(style, metadata.prompt_style)
    prompt = prompts.style(style, examples, as_chat)
    return Model(name, checkpoint.identity(folder, step), style, prompt, folder, step)
