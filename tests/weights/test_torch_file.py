"""Files of torch.save: tensors are read, code does not run."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from lema_jax.errors import UserError
from lema_jax.weights import names
from lema_jax.weights.torch_file import TorchFile

torch = pytest.importorskip("torch", reason="writes the files that are read")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_tensors_come_back(tmp_path, dtype):
    kind = getattr(torch, dtype)
    base = torch.randn(6, 5).to(kind)
    state = {
        "a": base,
        "transposed": base.T,
        "slice": base[2:4, 1:],
        "shared": base,
        "one": torch.ones(1, dtype=kind),
        "parameter": torch.nn.Linear(3, 2, dtype=kind).weight.detach(),
        "empty": torch.zeros(0, 3, dtype=kind),
    }
    torch.save(state, tmp_path / "m.bin")
    file = TorchFile(tmp_path / "m.bin")
    assert file.names() == list(state)
    for name, tensor in state.items():
        assert file.shape(name) == tuple(tensor.shape)
        assert file.dtype(name).name == dtype
        np.testing.assert_array_equal(names.read_whole(file, name).astype(np.float64), tensor.double().numpy())
    np.testing.assert_array_equal(file.read("a", (slice(1, 3), slice(0, 2))).astype(np.float64), base[1:3, :2].double())


def test_a_module_state_dict_with_its_metadata(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    torch.save(module.state_dict(), tmp_path / "m.bin")
    file = TorchFile(tmp_path / "m.bin")
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(names.read_whole(file, name), tensor.numpy())


class Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


class Built:
    """Restored by `__setstate__`, which runs code of its class."""


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("harm", [Harm(), {"w": Harm()}, [Harm()], Built()])
def test_code_is_refused_and_does_not_run(tmp_path, monkeypatch, harm, protocol):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("m.bin", "w") as out:
        out.writestr("archive/data.pkl", pickle.dumps(harm, protocol))
    with pytest.raises(UserError):
        TorchFile("m.bin")
    assert not os.path.exists("harmed")


def test_the_refused_call_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.bin", "w") as out:
        out.writestr("archive/data.pkl", pickle.dumps({"w": Harm()}, 2))
    with pytest.raises(UserError, match=r"asks to call posix\.system; nothing was run"):
        TorchFile(tmp_path / "m.bin")


def test_damaged_files_are_refused(tmp_path):
    torch.save({"w": torch.randn(100)}, tmp_path / "m.bin")
    whole = (tmp_path / "m.bin").read_bytes()
    for content in (b"", b"hello", whole[:200], whole[:-30]):
        (tmp_path / "cut.bin").write_bytes(content)
        with pytest.raises(UserError):
            names.read_whole(TorchFile(tmp_path / "cut.bin"), "w")
    with pytest.raises(UserError):
        TorchFile(tmp_path / "absent.bin")
    flipped = bytearray(whole)
    at = whole.index(torch.load(tmp_path / "m.bin")["w"].numpy().tobytes())
    flipped[at] ^= 1
    (tmp_path / "flipped.bin").write_bytes(flipped)
    with pytest.raises(UserError, match="damaged"):
        names.read_whole(TorchFile(tmp_path / "flipped.bin"), "w")


def test_what_is_no_state_dict_of_floats_is_refused(tmp_path):
    for content, named in [
        ({"w": torch.ones(3, dtype=torch.int64)}, "LongStorage"),
        (torch.ones(3), "state dict"),
        ({"w": 3}, "state dict"),
    ]:
        torch.save(content, tmp_path / "m.bin")
        with pytest.raises(UserError, match=named):
            TorchFile(tmp_path / "m.bin")


def test_a_tensor_that_reaches_beyond_its_bytes_is_refused(tmp_path):
    torch.save({"w": torch.randn(8)}, tmp_path / "m.bin")
    with zipfile.ZipFile(tmp_path / "m.bin") as whole, zipfile.ZipFile(tmp_path / "short.bin", "w") as out:
        for name in whole.namelist():
            content = whole.read(name)
            out.writestr(name, content[:16] if "/data/" in name else content)
    with pytest.raises(UserError, match="reaches beyond"):
        names.read_whole(TorchFile(tmp_path / "short.bin"), "w")
