"""Continuous batching: B rows on the device, each refilled with the next prompt as soon as its answer ends.

Prompts are taken shortest first and padded to length buckets, long ones are prefilled in chunks, and the cache grows
bucket by bucket, so the number of compiled programs is bounded by the number of buckets, whatever the prompts and the
order in which answers end. Only prompts of one padded length are prefilled together. A prefix that all prompts share
(worked examples, say) is prefilled once, and so is a prompt of several answers (samples).

Over a mesh of several processes each runs an engine on the same prompts in step, and each gets every answer.
"""

import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from lema_jax.data.encode import prompt_ids
from lema_jax.errors import UserError
from lema_jax.generation import lengths, memory
from lema_jax.model import decode
from lema_jax.model.decode import Prefill, Rows, Sampling
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import undivided_heads

BLOCK = 32  # tokens decoded between two transfers to the host
GREEDY = Sampling()

# The model is a static argument, so engines of equal models share compiled programs.
_IDLE = jax.jit(decode.idle, static_argnums=(0, 1, 2, 3))
_EMPTY = jax.jit(decode.empty_prefill, static_argnums=(0, 1, 2, 3))
_SHARE = jax.jit(decode.share_prefix, static_argnums=(1, 2))
_REPEAT = jax.jit(decode.repeat)
_PREFILL = jax.jit(decode.prefill, static_argnums=0, donate_argnums=2)
_FIRST = jax.jit(decode.first_tokens, static_argnums=0, static_argnames=("eos", "sampling"))
_INSERT = jax.jit(decode.insert, donate_argnums=0)
_GROW = jax.jit(decode.grow, static_argnums=1)
_DECODE = jax.jit(decode.decode, static_argnums=0, donate_argnums=2, static_argnames=("block", "eos", "sampling"))


@dataclasses.dataclass(frozen=True)
class Completion:
    """The answer to prompt number `index`.

    `truncated`: it ended at the token limit, at neither an end-of-sequence token nor a stop string. `too_long`: the
    prompt leaves no room in the model's context, so it was not answered; the text is empty.
    """

    index: int
    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    too_long: bool = False


@dataclasses.dataclass
class Tally:
    """Statistics of an engine's calls."""

    programs: set[tuple[Any, ...]] = dataclasses.field(default_factory=set)  # those that were called, by shapes
    row_steps: int = 0  # rows × steps of the decoding loop
    useful: int = 0  # row-steps that made a token of an answer
    cache_bytes: int = 0  # largest, over all devices

    def __str__(self) -> str:
        share = f", {self.useful / self.row_steps:.0%} of decoding steps useful" if self.row_steps else ""
        return f"{len(self.programs)} programs, cache up to {memory.size(self.cache_bytes)}{share}"


@dataclasses.dataclass
class _Request:
    """A prompt's token ids, the ids of its answer so far (`made`), and, where a stop string ended it, the `text` before
    that."""

    index: int
    ids: list[int]
    seed: int
    made: list[int] = dataclasses.field(default_factory=list)
    ended: bool = False
    text: str | None = None


@dataclasses.dataclass
class _Batch:
    """Requests that take rows together: at most R of those whose prompts are prefilled together.

    `prompts`: token ids of those prompts, one object for all batches of a prefill; `at`: the one of each request.
    """

    prompts: list[list[int]]
    at: list[int]
    requests: list[_Request]


