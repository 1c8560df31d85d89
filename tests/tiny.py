"""A tiny LLaMA and a tiny data set, for tests of every room that needs one."""

import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lema_jax import checkpoint
from lema_jax.checkpoint import Metadata
from lema_jax.data import dataset, tokenizer
from lema_jax.data.encode import Encoded
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.model.llama import Llama

CONFIG = LlamaConfig(
    vocab_size=704,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_positions=256,
)
# Its kernels are whole tiles of nf4, also when cut in two.
TILED = LlamaConfig(704, 128, 256, 2, 8, 8, 16, 256)
LORA = LoraConfig(rank=4, alpha=8.0, dropout=0.0)


def variables(config: LlamaConfig = CONFIG, lora: LoraConfig | None = None, seed: int = 0) -> dict:
    """Random variables, stacked; adapters are random too, so that they change the result."""
    # Arrays of the caller's own, for a training step takes those that it is given.
    return jax.tree.map(jnp.array, _variables(config, lora, seed))


@functools.cache
def _variables(config: LlamaConfig, lora: LoraConfig | None, seed: int) -> dict:
    tree = jax.device_get(nn.unbox(_init(Llama(config, Compute(), lora), jax.random.key(seed))))
    random = np.random.default_rng(seed)
    noise = lambda x: 0.3 * random.normal(size=x.shape).astype(x.dtype)
    return tree | ({"lora": jax.tree.map(noise, tree["lora"])} if lora else {})


@functools.partial(jax.jit, static_argnums=0)
def _init(model: Llama, key: jax.Array) -> dict:
    return model.init(key, jnp.zeros((1, 1), jnp.int32))


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(model: Llama, *args, method: str = "__call__", **kwargs):
    """`model.apply`, compiled: op by op it is slow on a CPU with eight devices."""
    return model.apply(*args, method=method, **kwargs)


def tokens(rows: int, length: int, seed: int = 0, vocab: int = CONFIG.vocab_size) -> np.ndarray:
    """Random ids, [rows, length] int32."""
    return np.random.default_rng(seed).integers(0, vocab, (rows, length), dtype=np.int32)


def data_set(folder: Path, examples: int = 40, longest: int = 24) -> Path:
    """A data set of random examples with a small tokenizer."""
    random = np.random.default_rng(0)
    folder.mkdir()
    tokenizer.save(tokenizer.train_bpe(["one two three four"], 704), folder / "tokenizer")
    made = []
    for _ in range(examples):
        length = int(random.integers(6, longest + 1))
        weights = (np.arange(length) >= random.integers(1, length - 1)).astype(np.uint8)
        made.append(Encoded(random.integers(3, 500, length, dtype=np.int32), weights))
    dataset.write_records(made, folder)
    return folder


def pair_set(folder: Path, pairs: int = 24, longest: int = 14) -> Path:
    """A data set of random pairs, with a prompt and a prefix in common, and a small tokenizer."""
    random = np.random.default_rng(0)
    folder.mkdir()
    tokenizer.save(tokenizer.train_bpe(["one two three four"], 704), folder / "tokenizer")
    made = []
    for _ in range(pairs):
        shared = random.integers(3, 500, random.integers(2, 5), dtype=np.int32)
        both = [
            np.concatenate([shared, random.integers(3, 500, random.integers(2, longest - 4), dtype=np.int32)])
            for _ in range(2)
        ]
        weights = np.concatenate([np.arange(len(one)) >= len(shared) for one in both]).astype(np.uint8)
        made.append(Encoded(np.concatenate(both), weights, chosen=len(both[0])))
    dataset.write_records(made, folder)
    return folder


def model_folder(folder: Path, data: Path, seed: int = 0) -> Path:
    """A model folder with random weights and the tokenizer of a data set."""
    metadata = Metadata(CONFIG, lineage=checkpoint.lineage(tiny=seed))
    checkpoint.save_model(folder, metadata, variables(seed=seed)["params"], data / "tokenizer")
    return folder
