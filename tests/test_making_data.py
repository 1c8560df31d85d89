"""The commands that make data, one after the other, as a user runs them: with a chat endpoint, and on real mistakes."""

import json
import re
from pathlib import Path

import pytest

from lema_jax import build_data, correct, evolve, records, sample, tasks
from lema_jax.data import dataset, tokenizer
from lema_jax.records import Attempt, Correction, Example, Problem, Verdict
from lema_jax.teacher import reference
from tests import commands
from tests.teacher.wire_server import Act, Server, completion

COMMANDS = {module.command.name: module.command for module in (sample, correct, evolve, build_data)}


def run(name: str, *flags: object) -> str:
    return commands.succeeds(COMMANDS[name], *flags)


def require_text_is_tokens(folder: Path) -> list[Example]:
    """Decodes every record; its text is the example's, with loss on the completion and the end alone."""
    words, rows = tokenizer.load(folder), list(records.read(folder / "examples.jsonl", Example))
    made = dataset.Records(folder)
    assert len(made) == len(rows)
    for record, row in zip(made, rows):
        learnt = record["weights"].astype(bool)
        assert words.decode(record["tokens"][~learnt], skip_special_tokens=True) == row.prompt
        assert words.decode(record["tokens"][learnt], skip_special_tokens=True) == row.completion
        assert record["tokens"][-1] == words.eos_token_id
    return rows


class Everyone:
    """Students and teacher behind one endpoint. The student `weak` miscalculates the last sum."""

    def __init__(self):
        train = tasks.get("arithmetic").load("train")[:20]
        self.known = {problem.question: problem for problem in train}
        self.evolved = 0

    def __call__(self, body, times) -> Act:
        prompt = body["messages"][-1]["content"]
        case = prompt.rpartition("Question: ")[2]
        question = case.splitlines()[0]
        if prompt.endswith("\nNew Question:"):
            self.evolved += 1
            hens = 10 + self.evolved
            return Act(completion(f"**New problem:** Eve keeps {hens} hens and buys 5 more. How many has she?"))
        if "\nOriginal Solution:\n" in case:
            tried = attempt(self.problem(question), case.partition("{\n")[2].partition("\n}")[0])
            return Act(completion(reference.reply(tried)))
        problem = self.problem(question)
        right = tasks.get("arithmetic").completion(problem)
        wrong = re.sub(rf"\b{problem.gold}\b", str(int(problem.gold) + 1), right)
        return Act(completion(wrong if body["model"] == "weak" else right))

    def problem(self, question: str) -> Problem:
        if question in self.known:
            return self.known[question]
        hens = int(re.findall(r"\d+", question)[0])
        rationale = f"She has {hens} + 5 = {hens + 5} hens."
        return Problem(id="e", task="arithmetic", split="e", question=question, gold=str(hens + 5), rationale=rationale)


