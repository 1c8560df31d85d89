"""The stage from end to end: every format in and out, a rerun, mistakes, nothing half-written."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from lema_jax import checkpoint, convert, digests, steps
from lema_jax.checkpoint import Metadata
from lema_jax.data import dataset
from lema_jax.data import tokenizer as tokenizers
from lema_jax.data.encode import Encoded
from lema_jax.model.config import Compute, LlamaConfig, LoraConfig, RopeScaling
from lema_jax.model.llama import Llama
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training import loop
from lema_jax.training.config import DataConfig, TrainConfig
from lema_jax.weights import hf_config, names, peft, safetensors
from tests import commands, several, tiny

CONFIG = LlamaConfig(720, 32, 48, 2, 4, 2, 8, 128, rope_scaling=RopeScaling("llama3", 8.0, 32), attention_bias=True)
TEXTS = ["Ann has 3 apples and buys 12 more.", "The answer is 15.", "naïve café 😀 1,234"]
TOKENS = np.random.default_rng(0).integers(0, 720, (2, 16))


run = functools.partial(commands.run, convert.command)
converted = functools.partial(commands.succeeds, convert.command)


def random_weights(dtype=np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: (0.2 * random.normal(size=entry.hf_shape) + name.endswith("norm.weight")).astype(dtype)
        for entry in names.table(CONFIG)
        for name in entry.names
    }


@pytest.fixture
def hf_dir(tmp_path: Path) -> Path:
    """A Hugging Face folder of bfloat16 weights in two files."""
    folder = tmp_path / "hf"
    folder.mkdir()
    tokenizers.save(tokenizers.train_bpe(TEXTS, CONFIG.vocab_size), folder)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    (folder / "config.json").write_text(json.dumps(hf_config.to_hf(CONFIG, "bfloat16", ids)))
    (folder / "generation_config.json").write_text(json.dumps(ids | {"eos_token_id": [1, 5]}))
    weights = random_weights(ml_dtypes.bfloat16)
    halves = [dict(list(weights.items())[start::2]) for start in (0, 1)]
    for number, half in enumerate(halves):
        save_file(half, folder / f"{number}.safetensors")
    weight_map = {name: f"{number}.safetensors" for number, half in enumerate(halves) for name in half}
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def peft_dir(tmp_path: Path) -> Path:
    """An adapter of PEFT's for that model."""
    folder = tmp_path / "peft"
    folder.mkdir()
    shape = LoraConfig(rank=4, alpha=6.0, dropout=0.05)
    random = np.random.default_rng(1)
    entries = peft.table(CONFIG, shape, [hf for hf, _, _ in names.LINEARS])
    arrays = {entry.path: 0.1 * random.normal(size=entry.full_shape).astype(np.float32) for entry in entries}
    peft.save(folder, unflatten_dict(arrays, sep="/"), shape, CONFIG, "someone/base")
    return folder


def logits_of(folder: Path) -> np.ndarray:
    """A model folder's answer to TOKENS, as every later command reads it."""
    metadata, variables = checkpoint.load_weights(folder, make_mesh(MeshConfig(), jax.devices()[:1]), Compute())
    logits = np.asarray(tiny.apply(Llama(metadata.config, Compute(), metadata.lora), variables, TOKENS))
    return logits[..., : metadata.config.vocab_size]


