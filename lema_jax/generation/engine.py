"""Prompts in, answers out: B rows on the device, each refilled with the next prompt as soon as its answer ends.

Prompts are taken shortest first and padded to a ladder of lengths, and the cache grows along the same ladder, so the
number of compiled programs is bounded by the ladder, not by the data.
"""

import dataclasses
import functools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from lema_jax.data.encode import prompt_ids
from lema_jax.errors import UserError
from lema_jax.model import decode
from lema_jax.model.decode import Rows, Sampling
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding

GROUP = 8  # prompts read at a time
GREEDY = Sampling()
BLOCK = 32  # tokens made between two looks of the host

# The model is an argument by which programs are told apart, so engines of equal models share what is compiled.
_IDLE = jax.jit(decode.idle, static_argnums=(0, 1, 2))
_PREFILL = jax.jit(decode.prefill, static_argnums=0, static_argnames=("eos", "sampling"))
_INSERT = jax.jit(decode.insert, donate_argnums=0)
_GROW = jax.jit(decode.grow, static_argnums=1)
_DECODE = jax.jit(decode.decode, static_argnums=0, donate_argnums=2, static_argnames=("block", "eos", "sampling"))


@dataclasses.dataclass(frozen=True)
class Completion:
    """The answer to prompt number `index`. `truncated`: it ended at the token limit, without an end-of-sequence."""

    index: int
    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int


@dataclasses.dataclass
class _Request:
    index: int
    ids: list[int]
    made: list[int] = dataclasses.field(default_factory=list)


class Engine:
    """A model on a mesh that answers lists of prompts.

    Args:
      model: deterministic, with the layout that `variables` have.
      variables: its collections, on the mesh.
      rows: B, answers under way at a time; rounded up to what the mesh's batch axes divide.
      sampling: how tokens are chosen.
      max_new_tokens: of an answer; 2,048 in the paper. The context length bounds it too.
    """

    def __init__(
        self,
        model: Llama,
        variables: Any,
        tokenizer: PreTrainedTokenizerFast,
        mesh: Mesh,
        *,
        rows: int = 32,
        sampling: Sampling = GREEDY,
        max_new_tokens: int = 2048,
    ):
        self._model, self._tokenizer, self._mesh = model, tokenizer, mesh
        self._max_new_tokens = max_new_tokens
        ways = mesh.shape["data"] * mesh.shape["fsdp"]
        if model.config.num_kv_heads % mesh.shape["tensor"]:
            raise UserError(
                f"mesh.tensor={mesh.shape['tensor']} must divide num_kv_heads={model.config.num_kv_heads} of the model"
            )
        self._rows, self._group = (-(-count // ways) * ways for count in (rows, min(rows, GROUP)))
        fixed = {"eos": tokenizer.eos_token_id, "sampling": sampling}
        self._prefill = functools.partial(_PREFILL, model, variables, **fixed)
        self._decode = functools.partial(_DECODE, model, variables, block=BLOCK, **fixed)

    def complete(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> Iterator[Completion]:
        """Yields every prompt's completion as it ends; order is that of ending, `index` says whose it is.

        Args:
          seeds: one for each prompt, used when sampling: a completion depends on its prompt and seed alone.

        Raises:
          UserError: a prompt that leaves no room in the context, or an empty one.
        """
        requests = [_Request(index, prompt_ids(prompt, self._tokenizer)) for index, prompt in enumerate(prompts)]
        for request in requests:
            if not 0 < len(request.ids) < self._model.config.max_positions:
                raise UserError(
                    f"prompt {request.index} has {len(request.ids)} tokens; the model's context is "
                    f"{self._model.config.max_positions}, and an answer needs room in it"
                )
        with sharding.use(self._mesh):
            yield from self._run(requests, [0] * len(prompts) if seeds is None else list(seeds))

    def _run(self, requests: list[_Request], seeds: Sequence[int]) -> Iterator[Completion]:
        waiting = deque(sorted(requests, key=lambda request: len(request.ids)))
        under_way: dict[int, _Request] = {}
        rows, slots = None, 0
        while waiting or under_way:
            free = [row for row in range(self._rows) if row not in under_way]
            while waiting and free:
                taken, free = free[: self._group], free[self._group :]
                group = {row: waiting.popleft() for row in taken[: len(waiting)]}
                fresh = self._read(list(group.values()), seeds)
                under_way |= group
                rows, slots = self._make_room(rows, slots, under_way)
                where = np.full(self._group, self._rows, np.int32)  # out of range: rows that pad the group
                where[: len(group)] = list(group)
                rows = _INSERT(rows, fresh, where)
                for request, token in zip(group.values(), jax.device_get(fresh.token_B)):
                    request.made.append(int(token))
            rows, slots = self._make_room(rows, slots, under_way)
            rows, out_BC = self._decode(rows)
            tokens_BC, done_B = jax.device_get((out_BC, rows.done_B))
            for row, request in list(under_way.items()):
                request.made.extend(int(token) for token in tokens_BC[row] if token != decode.NONE)
                if done_B[row]:
                    yield self._completion(under_way.pop(row))

    def _read(self, group: list[_Request], seeds: Sequence[int]) -> Rows:
        """Prefills a group, padded with one-token rows to its fixed size."""
        width = ladder(max(len(request.ids) for request in group))
        tokens = np.zeros((self._group, width), np.int32)
        lengths, limits = np.ones(self._group, np.int32), np.zeros(self._group, np.int32)
        seed = np.zeros(self._group, np.uint32)
        for row, request in enumerate(group):
            tokens[row, : len(request.ids)] = request.ids
            lengths[row], limits[row], seed[row] = len(request.ids), self._limit(request), seeds[request.index]
        keys = jax.vmap(jax.random.key)(seed)
        return self._prefill(tokens, lengths, limits, keys)

    def _limit(self, request: _Request) -> int:
        return min(self._max_new_tokens, self._model.config.max_positions - len(request.ids))

    def _make_room(self, rows: Rows | None, slots: int, under_way: dict[int, _Request]) -> tuple[Rows, int]:
        """Rows whose cache holds the longest sequence and another block."""
        longest = max(len(request.ids) + len(request.made) for request in under_way.values())
        needed = ladder(longest + BLOCK)
        if rows is None:
            return _IDLE(self._model, self._rows, needed), needed
        return (rows, slots) if needed <= slots else (_GROW(rows, needed), needed)

    def _completion(self, request: _Request) -> Completion:
        eos = self._tokenizer.eos_token_id
        ended = request.made[-1] == eos
        made = request.made[:-1] if ended else request.made
        text = self._tokenizer.decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Completion(request.index, str(text), not ended, len(request.ids), len(request.made))


def ladder(length: int) -> int:
    """The smallest of 32, 48, 64, 96, 128, 192, … that is at least `length`."""
    step = 32
    while step < length:
        if step * 3 // 2 >= length:
            return step * 3 // 2
        step *= 2
    return step
