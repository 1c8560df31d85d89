"""How alike a server of the same model answers: each token of its greedy answers, and the one that ours chooses there.

    python -m tests.benchmarks.bench_server --checkpoint=runs/base --base_url=http://127.0.0.1:8731/v1 [--prompts=8]

The server is OpenAI-compatible (llama.cpp with the model's GGUF, say). The first questions of GSM8K's test split are
asked as chat, for answers of `new` tokens; our model reads each answer in one pass. One JSON line: tokens that are
alike, answers all of whose tokens are, and by how many nats ours prefers its own token where they differ.
"""

import argparse
import json
import urllib.request

import jax
import numpy as np

from lema_jax import checkpoint
from lema_jax.data import tokenizer
from lema_jax.model.config import Compute
from lema_jax.model.llama import Llama
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.tasks import gsm8k


def answer(base_url: str, question: str, new: int) -> str:
    """The server's greedy answer."""
    asked = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": new, "model": "any"}
    request = urllib.request.Request(
        f"{base_url}/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--base_url", required=True)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--new", type=int, default=64)
    given = parser.parse_args()
    questions = [problem.question for problem in gsm8k.load("test", None)[: given.prompts]]
    texts = [answer(given.base_url, question, given.new) for question in questions]

    words, compute = tokenizer.load(given.checkpoint), Compute()
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    metadata, variables = checkpoint.load_weights(given.checkpoint, mesh, compute)
    choose = jax.jit(
        lambda variables, tokens: jax.nn.log_softmax(Llama(metadata.config, compute).apply(variables, tokens))
    )
    alike = tokens = equal = 0
    leads = []
    for question, text in zip(questions, texts):
        chat = [{"role": "user", "content": question}]
        prompt = words.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        start, ids = len(words(prompt).input_ids), words(prompt + text).input_ids
        row = np.zeros((1, 64 * -(-len(ids) // 64)), np.int32)
        row[0, : len(ids)] = ids
        logs = np.asarray(choose(variables, row))[0, start - 1 : len(ids) - 1]
        own, theirs = logs.argmax(axis=-1), np.array(ids[start:])
        differ = np.flatnonzero(own != theirs)
        leads += [round(float(logs[at, own[at]] - logs[at, theirs[at]]), 3) for at in differ]
        alike, tokens, equal = alike + len(theirs) - len(differ), tokens + len(theirs), equal + (len(differ) == 0)
    print(json.dumps({"tokens": tokens, "alike": alike, "answers_alike": f"{equal} of {len(texts)}", "leads": leads}))


if __name__ == "__main__":
    main()
