"""The cost of one run of a compiled program on one chip: flops, bytes and time, with loops counted by their trips.

XLA's `cost_analysis()` counts the body of a loop once, but a scan over layers is a loop, and so is a windowed einsum.
Here a loop costs its body times its trip count, and a conditional its most expensive branch.

HBM bytes are what instructions read and write there: of a sliced operand a fusion reads the slices, an in-place update
writes the update, and arrays in VMEM are free. Asynchronous copies between HBM and VMEM (`dma_bytes`) count in
`hbm_bytes`, but not in the times, which assume that they overlap.

Interconnect bytes are what a chip sends with ring algorithms among n chips: (n - 1) / n of the array for an all-gather
or reduce-scatter, twice that for an all-reduce. The compiler splits a collective between slices into one within each
slice and a `send` and `recv` through the hosts; the attributes of these name the collective and its n slices.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from lema_jax.ahead import hlo, kernels
from lema_jax.ahead.hlo import Computation, Instruction, Module
from lema_jax.ahead.loops import trips
from lema_jax.parallel.chips import Chip

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_FREE = (
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "iota", "add-dependency"),
)
_COPIES = ("copy-start", "slice-start", "dynamic-slice-start")
_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}  # the index of the update operand
_BETWEEN_SLICES = "_xla_megascale_transfer_type"  # an attribute of transfers between slices


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of COLLECTIVES.
      group: number of participants: chips or, between slices, slices.
      bytes: that a chip sends each time.
      times: how often it runs.
      source: the JAX operation that it comes from.
      between_slices: over the data-centre network; otherwise over the interconnect.
    """

    kind: str
    group: int
    bytes: float
    times: float
    dtype: str
    source: str
    between_slices: bool = False

    @property
    def total(self) -> float:
        return self.bytes * self.times


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a run on one chip.

    Attributes:
      flops: of matmuls; of Pallas kernels, those of splash attention (the causal half).
      hbm_bytes, dma_bytes: see the module.
      roof_s: roofline seconds: Σ over instructions of max(flops / peak, HBM bytes / 90 % of the bandwidth).
      hybrid_s: the same with the compiler's cycle estimates for fusions of matmuls.
      kernels: number of kernel calls.
      collectives: all collectives.
      open_loops: loops of unknown trip count, each counted as one trip.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    dma_bytes: float = 0.0
    roof_s: float = 0.0
    hybrid_s: float = 0.0
    kernels: int = 0
    collectives: tuple[Collective, ...] = ()
    open_loops: tuple[str, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        sums: dict[str, Any] = {
            field.name: getattr(self, field.name) + getattr(other, field.name) for field in dataclasses.fields(Cost)
        }
        return Cost(**sums)

    def times(self, count: int) -> "Cost":
        """The cost of `count` runs."""
        repeated = tuple(dataclasses.replace(one, times=one.times * count) for one in self.collectives)
        numbers = ("flops", "hbm_bytes", "dma_bytes", "roof_s", "hybrid_s", "kernels")
        return dataclasses.replace(
            self, collectives=repeated, **{name: count * getattr(self, name) for name in numbers}
        )

    @property
    def ici_bytes(self) -> float:
        """Bytes sent over the interconnect."""
        return sum(one.total for one in self.collectives if not one.between_slices)

    @property
    def dcn_bytes(self) -> float:
        """Bytes sent to other slices, over the data-centre network."""
        return sum(one.total for one in self.collectives if one.between_slices)


def count(text: str, chip: Chip) -> Cost:
    """The cost of the program whose text `compiled.as_text()` returns."""
    module = hlo.parse(text)
    return _Walker(module, chip).cost(module.entry)


class _Walker:
    def __init__(self, module: Module, chip: Chip):
        self._all, self._chip = module.computations, chip

    def cost(self, computation: Computation) -> Cost:
        """The cost of one run of a computation."""
        seen: set[tuple[str, str]] = set()  # (kind, channel): clones of a collective in a computation run once
        return functools.reduce(Cost.__add__, (self._one(computation, one, seen) for one in computation), Cost())

    def _one(self, inside: Computation, one: Instruction, seen: set[tuple[str, str]]) -> Cost:
        opcode = one.opcode
        if opcode in _FREE or opcode.endswith("-done"):
            return Cost()
        if opcode == "while":
            count = trips(self._all, inside, one)
            body = self.cost(self._all[one.computations("body")[0]])
            return body.times(1 if count is None else count) + Cost(open_loops=() if count else (one.source,))
        if opcode == "call":
            return self.cost(self._all[one.computations("to_apply")[0]])
        if opcode == "conditional":
            branches = one.computations("true_computation", "false_computation", "branch_computations")
            costs = [self.cost(self._all[branch]) for branch in branches]
            return max(costs, key=lambda cost: (cost.flops, cost.hbm_bytes))
        if opcode in _COPIES:
            return self._copy(inside, one)
        if opcode.removesuffix("-start") in COLLECTIVES:
            return Cost(collectives=tuple(self._collective(inside, one, seen)))
        if opcode in ("send", "recv"):
            moved = one.results[0].bytes
            sent = (_between_slices(one),) if opcode == "send" and _BETWEEN_SLICES in one.attributes else ()
            return Cost(hbm_bytes=moved, dma_bytes=moved, collectives=sent)
        if opcode == "custom-call" and one.attribute("custom_call_target") != "tpu_custom_call":
            return Cost()
        return self._work(inside, one, seen)

    def _work(self, inside: Computation, one: Instruction, seen: set[tuple[str, str]]) -> Cost:
        """The cost of a fusion, a kernel, a matmul or an elementwise operation."""
        flops, cycles, calls = 0.0, one.cycles, 0
        collectives: list[Collective] = []
        if one.opcode == "custom-call":
            flops, calls = kernels.flops(one, inside), 1
        elif one.opcode in ("fusion", "async-start"):
            for name in one.computations("calls"):
                flops += self._fused(self._all[name], seen, collectives)
        else:
            flops = matmul_flops(one, inside)
        moved = self._bytes(inside, one)
        compute, memory = flops / self._chip.flops, moved / (0.9 * self._chip.hbm_bandwidth)
        roof = max(compute, memory)
        return Cost(
            flops=flops,
            hbm_bytes=moved,
            roof_s=roof,
            hybrid_s=max(cycles / self._chip.clock, memory) if flops and cycles else roof,
            kernels=calls,
            collectives=tuple(collectives),
        )

    def _fused(self, computation: Computation, seen: set[tuple[str, str]], collectives: list[Collective]) -> float:
        # An asynchronous collective is in three fusions: its start (where it is counted), one that computes meanwhile
        # (even a loop) and its end. An all-reduce of which a slice is used runs as a reduce-scatter.
        starts = any(_is_call(one, "AsyncCollectiveStart") for one in computation)
        scatters = "all-reduce-scatter" in computation.name
        flops = 0.0
        for one in computation:
            if one.opcode in ("fusion", "call"):
                for name in one.computations("calls", "to_apply"):
                    flops += self._fused(self._all[name], seen, collectives)
            elif one.opcode.removesuffix("-start") in COLLECTIVES:
                if starts or scatters:
                    kind = "reduce-scatter" if scatters else None
                    collectives += self._collective(computation, one, seen, kind)
            else:
                flops += matmul_flops(one, computation)
        return flops

    def _collective(
        self, inside: Computation, one: Instruction, seen: set[tuple[str, str]], kind: str | None = None
    ) -> list[Collective]:
        kind = kind or one.opcode.removesuffix("-start")
        # All parts of a collective between slices have its channel.
        channel = kind, one.attribute("channel_id") or one.name
        if channel in seen:
            return []
        seen.add(channel)
        group = group_size(one)
        taken = sum(source.bytes for name in one.operands if (source := inside.get(name)))
        made = max(one.bytes - taken, 0.0) if one.opcode.endswith("-start") else one.bytes
        sent = _sent(kind, group, taken, made)
        return [Collective(kind, group, sent, times=1, dtype=one.results[0].dtype, source=one.source)]

    def _copy(self, inside: Computation, one: Instruction) -> Cost:
        """The cost of an asynchronous copy: its bytes, once for each end in HBM."""
        moved = min((array.bytes for array in one.results if math.prod(array.dims) > 1), default=0.0)
        ends = [array for array in one.results if array.bytes == moved] + [
            array for name in one.operands if (source := inside.get(name)) for array in source.results
        ]
        moved *= max(1, min(2, sum(array.space == 0 for array in ends[:2])))
        return Cost(hbm_bytes=moved, dma_bytes=moved)

    def _bytes(self, inside: Computation, one: Instruction) -> float:
        """HBM bytes that an instruction reads and writes, arrays in VMEM excluded."""
        if one.opcode in _SLICES:
            return sum(array.bytes for array in one.results if array.space == 0) + one.bytes
        if one.opcode in _UPDATES:
            update = inside.get(one.operands[_UPDATES[one.opcode]])
            return 2 * update.bytes if update else 0.0
        fused = self._all[one.computations("calls")[0]] if one.opcode == "fusion" else None
        total = 0.0
        for position, name in enumerate(one.operands):
            source = inside.get(name)
            if source is None or len(source.results) != 1 or source.results[0].space:
                continue
            total += self._read(fused, fused.parameters[position], source.bytes) if fused else source.bytes
        if fused is None:
            return total + sum(array.bytes for array in one.results if array.space == 0)
        root = fused.root
        parts = root.operands if root.opcode == "tuple" else (root.name,)
        if len(parts) != len(one.results):
            return total
        return total + sum(
            self._written(fused, part, array.bytes) for part, array in zip(parts, one.results) if array.space == 0
        )

    def _read(self, fused: Computation, name: str, size: float) -> float:
        """How many of a value's `size` bytes a fused computation reads."""
        total = 0.0
        for user in fused.users[name]:
            first = user.operands[0] == name
            if user.opcode in _SLICES:
                total += user.bytes if first else 0.0
            elif (user.opcode in _UPDATES and first) or user.opcode == "tuple" or _is_collective(user):
                continue
            elif user.opcode in ("bitcast", "reshape") or _is_call(user, "AssumeGather"):
                total += self._read(fused, user.name, size)
            elif user.opcode in ("fusion", "call"):
                inner = self._all[user.computations("calls", "to_apply")[0]]
                total += sum(
                    self._read(inner, inner.parameters[position], size)
                    for position, operand in enumerate(user.operands)
                    if operand == name
                )
            else:
                return size
        return min(total, size)

    def _written(self, fused: Computation, name: str, size: float) -> float:
        """How many of a result's `size` bytes a fused computation writes."""
        one = fused.get(name)
        if one is None or one.opcode in ("parameter", "get-tuple-element", "custom-call") or _is_collective(one):
            return 0.0
        if one.opcode in _UPDATES:
            update = fused.get(one.operands[_UPDATES[one.opcode]])
            return update.bytes if update else 0.0
        if one.opcode == "bitcast":
            return self._written(fused, one.operands[0], size)
        if one.opcode == "fusion":
            inner = self._all[one.computations("calls")[0]]
            return self._written(inner, inner.root.name, size) if inner.root.opcode != "tuple" else size
        return size


def _is_collective(one: Instruction) -> bool:
    """Whether it is a collective, or the start or end of one: its traffic is the interconnect's."""
    return one.opcode.removesuffix("-start") in COLLECTIVES or _is_call(one, "AsyncCollective")


def _is_call(one: Instruction, target: str) -> bool:
    return one.opcode == "custom-call" and target in (one.attribute("custom_call_target") or "")


def _sent(kind: str, group: int, taken: float, made: float) -> float:
    """Bytes that each participant sends, where its operand has `taken` bytes and its result `made`."""
    share = (group - 1) / max(group, 1)
    sent = {"all-gather": made * share, "all-reduce": 2 * taken * share, "collective-permute": taken}
    return sent.get(kind, taken * share)


def _between_slices(one: Instruction) -> Collective:
    """The collective between slices that a `send` to the hosts stands for: among `{1,2}x{0:3}` (slices × chips) or
    groups of chips, or a permutation."""
    transfer = (one.attribute(_BETWEEN_SLICES) or "").lower().replace("_", "-")
    kind = {"one-to-one": "collective-permute"}.get(transfer, transfer)
    found = re.search(r'_xla_megascale_target="?\{+([^{}]*)\}', one.attributes)
    group = 2 if kind == "collective-permute" or not found else found.group(1).count(",") + 1
    taken = one.results[0].bytes
    sent = _sent(kind, group, taken, taken * group)
    return Collective(kind, group, sent, times=1, dtype=one.results[0].dtype, source=one.source, between_slices=True)


def group_size(one: Instruction) -> int:
    """Number of participants of a collective; 2 for a permutation."""
    text = one.attributes
    if "source_target_pairs=" in text:
        return 2
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(found.group(1))
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return found.group(1).count(",") + 1
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found.group(1)))
        # A part of an axis is printed as 'axis':(offset)size.
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found.group(2))
        return math.prod(int(part or sizes.get(axis, 1)) for axis, part in parts)
    return 1


