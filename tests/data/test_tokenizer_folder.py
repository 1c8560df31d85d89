"""Tokenizers of Hugging Face folders: ids are those of transformers' AutoTokenizer, or the folder is refused."""

import json
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from lema_jax.data import encode, tokenizer, tokenizer_folder
from lema_jax.data import template as chat_template
from lema_jax.errors import UserError
from tests.tokenizer_files import LLAMA, SENTENCES, TEMPLATES, added, sentencepiece_folder, sentencepiece_model

SPECIALS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "[PAD]", "<new>", "the"]
PARTS = [*SPECIALS, " ", "  ", "\n", "\t", "▁", "a", " apples", "12", "½", "日本語", "한", "😀", "\ufeff", "e\u0301"]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=8), max_size=12).map("".join)
ENDS = {"420": added("<|im_start|>"), "421": added("<|im_end|>")}
MARKED = added("<|im_end|>") | {"__type": "AddedToken"}
FOLDERS = {
    "LLaMA": LLAMA,
    "no add_bos_token": {key: value for key, value in LLAMA.items() if not key.startswith("add_")},
    "add_bos_token false": LLAMA | {"add_bos_token": False},
    "add_eos_token": LLAMA | {"add_eos_token": True},
    "legacy": LLAMA | {"legacy": True},
    "not legacy": LLAMA | {"legacy": False},
    "no prefix": LLAMA | {"add_prefix_space": False},
    "no prefix, legacy": LLAMA | {"add_prefix_space": False, "legacy": True},
    "added_tokens_decoder": LLAMA | {"eos_token": "<|im_end|>", "added_tokens_decoder": ENDS},
    "an EOS beside": LLAMA | {"eos_token": MARKED},
    "strips": LLAMA
    | {"added_tokens_decoder": {"420": added("<new>", lstrip=True), "421": added("[PAD]", rstrip=True)}},
    "normalized": LLAMA | {"added_tokens_decoder": {"420": added("<new>", normalized=True, special=False)}},
    "single_word": LLAMA | {"added_tokens_decoder": {"420": added("the", single_word=True, special=False)}},
    "additional_special_tokens": LLAMA | {"additional_special_tokens": ["<|im_start|>", MARKED], "pad_token": "[PAD]"},
    "fast class": LLAMA | {"tokenizer_class": "LlamaTokenizerFast"},
    "no BOS": LLAMA | {"bos_token": None},
}


def same(folder, out, texts):
    """Saved as `convert` saves it and read again, the folder's tokenizer is AutoTokenizer's, in and back."""
    tokenizer.save(tokenizer.load(folder), out)
    ours, theirs = tokenizer.load(out), AutoTokenizer.from_pretrained(folder)
    assert (ours.bos_token_id, ours.eos_token_id, len(ours)) == (theirs.bos_token_id, theirs.eos_token_id, len(theirs))
    for text in texts:
        ids = theirs(text).input_ids
        assert ours(text).input_ids == ids, text
        assert encode.prompt_ids(text, ours) + [theirs.eos_token_id] * theirs.add_eos_token == ids, text
        bare = theirs(text, add_special_tokens=False).input_ids
        assert ours(text, add_special_tokens=False).input_ids == encode.prompt_ids(text, ours, rendered=True) == bare
        assert ours.decode(bare, skip_special_tokens=True) == theirs.decode(bare, skip_special_tokens=True)
    return ours, theirs


