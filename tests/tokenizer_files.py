"""Tokenizer folders as Hugging Face models have them, made from a few sentences of our own."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import sentencepiece

SENTENCES = tuple(
    f"{name} has {n} {things}, buys {n * 7 % 90} more for ${n * 3}.50 and gives {n % 9} to {other}'s class; "
    f"the answer is {n * 5}. Naïve café, Straße and 日本語 stand beside {things}.\n\nHow many are left?"
    for n in range(1, 60)
    for name, other, things in (("Ann", "Bob", "apples"), ("Wei", "Sofía", "red marbles"), ("Olu", "Tom", "boxes"))
)
LLAMA = {
    "tokenizer_class": "LlamaTokenizer",
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
# What models' authors write as chat templates, by shape.
TEMPLATES = {
    "zephyr": (  # no BOS; an end after every turn
        "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] + eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "chatml": (  # a default system prompt
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "inst": (  # BOS before every question
        "{% for m in messages %}{% if m['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + m['content'] | trim + ' [/INST]' }}"
        "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}"
        "{% else %}{{ raise_exception('only user and assistant speak') }}{% endif %}{% endfor %}"
    ),
    "headers": (  # a date, tools, documents, and BOS after white space
        "{%- set day = strftime_now('%Y') if strftime_now is defined else 'a year' %}\n \n{{ bos_token }}"
        "{%- if tools is not none %}{{ tools | tojson }}{% endif %}"
        "{% if documents %}{{ documents | tojson }}{% endif %}"
        "{{- '<|start|>system<|end|>\n\nIn ' + day + '.' + eos_token }}"
        "{%- for m in messages %}{{ '<|start|>' + m.role + '<|end|>\n\n' + m.content | trim + eos_token }}{% endfor %}"
        "{%- if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
    ),
    "turns": (  # roles by other names, and marks of what is trained on
        "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
        "{{ '<turn>' + role + '\n' }}{% generation %}{{ m.content | tojson }}{% endgeneration %}{{ '</turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
    ),
}


@functools.cache
def sentencepiece_model(**changes: Any) -> bytes:
    """A small sentencepiece model with LLaMA's settings, or with changes to them."""
    settings = {
        "vocab_size": 420,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "character_coverage": 0.9995,
        "num_threads": 1,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    texts = iter(SENTENCES)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_writer=model, **settings | changes)
    return model.getvalue()


def sentencepiece_folder(folder: Path, settings: Any = LLAMA, model: bytes | None = None, **files: Any) -> Path:
    """A model's folder with a `tokenizer.model`, `config.json`, and JSON files by their names without `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model() if model is None else model)
    described = {"config": {"model_type": "llama"}, "tokenizer_config": settings} | files
    for name, content in described.items():
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            (folder / f"{name}.json").write_text(text)
    return folder


def added(content: str, **how: bool) -> dict[str, Any]:
    """An entry of `added_tokens_decoder`."""
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    return {"content": content, **plain, **how}