def matmul_flops(one: Instruction, inside: Computation) -> float:
    """Flops of a `dot` or a `convolution` (to which the TPU compiler lowers dots); 0 for others."""
    if one.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (inside.instructions[name].results[0].dims for name in one.operands[:2])
    if one.opcode == "dot":
        summed = [int(at) for at in (one.attribute("lhs_contracting_dims") or "").split(",") if at]
        return 2.0 * math.prod(one.results[0].dims) * math.prod(left[at] for at in summed)
    return _convolution_flops(one, left, right, one.results[0].dims)


def _convolution_flops(one: Instruction, left: Sequence[int], right: Sequence[int], made: Sequence[int]) -> float:
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    assert found, one.name
    lhs, rhs, out = found.groups()
    window = dict(pair.split("=") for pair in (one.attribute("window") or "").split())

    def of(name: str, at: int, default: int, read: Callable[[str], int] = int) -> int:
        return read(window[name].split("x")[at]) if name in window else default

    products = 2.0 * made[out.index("b")] * made[out.index("f")] * right[rhs.index("i")]
    for at in range(sum(label.isdigit() for label in rhs)):
        label = str(at)
        products *= _overlaps(
            taps=right[rhs.index(label)],
            inputs=left[lhs.index(label)],
            outputs=made[out.index(label)],
            stride=of("stride", at, 1),
            pad=of("pad", at, 0, lambda text: int(text.split("_")[0])),
            spread=of("lhs_dilate", at, 1),
            reach=of("rhs_dilate", at, 1),
        )
    return products / int(one.attribute("batch_group_count") or 1)


@functools.cache
def _overlaps(*, taps: int, inputs: int, outputs: int, stride: int, pad: int, spread: int, reach: int) -> int:
    """Number of (output, tap) pairs that read an input, rather than padding or a dilation gap."""
    extent = (inputs - 1) * spread + 1
    places = (at * stride - pad + tap * reach for at in range(outputs) for tap in range(taps))
    return sum(0 <= place < extent and place % spread == 0 for place in places)
