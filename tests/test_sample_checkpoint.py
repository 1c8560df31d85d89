"""The sample command with a tiny checkpoint: what it draws, resumes and reads once."""

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest

from lema_jax import records, sample
from lema_jax.data import encode, tokenizer
from lema_jax.generation import student
from lema_jax.generation.decoding import Decoding
from lema_jax.records import Problem
from lema_jax.tasks.questions import Questions
from tests import commands, tiny
from tests.commands import attempts

succeeds = functools.partial(commands.succeeds, sample.command)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "attempts.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model folder, and beside it short problems that its context has room for."""
    folder = tmp_path_factory.mktemp("student")
    questions = [
        Problem(id=f"arithmetic/own/{n}", task="arithmetic", split="own", question=f"{n} + 1?", gold=str(n + 1))
        for n in range(3)
    ]
    records.write(folder / "problems.jsonl", questions)
    return tiny.model_folder(folder / "model", tiny.data_set(folder / "set"))


def checkpoint_flags(folder: Path, out: Path, *more) -> tuple[str, ...]:
    questions = folder.parent / "problems.jsonl"
    return (f"--checkpoint={folder}", f"--problems={questions}", f"--out={out}", "--max_new_tokens=8", *more)


@pytest.mark.long
def test_a_run_that_was_killed_ends_in_the_same_file(folder, out, tmp_path):
    flags = checkpoint_flags(folder, out, "--samples=2", "--seed=1")
    assert "6 attempts at 3 questions: 6 " in succeeds(*flags)
    rows = attempts(out)
    assert [(row.problem.id, row.sampling["sample"]) for row in rows] == [
        (f"arithmetic/own/{n}", sample) for n in range(3) for sample in range(2)
    ]
    assert len({row.text for row in rows}) == 6
    for row in rows:
        assert row.student.endswith("@0")
        assert row.sampling | {"sample": 0} == {
            "temperature": 0.7, "top_p": 1.0, "seed": 1, "max_new_tokens": 8, "dtype": "float32", "sample": 0
        }  # fmt: skip
        assert 0 < row.completion_tokens <= 8 < row.prompt_tokens
    whole = out.read_bytes()
    killed = tmp_path / "killed.jsonl"
    lines = whole.splitlines(keepends=True)
    killed.write_bytes(lines[4] + lines[1] + lines[2][:50])  # in the order in which answers end; the last one torn
    succeeds(*checkpoint_flags(folder, killed, "--samples=2", "--seed=1"))
    assert killed.read_bytes() == whole


@pytest.mark.long
def test_a_chat_prompt_has_the_special_tokens_that_the_template_writes(folder, out, tmp_path):
    """And is scored with the same: the ids of an attempt's prompt are known from its row."""
    chatty = shutil.copytree(folder, tmp_path / "chatty")
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"  # without BOS
    (chatty / "tokenizer" / "chat_template.jinja").write_text(template)
    questions = folder.parent / "problems.jsonl"
    flags = (f"--checkpoint={chatty}", f"--problems={questions}", f"--out={out}", "--max_new_tokens=8")
    succeeds(*flags, "--prompt_style=chat", "--limit=1")
    (row,) = attempts(out)
    read_by = tokenizer.load(chatty)
    chat = [{"role": "user", "content": row.prompt.removeprefix("[user]").removesuffix("[assistant]")}]
    assert encode.adds_bos(read_by)
    assert row.prompt_tokens == len(read_by.apply_chat_template(chat, add_generation_prompt=True).input_ids)
    assert row.sampling["rendered"] is True


@pytest.mark.long
def test_more_samples_leave_the_first_as_they_are(folder, out):
    succeeds(*checkpoint_flags(folder, out, "--limit=1"))
    (first,) = attempts(out)
    succeeds(*checkpoint_flags(folder, out, "--limit=2", "--samples=2", "--batch_size=1"))
    rows = attempts(out)
    assert len(rows) == 4
    assert rows[0] == first


def test_attempts_in_the_store_are_refused_before_weights_are_read(folder):
    said = commands.fails(sample.command, *checkpoint_flags(folder, Path("out")), "--out=gs://bucket/attempts.jsonl")
    assert "--out=gs://bucket/attempts.jsonl must be on this disk" in said


@pytest.mark.slow
def test_whole_numbers_from_python_are_the_numbers_of_the_command(folder, out):
    succeeds(*checkpoint_flags(folder, out, "--temperature=1", "--top_p=1", "--seed=3"))
    before = out.read_bytes()
    settings = {"sampling": sample.Sampling(temperature=1, top_p=1, seed=np.int64(3))}
    questions = Questions(problems=folder.parent / "problems.jsonl")
    sample.run(
        sample.Config(checkpoint=folder, questions=questions, out=out, decoding=Decoding(max_new_tokens=8), **settings)
    )
    assert out.read_bytes() == before


@pytest.mark.slow
def test_both_rounds_of_a_checkpoint_answer_by_one_reading_of_it(folder, out, monkeypatch):
    reads = []
    monkeypatch.setattr(
        student, "read", lambda *given, read=student.read, **how: reads.append(1) or read(*given, **how)
    )
    succeeds(*checkpoint_flags(folder, out, "--difficulty_weighted", "--max_samples=2", "--limit=1"))
    assert (len(attempts(out)), reads) == (2, [1])
