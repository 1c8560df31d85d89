"""Lengths that programs are compiled for: buckets, chunks of a prompt, the prefix that prompts share."""

from collections.abc import Sequence

GROUP = 4  # prompts prefilled together, at most, as soon as so many rows are free
CHUNK = 512  # tokens of a prompt prefilled at a time
PREFIX = 32  # the length of a shared prefix is a multiple of this


def shared_prefix(prompts: Sequence[list[int]]) -> int:
    """The length of the prompts' common prefix, a multiple of PREFIX; each prompt keeps at least one further token."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # the common prefix of these two is that of all
    common = next((at for at, (one, other) in enumerate(zip(first, last)) if one != other), len(first))
    return min(common, min(map(len, prompts)) - 1) // PREFIX * PREFIX


def chunks(length: int) -> tuple[int, int]:
    """How a prompt of that many tokens is prefilled: tokens of a chunk, and the length that the prompt is padded to."""
    chunk = min(bucket(length), CHUNK)
    return chunk, -(-length // chunk) * chunk


def bucket(length: int) -> int:
    """The smallest of 32, 48, 64, 96, 128, 192, … that is at least `length`."""
    size = 32
    while size < length:
        if size * 3 // 2 >= length:
            return size * 3 // 2
        size *= 2
    return size
