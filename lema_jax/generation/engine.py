"""Prompts in, answers out: B rows on the device, each refilled with the next prompt as soon as its answer ends.

Prompts are taken shortest first and padded to a ladder of lengths, long ones are read in pieces, and the cache grows
along the same ladder rung by rung, so the number of compiled programs is bounded by the ladder, not by the data nor by
the order in which answers end. Only prompts of one padded length are read together. What all prompts begin with (worked
examples, say) is read once.

Over a mesh of several processes all of them run an engine on the same prompts in step; each learns every answer.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from lema_jax.data.encode import prompt_ids
from lema_jax.errors import UserError
from lema_jax.generation import memory
from lema_jax.model import decode
from lema_jax.model.decode import Reading, Rows, Sampling
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding

GROUP = 4  # prompts read at a time, at most, as soon as so many rows are free
PIECE = 512  # tokens of a prompt read at a time
BLOCK = 32  # tokens made between two looks of the host
SHARED = 32  # a beginning that all prompts share is read once if it has this many tokens, in multiples of it
GREEDY = Sampling()

# The model is an argument by which programs are told apart, so engines of equal models share what is compiled.
_IDLE = jax.jit(decode.idle, static_argnums=(0, 1, 2, 3))
_UNREAD = jax.jit(decode.unread, static_argnums=(0, 1, 2, 3))
_SHARE = jax.jit(decode.share, static_argnums=(1, 2))
_READ = jax.jit(decode.read, static_argnums=0, donate_argnums=2)
_BEGIN = jax.jit(decode.begin, static_argnums=0, static_argnames=("eos", "sampling"))
_INSERT = jax.jit(decode.insert, donate_argnums=0)
_GROW = jax.jit(decode.grow, static_argnums=1)
_DECODE = jax.jit(decode.decode, static_argnums=0, donate_argnums=2, static_argnames=("block", "eos", "sampling"))


@dataclasses.dataclass(frozen=True)
class Completion:
    """The answer to prompt number `index`.

    `truncated`: it ended at the token limit, at neither an end-of-sequence nor a stop string. `too_long`: the prompt
    leaves no room in the model's context, so it was not asked; the answer is empty.
    """

    index: int
    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    too_long: bool = False


@dataclasses.dataclass
class Tally:
    """What a run came to. A slot is useful when it made a token of an answer."""

    programs: set[tuple[Any, ...]] = dataclasses.field(default_factory=set)  # compiled, or found compiled
    slots: int = 0  # rows × steps of the decoding loop
    useful: int = 0
    cache_bytes: int = 0  # of all devices, at its largest

    def __str__(self) -> str:
        share = f", {self.useful / self.slots:.0%} of the decoding slots useful" if self.slots else ""
        return f"{len(self.programs)} programs, cache up to {memory.size(self.cache_bytes)}{share}"


@dataclasses.dataclass
class _Request:
    index: int
    ids: list[int]
    seed: int
    made: list[int] = dataclasses.field(default_factory=list)
    ended: bool = False
    text: str | None = None  # set where a stop string ended it: what stands before


class Engine:
    """A model on a mesh that answers lists of prompts.

    Args:
      model: deterministic, with the layout that `variables` have.
      variables: its collections, on the mesh.
      rows: B, answers under way at a time; rounded up to what the mesh's batch axes divide.
      sampling: how tokens are chosen.
      max_new_tokens: of an answer; 2,048 in the paper. The context length bounds it too.
      stop: strings that end an answer; it is cut before the first.
      eos_ids: tokens that end an answer, beside the tokenizer's own.
      block: tokens made between two looks of the host.
      cache: one of `config.CACHES`.
      rendered: prompts are a chat template's; see `encode.prompt_ids`.

    Raises:
      UserError: a tokenizer without an end-of-sequence token, or heads that the mesh cannot cut.
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
        stop: Sequence[str] = (),
        eos_ids: Sequence[int] = (),
        block: int = BLOCK,
        cache: str = "dense",
        rendered: bool = False,
    ):
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-sequence token, so no answer would end; name it in tokenizer_config.json "
                '("eos_token": "</s>", say)'
            )
        if model.config.num_heads % mesh.shape["tensor"]:
            raise UserError(
                f"tensor={mesh.shape['tensor']} must divide num_heads={model.config.num_heads} of the model"
            )
        self.tally = Tally()
        self._model, self._tokenizer, self._mesh = model, tokenizer, mesh
        self._max_new_tokens, self._stop, self._block = max_new_tokens, tuple(stop), block
        self._cache, self._rendered = cache, rendered
        self._ways = mesh.shape["data"] * mesh.shape["fsdp"]
        self._rows, self._group = (-(-count // self._ways) * self._ways for count in (rows, min(rows, GROUP)))
        self._variables = variables
        self._eos = tuple(sorted({tokenizer.eos_token_id, *eos_ids}))
        self._choice = {"eos": self._eos, "sampling": sampling}

    def complete(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        wanted: Collection[int] | None = None,
    ) -> Iterator[Completion]:
        """Yields the prompts' completions as they end; order is that of ending, `index` says whose it is.

        Args:
          seeds: one for each prompt, used when sampling: a completion depends on its prompt and seed alone.
          wanted: numbers of the prompts to complete, of which the others were completed before; all when left out. What
            is read once is what all of `prompts` begin with, so that those completed later are read the same.

        Raises:
          UserError: an empty prompt, or a cache that the memory does not hold.
        """
        readable, requests = [], []
        for index, prompt in enumerate(prompts):
            ids, asked = self._ids(prompt), wanted is None or index in wanted
            if not ids:
                raise UserError(f"prompt {index} is empty, and nothing is put before it; give it text")
            if len(ids) < self._model.config.context:
                readable.append(ids)
                if asked:
                    requests.append(_Request(index, ids, seeds[index] if seeds is not None else 0))
            elif asked:
                yield Completion(index, "", False, len(ids), 0, too_long=True)
        for request in self._run(requests, self._shared(readable)):
            if request.ended:
                yield self._completion(request)

    def stream(self, prompt: str, seed: int = 0) -> Iterator[str]:
        """Yields the completion of one prompt in pieces, as it is made."""
        ids, room = self._ids(prompt), self._model.config.context - 1
        if not 0 < len(ids) <= room:
            raise UserError(f"the prompt has {len(ids):,} tokens; this model takes 1 to {room:,}")
        said = ""
        for request in self._run([_Request(0, ids, seed)], 0):
            text = self._completion(request).text if request.ended else self._settled(request)
            yield text[len(said) :]
            said = text

    def _ids(self, prompt: str) -> list[int]:
        return prompt_ids(prompt, self._tokenizer, rendered=self._rendered)

    def _shared(self, prompts: list[list[int]]) -> int:
        """How many tokens of a beginning are read once; none where the whole prompt's length turns its every key."""
        config = self._model.config
        stretched = any(len(ids) > config.max_positions for ids in prompts)
        return 0 if config.rope_scaling.kind == "dynamic" and stretched else shared_beginning(prompts)

    def _run(self, requests: list[_Request], start: int) -> Iterator[_Request]:
        """Yields every request after each block in which it got tokens; `ended` at last. All begin with the same
        `start` tokens."""
        groups = self._groups(requests, start)
        with sharding.use(self._mesh):
            self._refuse_what_does_not_fit(requests)
            prefix = self._read_pieces(None, 0, [requests[0].ids[:start]], self._ways) if start and requests else None
            under_way: dict[int, _Request] = {}
            rows: Any = None  # made when it is known how long the first ones are
            refills = len(requests) > self._rows
            while groups or under_way:
                free = [row for row in range(self._rows) if row not in under_way]
                while groups and len(free) >= len(groups[0]):
                    group = dict(zip(free, groups.popleft()))
                    free = free[len(group) :]
                    reading = self._read_pieces(prefix, start, [one.ids for one in group.values()], self._group)
                    fresh, token_R = self._begin(list(group.values()), reading)
                    under_way |= group
                    coming = [*under_way.values(), *itertools.islice(itertools.chain(*groups), len(free))]
                    slots = max(self._slots(coming), fresh.slots)
                    if rows is None:
                        rows = self._call(_IDLE, self._model, self._rows, slots, self._cache)
                    rows = self._insert(self._grown(rows, slots), fresh, list(group))
                    for request, token in zip(group.values(), jax.device_get(token_R)):
                        request.made.append(int(token))
                before, rows = rows, self._grown(rows, self._slots(under_way.values()))
                if rows is not before and refills:  # puts nothing, but leaves no program of a rung to chance
                    rows = self._insert(rows, fresh, [])
                stopped = np.array([row not in under_way for row in range(self._rows)])
                enough = np.int32(self._rows - len(groups[0]) if groups else 0)
                rows, out_BC = self._call(
                    _DECODE, self._model, self._variables, rows, stopped, enough, block=self._block, **self._choice
                )
                tokens_BC = jax.device_get(out_BC)
                live_BC = tokens_BC != decode.NONE
                self.tally.useful += int(live_BC.sum())
                self.tally.slots += self._rows * int(live_BC.any(axis=0).sum())
                for row, request in list(under_way.items()):
                    request.made.extend(tokens_BC[row][live_BC[row]].tolist())
                    self._look_for_stop(request)
                    request.ended = self._at_its_end(request)
                    if request.ended:
                        del under_way[row]
                    yield request

    def _groups(self, requests: list[_Request], start: int) -> deque[list[_Request]]:
        """Requests as they are read together, shortest first. Those of a group are padded to one length, so that what a
        prompt is read as does not depend on which others are asked."""
        groups: deque[list[_Request]] = deque()
        by_length = sorted(requests, key=lambda request: len(request.ids))
        for _, alike in itertools.groupby(by_length, lambda request: pieces(len(request.ids) - start)):
            while group := list(itertools.islice(alike, self._group)):
                groups.append(group)
        return groups

    def _read_pieces(self, prefix: Reading | None, start: int, prompts: list[list[int]], rows: int) -> Reading:
        """Reads prompts from token `start` on, of which `prefix` holds the ones before; `rows` of them with padding."""
        length_R = np.full(rows, start + 1, np.int32)  # padding rows have one token
        length_R[: len(prompts)] = [len(ids) for ids in prompts]
        piece, width = pieces(int(length_R.max()) - start)
        tokens = np.zeros((rows, width), np.int32)
        for row, ids in enumerate(prompts):
            tokens[row, : len(ids) - start] = ids[start:]
        slots = ladder(start + width)
        if prefix is None:
            reading = self._call(_UNREAD, self._model, rows, slots, self._cache)
        else:
            reading = self._call(_SHARE, prefix, rows, slots)
        for at in range(0, width, piece):
            tokens_RC = tokens[:, at : at + piece]
            reading = self._call(
                _READ, self._model, self._variables, reading, tokens_RC, np.int32(start + at), length_R
            )
        return reading

    def _begin(self, group: list[_Request], reading: Reading) -> tuple[Rows, jax.Array]:
        """The rows of a group that was read, and their first tokens; those that pad it are done from the start."""
        length, limit = np.ones(self._group, np.int32), np.zeros(self._group, np.int32)
        seed = np.zeros(self._group, np.uint32)
        for row, request in enumerate(group):
            length[row], limit[row], seed[row] = len(request.ids), self._limit(request), request.seed
        return self._call(_BEGIN, self._model, self._variables, reading, length, limit, seed, **self._choice)

    def _limit(self, request: _Request) -> int:
        return min(self._max_new_tokens, self._model.config.context - len(request.ids))

    def _slots(self, requests: Iterable[_Request]) -> int:
        """How many a row needs that holds the longest of the requests and another block."""
        slots = ladder(max(len(request.ids) + max(1, len(request.made)) for request in requests) + self._block)
        taken = memory.cache_bytes(self._model, self._rows, slots, self._cache)
        self.tally.cache_bytes = max(self.tally.cache_bytes, taken)
        return slots

    def _grown(self, rows: Rows, slots: int) -> Rows:
        """Rows with at least so many slots, one rung of the ladder after another: a program for a rung, not for two."""
        while rows.slots < slots:
            rows = self._call(_GROW, rows, ladder(rows.slots + 1))
        return rows

    def _insert(self, rows: Rows, fresh: Rows, where: list[int]) -> Rows:
        """Puts the first fresh rows at row numbers `where`; the others only pad their group."""
        out_of_range = [self._rows] * (self._group - len(where))
        return self._call(_INSERT, rows, self._grown(fresh, rows.slots), np.array(where + out_of_range, np.int32))

    def _refuse_what_does_not_fit(self, requests: list[_Request]) -> None:
        """Says before anything is compiled that the longest answers would not fit."""
        longest = max((len(request.ids) + self._limit(request) for request in requests), default=0)
        slots = ladder(longest + self._block)
        memory.require(self._model, self._mesh, self._rows, slots, self._cache, of_batch=self._ways)

    def _call(self, program: Any, *args: Any, **static: Any) -> Any:
        """Runs a program, and counts it among those of the tally by what tells programs apart."""
        shapes = tuple(leaf.shape if hasattr(leaf, "shape") else leaf for leaf in jax.tree.leaves(args))
        self.tally.programs.add((program, shapes))
        return program(*args, **static)

    def _at_its_end(self, request: _Request) -> bool:
        if request.text is not None or len(request.made) >= self._limit(request):
            return True
        return request.made[-1] in self._eos

    def _look_for_stop(self, request: _Request) -> None:
        if self._stop and any(stop in (text := self._text(request.made)) for stop in self._stop):
            request.text = text[: min(at for stop in self._stop if (at := text.find(stop)) >= 0)]
            # the tokens up to the one that completed the stop string were needed; what the block made after is dropped
            while any(stop in self._text(request.made[:-1]) for stop in self._stop):
                request.made.pop()

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _settled(self, request: _Request) -> str:
        """The text so far that further tokens cannot change: no half character, no beginning of a stop string."""
        text = self._text(request.made).rstrip("\ufffd")
        starts = [size for stop in self._stop for size in range(1, len(stop)) if text.endswith(stop[:size])]
        return text[: len(text) - max(starts, default=0)]

    def _completion(self, request: _Request) -> Completion:
        if request.text is not None:
            return Completion(request.index, request.text, False, len(request.ids), len(request.made))
        ended = request.made[-1] in self._eos
        text = self._text(request.made[:-1] if ended else request.made)
        return Completion(request.index, text, not ended, len(request.ids), len(request.made))


def shared_beginning(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, in multiples of SHARED; each keeps one of its own at least."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # what these two share, all share
    common = next((at for at, (one, other) in enumerate(zip(first, last)) if one != other), len(first))
    return min(common, min(map(len, prompts)) - 1) // SHARED * SHARED


def pieces(length: int) -> tuple[int, int]:
    """How a prompt of that many tokens is read: tokens at a time, and the length that it is padded to."""
    piece = min(ladder(length), PIECE)
    return piece, -(-length // piece) * piece


def ladder(length: int) -> int:
    """The smallest of 32, 48, 64, 96, 128, 192, … that is at least `length`."""
    step = 32
    while step < length:
        if step * 3 // 2 >= length:
            return step * 3 // 2
        step *= 2
    return step
