"""Weights from one format to another: reads a model, writes a folder of the form that --to names.

    python -m lema_jax.convert --gguf=SmolLM2-135M-Instruct.Q4_1.gguf --out=models/smollm2
    python -m lema_jax.convert --hf_dir=Llama-2-7b-hf --out=models/llama2-7b --dtype=bfloat16
    python -m lema_jax.convert --checkpoint=runs/lema --to=hf --out=export

Reads a GGUF file, a Hugging Face folder with safetensors, or a model folder of this program's, its adapters merged.
Writes, beside and then renamed, a model folder for `train`, `sample` and `evaluate`, tokenizer and config within; or a
Hugging Face folder for transformers and vLLM. The same command run again finds its work done.
"""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from absl import flags

from lema_jax import checkpoint, errors
from lema_jax.checkpoint import Card
from lema_jax.data import tokenizer as tokenizers
from lema_jax.errors import UserError
from lema_jax.model.config import Compute
from lema_jax.parallel import mesh
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.weights import formats, hf_folder, names
from lema_jax.weights.formats import Opened
from lema_jax.weights.merge import Merged
from lema_jax.weights.names import Source

_GGUF = flags.DEFINE_string("gguf", None, "A GGUF file of architecture llama.")
_HF_DIR = flags.DEFINE_string("hf_dir", None, "A Hugging Face folder: config.json, safetensors, tokenizer.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A model folder of convert or train.")
_STEP = flags.DEFINE_integer("step", None, "The checkpoint's step; the last when left out.")
_TO = flags.DEFINE_enum("to", "model", ["model", "hf"], "model: a model folder of this program's; hf: Hugging Face's.")
_OUT = flags.DEFINE_string("out", None, "The folder to write.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype", "stored", ["stored", "float32", "bfloat16", "float16"], "Of the weights; stored: the type they have."
)
_SHARD_GIB = flags.DEFINE_float("shard_gib", 5.0, "Largest weights file of a Hugging Face folder.", lower_bound=1e-6)

_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_RECORD = "conversion.json"  # in a Hugging Face folder: what it was made from


def main(argv: Sequence[str]) -> None:
    """Converts, unless the very thing lies there already."""
    del argv
    opened = _open()
    lineage = checkpoint.lineage(source=opened.fingerprint, dtype=_DTYPE.value, to=_TO.value)
    out = Path(_OUT.value)
    if out.exists():
        if _lineage(out) != lineage:
            raise UserError(f"{out} exists already, made from something else; remove it or choose another --out")
        print(f"{out} is there already, made from the same weights; nothing to do")
        return
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / "tokenizer"
        opened.save_tokenizer(tokenizer)
        size = len(tokenizers.load(tokenizer))
        if size > opened.config.vocab_size:
            raise UserError(
                f"the tokenizer has {size} tokens, but the model only {opened.config.vocab_size} rows for them"
            )
        {"model": _write_model, "hf": _write_hf}[_TO.value](out, opened, tokenizer, lineage)
    print(f"{out}: {_TO.value} of {opened.source.where}, {_count(opened.source):,} parameters")


def _open() -> Opened:
    given = {
        name: flag for name, flag in {"gguf": _GGUF, "hf_dir": _HF_DIR, "checkpoint": _CHECKPOINT}.items() if flag.value
    }
    if len(given) != 1:
        raise UserError("name one thing to convert: --gguf=FILE, --hf_dir=FOLDER or --checkpoint=FOLDER")
    if _GGUF.value:
        return formats.open_gguf(_GGUF.value)
    if _HF_DIR.value:
        return formats.open_hf(_HF_DIR.value)
    return _open_checkpoint(_CHECKPOINT.value)


def _open_checkpoint(folder: str | Path) -> Opened:
    """A model folder of ours, its adapters (where it holds any) merged into their base."""
    step = checkpoint.latest_step(folder) if _STEP.value is None else _STEP.value
    card, variables = checkpoint.load_weights(folder, mesh.make_mesh(MeshConfig()), Compute(), step)
    source: Source = names.Tree(variables["params"], names.table(card.config), str(folder))
    if card.lora is not None:
        source = Merged(source, variables["lora"], card.lora)
    return Opened(
        source,
        card.config,
        lambda out: hf_folder.copy_tokenizer(Path(folder) / "tokenizer", out),
        checkpoint.identity(folder, step),
    )


def _lineage(out: Path) -> str | None:
    """What an existing output was made from, as it says itself."""
    if (out / "model.json").exists():
        return checkpoint.read_card(out).lineage
    if (out / _RECORD).exists():
        return json.loads((out / _RECORD).read_text())["lineage"]
    return None


def _write_model(out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    params = names.load_model(opened.source, opened.config, _DTYPES.get(_DTYPE.value))
    checkpoint.save_model(out, Card(opened.config, lineage), params, tokenizer)


def _write_hf(out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    names.check_model(opened.source, opened.config)
    with _beside(out) as folder:
        hf_folder.write(
            folder,
            opened.config,
            opened.source,
            tokenizer,
            _DTYPES.get(_DTYPE.value),
            int(_SHARD_GIB.value * (1 << 30)),
        )
        (folder / _RECORD).write_text(json.dumps({"lineage": lineage, "from": opened.source.where}) + "\n")


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A fresh folder that becomes `out` when all went well."""
    folder = out.with_name(out.name + ".tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    os.replace(folder, out)


def _count(source: Source) -> int:
    return sum(math.prod(source.shape(name)) for name in source.names())


if __name__ == "__main__":
    errors.run(main)
