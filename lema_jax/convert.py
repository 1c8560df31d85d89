"""Weights from one format to another: reads a model, writes a folder of the form that --to names.

    python -m lema_jax.convert --gguf=SmolLM2-135M-Instruct.Q4_1.gguf --out=models/smollm2
    python -m lema_jax.convert --hf_dir=Llama-2-7b-hf --out=models/llama2-7b --dtype=bfloat16
    python -m lema_jax.convert --checkpoint=runs/lema --to=hf --out=export --dtype=bfloat16
    python -m lema_jax.convert --checkpoint=models/llama2-7b --peft_dir=adapter --to=adapter --out=models/adapted

Reads a GGUF file, a Hugging Face folder with safetensors, or a model folder of this program's; with --peft_dir, an
adapter of PEFT's upon it. Writes, beside and then renamed:
    model    a model folder for `train`, `sample` and `evaluate`, adapters merged into its weights
    adapter  a model folder of the adapters alone, upon the model folder that --checkpoint names
    hf       a Hugging Face folder for transformers and vLLM, adapters merged
    peft     an adapter folder for PEFT
The same command run again finds its work done. For a GGUF, write `hf` and run llama.cpp's convert_hf_to_gguf.py on it.

From a GGUF or a Hugging Face folder several processes may make a model folder together (--coordinator, --processes and
--process, as for `train`): each reads and holds its part of the weights alone. All must see the folder of --out.
"""

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from absl import flags

from lema_jax import checkpoint, cli, storage
from lema_jax.checkpoint import Card
from lema_jax.data import tokenizer as tokenizers
from lema_jax.errors import UserError
from lema_jax.model.llama import Llama
from lema_jax.parallel import job, mesh, sharding
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.weights import formats, hf_folder, names, peft, record
from lema_jax.weights.formats import Opened
from lema_jax.weights.merge import Dequantised, Merged
from lema_jax.weights.names import Source
from lema_jax.weights.record import Record

_GGUF = flags.DEFINE_string("gguf", None, "A GGUF file of architecture llama.")
_HF_DIR = flags.DEFINE_string("hf_dir", None, "A Hugging Face folder: config.json, safetensors, tokenizer.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A model folder of convert or train.")
_STEP = flags.DEFINE_integer("step", None, "The checkpoint's step; the last when left out.", 0)
_PEFT_DIR = flags.DEFINE_string("peft_dir", None, "An adapter of PEFT's for the model that is read.")
_TO = flags.DEFINE_enum("to", "model", ["model", "adapter", "hf", "peft"], "What to write; see above.")
_OUT = flags.DEFINE_string("out", None, "The folder to write.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype", "stored", ["stored", "float32", "bfloat16", "float16"], "Of whole weights; stored: the type they have."
)
_MERGE_INTO = flags.DEFINE_enum(
    "merge_into",
    "base",
    ["base", "nf4"],
    "What adapters are merged into: the base weights, as the paper's authors do for QLoRA too (and as was measured to "
    "be the better; see README), or the values that nf4 holds of them, to get exactly what was trained.",
)
_SHARD_GIB = flags.DEFINE_float("shard_gib", 5.0, "Largest weights file of a Hugging Face folder.", 1e-6, 1e6)
_PEFT_BASE = flags.DEFINE_string("peft_base", None, "The base model's name that a PEFT folder is to carry.")

_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_VOCAB_MULTIPLE = 128  # rows are padded to it, so that a mesh can cut any vocabulary


def _first() -> bool:
    """Whether this process is the first of its job."""
    jax.config.update("jax_platforms", "cpu")  # weights pass through the host alone; its chips may be at work
    return flags.FLAGS.processes is None or job.join(heeds_notice=False)


