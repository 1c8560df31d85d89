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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from lema_jax import checkpoint, cli, stage, storage
from lema_jax.checkpoint import Metadata
from lema_jax.data import tokenizer as tokenizers
from lema_jax.data.encode import adds_bos
from lema_jax.errors import UserError
from lema_jax.metadata import check_tokenizer
from lema_jax.model.llama import Llama
from lema_jax.parallel import job, mesh, sharding
from lema_jax.parallel.job import Job
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.stage import group, option
from lema_jax.storage import RunFolder
from lema_jax.weights import formats, hf_folder, names, peft, record
from lema_jax.weights.formats import Opened
from lema_jax.weights.merge import Dequantised, Merged
from lema_jax.weights.names import Source
from lema_jax.weights.record import Record

_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
_OF_A_FORM = {"shard_gib": "hf", "peft_base": "peft"}  # options that shape one form of output alone
_VOCAB_MULTIPLE = 128  # rows are padded to it, so that a mesh can cut any vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(stage.Config):
    """What `run` reads, and what it writes."""

    gguf: str | None = option(None, "GGUF file of architecture llama, qwen2, qwen3 or gemma3.")
    hf_dir: str | None = option(None, "Hugging Face folder: config.json, safetensors, tokenizer.")
    checkpoint: str | None = option(None, "Model folder of convert or train.")
    step: int | None = option(None, "Step of the checkpoint; the last by default.", low=0)
    peft_dir: str | None = option(None, "Folder of a PEFT adapter for the model that is read.")
    to: str = option(
        "model",
        "What to write: a model folder, adapters merged; the adapters alone; a Hugging Face folder; or a PEFT folder.",
        choices=("model", "adapter", "hf", "peft"),
    )
    out: Path | str = option(help="Folder to write.")
    dtype: str = option(
        "stored",
        "Type of dense weights; stored: the type they have.",
        choices=("stored", "float32", "bfloat16", "float16"),
    )
    merge_into: str = option(
        "base",
        "What adapters are merged into: the base weights, as the paper's authors do for QLoRA too (measured as the"
        " better), or the dequantised nf4 values, to get exactly what was trained.",
        choices=("base", "nf4"),
    )
    shard_gib: float = option(5.0, "Largest weights file of a Hugging Face folder, in GiB.", low=1e-6, high=1e6)
    peft_base: str | None = option(None, "Name of the base model that a PEFT folder is to carry.")
    job: Job = group(Job)

    def problems(self) -> list[str]:
        found = []
        if [self.gguf, self.hf_dir, self.checkpoint].count(None) != 2:
            found.append("name one thing to convert: --gguf=FILE, --hf_dir=FOLDER or --checkpoint=FOLDER")
        if self.to == "adapter" and (self.checkpoint is None or self.peft_dir is None):
            found.append("--to=adapter puts --peft_dir upon a model folder; name both --checkpoint and --peft_dir")
        changed = stage.changed(self)
        if "step" in changed and self.checkpoint is None:
            found.append("--step is of a --checkpoint; leave it out")
        for name, form in _OF_A_FORM.items():
            if name in changed and self.to != form:
                found.append(f"--{name} is for --to={form}, not for --to={self.to}; leave it out")
        return found

    def join(self) -> bool:
        return self.job == Job() or job.join(self.job, preemptible=False)


@dataclasses.dataclass(frozen=True)
class Result:
    """The folder. `new`: it was made now; else it was there, made from the same weights."""

    out: Path
    new: bool


@stage.function
def run(config: Config) -> Result:
    """Converts, unless the folder is there already, made from the same weights.

    Raises:
      UserError: something that cannot be read or is no such model, or an `out` that holds something else.
    """
    if jax.process_count() > 1 and (config.to != "model" or config.checkpoint is not None):
        raise UserError("several processes can only make a model folder (--to=model) of --gguf or --hf_dir")
    opened = _open(config)
    out, lineage = storage.on_disk(config.out), _checked_lineage(config, opened)
    if RunFolder(out).is_made(lambda: "" if _lineage(out) == lineage else "it was made from something else"):
        if (out / "model.json").exists():  # what is damaged or missing is said, not taken for made
            check_tokenizer(out, checkpoint.read_metadata(out))
            checkpoint.latest_step(out)
        _say(f"{out} is there already, made from the same weights; nothing to do")
        return Result(out, new=False)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch) / "tokenizer"
        opened.save_tokenizer(tokenizer)
        _check_tokenizer(opened, tokenizer)
        if config.peft_dir is not None:
            _compare_tokenizers(Path(config.peft_dir), tokenizer)
        writers = {"model": _write_model, "adapter": _write_adapter, "hf": _write_hf, "peft": _write_peft}
        writers[config.to](config, out, opened, tokenizer, lineage)
    _say(f"{out}: {config.to} of {_described(opened)}")
    if opened.config.context != opened.config.max_positions:
        scaling, trained = opened.config.rope_scaling, opened.config.max_positions
        _say(
            f"texts of up to {opened.config.context:,} tokens: {trained:,} of max_position_embeddings, stretched by "
            f"rope_type {scaling.kind} with factor {scaling.factor:g}"
        )
    return Result(out, new=True)


