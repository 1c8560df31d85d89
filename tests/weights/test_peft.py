"""PEFT's adapters in and out, against peft itself: forward, gradients, merging."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from lema_jax.errors import UserError
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig
from lema_jax.model.llama import Llama
from lema_jax.weights import hf_config, names, peft
from lema_jax.weights.merge import Merged

RAW = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIG = hf_config.parse(RAW, "test")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHAPES = {
    "all": {"r": 4, "lora_alpha": 16, "target_modules": ALL},
    "q and v": {"r": 8, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 3, "lora_alpha": 5, "target_modules": ALL, "use_rslora": True},
    "mlp": {"r": 1, "lora_alpha": 1.5, "target_modules": r".*\.mlp\..*_proj"},
}


@pytest.fixture
def adapted(request, tmp_path):
    """A model of transformers' with random adapters of peft's, saved."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("peft")
    from tests import hf_oracle

    base = hf_oracle.make(RAW)
    params = names.load_model(hf_oracle.StateDict(base), CONFIG)
    model = library.get_peft_model(base, library.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **request.param))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                tensor.copy_(0.3 * torch.randn_like(tensor))
    model.save_pretrained(tmp_path)
    return model.eval(), params, tmp_path


def tokens():
    return np.random.default_rng(0).integers(0, 61, (2, 12))


def every_shape(test):
    return pytest.mark.parametrize("adapted", SHAPES.values(), ids=SHAPES, indirect=True)(test)