@pytest.mark.slow
def test_a_folder_comes_out_as_it_went_in_and_a_rerun_does_nothing(hf_dir, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    converted(f"--hf_dir={hf_dir}", f"--out={model}")
    converted(f"--checkpoint={model}", "--to=hf", f"--out={out}", "--shard_gib=0.00001")
    assert hf_config.read(out) == CONFIG
    assert checkpoint.read_metadata(model).config == dataclasses.replace(CONFIG, vocab_padding=48)
    assert checkpoint.read_metadata(model).eos_ids == (1, 5)
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [1, 5]
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    stored = {name: array for file in out.glob("*.safetensors") for name, array in load_file(file).items()}
    for name, array in random_weights(ml_dtypes.bfloat16).items():
        assert stored[name].tobytes() == array.tobytes(), name
    same = tokenizers.fingerprint(tokenizers.load(hf_dir))
    assert tokenizers.fingerprint(tokenizers.load(model)) == tokenizers.fingerprint(tokenizers.load(out)) == same
    assert "nothing to do" in converted(f"--checkpoint={model}", "--to=hf", f"--out={out}", "--shard_gib=0.00001")
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert "there already" in converted(f"--hf_dir={hf_dir}", f"--out={model}")
    assert before == {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "model", "out"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["tokenizer/tokenizer.json", "checkpoints"])
def test_a_folder_that_lost_a_part_is_not_taken_for_made(hf_dir, tmp_path, lost):
    given = (f"--hf_dir={hf_dir}", f"--out={tmp_path / 'model'}")
    converted(*given)
    (tmp_path / "model" / lost).rename(tmp_path / "lost")
    assert "nothing to do" not in commands.fails(convert.command, *given)


@pytest.mark.slow
def test_an_adapter_s_own_tokenizer_is_said_to_be_left_out(hf_dir, peft_dir, tmp_path):
    converted(f"--hf_dir={hf_dir}", f"--out={tmp_path / 'model'}")
    given = (f"--checkpoint={tmp_path / 'model'}", f"--peft_dir={peft_dir}", "--to=adapter")
    own = tokenizers.load(hf_dir)
    tokenizers.save(own, peft_dir)
    assert "tokenizer of its own" not in converted(*given, f"--out={tmp_path / 'a'}")
    own.chat_template = "{{ messages[0].content }}"
    tokenizers.save(own, peft_dir)
    assert "has a tokenizer of its own (end of text '</s>', a chat template)" in converted(
        *given, f"--out={tmp_path / 'b'}"
    )


@pytest.mark.slow
def test_of_a_model_folder_one_array_at_a_time_is_read_and_each_once(tmp_path, monkeypatch):
    tree = tiny.variables()["params"]
    tokenizers.save(tokenizers.train_bpe(TEXTS, tiny.CONFIG.vocab_size), tmp_path / "tokenizer")
    checkpoint.save_model(tmp_path / "model", Metadata(tiny.CONFIG, "any"), tree, tmp_path / "tokenizer")
    read, load = [], steps.ocp.load_checkpointables

    def counting(path, abstract):
        found = load(path, abstract)
        read.append([leaf for leaf in jax.tree.leaves(found) if leaf is not steps.ocp.PLACEHOLDER])
        return found

    monkeypatch.setattr(steps.ocp, "load_checkpointables", counting)
    stored = checkpoint.stored_weights(tmp_path / "model")[1]["params"]
    assert not read
    source = names.Tree(stored, names.table(tiny.CONFIG), "the folder")
    (tmp_path / "out").mkdir()
    safetensors.save(tmp_path / "out", source, None, 1 << 30)
    assert [len(arrays) for arrays in read] == [1] * len(jax.tree.leaves(stored))
    want = names.Tree(tree, names.table(tiny.CONFIG), "memory")
    for name, array in load_file(tmp_path / "out" / safetensors.SINGLE).items():
        np.testing.assert_array_equal(array, names.read_whole(want, name))


@pytest.mark.long
def test_adapters_of_peft_are_run_merged_and_given_back(hf_dir, peft_dir, tmp_path):
    base, adapted, merged, alone = (tmp_path / name for name in ("base", "adapted", "merged", "alone"))
    converted(f"--hf_dir={hf_dir}", f"--out={base}", "--dtype=float32")
    told = json.loads((base / "model.json").read_text()) | {"prompt_style": "tagged"}
    del told["sha256"]
    (base / "model.json").write_text(json.dumps(told))
    told = converted(f"--checkpoint={base}", f"--peft_dir={peft_dir}", "--to=adapter", f"--out={adapted}")
    assert "rank 4, alpha 6 in 2 layers on self_attn.q_proj, self_attn.k_proj" in told
    converted(f"--checkpoint={adapted}", f"--out={merged}")
    assert checkpoint.read_metadata(adapted).lora == LoraConfig(4, 6.0, 0.05)
    assert checkpoint.read_metadata(adapted).prompt_style == checkpoint.read_metadata(merged).prompt_style == "tagged"
    assert checkpoint.read_metadata(merged).lora is None
    np.testing.assert_allclose(logits_of(adapted), logits_of(merged), atol=1e-4)
    assert np.abs(logits_of(base) - logits_of(merged)).max() > 0.1
    converted(f"--checkpoint={adapted}", "--to=peft", f"--out={alone}", "--peft_base=someone/base")
    original, back = (load_file(folder / peft.SAFETENSORS) for folder in (peft_dir, alone))
    assert original.keys() == back.keys()
    assert all(original[name].tobytes() == back[name].tobytes() for name in original)
    one, other = tmp_path / "one", tmp_path / "other"
    converted(f"--checkpoint={adapted}", "--to=hf", f"--out={one}")
    converted(f"--hf_dir={hf_dir}", f"--peft_dir={peft_dir}", "--to=hf", f"--out={other}", "--dtype=float32")
    for name, array in load_file(one / safetensors.SINGLE).items():
        np.testing.assert_array_equal(array, load_file(other / safetensors.SINGLE)[name])


@pytest.mark.long
def test_adapters_upon_nf4_are_merged_into_the_base_or_into_what_nf4_holds(tmp_path):
    base, adapted = tmp_path / "base", tmp_path / "adapted"
    shape = LoraConfig(rank=4, alpha=8.0, base="nf4")
    variables = tiny.variables(tiny.TILED, LoraConfig(rank=4))
    tokenizers.save(tokenizers.train_bpe(TEXTS, tiny.TILED.vocab_size), tmp_path / "tokenizer")
    checkpoint.save_model(base, Metadata(tiny.TILED, "base"), variables["params"], tmp_path / "tokenizer")
    metadata = Metadata(tiny.TILED, "adapted", shape, "../base", checkpoint.identity(base))
    checkpoint.save_model(adapted, metadata, variables["lora"], tmp_path / "tokenizer")
    converted(f"--checkpoint={adapted}", f"--out={tmp_path / 'held'}", "--merge_into=nf4")
    converted(f"--checkpoint={adapted}", f"--out={tmp_path / 'plain'}")
    trained, held, plain = (logits_of(tmp_path / name) for name in ("adapted", "held", "plain"))
    np.testing.assert_allclose(held, trained, atol=1e-4)
    assert np.abs(plain - trained).max() > 0.01
    assert "has nothing to merge" in run(f"--checkpoint={base}", "--merge_into=nf4", f"--out={tmp_path / 'x'}").stderr


@pytest.mark.long
def test_an_adapter_of_peft_trains_on(hf_dir, peft_dir, tmp_path):
    base, adapted, data, out = (tmp_path / name for name in ("base", "adapted", "data", "out"))
    converted(f"--hf_dir={hf_dir}", f"--out={base}", "--dtype=float32")
    converted(f"--checkpoint={base}", f"--peft_dir={peft_dir}", "--to=adapter", f"--out={adapted}")
    data.mkdir()
    tokenizers.save(tokenizers.load(hf_dir), data / "tokenizer")
    encoded = [Encoded(row.astype(np.int32), np.ones(16, np.uint8)) for row in np.tile(TOKENS, (8, 1))]
    dataset.write_records(encoded, data)
    lora = checkpoint.read_metadata(adapted).lora
    settings = DataConfig(str(data), batch_size=8, seq_len=16)
    loop.run(TrainConfig(init=str(adapted), out=str(out), data=settings, lora=lora, steps=4, log_every=1))
    assert checkpoint.read_metadata(out).eos_ids == (1, 5)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    before, after = logits_of(adapted), logits_of(out)
    assert 1e-4 < np.abs(before - after).max() < np.abs(before - logits_of(base)).max()


def test_every_byte_of_a_large_file_counts_and_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_BLOCK", 1 << 16)
    monkeypatch.setattr(digests, "_CACHED", 1 << 20)
    hashed, hash_parts = [], digests._hash
    monkeypatch.setattr(digests, "_hash", lambda parts: hashed.append(len(parts)) or hash_parts(parts))
    file = tmp_path / "model.gguf"
    content = bytearray(np.random.default_rng(0).bytes(3_000_001))
    file.write_bytes(content)
    first = digests.fingerprint([file], names=False)
    assert digests.fingerprint([file], names=False) == first
    assert hashed == [46]
    for byte in (0, 65_535, 65_536, 1_234_567, 3_000_000):
        changed = bytearray(content)
        changed[byte] ^= 1
        file.write_bytes(changed)
        assert digests.fingerprint([file], names=False) != first, byte
        times = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as tools that keep times do
        assert digests.fingerprint([file], names=False) == first
    (tmp_path / "copy.gguf").write_bytes(content)
    assert digests.fingerprint([tmp_path / "copy.gguf"], names=False) == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # where no folder can be made
    assert digests.fingerprint([file], names=False) == first


@pytest.mark.slow
def test_what_shapes_an_output_is_in_what_calls_it_done(hf_dir, tmp_path):
    model, out = tmp_path / "model", tmp_path / "out"
    converted(f"--hf_dir={hf_dir}", f"--out={model}")
    converted(f"--checkpoint={model}", "--to=hf", f"--out={out}")
    assert "nothing to do" in converted(f"--checkpoint={model}", "--to=hf", f"--out={out}")
    assert "made from something else" in run(f"--checkpoint={model}", "--to=hf", f"--out={out}", "--shard_gib=1").stderr
    (hf_dir / "chat_template.jinja").write_text("{{ messages }}")
    assert "made from something else" in run(f"--hf_dir={hf_dir}", f"--out={model}").stderr
    weights = out / safetensors.SINGLE
    content = bytearray(weights.read_bytes())
    content[-100] ^= 4
    weights.write_bytes(content)
    for damaged in (
        run(f"--checkpoint={model}", "--to=hf", f"--out={out}"),
        run(f"--hf_dir={out}", f"--out={tmp_path}/x"),
    ):
        assert damaged.stderr.startswith(f"error: {weights} is damaged")
        assert len(damaged.stderr.splitlines()) == 1


@pytest.mark.long
def test_adapters_that_were_exported_go_on_no_other_base(hf_dir, peft_dir, tmp_path):
    base, other, adapted, alone, hf = (tmp_path / name for name in ("base", "other", "adapted", "alone", "hf_again"))
    converted(f"--hf_dir={hf_dir}", f"--out={base}", "--dtype=float32")
    converted(f"--hf_dir={hf_dir}", f"--out={other}", "--dtype=float16")
    converted(f"--checkpoint={base}", f"--peft_dir={peft_dir}", "--to=adapter", f"--out={adapted}")
    converted(f"--checkpoint={adapted}", "--to=peft", f"--out={alone}")
    converted(f"--checkpoint={other}", "--to=hf", f"--out={hf}")
    for given in (f"--checkpoint={other}", f"--hf_dir={hf}"):
        said = run(given, f"--peft_dir={alone}", f"--out={tmp_path / 'no'}").stderr
        assert f"adapters of the base weights {checkpoint.identity(base)}, but" in said
        assert checkpoint.identity(other) in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "no").exists()
    converted(f"--checkpoint={base}", f"--peft_dir={alone}", f"--out={tmp_path / 'yes'}")
    base.rename(tmp_path / "moved")
    said = run(f"--checkpoint={adapted}", f"--out={tmp_path / 'no'}").stderr
    assert f"base weights {checkpoint.read_metadata(adapted).base_lineage} at" in said
    assert "but there is nothing; put the base back" in said


