"""A byte that changed in a data set is noticed wherever something is read."""

from pathlib import Path

import numpy as np
import pytest

from lema_jax.data import card, dataset, tokenizer
from lema_jax.data.build import build
from lema_jax.errors import UserError
from tests.data.test_build import recipe, task

__all__ = ["task"]  # a fixture that all tests here use


@pytest.fixture
def made(tmp_path: Path, task) -> Path:
    build(recipe(dev_questions=4, export=("jsonl",)), tmp_path / "made")
    return tmp_path / "made"


def files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def read(folder: Path) -> list:
    """All that is read of a data set, and of its dev set."""
    found: list = [card.read(folder), dataset.fingerprint(folder), tokenizer.load(folder)("Ann has 3").input_ids]
    for part in (folder, folder / "dev"):
        rows = dataset.Records(part)
        found += [dataset.lengths(part).tolist()]
        found += [{name: array.tolist() for name, array in rows[at].items()} for at in range(len(rows))]
    return found


def flips(folder: Path, count: int) -> list[tuple[Path, int, int]]:
    """(file, byte, bit): every file at least twice, the large ones more often."""
    random = np.random.default_rng(0)
    there = files(folder)
    sizes = np.array([file.stat().st_size for file in there], float)
    chosen = [*there, *there, *random.choice(np.array(there), count, p=sizes**0.5 / (sizes**0.5).sum())]
    return [(file, int(random.integers(file.stat().st_size)), int(random.integers(8))) for file in chosen]


def flip(file: Path, byte: int, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1 << bit
    file.write_bytes(content)


@pytest.mark.slow
def test_any_flipped_bit_is_noticed_where_it_is_read(made: Path) -> None:
    expected = read(made)
    for file, byte, bit in flips(made, 40):
        kept, name = file.read_bytes(), str(file.relative_to(made))
        flip(file, byte, bit)
        if name == "README.md" or name.startswith("exports/"):  # which nothing reads
            assert read(made) == expected
        else:
            with pytest.raises(UserError, match="damaged") as error:
                read(made)
            assert "\n" not in str(error.value)
        if name != "README.md":  # a rerun does not call it done
            with pytest.raises(UserError):
                build(recipe(dev_questions=4, export=("jsonl",)), made)
        file.write_bytes(kept)
    assert read(made) == expected
    assert not build(recipe(dev_questions=4, export=("jsonl",)), made)[1]


def test_a_file_that_is_cut_or_missing_is_named_and_one_too_many_is_no_matter(made: Path) -> None:
    expected = read(made)
    for file in files(made):
        kept, name = file.read_bytes(), str(file.relative_to(made))
        if name == "README.md" or name.startswith("exports/"):
            continue
        for left in (kept[: len(kept) // 2], b"", None):
            if left is not None:
                file.write_bytes(left)
            elif name == "card.json":
                continue  # then it is as one of an earlier version
            else:
                file.unlink()
            with pytest.raises(UserError, match=file.name):
                read(made)
            file.write_bytes(kept)
    for name in ("notes.txt", "tokenizer/.DS_Store", "dev/notes.txt"):
        (made / name).write_text("mine")
    assert read(made) == expected


def test_a_data_set_of_an_earlier_version_is_read_with_a_warning(made: Path, capsys: pytest.CaptureFixture) -> None:
    expected = read(made)[1:]
    (made / "card.json").unlink()
    assert read(made)[1:] == expected
    assert capsys.readouterr().err.count(f"warning: {made} has no card.json") == 1
