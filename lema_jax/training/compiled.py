"""The compilation cache of a run, out/compiled: JAX's persistent cache, restricted to intact entries.

JAX writes an entry in place and reads whatever is there: an entry that a kill or a full disk cut short is recompiled,
with a warning, at every start, and a changed byte may go undetected. So the SHA-256 of each entry is stored too.
"""

import contextlib
import hashlib
from collections.abc import Container, Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from lema_jax import lock
from lema_jax.errors import UserError
from lema_jax.storage import AnyFolder, RunFolder

_SUMS = "sha256.json"
_ENTRIES = "*-cache"


@contextlib.contextmanager
def kept_in(out: AnyFolder) -> Iterator[None]:
    """Within, JAX caches compiled programs in a run's folder, unless it is configured to cache them elsewhere.

    Entries that are damaged, or were not `seal`ed, are removed.

    Args:
      out: the run's folder; empty for no cache.
    """
    if not str(out) or jax.config.values["jax_compilation_cache_dir"]:
        yield
        return
    folder = RunFolder(out) / "compiled"
    _remove_damaged(folder)
    compilation_cache.reset_cache()  # it reads its folder once
    jax.config.update("jax_compilation_cache_dir", str(folder.path))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()


def _remove_damaged(folder: RunFolder) -> None:
    if not folder.path.exists():
        return
    with _alone(folder):
        sums, found = _sums(folder), _found(folder)
        intact = {name: sum for name, sum in found.items() if sums.get(name) == sum}
        for name in found.keys() - intact.keys():
            (folder.path / name).unlink(missing_ok=True)
        if intact != sums and jax.process_index() == 0:
            folder.write_json(_SUMS, intact)


def seal(out: RunFolder) -> None:
    """Records the SHA-256 of new entries in the cache of a run's folder."""
    folder = out / "compiled"
    in_use = jax.config.values["jax_compilation_cache_dir"] == str(folder.path)
    if jax.process_index() or not in_use or not folder.path.exists():
        return
    with _alone(folder):
        before = _sums(folder)
        if new := _found(folder, but=before):
            folder.write_json(_SUMS, before | new)


def _alone(folder: RunFolder) -> contextlib.AbstractContextManager[None]:
    """Within, no other process of this machine changes the cache: jobs of a study share one."""
    return contextlib.nullcontext() if folder.is_remote else lock.waited_for(folder.path / ".lock")


def _found(folder: RunFolder, but: Container[str] = ()) -> dict[str, str]:
    """The SHA-256 of the entries whose names are not among `but`, by name."""
    found = {}
    for file in sorted(folder.path.glob(_ENTRIES)):
        if file.name not in but:
            with contextlib.suppress(FileNotFoundError):  # another job began, which removes what is not sealed
                found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _sums(folder: RunFolder) -> dict[str, str]:
    try:
        sums = folder.read_json(_SUMS, "")
    except (UserError, FileNotFoundError):
        return {}
    return sums if isinstance(sums, dict) else {}