def mixed(count):
    """Sentences with special tokens, spaces and signs put between their words, the same in every run."""
    texts = []
    for number in range(count):
        words = SENTENCES[number % len(SENTENCES)].split(" ")
        for turn in range(1 + number % 5):
            words.insert((number * 7 + turn * 13) % len(words), PARTS[(number * 3 + turn) % len(PARTS)])
        texts.append(("", " ", "  ")[number % 3] + " ".join(words) + ("", " ", "\n")[number % 2])
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("described", FOLDERS.values(), ids=FOLDERS)
def test_a_sentencepiece_folder_is_read_as_transformers_reads_it(described, tmp_path):
    ours, _ = same(sentencepiece_folder(tmp_path / "hf", described), tmp_path / "out", [*mixed(400), *PARTS, ""])
    wanted = described.get("add_bos_token", False) and described["bos_token"] is not None
    assert encode.adds_bos(ours) == wanted


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    made = []
    for name in ("LLaMA", "legacy", "no prefix", "added_tokens_decoder", "strips"):
        place = tmp_path_factory.mktemp("folders")
        made.append(same(sentencepiece_folder(place / "hf", FOLDERS[name]), place / "out", []))
    return made


@settings(deadline=None)
@given(TEXTS)
def test_any_text_is_read_as_transformers_reads_it(pairs, text):
    for ours, theirs in pairs:
        assert ours(text).input_ids == theirs(text).input_ids


def test_added_tokens_of_their_own_file(tmp_path):
    files = {"added_tokens": {"[PAD]": 420, "<s>": 1}, "special_tokens_map": {"pad_token": {"content": "[PAD]"}}}
    ours, _ = same(sentencepiece_folder(tmp_path / "hf", **files), tmp_path / "out", mixed(200))
    assert ours.pad_token_id == 420


@pytest.mark.slow
@pytest.mark.parametrize("described", [{}, {"tokenizer_class": "PreTrainedTokenizerFast"}, {"add_bos_token": True}])
@pytest.mark.parametrize("post", [True, False], ids=["BOS", "no BOS"])
def test_a_tokenizer_json_is_read_as_transformers_reads_it(described, post, tmp_path):
    """Where settings and tokenizer.json disagree about BOS, as DeepSeek-R1-Distill's do, transformers decides."""
    words = tokenizer.train_bpe(SENTENCES, 800)
    if not post:
        words.backend_tokenizer.post_processor = None
    tokenizer.save(words, tmp_path)
    path = tmp_path / "tokenizer_config.json"
    said = {key: value for key, value in json.loads(path.read_text()).items() if key != "tokenizer_class"}
    path.write_text(json.dumps(said | {"tokenizer_class": "LlamaTokenizerFast"} | described))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    ours, _ = same(tmp_path, tmp_path / "out", mixed(100))
    assert encode.adds_bos(ours) == post
    rule = tokenizer_folder.bos_rule(tmp_path)
    assert "tokenizer.json's post_processor" in rule
    assert ("not tokenizer_config.json's add_bos_token=true" in rule) == ("add_bos_token" in described)


def test_a_llama_2_folder_with_both_files(tmp_path):
    """Its tokenizer.json is of transformers 4, whose steps transformers 5 replaces by the class's own."""
    folder = sentencepiece_folder(tmp_path / "hf", LLAMA | {"legacy": False})
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    raw = json.loads((folder / "tokenizer.json").read_text())
    steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    raw |= {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    (folder / "tokenizer_config.json").write_text(json.dumps(LLAMA | {"legacy": False}))
    same(folder, tmp_path / "out", mixed(500))


def test_plain_texts_are_read_as_sentencepiece_reads_them(tmp_path):
    ours = tokenizer.load(sentencepiece_folder(tmp_path))
    theirs = SentencePieceProcessor(model_proto=sentencepiece_model())
    for text in SENTENCES:
        assert ours(text, add_special_tokens=False).input_ids == theirs.encode(text)


# --- refused by name --------------------------------------------------------------------------------------------------


def refusal(folder):
    """What `load` complains of in one line; nothing where the tokenizer reads a text."""
    try:
        assert tokenizer.load(folder)("a b").input_ids
    except UserError as error:
        return str(error)
    return ""


OTHER_MODELS = {
    "unigram": {"model_type": "unigram", "byte_fallback": False, "vocab_size": 70},
    "no byte fallback": {"byte_fallback": False, "vocab_size": 200},
    "NFKC": {"normalization_rule_name": "nmt_nfkc"},
    "squeezed spaces": {"remove_extra_whitespaces": True},
    "no prefix of its own": {"add_dummy_prefix": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", OTHER_MODELS.values(), ids=OTHER_MODELS)
@pytest.mark.parametrize("kind", ["LlamaTokenizer", "T5Tokenizer", "GemmaTokenizer", None])
def test_another_kind_of_model_is_read_as_sentencepiece_reads_it_or_refused(changes, kind, tmp_path):
    model = sentencepiece_model(**changes)
    folder = sentencepiece_folder(tmp_path / "hf", LLAMA | {"tokenizer_class": kind}, model)
    if said := refusal(folder):
        assert "\n" not in said
        assert str(folder / "tokenizer.model") in said
        assert "tokenizer_class" in said
    else:
        ours = tokenizer.load(folder)
        theirs = SentencePieceProcessor(model_proto=model)
        for text in [*SENTENCES, "½ ﬁ Ａ"]:
            assert ours(text, add_special_tokens=False).input_ids == theirs.encode(text)
        same(folder, tmp_path / "out", mixed(100))


@pytest.mark.parametrize(
    ("described", "files", "complaint"),
    [
        (LLAMA | {"added_tokens_decoder": {"7": added("<|im_end|>")}}, {}, r"'<\|im_end\|>' has id 7, but .* id 420"),
        (LLAMA | {"added_tokens_decoder": {"425": added("<x>")}}, {}, r"tokenizer_config\.json: '<x>' has id 425"),
        (LLAMA, {"added_tokens": {"[PAD]": 425}}, r"added_tokens\.json: '\[PAD\]' has id 425, but .* id 420"),
        ({}, {}, r"tokenizer_class"),
        (None, {}, r"tokenizer_class"),
        (LLAMA | {"auto_map": {"AutoTokenizer": ["a.B", None]}, "tokenizer_class": "B"}, {}, "cannot read"),
    ],
)
def test_what_transformers_would_read_otherwise_than_told_is_refused(described, files, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint) as error:
        tokenizer.load(sentencepiece_folder(tmp_path, described, **files))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("described", [None, {}, {"bos_token": "<s>", "eos_token": "</s>"}])
def test_what_a_bare_sentencepiece_folder_is_told_to_do_makes_it_readable(described, tmp_path):
    """transformers 5 takes no class by the model's type, and loses the space before a text."""
    folder = sentencepiece_folder(tmp_path / "hf", described)
    with pytest.raises(UserError) as error:
        tokenizer.load(folder)
    told = json.loads(re.search(r"LLaMA 1 and 2: (\{.*?\})", str(error.value))[1])
    (folder / "tokenizer_config.json").write_text(json.dumps((described or {}) | told))
    ours, _ = same(folder, tmp_path / "out", mixed(100))
    assert encode.adds_bos(ours)
    theirs = SentencePieceProcessor(model_proto=sentencepiece_model())
    assert encode.prompt_ids(SENTENCES[0], ours) == [1, *theirs.encode(SENTENCES[0])]


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LLaMATokenizer", "LlamaTokenizerFast"])
def test_names_of_the_class_that_folders_have_are_read_or_refused(name, tmp_path):
    folder = sentencepiece_folder(tmp_path / "hf", LLAMA | {"tokenizer_class": name})
    if name == "LLaMATokenizer":
        assert "tokenizer_class" in refusal(folder)
    else:
        same(folder, tmp_path / "out", mixed(50))


def test_damaged_files_are_refused(tmp_path):
    model = sentencepiece_model()
    for content in [b"", b"not a model", model[: len(model) // 2], b"\x80" * 40, b"IQ== 0\nIg== 1\n" * 9]:
        with pytest.raises(UserError, match=r"tokenizer\.model is not a sentencepiece model, or is cut short"):
            tokenizer.load(sentencepiece_folder(tmp_path, model=content))


WRONG = [
    "",
    7,
    -1,
    1.5,
    True,
    [],
    ["x"],
    {},
    {"content": ""},
    {"content": 3},
    {"content": {"content": "x"}},
    {"content": "x"},
    [[[]]],
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map", "added_tokens"])
def test_settings_of_wrong_types_are_one_line_that_names_the_key(name, tmp_path):
    keys = ["bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens", "extra_special_tokens"]
    if name == "tokenizer_config":
        keys += ["add_bos_token", "add_eos_token", "legacy", "add_prefix_space", "added_tokens_decoder"]
        keys += ["chat_template", "tokenizer_class", "model_max_length", "auto_map", "init_inputs", "backend"]
        keys += ["padding_side", "truncation_side", "split_special_tokens", "clean_up_tokenization_spaces", "__class__"]
    if name == "added_tokens":
        keys = ["<s>", "<new>", ""]
    for key in keys:
        for value in [*WRONG, None]:
            described = LLAMA | {key: value} if name == "tokenizer_config" else LLAMA
            files = {} if name == "tokenizer_config" else {name: {key: value}}
            folder = sentencepiece_folder(tmp_path, described, **files)
            if said := refusal(folder):
                assert "\n" not in said, (key, value)
                assert str(folder) in said, (key, value)
                assert key in said, (key, value, said)


@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map", "added_tokens"])
def test_what_is_no_object_of_settings_is_named(name, tmp_path):
    for content in ["[]", "null", "7", '"x"', "{", "", "[" * 100_000]:
        sentencepiece_folder(tmp_path)
        (tmp_path / f"{name}.json").write_text(content)
        with pytest.raises(UserError, match=rf"{name}\.json: ") as error:
            tokenizer.load(tmp_path)
        assert "\n" not in str(error.value)
    (tmp_path / f"{name}.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="not JSON"):
        tokenizer.load(tmp_path)


def test_all_empty_tokens_are_named_at_once(tmp_path):
    """As conversions of LLaMA 1 of early 2023 have them."""
    empty = {"bos_token": "", "eos_token": "", "unk_token": "", "tokenizer_class": "LLaMATokenizer"}
    with pytest.raises(UserError) as error:
        tokenizer.load(sentencepiece_folder(tmp_path, empty))
    for key in ("bos_token", "eos_token", "unk_token"):
        assert f'{key}="": an empty text names no token' in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=4)
)
def test_a_hostile_tokenizer_json_is_one_line(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("hostile")
    tokenizer.save(tokenizer.train_bpe(SENTENCES[:3], 700), folder)
    good = json.loads((folder / "tokenizer.json").read_text())
    for key in good:
        (folder / "tokenizer.json").write_text(json.dumps(good | {key: value}))
        assert "\n" not in refusal(folder)


# --- chat templates ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=TEMPLATES)
def chatting(request, tmp_path_factory):
    """Our reading and AutoTokenizer's of folders with one chat template, in each place where it may be."""
    template, made = TEMPLATES[request.param], []
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
    for name, described in FOLDERS.items():
        place = tmp_path_factory.mktemp("chat")
        written = {"chat_template": several if name == "legacy" else template} if name != "LLaMA" else {}
        folder = sentencepiece_folder(place / "hf", described | written)
        if name == "LLaMA":
            (folder / "chat_template.jinja").write_text(template)
        made.append(same(folder, place / "out", []))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(int(time.time())))  # transformers writes the day of today
        chat_template.moment.cache_clear()
        yield made
    chat_template.moment.cache_clear()


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(TEXTS)
def test_a_chat_prompt_has_the_ids_of_apply_chat_template(chatting, message):
    for ours, theirs in chatting:
        if ours.bos_token is None and "bos_token +" in ours.get_chat_template():
            continue  # such a template fails without BOS, in transformers too
        chat = [{"role": "user", "content": message}]
        expected = theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=True).input_ids
        assert encode.prompt_ids(tokenizer.as_chat(message, ours), ours, rendered=True) == expected