@pytest.mark.slow
@every_shape
def test_logits_and_gradients_are_those_of_peft(adapted):
    from tests import hf_oracle

    theirs, params, folder = adapted
    adapters, lora, *_ = peft.load_adapter(folder, CONFIG)
    model = Llama(CONFIG, Compute(), lora)

    def loss(adapters):
        logits = model.apply({"params": params, "lora": adapters}, tokens())
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens()[:, 1:])), logits

    (value, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(adapters)
    np.testing.assert_allclose(logits, hf_oracle.logits(theirs, tokens()), atol=1e-4, rtol=1e-4)
    expected_value, expected = hf_oracle.loss_and_gradients(theirs, tokens())
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    modules = [hf for hf, _, _ in names.LINEARS if any(f".{hf}." in name for name in expected)]
    arrays = flatten_dict(grads, sep="/")
    untouched = [f"layers/{path}/{factor}" for hf, path, _ in names.LINEARS if hf not in modules for factor in "ab"]
    assert not any(np.any(arrays[path]) for path in untouched)  # modules without an adapter stay untrained
    for entry in peft.table(CONFIG, lora, modules):
        for layer, name in enumerate(entry.names):
            gradient = np.asarray(arrays[entry.path][layer]).T
            theirs_name = name.replace(".weight", ".default.weight")
            scale = np.abs(expected[theirs_name]).max()
            np.testing.assert_allclose(gradient, expected[theirs_name], atol=2e-4 * scale, rtol=0, err_msg=name)


@every_shape
def test_merged_weights_are_those_of_peft(adapted):
    theirs, params, folder = adapted
    adapters, lora, *_ = peft.load_adapter(folder, CONFIG)
    merged = Merged(names.Tree(params, names.table(CONFIG), "base"), adapters, lora)
    expected = theirs.merge_and_unload().state_dict()
    for name in merged.names():
        found = names.read_whole(merged, name)
        np.testing.assert_allclose(found, expected[name].numpy(), atol=1e-6, err_msg=name)
        part = merged.read(name, tuple(slice(1, 4) for _ in found.shape))
        np.testing.assert_allclose(part, found[tuple(slice(1, 4) for _ in found.shape)], atol=1e-6)


@every_shape
def test_what_we_write_peft_loads(adapted, tmp_path):
    import peft as library

    from tests import hf_oracle

    theirs, _, folder = adapted
    adapters, lora, *_ = peft.load_adapter(folder, CONFIG)
    out = tmp_path / "out"
    out.mkdir()
    peft.save(out, adapters, lora, CONFIG, "someone/base")
    loaded = library.PeftModel.from_pretrained(hf_oracle.make(RAW), out).eval()
    np.testing.assert_allclose(
        hf_oracle.logits(loaded, tokens()), hf_oracle.logits(theirs, tokens()), atol=1e-5, rtol=1e-5
    )
    written = load_file(out / peft.SAFETENSORS)
    original = load_file(folder / peft.SAFETENSORS)
    assert written.keys() == original.keys()
    assert all(np.array_equal(written[name], original[name]) for name in original)
    assert json.loads((out / peft.CONFIG).read_text())["base_model_name_or_path"] == "someone/base"


@pytest.mark.parametrize("adapted", [SHAPES["all"]], indirect=True)
def test_a_bin_is_read_without_running_it(adapted):
    torch = pytest.importorskip("torch")
    folder = adapted[-1]
    expected, lora, *_ = peft.load_adapter(folder, CONFIG)
    stored = {name: torch.from_numpy(array) for name, array in load_file(folder / peft.SAFETENSORS).items()}
    (folder / peft.SAFETENSORS).unlink()
    torch.save(stored, folder / peft.BIN)
    found, same, *_ = peft.load_adapter(folder, CONFIG)
    assert same == lora
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def write(folder, config, rank, alpha, change=None, width=0, **more):
    """An adapter folder as peft of 2023 wrote it, on every linear layer."""
    lora = LoraConfig(rank, alpha, 0.05)
    random = np.random.default_rng(0)
    tensors = {
        name: random.normal(size=entry.hf_shape).astype(np.float32)
        for entry in peft.table(config, lora, [hf for hf, _, _ in names.LINEARS])
        for name in entry.names
    }
    if change:
        change(tensors)
    save_file(tensors, folder / peft.SAFETENSORS)
    described = {
        "auto_mapping": None,
        "base_model_name_or_path": "meta-llama/Llama-2-70b-hf",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": alpha,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "revision": None,
        "target_modules": ["up_proj", "o_proj", "k_proj", "q_proj", "gate_proj", "down_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / peft.CONFIG).write_text(json.dumps(described | more))
    return tensors


@pytest.mark.slow
def test_the_authors_layout_loads(tmp_path):
    """Rank 64, alpha 16, every linear layer of 80 layers by name, as their LLaMA-2-70B adapter; narrow."""
    config = LlamaConfig(32, 128, 144, 80, 4, 2, 32)
    tensors = write(tmp_path, config, 64, 16.0)
    assert len(tensors) == 80 * 7 * 2
    adapters, lora, *_ = peft.load_adapter(tmp_path, config)
    assert lora == LoraConfig(64, 16.0, 0.05)
    for layer in (0, 9, 79):
        name = f"base_model.model.model.layers.{layer}.mlp.down_proj.lora_A.weight"
        np.testing.assert_array_equal(adapters["layers"]["mlp"]["down"]["a"][layer], tensors[name].T)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "lacks lm_head, which adapter_config.json has among modules_to_save"),
        ({"bias": "all"}, "bias='all'"),
        ({"rank_pattern": {"q_proj": 2}}, "layers.0.self_attn.q_proj.lora_A.weight [4, 32], not [2, 32]"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4'"),
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"r": 0}, "r=0"),
        ({"some_new_key": 1}, "some_new_key=1"),
    ],
)
def test_what_would_change_the_result_is_named(tmp_path, more, named):
    write(tmp_path, CONFIG, 4, 8.0, **more)
    with pytest.raises(UserError) as error:
        peft.load_adapter(tmp_path, CONFIG)
    assert named in str(error.value)


def test_tensors_of_another_model_are_named(tmp_path):
    def change(tensors):
        del tensors["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]
        tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = np.ones((4, 32), np.float32)
        tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = np.ones((4, 31), np.float32)

    write(tmp_path, CONFIG, 4, 8.0, change)
    with pytest.raises(UserError) as error:
        peft.load_adapter(tmp_path, CONFIG)
    text = str(error.value)
    assert "1 missing: base_model.model.model.layers.1.mlp.up_proj.lora_B.weight" in text
    assert "1 unexpected: base_model.model.model.layers.9.mlp.up_proj.lora_A.weight" in text
    assert (
        "of another shape: base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight [4, 31], not [4, 32]" in text
    )
    with pytest.raises(UserError, match="of another shape: "):
        peft.load_adapter(tmp_path, dataclasses.replace(CONFIG, hidden_size=64))


def test_what_is_no_adapter_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="adapter_config"):
        peft.load_adapter(tmp_path, CONFIG)
    (tmp_path / peft.CONFIG).write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        peft.load_adapter(tmp_path, CONFIG)
    write(tmp_path, CONFIG, 4, 8.0)
    (tmp_path / peft.SAFETENSORS).unlink()
    with pytest.raises(UserError, match="has neither"):
        peft.load_adapter(tmp_path, CONFIG)
