"""Training curves are read from what train writes, a run in progress included."""

import json

import pytest

from lema_jax.errors import UserError
from lema_jax.evidence import curves


def written(folder, *lines, tail=""):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return folder


def test_numbers_by_name_with_their_own_steps(tmp_path):
    read = curves.read(
        written(tmp_path, {"step": 10, "loss": 2, "note": "x", "ok": True}, {"step": 20, "loss": 1.5, "dev_loss": 1.0})
    )
    assert read == {"loss": ([10, 20], [2.0, 1.5]), "dev_loss": ([20], [1.0])}


def test_a_step_done_again_counts_once_and_a_torn_line_not_at_all(tmp_path):
    read = curves.read(
        written(tmp_path, {"step": 20, "loss": 9}, {"step": 10, "loss": 3}, {"step": 20, "loss": 1}, tail='{"step": 3')
    )
    assert read == {"loss": ([10, 20], [3.0, 1.0])}


def test_what_train_did_not_write_is_refused_with_its_place(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl: No such file"):
        curves.read(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: "):
        curves.read(written(tmp_path, {"step": 1}, {"loss": 1}))
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: "):
        curves.read(written(tmp_path, [1]))
