"""A chat model as the stages ask it: its name, and how it samples its replies."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lema_jax.stage import option
from lema_jax.teacher import chat
from lema_jax.teacher.chat import Message, Request


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatModel:
    """A chat model: name and sampling."""

    model: str = option("", "Name of the chat model at the endpoint.")
    temperature: float | None = option(
        None, "Sampling temperature of the chat model; the endpoint's default if not given.", low=0, high=100
    )
    top_p: float | None = option(
        None, "Nucleus sampling (top-p) of the chat model; the endpoint's default if not given.", low=0, high=1
    )
    max_tokens: int = option(
        1024, "The most tokens of a reply of the chat model, those of hidden reasoning included.", low=1
    )

    def request(self, prompt: str | Sequence[Message], *, sample: int, about: Any) -> Request:
        """A request for reply number `sample` to a prompt; `about` is what the caller wants back with the reply."""
        return chat.request(
            prompt,
            model=self.model,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            sample=sample,
            about=about,
        )
