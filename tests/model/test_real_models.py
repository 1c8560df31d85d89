"""The real SmolLM2-135M and Qwen2.5-Coder-0.5B, converted without torch, against transformers' reading of the file."""

import json
import os
import random
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import transformers

from lema_jax import convert
from lema_jax.generation.engine import Engine
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.tasks import gsm8k
from lema_jax.weights import names, vocabulary
from lema_jax.weights.gguf import Gguf

torch = pytest.importorskip("torch", reason="the independent implementation; install the extra `oracle`")
pytestmark = pytest.mark.long
# The greedy comparison at full length is LEMA_PARITY=256x256: some 20 minutes of two cores.
PROMPTS, TOKENS = map(int, os.environ.get("LEMA_PARITY", "64x128").split("x"))


@pytest.fixture(scope="module", params=["smollm2_gguf", "qwen2_gguf"])
def path(request) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def theirs(path):
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def ours(path):
    file = Gguf(path)
    params = jax.device_put(names.load_model(file, file.config, np.dtype(np.float32)))
    return Llama(file.config, Compute()), {"params": params}, vocabulary.from_gguf(file)


@pytest.fixture(scope="module")
def problems(data_dir):
    return gsm8k.load("test", data_dir)


def padded(ids: list[list[int]]) -> np.ndarray:
    """Rows filled up on the right; a causal model's answers before the filling do not change."""
    width = 64 * -(-max(map(len, ids)) // 64)
    return np.array([row + [0] * (width - len(row)) for row in ids])


def test_an_export_answers_alike(path, ours, problems, tmp_path):
    """transformers reads the exported folder: the same ids, the chat template, and our greedy tokens."""
    convert.run(convert.Config(gguf=str(path), to="hf", out=tmp_path / "hf"))
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    reads = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    model, variables, tokenizer = ours
    chats = [[{"role": "user", "content": problem.question}] for problem in problems[:4]]
    prompts = [reads.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    engine = Engine(model, variables, tokenizer, mesh, rows=4, max_new_tokens=32, rendered=True)
    for done in engine.complete(prompts):
        ids = reads(prompts[done.index], add_special_tokens=False, return_tensors="pt")
        assert ids.input_ids.shape[1] == done.prompt_tokens
        made = exported.generate(**ids, max_new_tokens=32, do_sample=False)[0, done.prompt_tokens :]
        assert reads.decode(made, skip_special_tokens=True) == done.text


PIECES = [
    *("日本語の", "中文，数学题：小明有", "个苹果。", "한국어", "العربية", "עברית", "ﬁ", "Ａ", "½Ⅷ²٣٤٥"),
    *("😀👩\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "e\u0301", "\u1100\u1161", "\ufeff", "\U0010ffff", "\u200d", "\0"),
    *("12345", "$1,234.56", "<<3*4=12>>", "x_1^2", "\\frac{1}{2}", "it's", "IT'S", "'LL", "a", "def f(x):\n    return"),
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<tool_call>", "</tool_call>", "[PAD151665]"),
    *(" ", "  ", "\n", "\r\n\n", "\t", "\u00a0", "\u3000"),
]


def test_ids_of_5000_lines(qwen2_gguf, data_dir):
    theirs = transformers.AutoTokenizer.from_pretrained(qwen2_gguf.parent, gguf_file=qwen2_gguf.name)
    tokenizer = vocabulary.from_gguf(Gguf(qwen2_gguf))
    read = lambda name, key: [json.loads(line)[key] for line in (data_dir / name).read_text().splitlines()[:1500]]
    code = [line for file in Path(convert.__file__).parent.rglob("*.py") for line in file.read_text().splitlines()]
    chance = random.Random(0)
    lines = read("gsm8k/train.jsonl", "question") + read("math/train.jsonl", "problem") + chance.sample(code, 1000)
    lines += ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(1000)]
    for line in lines:
        ids = tokenizer(line).input_ids
        assert ids == theirs(line).input_ids, line
        assert tokenizer.decode(ids) == line


def test_logits(ours, theirs, problems):
    model, variables, tokenizer = ours
    ids = [tokenizer(gsm8k.prompt(problem)).input_ids for problem in problems[:8]]
    found = np.asarray(jax.jit(model.apply)(variables, padded(ids)))
    worst = 0.0
    for row, logits in zip(ids, found):
        with torch.no_grad():
            expected = theirs(torch.tensor([row])).logits[0].numpy()
        worst = max(worst, np.abs(logits[: len(row)] - expected).max())
    print(f"largest difference of a logit over 8 prompts: {worst:.2e}")
    assert worst <= 1e-3


def test_greedy_answers_token_for_token(ours, theirs, problems):
    model, variables, tokenizer = ours
    prompts = [gsm8k.prompt(problem) for problem in problems[:PROMPTS]]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    engine = Engine(model, variables, tokenizer, mesh, rows=16, max_new_tokens=TOKENS)
    found = {done.index: done for done in engine.complete(prompts)}
    same, tokens = 0, 0
    for start in range(0, len(prompts), 16):
        batch = tokenizer(prompts[start : start + 16], return_tensors="pt", padding=True, padding_side="left")
        made = theirs.generate(
            **batch,
            max_new_tokens=TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        for row, ids in enumerate(made[:, batch["input_ids"].shape[1] :].tolist()):
            ids = ids[: ids.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in ids else ids
            done = found[start + row]
            tokens += len(ids)
            if done.completion_tokens == len(ids) and done.text == tokenizer.decode(ids, skip_special_tokens=True):
                same += 1
            else:  # answers may part only where the two likeliest tokens tie to float32's rounding
                assert closest_race(theirs, tokenizer(prompts[start + row]).input_ids, ids) < 1e-4
    print(f"{same} of {len(prompts)} greedy answers ({tokens} tokens) are the same")
    assert same >= len(prompts) * 63 // 64


def closest_race(model, prompt: list[int], answer: list[int]) -> float:
    """The least lead of the likeliest token over the second in a greedy answer."""
    with torch.no_grad():
        best = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].topk(2).values
    return (best[:, 0] - best[:, 1]).min().item()


def test_perplexity_of_solutions(ours, theirs, problems):
    model, variables, tokenizer = ours
    nll = jax.jit(
        lambda variables, tokens: optax.softmax_cross_entropy_with_integer_labels(
            model.apply(variables, tokens)[:, :-1], tokens[:, 1:]
        )
    )
    texts = [gsm8k.prompt(problem) + gsm8k.completion(problem) for problem in problems[:200]]
    rows = sorted((tokenizer(text).input_ids for text in texts), key=len)
    mine = yours = count = 0.0
    for start in range(0, len(rows), 8):
        batch = rows[start : start + 8]
        tokens = padded(batch)
        loss = np.asarray(nll(variables, tokens))
        with torch.no_grad():
            logits = theirs(torch.from_numpy(tokens)).logits[:, :-1]
        # Row by row: over a turned array torch adds the vocabulary up one by one, and is 1e-4 nats off.
        targets = torch.from_numpy(tokens)[:, 1:].flatten()
        flat = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        expected = flat.reshape(len(batch), -1)
        for row, ids in enumerate(batch):
            mine += loss[row, : len(ids) - 1].sum(dtype=np.float64).item()
            yours += expected[row, : len(ids) - 1].sum().item()
            count += len(ids) - 1
    print(f"perplexity of 200 solutions: {np.exp(mine / count):.6f}, transformers {np.exp(yours / count):.6f}")
    assert mine / count == pytest.approx(yours / count, rel=1e-5)
