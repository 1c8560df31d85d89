"""Files that claim to be larger than they are: refused in one line, before anything is allocated."""

import json
import resource
import struct
import zipfile

import numpy as np
import pytest

from lema_jax import convert
from lema_jax.errors import UserError
from lema_jax.weights import gguf_header
from lema_jax.weights.gguf import Gguf
from lema_jax.weights.safetensors import Safetensors
from lema_jax.weights.torch_file import TorchFile
from tests import commands, tiny
from tests.weights import gguf_files


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


HUGE = 1 << 62
HEADERS = {
    "tensors": struct.pack("<QQ", HUGE, 0),
    "entries": struct.pack("<QQ", 0, HUGE),
    "string": struct.pack("<QQQ", 0, 1, HUGE),
    "array of bytes": struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 0, HUGE),
    "array of strings": struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 8, HUGE),
    "array of arrays": struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IIQ", 9, 9, 1) * 9,
    "strange type": struct.pack("<QQ", 0, 1) + text(b"k") + struct.pack("<IQ", 77, 0),
    "dimensions": struct.pack("<QQ", 1, 0) + text(b"t") + struct.pack("<I", 0xFFFFFFFF) + bytes(64),
    "cut": struct.pack("<Q", 1),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_gguf_whose_counts_lead_beyond_it(tmp_path, header):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<I", 3) + header)
    with pytest.raises(UserError, match="cannot be read as GGUF"):
        Gguf(file)


def test_a_good_gguf_passes_and_a_truncated_one_does_not(tmp_path):
    rng = np.random.default_rng(0)
    file = gguf_files.write(
        tmp_path / "m.gguf", tiny.CONFIG, {"model.embed_tokens.weight": rng.normal(size=(704, 32)).astype(np.float32)}
    )
    gguf_header.check(file)
    whole = file.read_bytes()
    for size in range(0, 600, 7):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError):
            Gguf(file)


@pytest.mark.parametrize(
    ("key", "value"), [("llama.block_count", 2_000_000_000), ("llama.embedding_length", "x"), ("llama.vocab_size", [1])]
)
def test_metadata_of_other_kinds_and_sizes_is_named(tmp_path, key, value):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    fields = {
        "llama.block_count": 2,
        "llama.context_length": 256,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 48,
        "llama.attention.head_count": 4,
    }
    for name, given in (fields | {key: value}).items():
        gguf_files.add(writer, name, given)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((704, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if key == "llama.vocab_size":  # not looked at: the embedding says it
        Gguf(tmp_path / "m.gguf")
        return
    with pytest.raises(UserError, match=r"num_hidden_layers=2000000000|wrong type"):
        Gguf(tmp_path / "m.gguf")


def test_a_zip_that_unpacks_to_more_than_it_is(tmp_path):
    path = tmp_path / "adapter_model.bin"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("m/data.pkl", "w", force_zip64=True) as part,
    ):
        for _ in range(64):
            part.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"is refused: m/data\.pkl in it unpacks to 67,108,864 bytes"):
        TorchFile(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


# GLOBALs, BINPERSID and REDUCE of one tensor of a million times a million elements, all of them one stored float.
_TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00J\x40\x42\x0f\x00J\x40\x42\x0f\x00\x86K\x00K\x00\x86\x89"
    b"ccollections\nOrderedDict\n)RtRs."
)


def test_a_tensor_larger_than_its_bytes(tmp_path):
    path = tmp_path / "adapter_model.bin"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("m/data.pkl", _TENSOR)
        made.writestr("m/data/0", bytes(4))
    file = TorchFile(path)
    assert file.shape("w") == (1_000_000, 1_000_000)
    with pytest.raises(UserError, match="reaches beyond its bytes"):
        file.read("w", (slice(None), slice(None)))


@pytest.mark.parametrize("length", [1 << 62, 1 << 30, 100])
def test_a_safetensors_header_that_is_longer_than_the_file(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(UserError, match="cut short or damaged"):
        Safetensors([path], str(path))


def test_a_safetensors_tensor_that_is_larger_than_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 1 << 63]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(UserError, match="cut short or damaged"):
        Safetensors([path], str(path))


def test_convert_says_it_in_one_line(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<I", 3) + HEADERS["array of strings"])
    said = commands.fails(convert.command, f"--gguf={file}", f"--out={tmp_path / 'out'}")
    assert len(said.splitlines()) == 1
    assert said.startswith(f"error: {file} cannot be read as GGUF")
    assert sorted(tmp_path.iterdir()) == [file]
