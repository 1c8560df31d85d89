"""Each refusal of `lema_jax/weights/README.md` reads as its table says."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_files import write
from memory import tensors
from safetensors.numpy import save_file

from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import hf_config, peft, safetensors, vocabulary
from lema_jax.weights.gguf import Gguf

README = Path(hf_config.__file__).with_name("README.md")
SMALL = LlamaConfig(32, 64, 96, 2, 4, 2, 8, 128)
SIZES = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def config(**keys: object) -> Callable[[Path], object]:
    return lambda folder: hf_config.parse({**SIZES, **keys}, f"{folder}/config.json")


def gguf(architecture: str = "llama", tokenizer: dict[str, object] | None = None, **keys: object) -> Callable:
    more = {f"{architecture}.{key}": value for key, value in keys.items()}
    more |= {f"tokenizer.ggml.{key}": value for key, value in (tokenizer or {}).items()}
    weights = tensors(SMALL) if architecture == "llama" else {}
    return lambda folder: vocabulary.from_gguf(
        Gguf(write(folder / "m.gguf", SMALL, weights, architecture=architecture, more=more))
    )


def adapter(module: str = "model.layers.0.self_attn.q_proj", **keys: object) -> Callable[[Path], object]:
    def read(folder: Path) -> None:
        described = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [module.rpartition(".")[2]]}
        (folder / peft.CONFIG).write_text(json.dumps(described | keys))
        factors = {f"base_model.model.{module}.lora_{side}.weight": np.ones((2, 2), np.float32) for side in "AB"}
        save_file(factors, folder / peft.SAFETENSORS)
        peft.load_adapter(folder, SMALL)

    return read


def bin_folder(folder: Path) -> None:
    (folder / "pytorch_model.bin").touch()
    safetensors.open_folder(folder)


REFUSED = {
    "another family": config(model_type="phi3", architectures=["Phi3ForCausalLM"]),
    "a mixture of experts": config(model_type="qwen3_moe", num_experts=128),
    "vision or audio": config(model_type="gemma3", vision_config={}),
    "no language model": config(model_type="qwen2", architectures=["Qwen2ForTokenClassification"]),
    "a key that the family does not read": config(model_type="mistral", attention_bias=True),
    "a rope type": config(model_type="llama", rope_scaling={"rope_type": "longrope", "factor": 4.0}),
    "quantised weights": config(model_type="llama", quantization_config={"quant_method": "gptq"}),
    "`.bin` weights of a model": bin_folder,
    "another GGUF architecture": gguf("gemma2"),
    "a mixture of experts as GGUF": gguf("llama", expert_count=8),
    "a GGUF key": gguf("llama", **{"attention.sliding_window": 4096}),
    "a GGUF pre-tokenizer": gguf("llama", {"model": "gpt2", "tokens": ["a"], "merges": ["a a"], "pre": "tekken"}),
    "a kind of adapter": adapter(peft_type="LOHA"),
    "DoRA, and other settings": adapter(use_dora=True),
    "adapters of embedding or head": adapter("lm_head"),
    "an export that its family has not": lambda folder: hf_config.to_hf(LlamaConfig(qk_norm="head"), "float32", {}),
}


def sentences() -> dict[str, str]:
    """The table of refusals; "…" stands for any text."""
    table = README.read_text().partition("\n## What is refused\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", table, re.MULTILINE))


def test_the_table_and_the_cases_are_the_same():
    assert sentences().keys() == REFUSED.keys()


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_refused_in_the_sentence_of_the_table(what, tmp_path):
    with pytest.raises(UserError) as error:
        REFUSED[what](tmp_path)
    said = str(error.value)
    assert re.fullmatch(".*".join(map(re.escape, sentences()[what].split("…"))), said), said