@pytest.mark.long
def test_transformers_answers_with_what_is_exported(hf_dir, peft_dir, tmp_path):
    pytest.importorskip("torch")
    import transformers

    from tests import hf_oracle

    model, out = tmp_path / "model", tmp_path / "out"
    converted(f"--hf_dir={hf_dir}", f"--peft_dir={peft_dir}", f"--out={model}", "--dtype=float32")
    converted(f"--checkpoint={model}", "--to=hf", f"--out={out}")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    np.testing.assert_allclose(hf_oracle.logits(theirs, TOKENS), logits_of(model), atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = tokenizer(TEXTS[0], return_tensors="pt")
    made = theirs.generate(**ids, max_new_tokens=5, do_sample=False)
    assert made.shape[1] <= ids["input_ids"].shape[1] + 5
    assert tokenizer.eos_token_id == 1
    assert theirs.generation_config.eos_token_id == [1, 5]
    assert (theirs.config.pad_token_id, theirs.generation_config.pad_token_id) == (2, 2)


@pytest.mark.long
def test_two_processes_make_the_folder_that_one_makes(hf_dir, peft_dir, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    given = (f"--hf_dir={hf_dir}", f"--peft_dir={peft_dir}", "--dtype=float32")
    said = several.run(2, "-m", "lema_jax.convert", *given, f"--out={together}")
    assert "".join(said).count("rank 4") == 1
    converted(*given, f"--out={alone}")
    assert checkpoint.read_metadata(together) == checkpoint.read_metadata(alone)
    one, other = (checkpoint.stored_weights(folder)[1] for folder in (alone, together))
    jax.tree.map(lambda *two: np.testing.assert_array_equal(*(stored.read() for stored in two)), one, other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "hf", "peft", "together"]


@pytest.mark.long
def test_smollm2_from_its_gguf(smollm2_gguf, tmp_path):
    out = tmp_path / "smollm2"
    assert "134,515,008 parameters" in converted(f"--gguf={smollm2_gguf}", f"--out={out}", "--dtype=bfloat16")
    metadata = checkpoint.read_metadata(out)
    assert (metadata.config.num_layers, metadata.config.vocab_size, metadata.config.tie_embeddings) == (30, 49152, True)
    assert tokenizers.load(out)("12").input_ids == [33, 34]


@pytest.mark.long
def test_a_mistake_is_one_line_and_leaves_nothing(hf_dir, peft_dir, tmp_path):
    out = tmp_path / "out"
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    for path in hf_dir.iterdir():
        (narrow / path.name).write_bytes(path.read_bytes())
    raw = json.loads((hf_dir / "config.json").read_text())
    (narrow / "config.json").write_text(json.dumps(raw | {"intermediate_size": 24}))
    (tmp_path / "text.gguf").write_text("no model")
    mistakes = {
        "name one thing to convert": ["--to=hf"],
        "one thing to convert": [f"--hf_dir={hf_dir}", "--gguf=x"],
        "--step is of a --checkpoint": [f"--hf_dir={hf_dir}", "--step=7"],
        "--shard_gib is for --to=hf": [f"--hf_dir={hf_dir}", "--shard_gib=1"],
        "--peft_base is for --to=peft": [f"--hf_dir={hf_dir}", "--to=hf", "--peft_base=x"],
        "give all of --coordinator": [f"--hf_dir={hf_dir}", "--process=1"],
        "cannot be read as GGUF": [f"--gguf={tmp_path / 'text.gguf'}"],
        "of another shape: model.layers.0.mlp.down_proj.weight": [f"--hf_dir={narrow}"],
        "is no model folder": [f"--checkpoint={tmp_path / 'absent'}"],
        "has none; --peft_dir adds some": [f"--hf_dir={hf_dir}", "--to=peft"],
        "name both --checkpoint and --peft_dir": [f"--hf_dir={hf_dir}", f"--peft_dir={peft_dir}", "--to=adapter"],
        "[4, 48], not [4, 24]": [f"--hf_dir={narrow}", f"--peft_dir={peft_dir}"],
    }
    before = sorted(path.name for path in tmp_path.iterdir())
    for expected, given in mistakes.items():
        done = run(*given, f"--out={out}")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    out.mkdir()
    assert "made from something else" in run(f"--hf_dir={hf_dir}", f"--out={out}").stderr
