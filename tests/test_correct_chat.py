"""The correct command with a chat teacher behind a local endpoint: undisturbed, killed, interrupted."""

import collections
import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lema_jax import records, tasks
from lema_jax.records import Critique, Verdict
from lema_jax.teacher import prompting, reference
from tests.commands import KEY
from tests.correct_command import (
    ENVIRONMENT,
    attempt,
    command,
    corrections,
    fails,
    kill_when,
    succeeds,
    write_attempts,
)
from tests.teacher.wire_server import Act, Server, completion, error


@pytest.fixture
def files(tmp_path):
    return f"--attempts={write_attempts(tmp_path / 'attempts.jsonl', 12)}", f"--out={tmp_path / 'corrections.jsonl'}"


def replies(count: int) -> dict[str, str]:
    """A good reply to each attempt, by its question."""
    return {attempt(n).problem.question: reference.reply(attempt(n)) for n in range(count)}


def question(body) -> str:
    return body["messages"][-1]["content"].rpartition("Question: ")[2].partition("\nOriginal")[0]


def teacher(count: int, delay: float = 0.0):
    """A server's behaviour: the right reply, later for some than for others."""
    said = replies(count)

    def behave(body, times):
        asked = question(body)
        return Act(completion(said[asked]), delay=delay * (1 + len(asked) % 5))

    return behave


def chat_flags(server: Server, *more) -> tuple[str, ...]:
    return ("--teacher=openai", "--model=m", f"--base_url={server.url}", *more)


def test_replies_become_rows_and_are_never_asked_for_again(files, tmp_path):
    with Server(teacher(12, delay=0.01), key=KEY) as server:
        said = succeeds(*files, *chat_flags(server, "--usd_per_million=1,2"))
        assert "12 of 12 corrections kept" in said
        assert len(server.asked) == 12
        rows = corrections(tmp_path / "corrections.jsonl")
        assert [row.attempt.id for row in rows] == [f"a{number}" for number in range(12)]
        assert rows[0].usage == {
            "prompt_tokens": 100, "completion_tokens": 20, "finish": "stop", "model": "served",
            "cost_usd": pytest.approx(140e-6)
        }  # fmt: skip
        before = (tmp_path / "corrections.jsonl").read_bytes()
        (tmp_path / "corrections.jsonl").unlink()  # the replies are paid for; the rows can be made again
        succeeds(*files, *chat_flags(server, "--usd_per_million=1,2"))
        assert len(server.asked) == 12
    assert (tmp_path / "corrections.jsonl").read_bytes() == before
    prompt = prompting.load(attempt(0).problem)
    asked = sorted((body["messages"] for body in server.bodies), key=str)
    assert asked == sorted((prompting.messages(prompt, attempt(n)) for n in range(12)), key=str)
    assert {row.prompt for row in rows} == {prompting.load(attempt(0).problem).id}
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text()


def test_each_bad_reply_is_written_with_its_reason(files, tmp_path):
    good = list(replies(12).values())
    by_question = {attempt(n).problem.question: n for n in range(12)}
    bad = {
        0: (completion("I'm sorry, but I can't help with that."), "refusal"),
        1: (completion(good[1].replace("answer is ", "answer is 1")), "wrong_answer"),
        2: (completion("Step 99." + good[2].partition(".")[2]), "no_such_step"),
        3: (completion(good[3][:60], "length"), "length"),
        4: (completion("", "content_filter"), "content_filter"),
        5: (completion(good[5].replace("Explanation: ", "Explanation: The given answer differs. ")), "tells_answer"),
        6: (completion("Looks fine to me!"), "no_step"),
    }  # fmt: skip

    def behave(body, times):
        number = by_question[question(body)]
        return Act(bad[number][0] if number in bad else completion(good[number]))

    with Server(behave) as server:
        said = succeeds(*files, *chat_flags(server))
    rows = corrections(tmp_path / "corrections.jsonl")
    assert [row.rejected for row in rows] == [bad[n][1] if n in bad else "" for n in range(12)]
    assert "5 of 12 corrections kept, for 5 of 12 mistakes" in said
    for _, why in bad.values():
        assert f"1 rejected: {why}" in said