def attempt(problem: Problem, text: str) -> Attempt:
    return Attempt(
        id="a", problem=problem, student="s", sampling={}, prompt="p", text=text, answer=None, verdict=Verdict.WRONG,
        prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip


@pytest.mark.long
def test_from_questions_to_data_and_on_to_questions_evolved_from_mistakes(tmp_path):
    at = lambda name: tmp_path / f"{name}.jsonl"
    with Server(Everyone()) as server:
        student = (f"--base_url={server.url}", "--student=openai")
        teacher = (f"--base_url={server.url}", "--model=strong")
        of_task = ("--task=arithmetic", "--limit=20", f"--out={at('attempts')}")
        run("sample", *student, *of_task, "--model=weak")
        said = run("sample", *student, *of_task, "--model=strong", "--mode=cot_augment")
        assert f"{tmp_path / 'attempts.cot_augment.jsonl'}: 20 of all 40 attempts" in said
        correct = ("correct", "--teacher=openai", *teacher)
        assert "20 of 20 corrections kept" in run(
            *correct, f"--attempts={at('attempts')}", f"--out={at('corrections')}"
        )
        said = run("evolve", *teacher, f"--corrections={at('corrections')}", "--count=15", f"--out={at('evolved')}")
        assert "15 new problems from 15 seeds" in said
        new = (f"--problems={at('evolved')}", f"--out={at('new_attempts')}")
        run("sample", *student, *new, "--model=weak")
        run("sample", *student, *new, "--model=strong")
        said = run(*correct, f"--attempts={at('new_attempts')}", f"--out={at('new_corrections')}")
        assert "15 of 15 corrections kept" in said
        asked = len(server.asked)
        assert asked == 20 + 20 + 20 + 15 + 3 * 15 + 15 + 15 + 15  # nothing twice
    out = tmp_path / "data"
    said = run(
        "build_data", "--task=arithmetic", "--arm=lema", "--train_tokenizer=1000", "--nogold_rationales",
        f"--attempts={at('attempts')},{at('new_attempts')}", "--overlap=drop", "--dev_questions=4", f"--out={out}",
        f"--corrections={at('corrections')},{at('new_corrections')}",
    )  # fmt: skip
    rows = require_text_is_tokens(out)
    assert f"{len(rows)} examples" in said
    assert {row.source for row in rows} == {"strong"}
    dev = {problem.id for problem in records.read(out / "dev" / "problems.jsonl", Problem)}
    seeds = {problem.id: problem.meta["seed"] for problem in records.read(at("evolved"), Problem)}
    assert seeds.keys() & {row.problem_id for row in rows}
    assert not dev & {seeds.get(row.problem_id, row.problem_id) for row in rows}


@pytest.mark.long
def test_real_mistakes_of_people_and_models_become_data_that_reads_back(tmp_path, data_dir):
    """GSM8K's are corrected by the reference teacher, MATH's with the critique and refinement that came with them."""
    data = f"--data_dir={data_dir}"
    files = {task: tmp_path / f"{task}.jsonl" for task in ("gsm8k", "math")}
    run("sample", "--student=stepverify", "--task=gsm8k", data, f"--out={files['gsm8k']}")
    for task, file in files.items():
        run("sample", "--student=mathcritique", f"--task={task}", data, f"--out={file}")
    made = {task: tmp_path / f"{task}_corrections.jsonl" for task in files}
    said = run("correct", f"--attempts={files['gsm8k']}", f"--out={made['gsm8k']}")
    assert "665 of 665 corrections kept" in said
    with Server(published_teacher(data_dir)) as server:
        said = run(
            "correct", "--teacher=openai", "--model=m", f"--base_url={server.url}", f"--attempts={files['math']}",
            f"--out={made['math']}",
        )  # fmt: skip
    kept = [row for row in records.read(made["math"], Correction) if not row.rejected]
    assert len(kept) >= 95
    for row in kept:  # whatever its layout, every formula of the solution is there
        formulas = re.findall(r"\$([^$\n]+)\$", row.text.partition("**Correct Solution:**")[2])
        assert [formula for formula in formulas if formula not in "\n".join(row.steps)] == []
    for task, least in (("gsm8k", 600), ("math", 80)):
        out = tmp_path / f"{task}_data"
        run(
            "build_data", f"--task={task}", data, "--arm=lema", f"--corrections={made[task]}", "--train_tokenizer=4000",
            "--limit=500", "--overlap=drop", "--max_prompt=1500", "--max_completion=1500", f"--out={out}",
        )  # fmt: skip
        corrections = [row for row in require_text_is_tokens(out) if row.kind == "correction"]
        assert len(corrections) >= least
        for row in corrections:
            assert row.prompt.startswith("For the following math word problems, the original solutions may contain")
            assert row.prompt.endswith("}\nIncorrect Step:")
            assert re.match(r"Step \d+\.\nExplanation: .+\nCorrect Solution:\n\{\n(\.\.\.\n)?Step", row.completion)
            assert row.completion.endswith(".\n}")


def published_teacher(data_dir: Path):
    """Says what was said of each mistake, as a model of today writes: bold headings, no braces, LaTeX in between."""
    said = {}
    file = data_dir / "mathcritique" / "Meta-Llama-3-8B-math-sftdata_0_new.json"
    for row in json.loads(file.read_text()):
        question = " ".join(row["instruction"].partition(" Please also give your final")[0].split())
        why = re.findall(r"Wrong\s+Explanation: (.+)", row["instruction"])[0]
        said[question] = (
            f"**Incorrect Step:** 1\n\n**Explanation:** {why}\n\n**Correct Solution:**\n\n"
            + row["output"].removeprefix("Let's break it down step by step:").strip()
        )

    def behave(body, times):
        prompt = body["messages"][-1]["content"]
        question = prompt.rpartition("Question: ")[2].partition("\nOriginal Solution:")[0]
        return Act(completion(said[" ".join(question.split())]))

    return behave
