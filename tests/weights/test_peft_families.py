"""PEFT's adapters of every family, in and out again, against peft's logits."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.weights import hf_config, names, peft
from lema_jax.weights.families import FAMILIES
from tests import tiny

pytest.importorskip("peft", reason="the independent implementation; install the extra `oracle`")
import peft as library
import torch

from tests import hf_oracle


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [one if one == "gemma3_text" else pytest.param(one, marks=pytest.mark.long) for one in FAMILIES]
)
def test_adapters_in_and_out(family, tmp_path):
    raw = hf_oracle.small(family)
    base, config = hf_oracle.make(raw), hf_config.parse(raw, "test")
    params = names.load_model(hf_oracle.StateDict(base), config)
    shape = library.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = library.get_peft_model(base, shape)
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            if "lora_" in name:
                tensor.copy_(0.3 * torch.randn_like(tensor))
    theirs.eval().save_pretrained(tmp_path / "in")
    adapters, lora, *_ = peft.load_adapter(tmp_path / "in", config)
    tokens = tiny.tokens(2, 16, vocab=61)
    found = tiny.apply(Llama(config, Compute(), lora), {"params": params, "lora": adapters}, tokens)
    np.testing.assert_allclose(found, hf_oracle.logits(theirs, tokens.astype(np.int64)), atol=1e-4, rtol=1e-4)
    (tmp_path / "out").mkdir()
    peft.save(tmp_path / "out", adapters, lora, config, "someone/base")
    given, written = (load_file(tmp_path / side / "adapter_model.safetensors") for side in ("in", "out"))
    assert given.keys() == written.keys()
    for name in given:
        assert given[name].tobytes() == written[name].tobytes(), name
