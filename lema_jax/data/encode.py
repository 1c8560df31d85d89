"""Text to token ids and loss weights."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from lema_jax.records import Example
from lema_jax.stage import option

_AT_A_TIME = 1_000  # examples: until they are arrays, ids take a hundred times as much memory


@dataclasses.dataclass(frozen=True)
class Limits:
    """Lengths: examples over a limit, in tokens, are left out. BOS counts to the prompt, EOS to the completion."""

    # By default the paper's lengths for GSM8K; for MATH they are 768 and 768.
    max_prompt: int | None = option(512, "The most tokens of a prompt, BOS included.", low=1, high=2**24)
    max_completion: int | None = option(512, "The most tokens of a completion, EOS included.", low=1, high=2**24)
    max_tokens: int | None = option(None, "The most tokens of prompt and completion together.", low=1, high=2**25)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An example as the trainer reads it."""

    tokens: np.ndarray  # [T] int32: prompt, completion, EOS
    weights: np.ndarray  # [T] uint8: 0 on the prompt, 1 on the completion and EOS


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerFast, *, rendered: bool = False) -> list[int]:
    """The ids a model is asked with: what this tokenizer begins a text with (`beginning`), then the prompt.

    What else a tokenizer would add at the end (an EOS) is not wanted before a completion.

    Args:
      rendered: the prompt is a chat template's, which writes every special token itself; nothing is put before it.
    """
    bare = tokenizer(prompt, add_special_tokens=False).input_ids
    return bare if rendered else beginning(tokenizer) + bare


def beginning(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that the tokenizer puts before a text: BOS for LLaMA's, none for SmolLM2's.

    They are asked of it, as not every config says so (LLaMA 3's does not).
    """
    bare, whole = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    starts = range(len(whole) - len(bare) + 1)
    return whole[: next(start for start in starts if whole[start : start + len(bare)] == bare)]


def adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer begins a text with BOS."""
    return tokenizer.bos_token_id is not None and tokenizer.bos_token_id in beginning(tokenizer)


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast, limits: Limits) -> list[Encoded | None]:
    """Ids and loss weights of each example, None for one that is over a limit.

    Prompt and completion are tokenised apart and joined (the authors' way), so the prompt has at test time the very ids
    it was trained with. Nothing is ever cut: a cut prompt loses its cue, a cut completion its answer and EOS.
    """
    begin, eos = beginning(tokenizer), [tokenizer.eos_token_id]

    def ids(texts: Iterable[str]) -> list[list[int]]:
        return tokenizer(list(texts), add_special_tokens=False).input_ids

    encoded: list[Encoded | None] = []
    for start in range(0, len(examples), _AT_A_TIME):
        some = examples[start : start + _AT_A_TIME]
        prompts, completions = ids(one.prompt for one in some), ids(one.completion for one in some)
        encoded += [_join(begin + prompt, completion + eos, limits) for prompt, completion in zip(prompts, completions)]
    return encoded


def _join(prompt: list[int], completion: list[int], limits: Limits) -> Encoded | None:
    sizes = (len(prompt), len(completion), len(prompt) + len(completion))
    allowed = (limits.max_prompt, limits.max_completion, limits.max_tokens)
    if any(limit is not None and size > limit for size, limit in zip(sizes, allowed)):
        return None
    return Encoded(
        tokens=np.array(prompt + completion, np.int32),
        weights=np.repeat(np.array([0, 1], np.uint8), sizes[:2]),
    )
