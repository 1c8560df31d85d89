"""The smallest TPU slice for each model and method, by the real compiler (tables of the README here). No TPU needed.

    python -m tests.benchmarks.bench_slices [--table=presets] [--cells=slices.jsonl] [--only=llama-2-70b,qlora,v5e]

Every compiled program is a line of --cells at once, and is not compiled again: a run that was cut short goes on.
With --quick the compiler takes about a third of its time: slice and peak are found, and no step time is modelled, since
the schedule is not the one that would run.
"""

import argparse
import dataclasses
import json
import math
from pathlib import Path

import jax

from lema_jax.ahead import compiler, programs
from lema_jax.data.batches import DataConfig
from lema_jax.model import presets
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.parallel import chips
from lema_jax.parallel.chips import CHIPS, Slice
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training.config import TrainConfig

STEPS = 2000  # the paper's


@dataclasses.dataclass(frozen=True)
class Method:
    """What is compiled: a training step of `batch` rows of `length` tokens, or a decoding step for that cache."""

    batch: int
    length: int
    weight: float = 2.0  # the least bytes that a weight takes
    lora: LoraConfig | None = None
    at_a_time: tuple[int, ...] = (1,)  # rows that a chip (or the chips that share rows) takes at a time
    loss_chunk: int = 512
    decodes: bool = False


_paper = {"batch": 96, "length": 1024, "at_a_time": (4, 1), "loss_chunk": 1024}
METHODS = {
    "full": Method(**_paper, weight=12.0),
    "lora": Method(**_paper, lora=LoraConfig()),
    "qlora": Method(**_paper, weight=0.55, lora=LoraConfig(base="nf4")),
    "train": Method(16, 2048, lora=LoraConfig()),
    "decode": Method(128, 2560, decodes=True),
}
OF_FAMILIES = ("qwen2.5-", "qwen3-", "mistral-", "gemma-3-", "llama-3.1-8b", "llama-3.1-70b", "llama-3.2-")
TABLES = {  # models, methods, kinds of chips
    "paper": (("llama-2-7b", "llama-2-13b", "llama-2-70b"), ("full", "lora", "qlora"), ("v5e", "v5p", "v6e")),
    "presets": (
        tuple(name for name in presets.names() if name.startswith(OF_FAMILIES)),
        ("train", "decode"),
        ("v5e", "v6e"),
    ),
}


def config(model: LlamaConfig, method: Method, where: Slice, rows: int) -> TrainConfig:
    """Rows over as many chips as divide them and heads over the rest; in decoding, heads over all that divide them."""
    fsdp = max(part for part in range(1, method.batch + 1) if method.batch % part == 0 and where.chips % part == 0)
    if method.decodes:
        fsdp = where.chips // math.gcd(where.chips, model.num_kv_heads)
    trains_all = method.lora is None and not method.decodes
    return TrainConfig(
        out="-",
        init="-",
        data=DataConfig("-", method.batch, method.length),
        steps=STEPS,
        lora=method.lora,
        compute=Compute(
            "bfloat16", "float32" if trains_all else "bfloat16", remat="full", loss_chunk=method.loss_chunk
        ),
        mesh=MeshConfig(data=1, fsdp=fsdp, tensor=where.chips // fsdp),
        accumulation=max(1, method.batch // (fsdp * rows)),
    )


def least_bytes(model: LlamaConfig, method: Method) -> float:
    """Weights, and in decoding the cache: what all chips of a slice hold together at least."""
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    layer = model.hidden_size * (2 * queries + 2 * keys + 3 * model.intermediate_size)
    tables = 1 if model.tie_embeddings else 2
    cache = 4 * model.num_layers * keys * method.batch * method.length if method.decodes else 0
    return (model.num_layers * layer + tables * model.vocab_size * model.hidden_size) * method.weight + cache


def cell(model: str, name: str, where: Slice, rows: int) -> dict:
    """The report of one program, as JSON."""
    method, target = METHODS[name], programs.Target(where, compiler.devices(where), presets.get(model))
    run = config(target.llama, method, where, rows)
    if method.decodes:
        report = programs.decode_step(target, run, rows=method.batch, cache_length=method.length)
    else:
        report = programs.train_step(target, run)
    return {"model": model, "method": name, "slice": where.name, "rows": rows} | report.as_json()


def smallest(model: str, name: str, kind: str, cells: dict, path: Path, quick: bool) -> dict | None:
    """The first slice, from the smallest on, on which it fits."""
    method = METHODS[name]
    least = least_bytes(presets.get(model), method)
    for shape in chips.slices(CHIPS[kind]):
        where = Slice(CHIPS[kind], shape)
        if least / where.chips > CHIPS[kind].hbm_bytes or where.chips > 512:
            continue
        for rows in method.at_a_time:
            fsdp = config(presets.get(model), method, where, 1).mesh.fsdp
            if not method.decodes and method.batch % (fsdp * rows):
                continue
            key = (model, name, where.name, rows)
            if key not in cells:
                cells[key] = cell(*key[:2], where, rows) | {"quick": quick}
                with path.open("a") as file:
                    file.write(json.dumps(cells[key]) + "\n")
            if cells[key]["fits"]:
                return cells[key]
    return None


def text(found: dict | None) -> str:
    """What a program takes: slice, peak of a chip, modelled time; of the paper's batch also hours."""
    if found is None:
        return "–"
    head = f"{found['slice']}: {found['memory_bytes']['peak'] / 1e9:.1f} GB"
    if found.get("quick"):
        return head
    head, low, high = head + ", ", found["estimate"]["low_s"], found["estimate"]["high_s"]
    if METHODS[found["method"]].decodes:
        return f"{head}{1000 * low:.1f}–{1000 * high:.1f} ms"
    if found["method"] == "train":
        return f"{head}{low:.2f}–{high:.2f} s"
    return f"{head}{low:.1f}–{high:.1f} s, {found['hours'][0]:.1f}–{found['hours'][1]:.1f} h"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", choices=TABLES, default="paper")
    parser.add_argument("--cells", type=Path, default=Path("runs/slices.jsonl"))
    parser.add_argument("--only", default="", help="words of which a cell must have all")
    parser.add_argument("--quick", action="store_true")
    flags = parser.parse_args()
    if flags.quick:
        jax.config.update("jax_exec_time_optimization_effort", -1.0)
    flags.cells.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in flags.cells.read_text().splitlines()] if flags.cells.exists() else []
    cells = {
        (one["model"], one["method"], one["slice"], one["rows"]): one
        for one in lines
        if flags.quick >= one.get("quick", False)
    }
    wanted = set(filter(None, flags.only.split(",")))
    models, methods, kinds = TABLES[flags.table]
    print("| | " + " | ".join(kinds) + " |\n|" + "---|" * (len(kinds) + 1))
    for model in models:
        for name in methods:
            if not any(wanted <= {model, name, kind} for kind in kinds):
                continue
            found = [
                smallest(model, name, kind, cells, flags.cells, flags.quick) if wanted <= {model, name, kind} else None
                for kind in kinds
            ]
            print(f"| {model} {name} | " + " | ".join(map(text, found)) + " |", flush=True)


if __name__ == "__main__":
    main()
