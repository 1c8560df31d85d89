"""What torch, transformers and peft say and how fast they are, on the model and batches of gpu_make.

    python -m tests.benchmarks.gpu_torch expect|train|decode

`expect` writes WORK/expected.npz and answers.json for gpu_right, in float32 without TF32. `train` and `decode` measure:
weights and optimizer in float32 under bfloat16 autocast (frozen ones in bfloat16), as ours are; attention by SDPA, once
with the mask that keeps packed examples apart, once plainly causal, which is another result (examples see those before
them in the row) and lets SDPA take its flash kernel. TORCH_COMPILED=1: only full training, by torch.compile.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import peft
import torch
import transformers

from lema_jax.data import tokenizer
from tests.benchmarks import gpu_lines
from tests.benchmarks.gpu_lines import MODELS, SIZES, STEPS, WORK, case

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
IGNORED = -100


def read(dtype: torch.dtype) -> transformers.LlamaForCausalLM:
    return transformers.AutoModelForCausalLM.from_pretrained(WORK / "hf", dtype=dtype, attn_implementation="sdpa").to(
        DEVICE
    )


def random(name: str, dtype: torch.dtype) -> transformers.LlamaForCausalLM:
    raw = {key: value for key, value in MODELS[name].items() if key != "model_type"}
    config = transformers.LlamaConfig(**raw, attn_implementation="sdpa")
    with torch.device(DEVICE):
        return transformers.LlamaForCausalLM(config).to(dtype)


def with_adapters(base: Any) -> peft.PeftModel:
    return peft.get_peft_model(
        base,
        peft.LoraConfig(
            r=gpu_lines.RANK,
            lora_alpha=gpu_lines.ALPHA,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )


def fed(path: str, packed: bool = True, vocab: int | None = None) -> list[dict[str, torch.Tensor]]:
    """Batches of the file as transformers takes them: labels where there is loss, never across two examples."""
    arrays, made = np.load(WORK / f"{path}.npz", allow_pickle=False), []
    for step in range(len(arrays["tokens"])):
        tokens, segments = arrays["tokens"][step], arrays["segment_ids"][step]
        first = np.diff(segments, axis=1, prepend=-1) != 0
        labels = np.where((arrays["weights"][step] > 0) & ~first, tokens, IGNORED)
        one = {"input_ids": tokens.astype(np.int64), "labels": labels.astype(np.int64)}
        if packed:
            one["position_ids"] = arrays["positions"][step].astype(np.int64)
            causal = np.tril(np.ones((segments.shape[1],) * 2, bool))
            one["attention_mask"] = ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]
        made.append({name: torch.from_numpy(array).to(DEVICE) for name, array in one.items()})
    return made


def trainer(model: Any) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    """A step of AdamW as `training.optimizer` has it, as a function from a batch to its loss."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in trained if "norm" not in name and "bias" not in name]
    others = [p for name, p in trained if "norm" in name or "bias" in name]
    groups = [{"params": decayed, "weight_decay": gpu_lines.WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], gpu_lines.LEARNING_RATE, fused=True)

    def step(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], gpu_lines.CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    model.train()
    return step


def answers(model: Any, prompts: list[str], rows: int, new: int, at_least: int = 0) -> list[list[int]]:
    """The greedy answer's ids of each prompt, in batches padded on the left."""
    words, made = tokenizer.load(WORK / "model"), []
    end = words.eos_token_id
    for start in range(0, len(prompts), rows):
        batch = words(prompts[start : start + rows], return_tensors="pt", padding=True, padding_side="left")
        batch = {name: batch[name].to(DEVICE) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            ids = model.generate(
                **batch,
                max_new_tokens=new,
                min_new_tokens=at_least or None,
                do_sample=False,
                pad_token_id=words.pad_token_id,
                eos_token_id=end,
            )
        for row in ids[:, batch["input_ids"].shape[1] :].tolist():
            made.append(row[: row.index(end) + 1] if end in row and not at_least else row)
    return made


def expect() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    kept: dict[str, np.ndarray] = {}
    prompts = json.loads((WORK / "prompts.json").read_text())[:16]
    with case("expect", "logits and answers"):
        model = read(torch.float32).eval()
        batch = fed("followed")[0]
        with torch.inference_mode():
            asked = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")}
            kept["logits"] = model(**asked).logits[:2, :128].float().cpu().numpy()
        (WORK / "answers.json").write_text(json.dumps(answers(model, prompts, 16, SIZES.greedy)))
    for name in ("full", "lora"):
        with case("expect", f"losses, {name}"):
            torch.manual_seed(0)
            model = read(torch.float32) if name == "full" else with_adapters(read(torch.float32))
            if name == "lora":
                model.save_pretrained(WORK / "adapter")
            step = trainer(model)
            kept[name] = np.array([step(batch).item() for batch in fed("followed")])
    np.savez(WORK / "expected.npz", **kept)


def measured(job: str, model: Any, path: str, packed: bool, compiled: bool = False) -> None:
    with case("torch_train", f"{job}, {'packed' if packed else 'plain causal'}{', compiled' * compiled}") as found:
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        step, batches, losses = trainer(torch.compile(model) if compiled else model), fed(path, packed), []
        took = []
        for number in range(SIZES.timed + 3):
            began = time.perf_counter()
            with torch.autocast(DEVICE, torch.bfloat16):
                losses.append(step(batches[number % STEPS]))
            if CUDA:
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
        rows, length = batches[0]["input_ids"].shape
        found["step_ms"] = 1e3 * statistics.median(took[3:])
        found["tok_s"] = rows * length / statistics.median(took[3:])
        found["first_step_s"] = took[0]
        found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0
        found["losses"] = [round(float(loss), 4) for loss in losses[:3]]


def train() -> None:
    torch.set_float32_matmul_precision("high")
    compiled = os.environ.get("TORCH_COMPILED") == "1"
    jobs = [("full", "short"), ("lora", "short"), ("full", "long"), ("lora", "long")]
    for mode, path in jobs[:1] if compiled else jobs:
        for packed in (True, False):
            model = read(torch.float32) if mode == "full" else with_adapters(read(torch.bfloat16))
            rows, length = getattr(SIZES, path)
            measured(f"135m {mode} {rows}x{length}", model, path, packed, compiled)
            del model
    for packed in (True, False) if not compiled else ():
        rows, length = SIZES.long
        measured(f"0.5b full {rows}x{length}", random("0.5b", torch.float32), "long", packed)


def decode() -> None:
    prompts = json.loads((WORK / "prompts.json").read_text())
    prompts = (prompts * SIZES.prompts)[: SIZES.prompts]
    for name, model in (("135m", read(torch.bfloat16)), ("0.5b", random("0.5b", torch.bfloat16))):
        with case("torch_decode", f"{name}, {len(prompts)} x {SIZES.new}, generate") as found:
            model.eval()
            answers(model, prompts, len(prompts), 4, 4)
            began = time.perf_counter()
            ids = answers(model, prompts, len(prompts), SIZES.new, SIZES.new)
            wall = time.perf_counter() - began
            found["tokens"] = sum(map(len, ids))
            found["wall_s"], found["tok_s"] = wall, sum(map(len, ids)) / wall
        del model


if __name__ == "__main__":
    {"expect": expect, "train": train, "decode": decode}[sys.argv[1]]()
