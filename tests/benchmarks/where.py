"""Where the time of a compiled program goes on a CPU: shares of its parts in what all threads did, by a trace."""

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

from lema_jax.ahead import hlo

TRACED = {"xla_cpu_enable_xprof_traceme": True}  # how a program must be compiled for that
PARTS = ("attn", "mlp", "logits")  # of the model, by the names in its operations; what has none is "other"


def shares(run: Callable[[], object], compiled: jax.stages.Compiled) -> dict[str, float]:
    """Shares of PARTS and "other", which add up to 1, and of "products", which lie in them.

    Args:
      run: runs the program once, to its end.
    """
    parts = _parts(hlo.parse(compiled.as_text()))
    took: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    for part in parts.get(event.name, ()):
                        took[part] += event.duration_ns
    whole = sum(took[part] for part in (*PARTS, "other"))
    return {part: round(took[part] / whole, 3) for part in (*PARTS, "other", "products")}


def _parts(program: hlo.Module) -> dict[str, tuple[str, ...]]:
    """The parts that each instruction belongs to; what only calls others is left out."""
    found = {}
    for computation in program.computations.values():
        for one in computation:
            if one.opcode in ("while", "call", "conditional"):
                continue
            inside = [each for name in one.computations("calls") for each in program.computations[name]]
            source = one.source or next((each.source for each in inside if each.source), "")
            part = next((part for part in PARTS if part in source), "other")
            product = any(each.opcode == "dot" for each in (one, *inside))
            found[one.name] = (part, "products") if product else (part,)
    return found