def test_rows_are_in_the_file_while_others_are_asked_for(files, tmp_path):
    said, out = replies(12), tmp_path / "corrections.jsonl"

    def behave(body, times):
        if question(body) == attempt(11).problem.question:
            end = time.monotonic() + 20
            while time.monotonic() < end and not (out.exists() and len(whole_lines(out)) >= 6):
                time.sleep(0.05)
            assert len(whole_lines(out)) >= 6
        return Act(completion(said[question(body)]), delay=0.3)

    with Server(behave) as server:
        succeeds(*files, *chat_flags(server, "--concurrency=2"))
    assert [row.attempt.id for row in corrections(out)] == [f"a{number}" for number in range(12)]


def test_until_correct_asks_again_only_where_nothing_was_kept(files, tmp_path):
    said = replies(12)
    stubborn = {attempt(n).problem.question: n for n in (2, 5)}

    def behave(body, times):
        good = question(body) not in stubborn or times > stubborn[question(body)]
        return Act(completion(said[question(body)] if good else "Step 1 looks odd."))

    with Server(behave) as server:
        told = succeeds(*files, *chat_flags(server, "--samples=4", "--until_correct"))
    times = collections.Counter(map(question_of_prompt, server.asked))
    assert [times[attempt(n).problem.question] for n in range(12)] == [{2: 3, 5: 4}.get(n, 1) for n in range(12)]
    assert "11 of 17 corrections kept, for 11 of 12 mistakes" in told


def question_of_prompt(prompt: str) -> str:
    return question({"messages": [{"content": prompt}]})


def test_several_samples_of_each(files, tmp_path):
    with Server(teacher(12)) as server:
        assert "36 of 36 corrections kept, for 12 of 12 mistakes" in succeeds(
            *files, *chat_flags(server, "--samples=3")
        )
        assert len(server.asked) == 36
    assert len({row.id for row in corrections(tmp_path / "corrections.jsonl")}) == 36


MATH_WRONG = "We need $2x = 6$.\nSo $x = 2$.\nThe answer is $\\boxed{999}$."
MATH_REPLY = (
    "Step 2.\nExplanation: Halving 6 gives 3.\n"
    "Correct Solution:\n{\n...\nStep 2: So $x = 3$.\nStep 3: The answer is GOLD.\n}"
)
CSQA_WRONG = "Explanations:\nWRONG - It fits.\nReasons and Final Answer:\nThe answer is WRONG."
CSQA_REPLY = " It overlooks the best one.\nCorrected Answer:\n{\nExplanations:\nGOLD - It fits.\nThe answer is GOLD.\n}"


@pytest.mark.parametrize(
    ("task", "wrong", "reply", "step"), [("math", MATH_WRONG, MATH_REPLY, 2), ("csqa", CSQA_WRONG, CSQA_REPLY, None)]
)
def test_other_families(tmp_path, data_dir, task, wrong, reply, step):
    rows, said = [], {}
    for number, problem in enumerate(tasks.get(task).load("train", data_dir)[:3]):
        text = wrong.replace("WRONG", next((choice for choice in problem.choices if choice != problem.gold), ""))
        answer, verdict = tasks.grade(problem, text, truncated=False)
        rows.append(attempt(number).model_copy(update={"problem": problem, "text": text, "answer": answer}))
        assert verdict is Verdict.WRONG
        said[problem.question] = reply.replace("GOLD", problem.gold)
    records.write(tmp_path / "a.jsonl", rows)

    def behave(body, times):
        prompt = body["messages"][-1]["content"]
        return Act(completion(next(text for asked, text in said.items() if f"Question: {asked}\n" in prompt)))

    with Server(behave) as server:
        told = succeeds(f"--attempts={tmp_path / 'a.jsonl'}", f"--out={tmp_path / 'c.jsonl'}", *chat_flags(server))
    assert "3 of 3 corrections kept" in told
    for row in corrections(tmp_path / "c.jsonl"):
        assert row.step == step
        assert row.answer == row.attempt.problem.gold


