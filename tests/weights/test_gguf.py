"""Reading GGUF: every type of tensors, architectures, the permutation reversed, other files refused."""

import dataclasses

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Quantization
from gguf_files import write
from memory import tensors

from lema_jax.errors import UserError
from lema_jax.model import rope
from lema_jax.model.config import Compute, LlamaConfig, RopeScaling
from lema_jax.model.llama import Llama
from lema_jax.weights import names
from lema_jax.weights.gguf import Gguf

SMALL = LlamaConfig(32, 64, 96, 2, 4, 2, 8, 128, 5e4)
UP_PROJ = "model.layers.0.mlp.up_proj.weight"


def loaded(file: Gguf) -> dict[str, np.ndarray]:
    tree = names.Tree(names.load_model(file, file.config), names.table(file.config), "loaded")
    return {name: names.read_whole(tree, name) for name in tree.names()}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_float32_comes_back_exactly_with_its_config(tmp_path, tied, biases):
    config = dataclasses.replace(SMALL, tie_embeddings=tied, attention_bias=biases, mlp_bias=biases)
    weights = tensors(config)
    file = Gguf(write(tmp_path / "m.gguf", config, weights))
    assert file.config == config
    found = loaded(file)
    assert found.keys() == weights.keys()
    for name in weights:
        np.testing.assert_array_equal(found[name], weights[name], err_msg=name)


FAMILIES = {
    "qwen2": dataclasses.replace(SMALL, head_dim=16, attention_bias=True, output_bias=False, family="qwen2"),
    "qwen3": dataclasses.replace(SMALL, qk_norm="head", tie_embeddings=True, family="qwen3"),
    "gemma3": LlamaConfig(
        32, 64, 96, 7, 4, 2, 8, 128, 5e4, RopeScaling("linear", 8.0), tie_embeddings=True, window=16,
        layer_kinds=("local",) * 5 + ("global",), local_rope_theta=1e4, qk_norm="head", norms="both",
        norm_offset=True, activation="gelu_tanh", scale_embeddings=True, family="gemma3_text",
    ),
}  # fmt: skip
GEMMA3 = {
    "gemma3.attention.sliding_window": 16,
    "gemma3.rope.scaling.type": "linear",
    "gemma3.rope.scaling.factor": 8.0,
}


