"""Text to token ids and loss weights."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from lema_jax.records import Example
from lema_jax.stage import option

_AT_A_TIME = 1_000  # examples: as Python lists, ids take a hundred times the memory of arrays


@dataclasses.dataclass(frozen=True)
class Limits:
    """Lengths: examples over a limit, in tokens, are left out. BOS counts to the prompt, EOS to the completion."""

    # Defaults: the paper's limits for GSM8K. For MATH they are 768 and 768.
    max_prompt: int | None = option(512, "The most tokens of a prompt, BOS included.", low=1, high=2**24)
    max_completion: int | None = option(512, "The most tokens of a completion, EOS included.", low=1, high=2**24)
    max_tokens: int | None = option(None, "The most tokens of prompt and completion together.", low=1, high=2**25)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A tokenised example."""

    tokens: np.ndarray  # [T] int32: prompt, completion, EOS
    weights: np.ndarray  # [T] uint8: 0 on the prompt, 1 on the completion and EOS, but for `Example.without_loss`
    chosen: int | None = None  # of a pair, whose second sequence starts after so many tokens; see `pairs`


def prompt_ids(prompt: str, tokenizer: PreTrainedTokenizerFast, *, rendered: bool = False) -> list[int]:
    """The ids of a prompt, with the tokenizer's prefix (`prefix_ids`) but without an EOS at the end.

    Args:
      rendered: the prompt comes from a chat template, which writes all special tokens; no prefix is added.
    """
    bare = tokenizer(prompt, add_special_tokens=False).input_ids
    return bare if rendered else prefix_ids(tokenizer) + bare


def prefix_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that the tokenizer puts before a text: BOS for LLaMA's, none for SmolLM2's.

    Found by encoding a text, because not every config says so (LLaMA 3's does not).
    """
    bare, full = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    starts = range(len(full) - len(bare) + 1)
    return full[: next(start for start in starts if full[start : start + len(bare)] == bare)]


def adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer puts BOS before a text."""
    return tokenizer.bos_token_id is not None and tokenizer.bos_token_id in prefix_ids(tokenizer)


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast, limits: Limits) -> list[Encoded | None]:
    """Ids and loss weights of each example; None for one over a limit.

    Prompt and completion are tokenised separately, like the authors': the prompt has the same ids at test time.
    Nothing is truncated: a prompt would lose its cue, a completion its answer and EOS.
    """
    prefix, eos = prefix_ids(tokenizer), [tokenizer.eos_token_id]

    def ids(texts: Iterable[str]) -> list[list[int]]:
        return tokenizer(list(texts), add_special_tokens=False).input_ids

    encoded: list[Encoded | None] = []
    for start in range(0, len(examples), _AT_A_TIME):
        some = examples[start : start + _AT_A_TIME]
        prompts, completions = ids(one.prompt for one in some), ids(one.completion for one in some)
        encoded += [
            _without_loss(one, tokenizer, _join(prefix + prompt, completion + eos, limits))
            for one, prompt, completion in zip(some, prompts, completions)
        ]
    return encoded


def _without_loss(example: Example, tokenizer: PreTrainedTokenizerFast, encoded: Encoded | None) -> Encoded | None:
    """With weight 0 on the tokens all of whose characters are in a span without loss."""
    if not example.without_loss or encoded is None:
        return encoded
    offsets = tokenizer(example.completion, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    first = len(encoded.tokens) - len(offsets) - 1  # before the EOS
    weights = encoded.weights.copy()
    for number, (start, end) in enumerate(offsets):
        if end > start and any(low <= start and end <= high for low, high in example.without_loss):
            weights[first + number] = 0
    return Encoded(encoded.tokens, weights)


def _join(prompt: list[int], completion: list[int], limits: Limits) -> Encoded | None:
    sizes = (len(prompt), len(completion), len(prompt) + len(completion))
    allowed = (limits.max_prompt, limits.max_completion, limits.max_tokens)
    if any(limit is not None and size > limit for size, limit in zip(sizes, allowed)):
        return None
    return Encoded(
        tokens=np.array(prompt + completion, np.int32),
        weights=np.repeat(np.array([0, 1], np.uint8), sizes[:2]),
    )
