"""The smallest TPU slice for each model and method, by the real compiler (a table of the README here). No TPU needed.

    python -m tests.benchmarks.bench_slices [--cells=slices.jsonl] [--only=llama-2-70b,qlora,v5e]

Every compiled program is a line of --cells at once, and is not compiled again: a run that was cut short goes on.
"""

import argparse
import json
from pathlib import Path

from lema_jax.ahead import compiler, programs
from lema_jax.data.batches import DataConfig
from lema_jax.model import presets
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.parallel import chips
from lema_jax.parallel.chips import CHIPS, Slice
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training.config import TrainConfig

MODELS = ("llama-2-7b", "llama-2-13b", "llama-2-70b")
METHODS = {"full": 12.0, "lora": 2.0, "qlora": 0.55}  # and the least bytes that a weight takes
KINDS = ("v5e", "v5p", "v6e")
ROWS, LENGTH, STEPS = 96, 1024, 2000  # the paper's batch
AT_A_TIME = (4, 1)  # rows that a chip (or the chips that share rows) takes at a time


def config(method: str, where: Slice, rows: int) -> TrainConfig:
    fsdp = max(part for part in range(1, ROWS + 1) if ROWS % part == 0 and where.chips % part == 0)
    lora = None if method == "full" else LoraConfig(base="nf4" if method == "qlora" else "dense")
    kept = "float32" if lora is None else "bfloat16"
    return TrainConfig(
        out="-",
        init="-",
        data=DataConfig("-", ROWS, LENGTH),
        steps=STEPS,
        lora=lora,
        compute=Compute("bfloat16", kept, remat="full", loss_chunk=LENGTH),
        mesh=MeshConfig(data=1, fsdp=fsdp, tensor=where.chips // fsdp),
        accumulation=ROWS // (fsdp * rows),
    )


def weights(model: LlamaConfig) -> int:
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    layer = model.hidden_size * (2 * queries + 2 * keys + 3 * model.intermediate_size)
    return model.num_layers * layer + 2 * model.vocab_size * model.hidden_size


def cell(model: str, method: str, where: Slice, rows: int) -> dict:
    job = programs.Target(where, compiler.devices(where), presets.get(model))
    told = programs.train_step(job, config(method, where, rows)).as_json()
    return {"model": model, "method": method, "slice": where.name, "rows": rows} | told


def smallest(model: str, method: str, kind: str, cells: dict, path: Path) -> dict | None:
    """The first slice, from the smallest on, on which it fits."""
    for shape in chips.slices(CHIPS[kind]):
        where = Slice(CHIPS[kind], shape)
        held = weights(presets.get(model)) * METHODS[method] / where.chips
        if held > CHIPS[kind].hbm_bytes or where.chips > 512:
            continue
        for rows in AT_A_TIME:
            if ROWS % (config(method, where, 1).mesh.fsdp * rows):
                continue
            key = (model, method, where.name, rows)
            if key not in cells:
                cells[key] = cell(*key[:2], where, rows)
                with path.open("a") as file:
                    file.write(json.dumps(cells[key]) + "\n")
            if cells[key]["fits"]:
                return cells[key]
    return None


def row(model: str, method: str, found: list[dict | None]) -> str:
    texts = []
    for one in found:
        if one is None:
            texts.append("–")
            continue
        low, high = one["estimate"]["low_s"], one["estimate"]["high_s"]
        peak, hours = one["memory_bytes"]["peak"] / 1e9, one["hours"]
        texts.append(f"{one['slice']}: {peak:.1f} GB, {low:.1f}–{high:.1f} s, {hours[0]:.1f}–{hours[1]:.1f} h")
    return f"| {model} {method} | " + " | ".join(texts) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=Path, default=Path("runs/slices.jsonl"))
    parser.add_argument("--only", default="", help="words of which a cell must have all")
    flags = parser.parse_args()
    flags.cells.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in flags.cells.read_text().splitlines()] if flags.cells.exists() else []
    cells = {(one["model"], one["method"], one["slice"], one["rows"]): one for one in lines}
    wanted = set(filter(None, flags.only.split(",")))
    print("| | " + " | ".join(KINDS) + " |\n|" + "---|" * (len(KINDS) + 1))
    for model in MODELS:
        for method in METHODS:
            found = [
                smallest(model, method, kind, cells, flags.cells) if wanted <= {model, method, kind} else None
                for kind in KINDS
            ]
            if any(found):
                print(row(model, method, found), flush=True)


if __name__ == "__main__":
    main()
