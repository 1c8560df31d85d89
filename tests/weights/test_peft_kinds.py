"""Kinds of adapters against peft itself: what is bookkeeping is read, what is not is refused with the way out."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lema_jax.errors import UserError
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.weights import formats, hf_config, names, peft
from lema_jax.weights.formats import Opened
from lema_jax.weights.merge import Merged

torch = pytest.importorskip("torch")
library = pytest.importorskip("peft")

from tests import hf_oracle  # noqa: E402 (imports torch)

RAW = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 12))
TIED = {"tie_word_embeddings": True}
# Settings of the adapter, and of the model where it is another one.
KINDS = {
    "rank_pattern": ({"target_modules": ALL, "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7}}, {}),
    "alpha_pattern": ({"target_modules": ALL, "alpha_pattern": {r"layers\.[02]\..*k_proj": 5, "o_proj": 0}}, {}),
    "both patterns": (
        {"target_modules": ALL, "rank_pattern": {"^model.layers.0.mlp.*": 3}, "alpha_pattern": {"up_proj": 40}},
        {},
    ),
    "patterns, rslora": (
        {"target_modules": ALL, "rank_pattern": {"down_proj": 9}, "alpha_pattern": {"v_proj": 1}, "use_rslora": True},
        {},
    ),
    "patterns of all": ({"target_modules": ["v_proj"], "rank_pattern": {"v_proj": 2}}, {}),
    "alpha 0 but for one": ({"target_modules": ALL, "lora_alpha": 0, "alpha_pattern": {"q_proj": 8}}, {}),
    "negative alpha": ({"target_modules": ALL, "lora_alpha": -3}, {}),
    "layers_to_transform": ({"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0, 2]}, {}),
    "one layer": ({"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"}, {}),
    "layers_pattern": ({"target_modules": ALL, "layers_to_transform": [1], "layers_pattern": ["h", "layers"]}, {}),
    "regex": ({"target_modules": r"model\.layers\.[12]\.(self_attn\.[qv]|mlp\.up)_proj"}, {}),
    "names": ({"target_modules": ["model.layers.1.mlp.up_proj", "layers.0.self_attn.k_proj"]}, {}),
    "all-linear": ({"target_modules": "all-linear", "exclude_modules": ["down_proj"]}, {}),
    "excluded": ({"target_modules": ALL, "exclude_modules": r".*\.0\..*"}, {}),
    "fan_in_fan_out": ({"target_modules": ALL, "fan_in_fan_out": True}, {}),
    "embedding and head": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}, {}),
    "head": ({"target_modules": ALL, "modules_to_save": ["lm_head"]}, {}),
    "norms": ({"target_modules": ALL, "modules_to_save": ["norm"]}, {}),
    "linear": ({"target_modules": ALL, "modules_to_save": ["o_proj"]}, {}),
    "tied, head": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, TIED),
    "tied, embedding": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, TIED),
    "tied, norms": ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, TIED),
    "tied, both": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}, TIED),
    "tied, stays so": (
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        TIED,
    ),
    "biases": ({"target_modules": ALL}, {"attention_bias": True, "mlp_bias": True}),
}


def made(folder, settings, model):
    """A model, and peft's adapter of random weights on it, saved; and the base model's Source."""
    base = hf_oracle.make(RAW | model)
    weights = hf_oracle.StateDict(base)
    weights.tensors = {name: tensor.clone() for name, tensor in weights.tensors.items()}
    given = {"r": 4, "lora_alpha": 6, "lora_dropout": 0.0, "task_type": "CAUSAL_LM"} | settings
    adapted = library.get_peft_model(base, library.LoraConfig(**given))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                tensor.add_(0.3 * torch.randn_like(tensor))
    adapted.save_pretrained(folder)
    return adapted.eval(), weights


def opened(folder, weights, model) -> Opened:
    config = hf_config.parse(RAW | model, "test")
    return formats.with_peft(Opened(weights, config, lambda out: None, "base", ()), folder)


def equals(theirs, read: Opened):
    """Logits with adapters beside the weights, and merged into them, are peft's."""
    expected = hf_oracle.logits(theirs, TOKENS)
    tree, lora = read.adapters
    params = names.load_model(read.source, read.config)
    beside = jax.jit(Llama(read.config, Compute(), lora).apply)({"params": params, "lora": tree}, TOKENS)
    np.testing.assert_allclose(beside, expected, atol=2e-4, rtol=1e-4)
    merged = names.load_model(Merged(read.source, tree, lora), read.config)
    np.testing.assert_allclose(jax.jit(Llama(read.config).apply)({"params": merged}, TOKENS), expected, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "model"), KINDS.values(), ids=KINDS)
