"""Compiled programs that are kept: what is damaged is compiled anew, and changes nothing."""

import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lema_jax.storage import RunFolder
from lema_jax.training import compiled


@pytest.fixture
def kept(monkeypatch):
    """JAX keeps every program, and forgets in the end where."""
    before = {name: jax.config.values[name] for name in ("jax_compilation_cache_dir", *SETTINGS)}
    for name, value in SETTINGS.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    "jax_raise_persistent_cache_errors": True,
}


def start(out) -> float:
    """As a process that trains: what a program gives that was compiled, or found."""
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    jax.clear_caches()
    with compiled.kept_in(RunFolder(out)), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = float(jax.jit(lambda x: jnp.sin(x).sum() * 3)(jnp.arange(8.0)))
        compiled.seal(RunFolder(out))
    return found


def damages():
    yield "emptied", lambda content: b""
    yield "cut", lambda content: content[: len(content) // 2]
    for part in (0.0, 0.1, 0.5, 0.9, 1.0):

        def flip(content, part=part):
            at = round(part * (len(content) - 1))
            return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]

        yield f"flipped at {part}", flip


@pytest.mark.slow
def test_a_damaged_program_is_compiled_anew(tmp_path, kept):
    expected = start(tmp_path)
    folder = tmp_path / "compiled"
    entries = sorted(folder.glob("*-cache"))
    assert entries
    whole = {file: file.stat().st_mtime_ns for file in entries}
    assert start(tmp_path) == expected
    assert {file: file.stat().st_mtime_ns for file in entries} == whole  # what is whole is used
    for _, damage in damages():
        for file in entries:
            file.write_bytes(damage(file.read_bytes()))
        damaged = [file.read_bytes() for file in entries]
        assert start(tmp_path) == expected
        again = [file.read_bytes() for file in entries]
        assert all(new and new != old for new, old in zip(again, damaged))
        assert start(tmp_path) == expected
        assert [file.read_bytes() for file in entries] == again


def test_what_was_not_sealed_or_has_lost_its_seals_is_compiled_anew(tmp_path, kept):
    expected = start(tmp_path)
    for content in (b"", b"{", b"[]", None):
        seals = tmp_path / "compiled" / "sha256.json"
        seals.unlink() if content is None else seals.write_bytes(content)
        assert start(tmp_path) == expected
        assert seals.read_bytes().startswith(b"{")


def test_a_folder_that_jax_was_told_of_is_left_alone(tmp_path, kept):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    with compiled.kept_in(RunFolder(tmp_path)):
        compiled.seal(RunFolder(tmp_path))
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
    assert not (tmp_path / "compiled").exists()