def _checked_lineage(config: Config, opened: Opened) -> str:
    """What the output is made from and how, as its metadata says it; refuses what cannot be written."""
    to = config.to
    if to in ("adapter", "peft") and opened.adapters is None:
        raise UserError(f"--to={to} writes adapters, but {opened.source.where} has none; --peft_dir adds some")
    if to in ("adapter", "peft") and opened.replaced:
        raise UserError(
            f"--to={to} writes low-rank adapters alone, but {config.peft_dir} replaces whole weights "
            f"({', '.join(opened.replaced)}); merge it with --to=model or --to=hf"
        )
    changed = stage.changed(config)
    if "merge_into" in changed and (opened.adapters is None or to not in ("model", "hf")):
        raise UserError(f"--merge_into={config.merge_into} has nothing to merge; it is for adapters, --to=model or hf")
    shaping: dict[str, Any] = {"dtype": config.dtype, "to": to, "merge_into": config.merge_into}
    shaping |= {name: getattr(config, name) for name in _OF_A_FORM if name in changed}
    return checkpoint.lineage(source=opened.fingerprint, **shaping)


def _check_tokenizer(opened: Opened, folder: Path) -> None:
    """That the saved tokenizer can be read, and has a row of the embedding for each of its tokens."""
    read = tokenizers.load(folder)
    if opened.bos_rule:
        begin = read.bos_token if adds_bos(read) else "no BOS"
        _say(f"tokenizer: a text begins with {begin}, {opened.bos_rule}")
    tokens, rows = len(read), opened.config.vocab_size
    if tokens > rows:
        raise UserError(
            f"{opened.source.where}: a tokenizer of {tokens} tokens, but only {rows} rows for them; take out the "
            "tokens that were added to it, or add rows with transformers' resize_token_embeddings"
        )


def _compare_tokenizers(adapter: Path, written: Path) -> None:
    """Says where an adapter brings a tokenizer of its own, which is not the one that is written."""
    if not (adapter / "tokenizer.json").exists():
        return
    try:
        own, base = tokenizers.load(adapter), tokenizers.load(written)
    except UserError as error:
        _say(f"warning: the adapter's own tokenizer is left out for the base's: {error}")
        return
    of = lambda one: (tokenizers.fingerprint(one), one.chat_template)
    if of(own) != of(base):
        _say(
            f"warning: {adapter} has a tokenizer of its own (end of text {own.eos_token!r}, "
            f"{'a' if own.chat_template else 'no'} chat template), which is left out for the base's "
            f"({base.eos_token!r}, {'a' if base.chat_template else 'no'} chat template)"
        )


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text)


def _described(opened: Opened) -> str:
    count = sum(math.prod(opened.source.shape(name)) for name in opened.source.names())
    model = f"{opened.source.where}, {count:,} parameters"
    if opened.adapters is None:
        return model
    tree, lora = opened.adapters
    shape = f"rank {lora.rank}, alpha {lora.alpha:g} in {opened.config.num_layers} layers"
    whole = f", and {', '.join(opened.replaced)} replaced whole" if opened.replaced else ""
    return f"{model}, with adapters of {shape} on {', '.join(peft.adapted(tree))}{whole}"


def _open(config: Config) -> Opened:
    opened = _open_model(config)
    if config.peft_dir is None:
        return opened
    if opened.adapters is not None:
        raise UserError(f"{opened.source.where} holds adapters already; merge them first (--to=model)")
    opened = formats.with_peft(opened, config.peft_dir)
    assert opened.adapters is not None
    if why := peft.idle(*opened.adapters):
        _say(f"warning: the adapter of {config.peft_dir} changes nothing: {why}; was it trained, and saved afterwards?")
    return opened