def test_logits_are_those_of_peft(settings, model, tmp_path):
    theirs, weights = made(tmp_path, settings, model)
    read = opened(tmp_path, weights, model)
    equals(theirs, read)
    assert bool(read.replaced) == ("modules_to_save" in settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rank_pattern", "layers_to_transform"])
def test_what_we_write_of_it_peft_loads(kind, tmp_path):
    theirs, weights = made(tmp_path / "in", *KINDS[kind])
    read = opened(tmp_path / "in", weights, {})
    (tmp_path / "out").mkdir()
    peft.save(tmp_path / "out", *read.adapters, read.config, "someone/base")
    again = library.PeftModel.from_pretrained(hf_oracle.make(RAW), tmp_path / "out").eval()
    np.testing.assert_allclose(hf_oracle.logits(again, TOKENS), hf_oracle.logits(theirs, TOKENS), atol=2e-4)


RENAMES = {
    "compiled": lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
    "compiled, before": lambda name: "_orig_mod." + name,
    "compiled layers": lambda name: re.sub(r"(layers\.\d+\.)", r"\1_orig_mod.", name),
    "data parallel": lambda name: "module." + name,
    "adapter's name": lambda name: re.sub(r"(lora_[AB])\.", r"\1.default.", name),
    "another name": lambda name: re.sub(r"(lora_[AB])\.", r"\1.my_task.", name),
    "no root": lambda name: name.removeprefix("base_model.model."),
    "saved module": lambda name: re.sub(r"(lm_head|embed_tokens)\.weight", r"\1.modules_to_save.default.weight", name),
    "sharded": lambda name: name.replace("mlp.", "_fsdp_wrapped_module.mlp."),
}


@pytest.mark.slow
@pytest.mark.parametrize("rename", RENAMES.values(), ids=RENAMES)
def test_names_as_other_ways_of_saving_write_them(rename, tmp_path):
    theirs, weights = made(tmp_path, {"target_modules": ALL, "modules_to_save": ["lm_head", "embed_tokens"]}, {})
    stored = load_file(tmp_path / peft.SAFETENSORS)
    save_file({rename(name): array for name, array in stored.items()}, tmp_path / peft.SAFETENSORS)
    equals(theirs, opened(tmp_path, weights, {}))


@pytest.mark.slow
@pytest.mark.parametrize("targets", [["q_proj", "up_proj"], r"layers\.[01]\..*_proj"])
def test_an_adapter_of_the_model_without_its_head(targets, tmp_path):
    """Its names have no second `model.`."""
    base = hf_oracle.make(RAW)
    config = library.LoraConfig(r=4, lora_alpha=6, target_modules=targets, modules_to_save=["embed_tokens"])
    trunk = library.get_peft_model(base.model, config)
    with torch.no_grad():
        for name, tensor in trunk.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                tensor.add_(0.3 * torch.randn_like(tensor))
    trunk.save_pretrained(tmp_path)
    assert any(name.startswith("base_model.model.layers.0.") for name in load_file(tmp_path / peft.SAFETENSORS))
    equals(base.eval(), opened(tmp_path, hf_oracle.StateDict(hf_oracle.make(RAW)), {}))


# --- refused ----------------------------------------------------------------------------------------------------------

REFUSED = {
    "use_dora": {"use_dora": True},
    "bias": {"bias": "lora_only"},
    "init_lora_weights": {"init_lora_weights": "pissa"},
    "trainable_token_indices": {"trainable_token_indices": [3, 5]},
    "layer_replication": {"layer_replication": [[0, 2], [1, 3]]},
    "lora_bias": {"lora_bias": True},
    "target_parameters": {"target_parameters": ["mlp.up_proj.weight"]},
}


@pytest.mark.parametrize(("named", "settings"), REFUSED.items(), ids=REFUSED)
def test_what_is_no_bookkeeping_is_refused_with_the_way_out(named, settings, tmp_path):
    model = {"attention_bias": True, "mlp_bias": True} if named == "lora_bias" else {}
    _, weights = made(tmp_path, {"target_modules": ["q_proj"]} | settings, model)
    with pytest.raises(UserError, match=rf"{named}=.* is not supported; .*merge_and_unload\(\).*--hf_dir") as error:
        opened(tmp_path, weights, model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["LoHaConfig", "IA3Config", "VeraConfig", "OFTConfig"])
def test_other_kinds_of_adapters_are_refused_with_the_way_out(kind, tmp_path):
    more = {"feedforward_modules": ["down_proj"]} if kind == "IA3Config" else {}
    targets = ["q_proj", "down_proj"] if kind == "IA3Config" else ["q_proj"]
    config = getattr(library, kind)(task_type="CAUSAL_LM", target_modules=targets, **more)
    library.get_peft_model(hf_oracle.make(RAW), config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"peft_type='\w+': is not supported; .*merge_and_unload") as error:
        peft.load_adapter(tmp_path, hf_config.parse(RAW, "test"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (["q_proj", "lm_head", "embed_tokens"], r"lm_head, model\.embed_tokens"),
        (["embed_tokens"], r"(model\.)?embed_tokens"),
        (["lm_head"], "lm_head"),
        (r".*_proj|lm_head", "lm_head"),
    ],
)
@pytest.mark.parametrize("kept", ["all", "linear"])
def test_adapters_of_embedding_or_head_are_refused_with_the_way_out(targets, named, kept, tmp_path):
    made(tmp_path, {"target_modules": targets}, {})
    if kept == "linear":  # the settings alone say so then
        stored = load_file(tmp_path / peft.SAFETENSORS)
        save_file({name: array for name, array in stored.items() if "_proj" in name}, tmp_path / peft.SAFETENSORS)
    with pytest.raises(UserError, match=rf" adapts {named}; .*merge_and_unload\(\).*--hf_dir") as error:
        peft.load_adapter(tmp_path, hf_config.parse(RAW, "test"))
    assert "\n" not in str(error.value)


def test_adapters_that_the_settings_do_not_tell_of_are_refused_too(tmp_path):
    made(tmp_path, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, {})
    raw = json.loads((tmp_path / peft.CONFIG).read_text())
    (tmp_path / peft.CONFIG).write_text(json.dumps(raw | {"target_modules": ["q_proj"]}))
    with pytest.raises(UserError, match=r" adapts lm_head, model\.embed_tokens; .*merge_and_unload"):
        peft.load_adapter(tmp_path, hf_config.parse(RAW, "test"))


def test_tensors_that_the_settings_want_must_be_there(tmp_path):
    made(tmp_path, {"target_modules": ["q_proj"]}, {})
    stored = load_file(tmp_path / peft.SAFETENSORS)
    for gone in (r"layers\.2\.", r"lora_B", r"layers\.1\..*lora_A"):
        kept = {name: array for name, array in stored.items() if not re.search(gone, name)}
        save_file(kept, tmp_path / peft.SAFETENSORS)
        with pytest.raises(UserError, match=r"missing: base_model\.model\.model\.layers\.[012]\.self_attn\.q_proj"):
            peft.load_adapter(tmp_path, hf_config.parse(RAW, "test"))


def test_one_weight_of_two_adapters_is_refused(tmp_path):
    made(tmp_path, {"target_modules": ["q_proj"]}, {})
    stored = load_file(tmp_path / peft.SAFETENSORS)
    twice = {name.replace("lora_A.", f"lora_A.{own}."): array for own in "ab" for name, array in stored.items()}
    save_file(twice, tmp_path / peft.SAFETENSORS)
    with pytest.raises(UserError, match="are the same weight, of two adapters perhaps"):
        peft.load_adapter(tmp_path, hf_config.parse(RAW, "test"))


def test_an_adapter_that_changes_nothing_is_reported(tmp_path):
    settings = {"target_modules": ["q_proj"]}
    config = hf_config.parse(RAW, "test")
    made(tmp_path / "a", settings | {"lora_alpha": 0}, {})
    tree, lora, *_ = peft.load_adapter(tmp_path / "a", config)
    assert peft.idle(tree, lora) == "its lora_alpha is 0"
    library.get_peft_model(hf_oracle.make(RAW), library.LoraConfig(**settings)).save_pretrained(tmp_path / "b")
    tree, lora, *_ = peft.load_adapter(tmp_path / "b", config)
    assert peft.idle(tree, lora) == "every lora_B of it is 0"
    made(tmp_path / "c", settings, {})
    tree, lora, *_ = peft.load_adapter(tmp_path / "c", config)
    assert peft.idle(tree, lora) == ""
    assert peft.idle(tree, dataclasses.replace(lora, alpha=0.0)) == "its lora_alpha is 0"


WRONG = [
    None,
    "x",
    7,
    -1,
    0,
    1.5,
    float("nan"),
    float("inf"),
    1e400,
    True,
    [],
    ["x", 3],
    {},
    {"a": "b"},
    {"(": 3},
    "(",
    ["("],
]


@pytest.mark.slow
def test_hostile_settings_are_one_line_that_names_the_key(tmp_path):
    made(tmp_path, {"target_modules": ["q_proj"]}, {})
    config = hf_config.parse(RAW, "test")
    good = json.loads((tmp_path / peft.CONFIG).read_text())
    for key in [*good, "unheard_of"]:
        for value in WRONG:
            (tmp_path / peft.CONFIG).write_text(json.dumps(good | {key: value}))
            try:
                peft.load_adapter(tmp_path, config)
            except UserError as error:
                said = str(error)
            else:
                continue
            of_tensors = ("missing: ", "another shape: ", "unexpected: ", "lacks ", " adapts ")
            assert key in said or any(word in said for word in of_tensors) or "pattern of module" in said, (key, value)
            assert "\n" not in said, (key, value, said)
    for content in ("[]", "null", "3", "[" * 100_000, "{"):
        (tmp_path / peft.CONFIG).write_text(content)
        with pytest.raises(UserError, match=r"adapter_config\.json: "):
            peft.load_adapter(tmp_path, config)
