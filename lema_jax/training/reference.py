"""The reference of preference training: the nll of every pair by the weights that a run begins with.

It is computed once for a data set and a model, and stored beside the data, where other runs find it:

    DATA/reference/<name>.json    the model, the data and the precision, from which the name is made, and for each pair
                                  the nll of its chosen and its rejected completion; null where it is not computed yet
"""

import json
import time
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lema_jax import checkpoint, digests
from lema_jax.data import batches, dataset
from lema_jax.errors import UserError
from lema_jax.storage import RunFolder
from lema_jax.training.config import TrainConfig
from lema_jax.training.setup import Setup

_SAVE_S = 30.0  # between writes while it is computed: what a kill costs


class Reference:
    """The nll of the pairs of a data set by one model: read from its file, and completed by `fill`.

    Args:
      config: of the run; its data set is of pairs.
      model: identity of the weights that the run begins with.

    Raises:
      UserError: the data set cannot be read.
    """

    def __init__(self, config: TrainConfig, model: str) -> None:
        self._config = config
        self._about = {
            "model": model,
            "data": dataset.fingerprint(config.data.path),
            "dtype": config.compute.dtype,
            "param_dtype": config.compute.param_dtype,
            "kernels": config.lora.base if config.lora else "dense",
        }
        self._folder = RunFolder(config.data.path) / "reference"
        self._file = f"{checkpoint.lineage(**self._about)}.json"
        pairs = len(dataset.lengths(config.data.path))
        self._nll_N2 = _agreed(self._read(pairs) if jax.process_index() == 0 else _nothing(pairs))

    @property
    def missing(self) -> np.ndarray:
        """Numbers of the pairs that are not computed yet."""
        return np.flatnonzero(np.isnan(self._nll_N2).any(axis=1))

    def fill(self, setup: Setup, trained: Any, frozen: Any) -> None:
        """Computes what is missing. Killed, it goes on from the last write; every process of a job calls it.

        Args:
          trained, frozen: the weights that the run begins with.

        Raises:
          UserError: a log-probability is not finite.
        """
        count, saved = len(self._nll_N2), time.monotonic()
        self._write()  # a place that cannot be written is found out before anything is computed
        try:
            for rows in batches.once(self._config.data):  # always the same batches: a pair's nll has the same bits
                there = rows["segment_ids"] > 0
                records, sides = rows["records"][there], 1 - rows["segment_ids"][there] % 2
                if not np.isnan(self._nll_N2[records]).any():
                    continue
                own = {name: array[setup.rows] for name, array in rows.items()}
                nll_BT = jax.device_get(setup.nll(trained, frozen, setup.put(own)))
                found_N2 = np.zeros_like(self._nll_N2)
                np.add.at(found_N2, (records, sides), nll_BT[there])
                if strange := sorted(set(records[~np.isfinite(found_N2[records]).all(axis=1)].tolist())):
                    raise UserError(
                        f"the reference {self._about['model']} finds no finite log-probability for "
                        f"{self._config.data.path}/examples.jsonl, line {strange[0] + 1}; is init a sound model?"
                    )
                self._nll_N2[records] = found_N2[records]  # at once, so that no signal leaves a part of a sum
                if time.monotonic() - saved > _SAVE_S:
                    self._write()
                    saved = time.monotonic()
                    _say(f"reference: {count - len(self.missing):,} of {count:,} pairs")
        finally:
            self._write()
        _say(f"reference: {count:,} pairs by {self._about['model']}, in {self._folder}/{self._file}")

    def of(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        """[B, T] float32 for a batch of pairs: the nll of a segment at its first token, 0 elsewhere."""
        segments = rows["segment_ids"]
        starts = (rows["positions"] == 0) & (segments > 0)
        return np.where(starts, self._nll_N2[rows["records"], 1 - segments % 2], 0).astype(np.float32)

    def _read(self, pairs: int) -> np.ndarray:
        """What the file has, [N, 2]; NaN for what it lacks. A damaged file lacks all."""
        if not self._folder.has(self._file):
            return _nothing(pairs)
        try:
            content = self._folder.read_json(self._file, "")
            sealed = content.pop("sha256") == digests.hashed(content)
            found = np.array(content["nll"], np.float64)
            if not sealed or found.shape != (pairs, 2):
                raise ValueError("its sha256 is not that of its content")
        except (UserError, ValueError, LookupError, TypeError, AttributeError) as error:
            _say(f"warning: {self._folder}/{self._file} is damaged ({error}); it is computed again")
            return _nothing(pairs)
        return found

    def _write(self) -> None:
        if jax.process_index():
            return
        nll = [[None if np.isnan(one) else one for one in pair] for pair in self._nll_N2.tolist()]
        content = self._about | {"nll": nll}
        self._folder.write(self._file, json.dumps(content | {"sha256": digests.hashed(content)}) + "\n")


def _say(line: str) -> None:
    if jax.process_index() == 0:
        print(line, flush=True)


def _nothing(pairs: int) -> np.ndarray:
    return np.full((pairs, 2), np.nan)


def _agreed(nll_N2: np.ndarray) -> np.ndarray:
    """The first process's, in every process."""
    if jax.process_count() == 1:
        return nll_N2
    return np.array(multihost_utils.broadcast_one_to_all(nll_N2.view(np.uint32))).view(np.float64)