def _open_model(config: Config) -> Opened:
    if config.gguf is not None:
        return formats.open_gguf(config.gguf)
    if config.hf_dir is not None:
        return formats.open_hf(config.hf_dir)
    assert config.checkpoint is not None  # one of the three is given
    return _open_checkpoint(config.checkpoint, config.step)


def _open_checkpoint(folder: str, step: int | None) -> Opened:
    step = checkpoint.latest_step(folder) if step is None else step
    metadata, variables = checkpoint.stored_weights(folder, step)
    return Opened(
        names.Tree(variables["params"], names.table(metadata.config), folder),
        metadata.config,
        lambda out: hf_folder.copy_tokenizer(storage.here(f"{folder}/tokenizer"), out),
        checkpoint.identity(folder, step),
        metadata.eos_ids,
        None if metadata.lora is None else (variables["lora"], metadata.lora),
        metadata.base_lineage or checkpoint.identity(folder, step),
        prompt_style=metadata.prompt_style,
    )


def _lineage(out: Path) -> str | None:
    """What an existing output was made from, as it says itself."""
    if (out / "model.json").exists():
        return checkpoint.read_metadata(out).lineage
    made = record.read(out)
    return made.lineage if made else None


def _merged(config: Config, opened: Opened) -> Source:
    if opened.adapters is None:
        return opened.source
    base = Dequantised(opened.source) if config.merge_into == "nf4" else opened.source
    return Merged(base, *opened.adapters)


def _write_model(config: Config, out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    padding = -opened.config.vocab_size % _VOCAB_MULTIPLE
    llama = dataclasses.replace(opened.config, vocab_padding=padding)
    abstract = checkpoint.abstract_variables(Llama(llama), mesh.make_mesh(MeshConfig()))
    shardings = sharding.of(abstract["params"])
    params = names.load_model(_merged(config, opened), llama, _DTYPES.get(config.dtype), shardings)
    metadata = Metadata(llama, lineage, eos_ids=opened.eos_ids, prompt_style=opened.prompt_style)
    checkpoint.save_model(out, metadata, params, tokenizer)


def _write_adapter(config: Config, out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    base = config.checkpoint
    assert base is not None  # Config.problems has checked both
    assert opened.adapters is not None
    if config.step not in (None, checkpoint.latest_step(base)):
        raise UserError(
            f"adapters stand upon the last step of {base}, {checkpoint.latest_step(base)}; leave --step out"
        )
    adapters, lora = opened.adapters
    path = RunFolder(base).relative_to(out)
    metadata = Metadata(
        opened.config,
        lineage,
        lora,
        path,
        checkpoint.identity(base),
        eos_ids=opened.eos_ids,
        prompt_style=opened.prompt_style,
    )
    checkpoint.save_model(out, metadata, adapters, tokenizer)


def _write_hf(config: Config, out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    names.check_model(opened.source, opened.config)
    base = opened.base if opened.adapters is None else ""  # merged weights are a model of their own
    with _recorded(out, Record(lineage, opened.source.where, base)) as folder:
        shard_bytes, dtype = int(config.shard_gib * (1 << 30)), _DTYPES.get(config.dtype)
        merged = _merged(config, opened)
        hf_folder.write(folder, opened.config, merged, tokenizer, opened.eos_ids, dtype, shard_bytes)


def _write_peft(config: Config, out: Path, opened: Opened, tokenizer: Path, lineage: str) -> None:
    assert opened.adapters is not None  # _checked_lineage has refused it
    with _recorded(out, Record(lineage, opened.source.where, opened.base)) as folder:
        peft.save(folder, *opened.adapters, opened.config, config.peft_base)
        hf_folder.copy_tokenizer(tokenizer, folder)


@contextlib.contextmanager
def _recorded(out: Path, made: Record) -> Iterator[Path]:
    """A fresh folder that becomes `out`, with its record, when all went well."""
    with RunFolder(out).fresh() as folder:
        yield folder
        record.write(folder, made)


def _on_the_host(config: Config) -> None:
    jax.config.update("jax_platforms", "cpu")  # weights pass through the host alone; its chips may be at work


command = cli.Command("convert", __doc__, Config, run, prepare=_on_the_host)
if __name__ == "__main__":
    command.main()