@pytest.mark.slow
@pytest.mark.parametrize("task", ["gsm8k", "math", "csqa"])
def test_critiques_of_every_family(tmp_path, data_dir, task):
    """The teacher calls everything wrong: of three right and three wrong attempts half of its critiques are kept."""
    rows = []
    for number, problem in enumerate(tasks.get(task).load("train", data_dir)[:6]):
        other = next((choice for choice in problem.choices if choice != problem.gold), "999")
        text = f"So it is.\nThe answer is {problem.gold if number % 2 else other}."
        answer, verdict = tasks.grade(problem, text, truncated=False)
        of = {"problem": problem, "text": text, "answer": answer, "verdict": verdict}
        rows.append(attempt(number).model_copy(update=of))
    records.write(tmp_path / "a.jsonl", rows)
    with Server(lambda body, times: Act(completion("It does not hold.\n\n**Conclusion:** wrong."))) as server:
        told = succeeds(
            f"--attempts={tmp_path / 'a.jsonl'}", f"--out={tmp_path / 'c.jsonl'}", "--critique", *chat_flags(server)
        )
        assert len(server.asked) == 6
        assert all(body["messages"][-1]["content"].count("\nSolution:\n{\n") == 1 for body in server.bodies)
    assert "3 of 6 critiques kept" in told
    made = list(records.read(tmp_path / "c.jsonl", Critique))
    assert {row.prompt.partition("@")[0] for row in made} == {f"critique_{task}"}
    assert {(row.attempt.verdict, row.rejected) for row in made} == {("right", "wrong_judgement"), ("wrong", "")}


def test_a_prompt_file_is_sent_as_it_is(files, tmp_path):
    (tmp_path / "prompt.txt").write_text("Mend this.\n\nQuestion: 1 + 1?\n...\nIncorrect Step: Step 1.\n")
    with Server(teacher(12)) as server:
        succeeds(*files, *chat_flags(server, f"--prompt_file={tmp_path / 'prompt.txt'}", "--temperature=0.5"))
    assert server.asked[0].startswith("Mend this.\n\nQuestion: 1 + 1?\n...\nIncorrect Step: Step 1.\n\nQuestion: ")
    assert all(len(body["messages"]) == 1 for body in server.bodies)


def test_a_file_that_goes_on_by_another_prompt_says_so(files, tmp_path):
    (tmp_path / "prompt.txt").write_text("Mend this.\n\n{case}\n\nIncorrect Step:\n")
    with Server(teacher(12)) as server:
        by_ours, by_file = (), (f"--prompt_file={tmp_path / 'prompt.txt'}",)
        assert "another prompt" not in succeeds(*files, *chat_flags(server, *by_ours))
        said = succeeds(*files, *chat_flags(server, *by_file))
        assert "corrections.jsonl: 12 corrections were asked for by another prompt (gsm8k@" in said
        assert "(prompt.txt@" in said
        assert len(server.asked) == 24
    assert collections.Counter(row.prompt[:5] for row in corrections(tmp_path / "corrections.jsonl")) == {
        "gsm8k": 12, "promp": 12
    }  # fmt: skip


def test_a_dry_run_asks_and_writes_nothing(files, tmp_path):
    with Server(teacher(12)) as server:
        said = succeeds(*files, *chat_flags(server, "--dry_run", "--usd_per_million=1,2", "--samples=2"))
        assert not server.asked
        assert "24 requests to ask (0 are answered already)" in said
        assert "24,576 completion tokens\nat $1 and $2 a million (--usd_per_million): at most about $0.0" in said
        assert "may end it" not in said
        said = succeeds(*files, *chat_flags(server, "--dry_run", "--max_tokens_total=20000"))
        assert said.endswith("\n--max_tokens_total=20,000 may end it before the last request\n")
        assert [path.name for path in tmp_path.iterdir()] == ["attempts.jsonl"]
        succeeds(*files, *chat_flags(server, "--usd_per_million=1000,2000"))  # 12 x $0.14
        again = succeeds(*files, *chat_flags(server, "--dry_run", "--samples=2"))
        assert "12 requests to ask (12 are answered already)" in again
        assert "what m costs is not known" in again
        other = ("--dry_run", "--model=gpt-4o", "--max_cost_usd=1.69", "--batch")
        said = succeeds(*files, *chat_flags(server, *other))
        assert "12 requests to ask (0 are answered already)" in said
        assert "at $1.25 and $5 a million (list of " in said
        assert ", halved by --batch): at most about $0.0" in said
        assert ", beside $1.68 paid\n--max_cost_usd=1.69 may end it" in said


def test_a_spent_budget_keeps_what_it_bought_and_says_how_to_go_on(files, tmp_path):
    with Server(teacher(12)) as server:
        said = fails(*files, *chat_flags(server, "--usd_per_million=1,2", "--max_cost_usd=0.007"))
        assert "the budget has no room for another request" in said
        assert "the same command goes on" in said
        done = len(server.asked)
        assert 0 < done < 12
        assert len(corrections(tmp_path / "corrections.jsonl")) == done
        succeeds(*files, *chat_flags(server))
        assert len(server.asked) == 12


