"""What the programs of gpu.sh work on, made from nothing: a model of SmolLM2's shape with random weights in two
layouts, Hugging Face's and ours; a data set packed into batches; prompts.

    python -m tests.benchmarks.gpu_make

WORK/hf, WORK/model       the model (SmolLM2 itself, where gpu.sh put together its GGUF), WORK/adapter as PEFT begins it
WORK/data, WORK/*.npz     packed batches: `short`, `long`, `followed`, each array [steps, rows, tokens]
WORK/prompts.json         questions of the task `arithmetic`, of one padded length
"""

import collections
import json
import subprocess
import sys

import numpy as np
import torch
import transformers

from lema_jax.data import batches, dataset, tokenizer
from lema_jax.data.batches import DataConfig
from lema_jax.data.encode import Encoded, prefix_ids
from lema_jax.generation.lengths import bucket
from lema_jax.tasks import arithmetic
from tests.benchmarks.gpu_lines import DRY, MODELS, SIZES, STEPS, WORK, case

GGUF = WORK / "model.gguf"


def words():
    """The model's own tokenizer, or a small one of as many tokens as the model has rows, so that every answer of random
    weights is a text of its own."""
    if GGUF.exists():
        return tokenizer.load(WORK / "model")
    texts = [f"{one.question}\n{one.rationale}" for one in arithmetic.load("train")[:500]]
    made, rows = tokenizer.train_bpe(texts, 900), MODELS["135m"]["vocab_size"]
    made.add_tokens([f"<{n}>" for n in range(len(made), rows)])
    return made


def model(made) -> None:
    raw = {name: value for name, value in MODELS["135m"].items() if name != "model_type"}
    ends = {"bos_token_id": made.bos_token_id, "eos_token_id": made.eos_token_id, "pad_token_id": made.pad_token_id}
    torch.manual_seed(0)
    random = transformers.LlamaForCausalLM(transformers.LlamaConfig(**raw, **ends, initializer_range=0.05))
    with torch.no_grad():
        for name, tensor in random.named_parameters():
            if "norm" in name:
                tensor.copy_(1 + 0.2 * torch.randn_like(tensor))
    random.save_pretrained(WORK / "hf")
    tokenizer.save(made, WORK / "hf")


def packed(made) -> None:
    begin, examples = prefix_ids(made), []
    longest = min(length for _, length in (SIZES.short, SIZES.long, SIZES.followed))
    for one in arithmetic.load("train")[: 200 if DRY else 3000]:
        prompt = made(f"Question: {one.question}\nAnswer:", add_special_tokens=False).input_ids
        answer = made(f" {one.rationale}", add_special_tokens=False).input_ids
        ids = [*begin, *prompt, *answer, made.eos_token_id]
        weights = np.arange(len(ids)) >= len(begin) + len(prompt)
        if len(ids) <= longest:
            examples.append(Encoded(np.array(ids, np.int32), weights.astype(np.uint8)))
    (WORK / "data").mkdir()
    dataset.write_records(examples, WORK / "data")
    tokenizer.save(made, WORK / "data" / "tokenizer")
    for name in ("short", "long", "followed"):
        rows, length = getattr(SIZES, name)
        stream = iter(batches.batches(DataConfig(str(WORK / "data"), rows, length)))
        taken = [next(stream) for _ in range(STEPS)]
        np.savez(WORK / f"{name}.npz", **{key: np.stack([one[key] for one in taken]) for key in taken[0]})
    asked = [f"Question: {one.question}\nAnswer:" for one in arithmetic.load("train")[4000:]]
    # Of one padded length, the commonest, so that few programs are compiled for them.
    padded = [bucket(len(made(text).input_ids)) for text in asked]
    common, _ = collections.Counter(padded).most_common(1)[0]
    asked = [text for text, length in zip(asked, padded) if length == common][: SIZES.questions]
    (WORK / "prompts.json").write_text(json.dumps(asked))


def convert(*flags: str) -> None:
    subprocess.run([sys.executable, "-m", "lema_jax.convert", *flags], check=True)


def main() -> None:
    with case("make", "model and data") as found:
        found["weights"] = "SmolLM2-135M-Instruct" if GGUF.exists() else "random"
        if GGUF.exists():
            convert(f"--gguf={GGUF}", f"--out={WORK / 'model'}")
            convert(f"--checkpoint={WORK / 'model'}", "--to=hf", f"--out={WORK / 'hf'}", "--dtype=float32")
        made = words()
        if not GGUF.exists():
            model(made)
            convert(f"--hf_dir={WORK / 'hf'}", f"--out={WORK / 'model'}")
        packed(made)


if __name__ == "__main__":
    main()
