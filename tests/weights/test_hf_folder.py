"""Hugging Face folders: every file of a tokenizer, and tokens added by fine-tuning."""

import dataclasses
import json

import numpy as np
import pytest
from memory import Memory, tensors

from lema_jax.data import encode
from lema_jax.data import tokenizer as tokenizers
from lema_jax.errors import UserError
from lema_jax.model.config import LlamaConfig
from lema_jax.weights import hf_config, hf_folder, names, safetensors
from tests.tokenizer_files import LLAMA, sentencepiece_folder

TEXTS = ["Ann has 3 apples and buys 12 more.", "The answer is 15.", "naïve café 😀 1,234"]
CONFIG = LlamaConfig(720, 32, 48, 2, 4, 2, 8, 128)


@pytest.fixture
def fast(tmp_path):
    """A folder that has a tokenizer.json."""
    folder = tmp_path / "fast"
    tokenizers.save(tokenizers.train_bpe(TEXTS, 720), folder)
    return folder


@pytest.fixture
def slow(tmp_path):
    """A folder as LLaMA-2's early fine-tunes are: a sentencepiece file, and files that name what was added."""
    special = {"pad_token": "[PAD]", "eos_token": {"content": "</s>", "lstrip": False}, "unk_token": None}
    files = {"added_tokens": {"[PAD]": 420, "<s>": 1}, "special_tokens_map": special}
    return sentencepiece_folder(tmp_path / "slow", LLAMA | {"model_max_length": 4096}, **files)


def test_a_tokenizer_json_stays_what_it_is(fast, tmp_path):
    hf_folder.copy_tokenizer(fast, tmp_path / "once")
    hf_folder.copy_tokenizer(tmp_path / "once", tmp_path / "twice")
    assert (tmp_path / "once" / "tokenizer.json").read_bytes() == (fast / "tokenizer.json").read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_a_sentencepiece_file_with_added_tokens(slow, tmp_path):
    hf_folder.copy_tokenizer(slow, tmp_path / "out")
    tokenizer = tokenizers.load(tmp_path / "out")
    assert len(tokenizer) == 421
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (420, 2, 1)
    assert encode.adds_bos(tokenizer)
    assert tokenizer("x[PAD]").input_ids[-1] == 420


@pytest.mark.parametrize("kind", ["fast", "slow"])
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_comes_along(request, kind, place, tmp_path):
    folder = request.getfixturevalue(kind)
    template, path = "{{ messages[0].content }}!", folder / place
    text = json.dumps(json.loads(path.read_text()) | {"chat_template": template}) if path.exists() else template
    path.write_text(text)
    hf_folder.copy_tokenizer(folder, tmp_path / "once")
    hf_folder.copy_tokenizer(tmp_path / "once", tmp_path / "twice")
    assert tokenizers.as_chat("hi", tokenizers.load(tmp_path / "twice")) == "hi!"


def test_a_folder_without_a_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"is a tokenizer\.json or a tokenizer\.model"):
        hf_folder.copy_tokenizer(tmp_path, tmp_path / "out")


def test_the_tokens_that_end_an_answer(tmp_path):
    assert hf_folder.eos_ids(tmp_path) == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": 2}')
    assert hf_folder.eos_ids(tmp_path) == (2,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [128001, 128008, 128009]}')
    assert hf_folder.eos_ids(tmp_path) == (128001, 128008, 128009)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": ["</s>"]}')
    with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id=\['</s>'\] must be a token id"):
        hf_folder.eos_ids(tmp_path)
    for wrong in ("true", "-1", "1.5", "NaN", "[[2]]", "{}", '"2"', "1e30", str(10**30), "[2, null]"):
        (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {wrong}}}')
        with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id="):
            hf_folder.eos_ids(tmp_path)
    for content in ("[]", "null", "[" * 100_000, "{"):
        (tmp_path / "generation_config.json").write_text(content)
        with pytest.raises(UserError, match=r"generation_config\.json: "):
            hf_folder.eos_ids(tmp_path)


@pytest.mark.parametrize(("given", "written"), [((), 1), ((1,), 1), ((5, 1, 7), [5, 1, 7]), ((5,), [1, 5])])
def test_all_tokens_that_end_an_answer_are_written(fast, tmp_path, given, written):
    transformers = pytest.importorskip("transformers")
    source = names.Tree(names.load_model(Memory(tensors(CONFIG)), CONFIG), names.table(CONFIG), "memory")
    out = tmp_path / "out"
    out.mkdir()
    hf_folder.write(out, CONFIG, source, fast, given, None, 1 << 30)
    assert transformers.GenerationConfig.from_pretrained(out).eos_token_id == written
    assert transformers.AutoConfig.from_pretrained(out).eos_token_id == written


def test_what_is_written_transformers_reads(fast, tmp_path):
    transformers = pytest.importorskip("transformers")
    source = names.Tree(names.load_model(Memory(tensors(CONFIG)), CONFIG), names.table(CONFIG), "memory")
    out = tmp_path / "out"
    out.mkdir()
    hf_folder.write(out, CONFIG, source, fast, (), np.dtype(np.float16), 1 << 30)
    assert hf_config.read(out) == CONFIG
    read = transformers.AutoConfig.from_pretrained(out)
    assert (read.model_type, read.eos_token_id, read.pad_token_id) == ("llama", 1, 2)
    assert str(read.dtype).removeprefix("torch.") == "float16"
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert [tokenizer(text).input_ids for text in TEXTS] == [tokenizers.load(fast)(text).input_ids for text in TEXTS]
    assert json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert json.loads((out / "generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    assert safetensors.open_folder(out).dtype("lm_head.weight") == np.float16


@pytest.mark.parametrize(("family", "warns"), [("qwen2", True), ("llama", False), ("mistral", False)])
def test_an_export_whose_tokenizer_transformers_reads_otherwise_says_so(fast, tmp_path, capsys, family, warns):
    config = dataclasses.replace(CONFIG, family=family, attention_bias=family == "qwen2", output_bias=False)
    (tmp_path / "out").mkdir()
    hf_folder.write(tmp_path / "out", config, Memory(tensors(config)), fast, (), None, 1 << 30)
    said = capsys.readouterr().out
    assert ("transformers does not read this tokenizer as it is: it gives every qwen2 model" in said) is warns
    assert warns or not said