def test_a_bad_key_is_told_without_the_key(files, tmp_path):
    echoing = Server(lambda body, times: error(f"Incorrect API key provided: {KEY}", 401))
    with echoing as server:
        assert "Incorrect API key provided: [key]; see OPENAI_API_KEY" in fails(*files, *chat_flags(server))
    assert not (tmp_path / "corrections.jsonl").exists()
    assert not (tmp_path / "corrections.replies.jsonl").exists()


def test_by_batch(files, tmp_path):
    with Server(teacher(12), finished=5, batch_end="expired") as server:
        said = succeeds(*files, *chat_flags(server, "--batch", "--batch_poll_s=0.02"))
        assert "12 of 12 corrections kept" in said
        assert len(server.asked) == 12
        assert len(server.batches) == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_lands_what_is_in_flight_and_says_how_to_go_on(files, tmp_path, number):
    with Server(teacher(12, delay=0.25)) as server:
        flags = (*files, *chat_flags(server, "--concurrency=4"))
        process = subprocess.Popen(command(*flags), stdout=-1, stderr=-1, text=True, env=ENVIRONMENT)
        while len(server.asked) < 4:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate()
        assert process.returncode == 128 + number
        assert "waiting for the answers in flight" in said
        assert "requests are answered and kept (interrupted); the same command goes on" in said.splitlines()[-1]
        assert len(server.asked) == len(corrections(tmp_path / "corrections.jsonl")) < 12
        succeeds(*flags)
        assert sorted(server.asked) == sorted(set(server.asked))
    assert {row.attempt.id for row in corrections(tmp_path / "corrections.jsonl")} == {f"a{n}" for n in range(12)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requests", "kills", "samples"),
    [(60, 3, 1), pytest.param(2000, 20, 10, marks=pytest.mark.long)],
)
def test_killed_while_asking_nothing_is_lost_and_nothing_kept_is_asked_twice(tmp_path, requests, kills, samples):
    mistakes = requests // samples
    files = (f"--attempts={write_attempts(tmp_path / 'a.jsonl', mistakes)}",)
    more = (f"--samples={samples}", "--concurrency=16")
    with Server(teacher(mistakes, delay=0.01)) as server:
        succeeds(*files, f"--out={tmp_path / 'undisturbed.jsonl'}", *chat_flags(server, *more))
    out, kept_file = tmp_path / "killed.jsonl", tmp_path / "killed.replies.jsonl"
    draw = random.Random(requests)
    lost = 0
    with Server(teacher(mistakes, delay=0.01)) as server:
        flags = (*files, f"--out={out}", *chat_flags(server, *more))
        for _ in range(kills):
            target = len(server.asked) + draw.randrange(requests // kills)
            kill_when(lambda target=target: len(server.asked) > target, *flags, after=draw.uniform(0, 0.02))
            asked, kept = len(server.asked), len(whole_lines(kept_file))
            lost = asked - kept
            assert 0 <= lost <= 16 * kills  # what was in flight when it was killed, this time and before
        succeeds(*flags)
        total = len(server.asked)
    assert total - requests <= lost  # at most what was in flight is asked again: what had come is read from the disk
    ids = [json.loads(line)["id"] for line in whole_lines(kept_file)]
    assert len(ids) == len(set(ids)) == requests
    assert out.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGINT, signal.SIGINT]])
def test_what_was_in_flight_when_a_run_was_killed_counts_as_spent(files, tmp_path, signals):
    with Server(teacher(12, delay=30)) as server:
        flags = (*files, *chat_flags(server, "--concurrency=4", "--usd_per_million=1,2"))
        process = subprocess.Popen(command(*flags), stdout=-1, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        while len(server.asked) < 4:
            time.sleep(0.01)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.5)
        process.communicate()
        limit = "--max_tokens_total=20000"  # room for two requests, had nothing been asked before
        assert "beside $0.00 paid, at most $0.03 more booked" in succeeds(*flags, "--dry_run")
        assert "the budget has no room" in fails(*flags, limit)
        assert len(server.asked) == 4
    with Server(teacher(12)) as server:
        succeeds(*files, *chat_flags(server))
        assert len(server.asked) == 12


def whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []
