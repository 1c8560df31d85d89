"""Tokenizers: whole numbers are single tokens, any text comes back, the same texts give the same ids."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lema_jax.data import encode, tokenizer
from lema_jax.errors import UserError
from tests.tokenizer_files import TEMPLATES

TEXTS = ["Ann has 12 apples and buys 345 more for $20.", "Ann eats 3 apples: 12 + 345 - 3 = 354.", "Übung 99 naïve"] * 5


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return tokenizer.train_bpe(TEXTS, 760)


def ids(words: PreTrainedTokenizerFast, text: str) -> list[int]:
    return words(text, add_special_tokens=False).input_ids


def test_whole_numbers_after_a_space_are_one_token(words: PreTrainedTokenizerFast) -> None:
    numbers = [ids(words, f" {n}") for n in range(401)]
    assert all(len(found) == 1 for found in numbers)
    assert len({found[0] for found in numbers}) == 401
    assert ids(words, "sum is 37, of 4 and 33.") != ids(words, "sum is 38, of 4 and 33.")


@pytest.mark.parametrize("text", ["12a", "a12", " 12a", "12.5", "$12", "12%", " -12", "1,200", " 12 + 3=15"])
def test_digits_never_share_a_token_with_anything_else(words: PreTrainedTokenizerFast, text: str) -> None:
    for token in (words.decode([id]).strip() for id in ids(words, text)):
        assert token.isdigit() or not any(letter.isdigit() for letter in token)


@given(text=st.text())
@example(text="  two\n\n spaces \t")
@example(text="<s> 12 </s><pad>")
@example(text="½ × 3⅓ = 𝟝 ٣ 👩‍👧 \x00 \r\n")
def test_any_text_comes_back(words: PreTrainedTokenizerFast, text: str) -> None:
    assert words.decode(ids(words, text)) == text
    assert words.decode(words(text).input_ids, skip_special_tokens=False) == "<s>" + text


def test_a_saved_tokenizer_is_the_same(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save(words, tmp_path / "model" / "tokenizer")
    for place in (tmp_path / "model", tmp_path / "model" / "tokenizer"):
        loaded = tokenizer.load(place)
        assert tokenizer.fingerprint(loaded) == tokenizer.fingerprint(words)
        assert loaded("Ann has 12.").input_ids == words("Ann has 12.").input_ids
        assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<s>", "</s>", "<pad>")
        assert encode.adds_bos(loaded)


def test_a_saved_tokenizer_opens_by_hugging_face_alone(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save(words, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("Ann has 12.").input_ids == words("Ann has 12.").input_ids
    assert (
        Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("Ann has 12.").ids
        == loaded("Ann has 12.").input_ids
    )


def test_fingerprints_tell_tokenizers_apart_and_nothing_else(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    before = tokenizer.fingerprint(words)
    words(["a", "a b c"], padding=True, truncation=True, max_length=3)  # leaves traces in the backend
    assert tokenizer.fingerprint(words) == before
    assert tokenizer.fingerprint(tokenizer.train_bpe([*TEXTS, "other words"] * 3, 770)) != before
    tokenizer.save(words, tmp_path)
    other_end = tokenizer.load(tmp_path)
    other_end.eos_token = "<pad>"
    assert tokenizer.fingerprint(other_end) != before


@pytest.mark.slow
def test_training_is_the_same_in_every_process(words: PreTrainedTokenizerFast) -> None:
    code = f"from lema_jax.data import tokenizer as t; print(t.fingerprint(t.train_bpe({TEXTS!r}, 760)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == tokenizer.fingerprint(words)


def test_a_vocabulary_that_is_too_small_says_what_is_enough() -> None:
    with pytest.raises(UserError, match=r"tokenizer of 100 ids is too small; .* take (\d+)") as error:
        tokenizer.train_bpe(TEXTS, 100)
    enough = int(str(error.value).rpartition(" ")[2])
    assert len(tokenizer.train_bpe(TEXTS, enough)) == enough
    with pytest.raises(UserError):
        tokenizer.train_bpe(TEXTS, enough - 1)


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no tokenizer in {tmp_path}"):
        tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        tokenizer.load(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, bos_token="<s>").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="eos_token is missing"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "template", [*TEMPLATES.values(), " {{ bos_token }}{{ messages[0].content }}"], ids=[*TEMPLATES, "space"]
)
@pytest.mark.parametrize("post", [True, False], ids=["BOS", "no BOS"])
def test_a_rendered_message_has_the_ids_of_apply_chat_template(
    words, tmp_path: Path, clock, template: str, post: bool
) -> None:
    """Whether the tokenizer begins a text with BOS or not, and whether the template writes it or not."""
    clock("today")
    tokenizer.save(words, tmp_path)
    if not post:
        raw = json.loads((tmp_path / "tokenizer.json").read_text())
        (tmp_path / "tokenizer.json").write_text(json.dumps(raw | {"post_processor": None}))
    (tmp_path / "chat_template.jinja").write_text(template)
    loaded = tokenizer.load(tmp_path)
    assert encode.adds_bos(loaded) == post
    for message in ("How many?", "", " <s>12 </s>", "two\n\nlines  ", "{{ 7 }}"):
        chat = [{"role": "user", "content": message}]
        expected = loaded.apply_chat_template(chat, add_generation_prompt=True).input_ids
        assert encode.prompt_ids(tokenizer.as_chat(message, loaded), loaded, rendered=True) == expected


def test_of_several_templates_the_default_is_taken(words, tmp_path: Path) -> None:
    tokenizer.save(words, tmp_path / "a")
    path = tmp_path / "a" / "tokenizer_config.json"
    named = [{"name": "rag", "template": "r"}, {"name": "default", "template": "<{{ messages[0].content }}>"}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": named}))
    tokenizer.save(tokenizer.load(tmp_path / "a"), tmp_path / "b")  # no folder of templates, which copies would miss
    assert all(file.is_file() for file in (tmp_path / "b").iterdir())
    assert tokenizer.as_chat("hi", tokenizer.load(tmp_path / "b")) == "<hi>"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": named[:1]}))
    with pytest.raises(UserError, match="no default specified"):
        tokenizer.as_chat("hi", tokenizer.load(tmp_path / "a"))


def test_what_a_tokenizer_puts_before_a_text_is_not_what_it_puts_behind(words) -> None:
    """With one token for both ends, as in GPT-2."""
    backend = Tokenizer.from_str(words.backend_tokenizer.to_str())
    ends = [("</s>", 1)]
    for single, before in (("$A </s>", []), ("</s> $A", [1]), ("</s> $A </s>", [1]), ("$A", [])):
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
        one = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="</s>", eos_token="</s>")
        assert encode.prefix_ids(one) == before
        assert encode.prompt_ids("Ann has 12.", one) == before + ids(words, "Ann has 12.")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("", "has no chat template"),
        ("{% for", "chat template cannot be used"),
        ("{{ raise_exception('system first') }}", "cannot be used: system first"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "cannot be used: access to attribute '__class__'"),
        ("{{ 1 / 0 }}", "cannot be used: division by zero"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "cannot be used: maximum recursion"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "cannot be used: Range too big"),
        ("{{ messages[0].content.x.y }}", "cannot be used: "),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_told_of(words, tmp_path: Path, template: str, complaint: str) -> None:
    tokenizer.save(words, tmp_path)
    if template:
        (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=complaint) as error:
        tokenizer.as_chat("How many?", tokenizer.load(tmp_path))
    assert str(tmp_path) in str(error.value)