@pytest.mark.parametrize("architecture", FAMILIES)
def test_families_come_back_with_their_config(tmp_path, architecture):
    config, more = FAMILIES[architecture], GEMMA3 if architecture == "gemma3" else {}
    weights = tensors(config)
    file = Gguf(write(tmp_path / "m.gguf", config, weights, architecture=architecture, more=more))
    assert file.config == config
    found = loaded(file)
    assert found.keys() == weights.keys()
    for name in weights:
        atol = 1e-6 if config.norm_offset and name.endswith("norm.weight") else 0  # 1 + w is what is stored
        np.testing.assert_allclose(found[name], weights[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", *FAMILIES])
@pytest.mark.parametrize("head_dim", [24, pytest.param(8, marks=pytest.mark.long)])
def test_families_have_transformers_logits_of_the_same_file(tmp_path, architecture, head_dim):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    from tests import hf_oracle

    config = dataclasses.replace({"llama": SMALL, **FAMILIES}[architecture], head_dim=head_dim)
    more = {f"{architecture}.vocab_size": config.vocab_size, **(GEMMA3 if architecture == "gemma3" else {})}
    weights = {name: 0.3 * tensor for name, tensor in tensors(config).items()}  # larger ones amplify rounding
    path = write(tmp_path / "m.gguf", config, weights, architecture=architecture, more=more)
    # transformers reads the tensors; of the metadata it leaves out the width of heads and all of Gemma 3's rope.
    settings = transformers.AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    settings.head_dim = head_dim
    if architecture == "gemma3":
        settings.rope_parameters = {
            "full_attention": {"rope_type": "linear", "rope_theta": 5e4, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
        settings.query_pre_attn_scalar = head_dim
    reader = transformers.AutoModelForCausalLM
    theirs = reader.from_pretrained(tmp_path, gguf_file=path.name, config=settings).eval()
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 40))
    file = Gguf(path)
    params = names.load_model(file, file.config)
    found = np.asarray(Llama(file.config, Compute()).apply({"params": params}, tokens))
    np.testing.assert_allclose(found, hf_oracle.logits(theirs, tokens), atol=1e-4, rtol=1e-4)


def test_the_local_layers_of_gemma_3_are_as_the_file_says(tmp_path):
    config = dataclasses.replace(FAMILIES["gemma3"], layer_kinds=("local", "local", "global"), local_rope_theta=500.0)
    says = {"gemma3.rope.freq_base_swa": 500.0, "gemma3.attention.sliding_window_pattern": 3}
    path = write(tmp_path / "m.gguf", config, tensors(config), architecture="gemma3", more=GEMMA3 | says)
    assert Gguf(path).config == config


def test_the_widest_gemma_3_is_scaled_by_its_width_per_head(tmp_path):
    config = dataclasses.replace(FAMILIES["gemma3"], num_layers=62, layer_kinds=("local",) * 5 + ("global",))
    path = write(tmp_path / "m.gguf", config, tensors(config), architecture="gemma3", more=GEMMA3)
    assert Gguf(path).config.attention_width == 16


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_stored_types_are_read_as_stored(tmp_path, kind):
    weights = tensors(SMALL)
    found = loaded(Gguf(write(tmp_path / "m.gguf", SMALL, weights, Quantization[kind])))
    for name, array in found.items():
        # Quantised before the permutation or after it, a row is the same: blocks lie within rows.
        stored = weights[name]
        if stored.ndim == 2:
            stored = gguf.quants.dequantize(gguf.quants.quantize(stored, Quantization[kind]), Quantization[kind])
        np.testing.assert_array_equal(array.astype(np.float32), stored, err_msg=name)
        assert np.abs(stored - weights[name]).max() <= np.abs(weights[name]).max() / 7  # 4 bits: 7 steps to a side
    bits = {"F16": np.float16, "BF16": "bfloat16"}
    assert found["lm_head.weight"].dtype == bits.get(kind, np.float32)


def random_blocks(kind: str) -> np.ndarray:
    """[256, bytes of 256 weights]: blocks of any content, but for infinite or huge scales."""
    size, bytes_ = gguf.GGML_QUANT_SIZES[Quantization[kind]]
    blocks = np.random.default_rng(0).integers(0, 256, (256, 256 // size, bytes_), np.uint8)
    blocks[blocks == 0x7C] = 0x3C
    blocks[blocks == 0xFC] = 0xBC
    return (blocks & 0xBF).reshape(256, -1)


def with_up_proj(path, data: np.ndarray, kind: str) -> Gguf:
    """A file whose only quantised tensor is that one."""
    config = LlamaConfig(16, 256, 256, 1, 4, 4, 64)
    weights = tensors(config)
    del weights[UP_PROJ]
    return Gguf(write(path, config, weights, raw={"blk.0.ffn_up.weight": (data, Quantization[kind])}))


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1"])
def test_five_bits_are_dequantised_as_defined(tmp_path, kind):
    # A block of 32 weights: a float16 scale, for Q5_1 a float16 minimum, a fifth bit of each, then low four bits, those
    # of weights 0 to 15 in the lower halves of 16 bytes and those of 16 to 31 in the upper.
    data = random_blocks(kind)
    minimum = 2 if kind == "Q5_1" else 0
    blocks = data.reshape(256, 8, -1)
    scale = blocks[..., :2].copy().view(np.float16).astype(np.float32)
    least = blocks[..., 2:4].copy().view(np.float16).astype(np.float32) if minimum else -16 * scale
    fifth = np.unpackbits(blocks[..., 2 + minimum : 6 + minimum], axis=-1, bitorder="little")
    low = blocks[..., 6 + minimum :]
    codes = np.concatenate([low & 15, low >> 4], axis=-1) + 16 * fifth
    found = with_up_proj(tmp_path / "m.gguf", data, kind).read(UP_PROJ, (slice(0, 256), slice(0, 256)))
    np.testing.assert_allclose(found, (scale * codes + least).reshape(256, 256), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q4_0", "Q4_1"])
def test_dequantised_values_are_those_of_transformers_own_reader(tmp_path, kind):
    torch = pytest.importorskip("torch")
    from transformers.integrations.gguf.dequant import dequantize

    data = random_blocks(kind)
    file = with_up_proj(tmp_path / "m.gguf", data, kind)
    expected = dequantize(torch.from_numpy(data.copy()), Quantization[kind]).reshape(256, 256)
    whole = file.read(UP_PROJ, (slice(0, 256), slice(0, 256)))
    assert np.isfinite(whole).all()
    assert np.abs(whole).max() > 0
    np.testing.assert_allclose(whole, expected.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(file.read(UP_PROJ, (slice(3, 9), slice(10, 20))), whole[3:9, 10:20])


def test_llama3_scaling_is_recovered_from_the_stored_divisors(tmp_path):
    scaling = RopeScaling("llama3", 32.0, 8192, 1.0, 4.0)
    config = dataclasses.replace(SMALL, rope_theta=5e5, head_dim=64, rope_scaling=scaling)
    plain, _ = rope.frequencies(dataclasses.replace(config, rope_scaling=RopeScaling()))
    divisors = (plain / rope.frequencies(config)[0]).astype(np.float32)
    file = Gguf(
        write(tmp_path / "m.gguf", config, tensors(config), raw={"rope_freqs.weight": (divisors, Quantization.F32)})
    )
    assert file.config == config
    other = np.linspace(1, 32, 32).astype(np.float32)
    raw = {"rope_freqs.weight": (other, Quantization.F32)}
    path = write(tmp_path / "n.gguf", config, tensors(config), raw=raw)
    with pytest.raises(UserError, match="rope_freqs"):
        Gguf(path)


@pytest.mark.parametrize(
    ("more", "scaling"),
    [
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, RopeScaling("linear", 4.0)),
        ({"llama.rope.scale_linear": 2.0}, RopeScaling("linear", 2.0)),
        ({"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0}, RopeScaling()),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 16.0,
                "llama.rope.scaling.original_context_length": 4096,
            },
            RopeScaling("yarn", 16.0, 4096),
        ),
    ],
)
def test_rope_scaling(tmp_path, more, scaling):
    assert Gguf(write(tmp_path / "m.gguf", SMALL, tensors(SMALL), more=more)).config.rope_scaling == scaling


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"llama.expert_count": 8}, "expert_count"),
        ({"llama.attention.sliding_window": 4096}, "llama.attention.sliding_window"),
        ({"llama.rope.dimension_count": 4}, "rope.dimension_count 4"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "longrope"),
        ({"llama.tensor_data_layout": "other"}, "tensor_data_layout"),
        ({"split.count": 3}, "--merge"),
    ],
)
def test_what_would_change_the_result_is_named(tmp_path, more, named):
    path = write(tmp_path / "m.gguf", SMALL, tensors(SMALL), more=more)
    with pytest.raises(UserError, match=named):
        Gguf(path)


def test_other_files_are_refused(tmp_path):
    for architecture, why in {
        "mamba9": "architecture 'mamba9'; what can be read is a text model, architecture llama, qwen2, qwen3, gemma3",
        "qwen3moe9": "a mixture of experts is not supported",
        "qwen2vl9": "a vision or audio part is not supported",
    }.items():
        with pytest.raises(UserError, match=why):
            Gguf(write(tmp_path / "q.gguf", SMALL, tensors(SMALL), architecture=architecture))
    whole = write(tmp_path / "m.gguf", SMALL, tensors(SMALL)).read_bytes()
    for name, content in {"empty": b"", "text": b"hello", "header": whole[:100], "cut": whole[:-64]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as GGUF"):
            Gguf(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read as GGUF"):
        Gguf(tmp_path / "absent")


def test_a_tensor_under_two_names_is_refused(tmp_path):
    raw = {"model.norm.weight": (np.ones(64, np.float32), Quantization.F32)}
    with pytest.raises(UserError, match=r"output_norm\.weight and model\.norm\.weight are both model\.norm\.weight"):
        Gguf(write(tmp_path / "m.gguf", SMALL, tensors(SMALL), raw=raw))


def test_strangers_and_gaps_are_named_by_the_table(tmp_path):
    weights = tensors(SMALL)
    del weights["model.norm.weight"]
    file = Gguf(
        write(
            tmp_path / "m.gguf",
            SMALL,
            weights,
            raw={"blk.0.attn_sinks.weight": (np.ones(3, np.float32), Quantization.F32)},
        )
    )
    with pytest.raises(UserError) as error:
        names.load_model(file, file.config)
    assert "missing: model.norm.weight" in str(error.value)
    assert "unexpected: blk.0.attn_sinks.weight" in str(error.value)


def test_a_file_of_the_other_byte_order_is_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="its numbers are big-endian; gguf-py's gguf_convert_endian"):
        Gguf(tmp_path / "m.gguf")
