"""Links in model folders: within the folder and within Hugging Face's cache they are followed, out of it never."""

import os

import pytest

from lema_jax import build_data
from lema_jax.data import tokenizer
from lema_jax.errors import UserError
from lema_jax.storage import RunFolder
from lema_jax.weights import formats, hf_folder
from tests import commands

SECRET = "a secret of somebody else's"


@pytest.fixture
def secret(tmp_path):
    (tmp_path / "secret.json").write_text(SECRET)
    return tmp_path / "secret.json"


@pytest.fixture
def folder(tmp_path):
    tokenizer.save(tokenizer.train_bpe(["one two"], 704), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    ["tokenizer_config.json", "chat_template.jinja", "config.json", "model.safetensors", "merges.txt", "anything"],
)
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_out_of_a_folder_is_refused_by_name(tmp_path, folder, secret, name, relative):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../secret.json" if relative else secret)
    out = tmp_path / "out"
    for read in (
        lambda: hf_folder.copy_tokenizer(folder, out),
        lambda: formats.open_hf(folder),
        lambda: tokenizer.load(folder),
        lambda: RunFolder(out).copy_files(folder),
    ):
        with pytest.raises(UserError, match=f"{name} is a link to {secret}"):
            read()
    assert not any(SECRET in file.read_text() for file in out.glob("*"))


def test_a_link_by_way_of_another_link(tmp_path, folder, secret):
    (tmp_path / "way").symlink_to(tmp_path)
    (folder / "chat_template.jinja").symlink_to("../way/secret.json")
    with pytest.raises(UserError, match="is a link to"):
        tokenizer.load(folder)


def test_huggingfaces_cache_is_followed_and_no_further(tmp_path, folder, secret):
    blobs, snapshot = tmp_path / "hub/models--a--b/blobs", tmp_path / "hub/models--a--b/snapshots/0123abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    hf_folder.copy_tokenizer(snapshot, tmp_path / "out")
    assert tokenizer.fingerprint(tokenizer.load(tmp_path / "out")) == tokenizer.fingerprint(tokenizer.load(folder))
    (tmp_path / "short").symlink_to(snapshot)  # a folder may be reached by a link
    tokenizer.load(tmp_path / "short")
    (snapshot / "chat_template.jinja").symlink_to(os.path.relpath(secret, snapshot))
    with pytest.raises(UserError, match="is a link to"):
        tokenizer.load(snapshot)


def test_links_within_the_folder_are_followed(folder):
    (folder / "tokenizer.json").rename(folder / "words.json")
    (folder / "tokenizer.json").symlink_to("words.json")
    tokenizer.load(folder)


def test_a_folder_that_is_not_read_may_be_a_link(tmp_path, folder):
    (tmp_path / "elsewhere").mkdir()
    (folder / "original").symlink_to(tmp_path / "elsewhere")
    tokenizer.load(folder)


def test_build_data_says_it_in_one_line(tmp_path, folder, secret):
    (folder / "chat_template.jinja").symlink_to(secret)
    flags = ("--task=arithmetic", "--limit=20", "--overlap=keep", f"--tokenizer={folder}", f"--out={tmp_path / 'out'}")
    said = commands.fails(build_data.command, *flags)
    assert len(said.splitlines()) == 1
    assert f"is a link to {secret}" in said
    assert not (tmp_path / "out").exists()
