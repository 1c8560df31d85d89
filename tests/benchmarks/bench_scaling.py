"""How a training step grows from 8 to 4,096 chips, by formula; compiled programs say how far to believe it.

    python tests/benchmarks/bench_scaling.py [--model=llama-2-7b] [--kind=v5e] [--method=lora]

Interconnect bytes of a chip, for F = fsdp, N = tensor: weights gathered once each way and, where they are trained,
gradients scattered once, (F - 1) / F of the weights' bytes / N each; and activations gathered or scattered eleven times
a layer, (N - 1) / N of a group's rows each. Time is the longer of products at the chip's peak and bytes over its links.
"""

import argparse

from lema_jax.model import flops, presets
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.parallel.chips import CHIPS, Chip

LENGTH, ROWS = 1024, 96
CHIP_COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def times(
    model: LlamaConfig, lora: LoraConfig | None, chip: Chip, rows: int, fsdp: int, tensor: int
) -> tuple[float, float]:
    """Seconds of products and of links."""
    compute = Compute("bfloat16", "bfloat16", remat="full", loss_chunk=LENGTH)
    step = flops.Step(model, compute, lora, rows, LENGTH)
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    layer = model.hidden_size * (2 * queries + 2 * keys + 3 * model.intermediate_size)
    weights = 2 * (model.num_layers * layer + 2 * model.vocab_size * model.hidden_size)
    gathered = (2 if lora else 3) * weights / tensor * (fsdp - 1) / fsdp
    group = 2 * rows / fsdp * LENGTH * model.hidden_size
    moved = 11 * model.num_layers * group * (tensor - 1) / tensor
    return flops.by_formula(step) / (fsdp * tensor) / chip.flops, (gathered + moved) / chip.ici_bandwidth


def row(model: LlamaConfig, lora: LoraConfig | None, chip: Chip, chips: int) -> str:
    """Weak scaling (a row of 1,024 tokens a chip, fsdp alone) and strong scaling (96 rows, the best tensor axis)."""
    products, links = times(model, lora, chip, chips, chips, 1)
    fsdps = [fsdp for fsdp in range(1, ROWS + 1) if ROWS % fsdp == 0 and chips % fsdp == 0]
    cuts = [(fsdp, chips // fsdp) for fsdp in fsdps if model.num_kv_heads % (chips // fsdp) == 0]
    strong = "no axis left to shard"
    if cuts:
        of = lambda cut: times(model, lora, chip, ROWS, *cut)
        best = min(cuts, key=lambda cut: (max(of(cut)), of(cut)[1]))
        one, other = times(model, lora, chip, ROWS, *best)
        strong = f"{best[0]} × {best[1]}: {max(one, other):.3f} s, {one / max(one, other):.0%}"
    return f"| {chips:,} | {max(products, links):.3f} s, {products / max(products, links):.0%} | {strong} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-2-7b")
    parser.add_argument("--kind", default="v5e", choices=CHIPS)
    parser.add_argument("--method", default="lora", choices=("full", "lora"))
    flags = parser.parse_args()
    print("| chips | a row a chip, fsdp: time, of peak | 96 rows, fsdp × tensor: time, of peak |\n|---|---|---|")
    lora = LoraConfig() if flags.method == "lora" else None
    for chips in CHIP_COUNTS:
        print(row(presets.get(flags.model), lora, CHIPS[flags.kind], chips))


if __name__ == "__main__":
    main()