class Engine:
    """A model on a mesh that answers lists of prompts.

    Args:
      model: deterministic, in the layout of `variables`.
      variables: its collections, on the mesh.
      rows: B, answers in flight at a time; rounded up to a multiple of the mesh's batch axes.
      sampling: how tokens are chosen.
      max_new_tokens: the most tokens of an answer (2,048 in the paper); the context length bounds it too.
      stop: strings that end an answer; its text is what stands before the first of them.
      eos_ids: tokens that end an answer, beside the tokenizer's own.
      block: tokens decoded between two transfers to the host.
      cache: format of the cache, one of `config.CACHES`.
      rendered: prompts are a chat template's; see `encode.prompt_ids`.
      fixed_shapes: the cache has its longest length from the start; see `Decoding.fixed_shapes`.

    Raises:
      UserError: a tokenizer without an end-of-sequence token, or attention heads that the mesh's `tensor` axis does not
        divide.
    """

    def __init__(
        self,
        model: Llama,
        variables: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerFast,
        mesh: Mesh,
        *,
        rows: int = 32,
        sampling: Sampling = GREEDY,
        max_new_tokens: int = 2048,
        stop: Sequence[str] = (),
        eos_ids: Sequence[int] = (),
        block: int = BLOCK,
        cache: str = "dense",
        rendered: bool = False,
        fixed_shapes: bool = False,
    ):
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-sequence token, so no answer would end; name it in tokenizer_config.json "
                '("eos_token": "</s>", say)'
            )
        if found := undivided_heads(mesh.shape["tensor"], model.config.num_heads):
            raise UserError(found[0])
        self.tally = Tally()
        self._model, self._tokenizer, self._mesh = model, tokenizer, mesh
        self._max_new_tokens, self._stop, self._block = max_new_tokens, tuple(stop), block
        self._cache, self._rendered, self._fixed_shapes = cache, rendered, fixed_shapes
        self._least = 0  # length of the cache
        self._ways = mesh.shape["data"] * mesh.shape["fsdp"]
        self._rows, self._group = (-(-count // self._ways) * self._ways for count in (rows, min(rows, lengths.GROUP)))
        self._variables = variables
        self._eos = tuple(sorted({tokenizer.eos_token_id, *eos_ids}))
        self._choice = {"eos": self._eos, "sampling": sampling}

    def complete(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        wanted: Collection[int] | None = None,
    ) -> Iterator[Completion]:
        """Yields the prompts' completions in the order in which they end.

        Args:
          seeds: one for each prompt, used when sampling: a completion depends on its prompt and seed alone.
          wanted: numbers of the prompts to complete; by default all. The shared prefix is that of all `prompts`, so
            that a resumed run prefills a prompt as the first run did.

        Raises:
          UserError: an empty prompt, or a cache that does not fit the devices' memory.
        """
        readable, requests = [], []
        ids_of = functools.cache(self._ids)  # the samples of a question share a prompt
        for index, prompt in enumerate(prompts):
            ids, asked = ids_of(prompt), wanted is None or index in wanted
            if not ids:
                raise UserError(f"prompt {index} is empty, and the tokenizer adds no token to it; give it text")
            if len(ids) < self._model.config.context:
                readable.append(ids)
                if asked:
                    requests.append(_Request(index, ids, seeds[index] if seeds is not None else 0))
            elif asked:
                yield Completion(index, "", truncated=False, prompt_tokens=len(ids), completion_tokens=0, too_long=True)
        start = self._prefix(readable)
        self._least = self._longest(readable, start) if self._fixed_shapes else 0
        for request in self._run(requests, start):
            if request.ended:
                yield self._completion(request)

    def stream(self, prompt: str, seed: int = 0) -> Iterator[str]:
        """Yields the completion of one prompt in parts, as it is made."""
        ids, room = self._ids(prompt), self._model.config.context - 1
        if not 0 < len(ids) <= room:
            raise UserError(f"the prompt has {len(ids):,} tokens; this model takes 1 to {room:,}")
        yielded = ""
        for request in self._run([_Request(0, ids, seed)], 0):
            text = self._completion(request).text if request.ended else self._settled(request)
            yield text[len(yielded) :]
            yielded = text

    def _ids(self, prompt: str) -> list[int]:
        return prompt_ids(prompt, self._tokenizer, rendered=self._rendered)

    def _prefix(self, prompts: list[list[int]]) -> int:
        """The length of the prefix to prefill once; 0 where dynamic RoPE scaling makes every key depend on the prompt's
        full length."""
        config = self._model.config
        stretched = any(len(ids) > config.max_positions for ids in prompts)
        return 0 if config.rope_scaling.kind == "dynamic" and stretched else lengths.shared_prefix(prompts)

    def _run(self, requests: list[_Request], start: int) -> Iterator[_Request]:
        """Yields each request after every block in which it got tokens, `ended` the last time.

        Args:
          start: length of the prefix that all requests share.
        """
        # 1. Check the memory before anything is compiled, and prefill the shared prefix.
        batches = self._batches(requests, start)
        with sharding.use(self._mesh):
            longest = self._longest([request.ids for request in requests], start)
            memory.require(self._model, self._mesh, self._rows, longest, self._cache, of_batch=self._ways)
            prefix = self._prefill(None, 0, [requests[0].ids[:start]], self._ways) if start and requests else None
            in_flight: dict[int, _Request] = {}  # by row
            rows: Rows | None = None  # allocated when the first group's cache length is known
            read: list[list[int]] | None = None  # the prompts that are prefilled
            refills = len(requests) > self._rows
            while batches or in_flight:
                # 2. Refill free rows: prefill prompts, and insert each answer with its first token.
                free = [row for row in range(self._rows) if row not in in_flight]
                while batches and len(free) >= len(batches[0].requests):
                    batch = batches.popleft()
                    group = dict(zip(free, batch.requests))
                    free = free[len(group) :]
                    if batch.prompts is not read:
                        read, prefilled = batch.prompts, self._prefill(prefix, start, batch.prompts, self._group)
                    fresh, token_R = self._first_tokens(batch, prefilled)
                    in_flight |= group
                    waiting = itertools.chain.from_iterable(one.requests for one in batches)
                    coming = [*in_flight.values(), *itertools.islice(waiting, len(free))]
                    slots = max(self._cache_length(coming), fresh.cache_length)
                    if rows is None:
                        rows = self._call(_IDLE, self._model, self._rows, slots, self._cache)
                    rows = self._insert(self._grown(rows, slots), fresh, list(group))
                    for request, token in zip(group.values(), jax.device_get(token_R)):
                        request.made.append(int(token))

                # 3. Grow the cache to hold another block.
                assert rows is not None  # something is in flight
                before, rows = rows, self._grown(rows, self._cache_length(in_flight.values()))
                if rows is not before and refills:
                    rows = self._insert(rows, fresh, [])  # no-op insert, so that this bucket's program is compiled now

                # 4. Decode a block, or less once a waiting group has enough free rows.
                stopped = np.array([row not in in_flight for row in range(self._rows)])
                enough = np.int32(self._rows - len(batches[0].requests) if batches else 0)
                rows, out_BC = self._call(
                    _DECODE, self._model, self._variables, rows, stopped, enough, block=self._block, **self._choice
                )
                tokens_BC = jax.device_get(out_BC)
                live_BC = tokens_BC != decode.NONE
                self.tally.useful += int(live_BC.sum())
                self.tally.row_steps += self._rows * int(live_BC.any(axis=0).sum())

                # 5. Hand out the tokens, and free the rows of answers that ended.
                for row, request in list(in_flight.items()):
                    request.made.extend(tokens_BC[row][live_BC[row]].tolist())
                    self._look_for_stop(request)
                    request.ended = self._has_ended(request)
                    if request.ended:
                        del in_flight[row]
                    yield request

    def _batches(self, requests: list[_Request], start: int) -> deque[_Batch]:
        """The requests as they take rows: those of the shortest prompts first.

        Prompts that are prefilled together have one padded length, so that the prefill of a prompt does not depend on
        the others. One that is asked for several times is prefilled once.
        """
        batches: deque[_Batch] = deque()
        by_prompt: dict[tuple[int, ...], list[_Request]] = {}
        for request in sorted(requests, key=lambda request: len(request.ids)):
            by_prompt.setdefault(tuple(request.ids), []).append(request)
        for _, alike in itertools.groupby(by_prompt.items(), lambda item: lengths.chunks(len(item[0]) - start)):
            while group := list(itertools.islice(alike, self._group)):
                prompts = [list(ids) for ids, _ in group]
                waiting = [(at, request) for at, (_, asked) in enumerate(group) for request in asked]
                for first in range(0, len(waiting), self._group):
                    at, together = zip(*waiting[first : first + self._group])
                    batches.append(_Batch(prompts, list(at), list(together)))
        return batches

    def _prefill(self, prefix: Prefill | None, start: int, prompts: list[list[int]], rows: int) -> Prefill:
        """Prefills prompts from token `start` on, behind the `prefix` of that length; padded to `rows` prompts."""
        length_R = np.full(rows, start + 1, np.int32)  # padding rows have one token
        length_R[: len(prompts)] = [len(ids) for ids in prompts]
        chunk, width = lengths.chunks(int(length_R.max()) - start)
        tokens_RT = np.zeros((rows, width), np.int32)
        for row, ids in enumerate(prompts):
            tokens_RT[row, : len(ids) - start] = ids[start:]
        slots = lengths.bucket(start + width)
        if prefix is None:
            prefilled = self._call(_EMPTY, self._model, rows, slots, self._cache)
        else:
            prefilled = self._call(_SHARE, prefix, rows, slots)
        for at in range(0, width, chunk):
            tokens_RC = tokens_RT[:, at : at + chunk]
            prefilled = self._call(
                _PREFILL, self._model, self._variables, prefilled, tokens_RC, np.int32(start + at), length_R
            )
        return prefilled

    def _first_tokens(self, batch: _Batch, prefilled: Prefill) -> tuple[Rows, jax.Array]:
        """The rows of a batch whose prompts are prefilled, and their first tokens [R]; padding rows are done from the
        start."""
        at_R, length_R = np.arange(self._group, dtype=np.int32), np.ones(self._group, np.int32)
        limit_R, seed_R = np.zeros(self._group, np.int32), np.zeros(self._group, np.uint32)
        at_R[: len(batch.at)] = batch.at
        for row, request in enumerate(batch.requests):
            length_R[row], limit_R[row], seed_R[row] = len(request.ids), self._limit(request.ids), request.seed
        if batch.at != list(range(len(batch.at))):
            prefilled = self._call(_REPEAT, prefilled, at_R)
        return self._call(_FIRST, self._model, self._variables, prefilled, length_R, limit_R, seed_R, **self._choice)

    def _limit(self, prompt: list[int]) -> int:
        return min(self._max_new_tokens, self._model.config.context - len(prompt))

    def _cache_length(self, requests: Iterable[_Request]) -> int:
        """The cache length for the longest of the requests and another block."""
        needed = max(len(request.ids) + max(1, len(request.made)) for request in requests) + self._block
        slots = max(lengths.bucket(needed), self._least)
        taken = memory.cache_bytes(self._model, self._rows, slots, self._cache)
        self.tally.cache_bytes = max(self.tally.cache_bytes, taken)
        return slots

    def _grown(self, rows: Rows, slots: int) -> Rows:
        """Rows whose cache has at least that length, grown by one bucket after another: a program a bucket, not one for
        each pair of them."""
        while rows.cache_length < slots:
            rows = self._call(_GROW, rows, lengths.bucket(rows.cache_length + 1))
        return rows

    def _insert(self, rows: Rows, fresh: Rows, where: list[int]) -> Rows:
        """Puts the first of the fresh rows at row numbers `where`; the others are padding."""
        out_of_range = [self._rows] * (self._group - len(where))
        return self._call(
            _INSERT, rows, self._grown(fresh, rows.cache_length), np.array(where + out_of_range, np.int32)
        )

    def _longest(self, prompts: Sequence[list[int]], start: int) -> int:
        """The cache length for the longest answers to the prompts, which are padded behind the prefix for prefill."""
        answered = max((len(ids) + self._limit(ids) for ids in prompts), default=0) + self._block
        padded = start + max((lengths.chunks(len(ids) - start)[1] for ids in prompts), default=0)
        return lengths.bucket(max(answered, padded))

    def _call(self, program: Callable[..., Any], *args: Any, **static: Any) -> Any:
        """Calls a program, and adds it to the tally by the shapes for which it is compiled."""
        shapes = tuple(leaf.shape if hasattr(leaf, "shape") else leaf for leaf in jax.tree.leaves(args))
        self.tally.programs.add((program, shapes))
        return program(*args, **static)

    def _has_ended(self, request: _Request) -> bool:
        if request.text is not None or len(request.made) >= self._limit(request.ids):
            return True
        return request.made[-1] in self._eos

    def _look_for_stop(self, request: _Request) -> None:
        if self._stop and any(stop in (text := self._text(request.made)) for stop in self._stop):
            request.text = text[: min(at for stop in self._stop if (at := text.find(stop)) >= 0)]
            # Only the tokens up to the one that completed the stop string count as the answer's.
            while any(stop in self._text(request.made[:-1]) for stop in self._stop):
                request.made.pop()

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _settled(self, request: _Request) -> str:
        """The text so far that further tokens cannot change: without an incomplete character or stop string at its
        end."""
        text = self._text(request.made).rstrip("\ufffd")
        starts = [size for stop in self._stop for size in range(1, len(stop)) if text.endswith(stop[:size])]
        return text[: len(text) - max(starts, default=0)]

    def _completion(self, request: _Request) -> Completion:
        text, truncated = request.text, False
        if text is None:
            truncated = request.made[-1] not in self._eos
            text = self._text(request.made if truncated else request.made[:-1])
        return Completion(
            request.index,
            text,
            truncated=truncated,
            prompt_tokens=len(request.ids),
            completion_tokens=len(request.made),
        )