def main(argv: Sequence[str]) -> None:
    """Converts, unless the very thing lies there already."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; name what to convert by --gguf, --hf_dir or --checkpoint")
    if jax.process_count() > 1 and (_TO.value != "model" or _CHECKPOINT.value is not None):
        raise UserError("several processes can only make a model folder (--to=model) of --gguf or --hf_dir")
    opened = _open()
    if _TO.value in ("adapter", "peft") and opened.adapters is None:
        raise UserError(f"--to={_TO.value} writes adapters, but {opened.source.where} has none; --peft_dir adds some")
    if _MERGE_INTO.present and (opened.adapters is None or _TO.value not in ("model", "hf")):
        raise UserError(f"--merge_into={_MERGE_INTO.value} has nothing to merge; it is for adapters, --to=model or hf")
    shaping: dict[str, Any] = {"dtype": _DTYPE.value, "to": _TO.value, "merge_into": _MERGE_INTO.value}
    for flag, form in ((_SHARD_GIB, "hf"), (_PEFT_BASE, "peft")):  # which shape these folders alone
        if flag.present and _TO.value == form:
            shaping[flag.name] = flag.value
    lineage = checkpoint.lineage(source=opened.fingerprint, **shaping)
    out = storage.on_disk(_OUT.value)
    if out.exists():
        if _lineage(out) != lineage:
            raise UserError(f"{out} exists already, made from something else; remove it or choose another --out")
        _say(f"{out} is there already, made from the same weights; nothing to do")
        return
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / "tokenizer"
        opened.save_tokenizer(tokenizer)
        tokens, rows = len(tokenizers.load(tokenizer)), opened.config.vocab_size
        if tokens > rows:
            raise UserError(
                f"{opened.source.where}: a tokenizer of {tokens} tokens, but only {rows} rows for them; take out the "
                "tokens that were added to it, or add rows with transformers' resize_token_embeddings"
            )
        writers = {"model": _write_model, "adapter": _write_adapter, "hf": _write_hf, "peft": _write_peft}
        writers[_TO.value](out, opened, tokenizer, lineage)
    _say(f"{out}: {_TO.value} of {_told(opened)}")


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text)


def _told(opened: Opened) -> str:
    count = sum(math.prod(opened.source.shape(name)) for name in opened.source.names())
    told = f"{opened.source.where}, {count:,} parameters"
    if opened.adapters is None:
        return told
    tree, lora = opened.adapters
    shape = f"rank {lora.rank}, alpha {lora.alpha:g} in {opened.config.num_layers} layers"
    return f"{told}, with adapters of {shape} on {', '.join(peft.adapted(tree))}"


def _open() -> Opened:
    opened = _open_model()
    if _PEFT_DIR.value is None:
        return opened
    if opened.adapters is not None:
        raise UserError(f"{opened.source.where} holds adapters already; merge them first (--to=model)")
    return formats.with_peft(opened, _PEFT_DIR.value)


def _open_model() -> Opened:
    if [_GGUF.value, _HF_DIR.value, _CHECKPOINT.value].count(None) == 2:
        if _GGUF.value is not None:
            return formats.open_gguf(_GGUF.value)
        if _HF_DIR.value is not None:
            return formats.open_hf(_HF_DIR.value)
        if _CHECKPOINT.value is not None:
            return _open_checkpoint(_CHECKPOINT.value)
    raise UserError("name one thing to convert: --gguf=FILE, --hf_dir=FOLDER or --checkpoint=FOLDER")


def _open_checkpoint(folder: str) -> Opened:
    step = checkpoint.latest_step(folder) if _STEP.value is None else _STEP.value
    card, variables = checkpoint.stored_weights(folder, step)
    return Opened(
        names.Tree(variables["params"], names.table(card.config), folder),
        card.config,
        lambda out: hf_folder.copy_tokenizer(storage.here(f"{folder}/tokenizer"), out),
        checkpoint.identity(folder, step),
        card.eos_ids,
        None if card.lora is None else (variables["lora"], card.lora),
        card.base_lineage or checkpoint.identity(folder, step),
    )


def _lineage(out: Path) -> str | None:
    """What an existing output was made from, as it says itself."""
    if (out / "model.json").exists():
        return checkpoint.read_card(out).lineage
    made = record.read(out)
    return made.lineage if made else None


def _merged(opened: Opened) -> Source:
    if opened.adapters is None:
        return opened.source
    base = Dequantised(opened.source) if _MERGE_INTO.value == "nf4" else opened.source
    return Merged(base, *opened.adapters)


def _write_model(out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    padding = -opened.config.vocab_size % _VOCAB_MULTIPLE
    config = dataclasses.replace(opened.config, vocab_padding=padding)
    abstract = checkpoint.abstract_variables(Llama(config), mesh.make_mesh(MeshConfig()))
    shardings = sharding.of(abstract["params"])
    params = names.load_model(_merged(opened), config, _DTYPES.get(_DTYPE.value), shardings)
    checkpoint.save_model(out, Card(config, lineage, eos_ids=opened.eos_ids), params, tokenizer)


def _write_adapter(out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    base = _CHECKPOINT.value
    if base is None or opened.adapters is None or _PEFT_DIR.value is None:
        raise UserError("--to=adapter puts --peft_dir upon a model folder; name both --checkpoint and --peft_dir")
    if _STEP.value not in (None, checkpoint.latest_step(base)):
        raise UserError(
            f"adapters stand upon the last step of {base}, {checkpoint.latest_step(base)}; leave --step out"
        )
    adapters, lora = opened.adapters
    path = storage.relative(base, out)
    card = Card(opened.config, lineage, lora, path, checkpoint.identity(base), opened.eos_ids)
    checkpoint.save_model(out, card, adapters, tokenizer)


def _write_hf(out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    names.check_model(opened.source, opened.config)
    with _beside(out, opened, lineage) as folder:
        shard_bytes = int(_SHARD_GIB.value * (1 << 30))
        dtype = _DTYPES.get(_DTYPE.value)
        hf_folder.write(folder, opened.config, _merged(opened), tokenizer, opened.eos_ids, dtype, shard_bytes)


def _write_peft(out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    assert opened.adapters is not None  # main has seen to it
    with _beside(out, opened, lineage) as folder:
        peft.save(folder, *opened.adapters, opened.config, _PEFT_BASE.value)
        hf_folder.copy_tokenizer(tokenizer, folder)


@contextlib.contextmanager
def _beside(out: Path, opened: Opened, lineage: str) -> Iterator[Path]:
    """A fresh folder that becomes `out` when all went well."""
    with storage.new_folder(out) as folder:
        yield folder
        merged = opened.adapters is not None and _TO.value == "hf"
        record.write(folder, Record(lineage, opened.source.where, "" if merged else opened.base))


if __name__ == "__main__":
    cli.run(main, out=lambda: _OUT.value, first=_first)
