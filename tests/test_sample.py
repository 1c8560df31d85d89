"""The sample command, run as a user runs it, with a chat endpoint on this machine."""

import collections
import functools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lema_jax import records, sample, tasks
from lema_jax.records import Problem, Verdict
from lema_jax.tasks import prompts
from tests import commands
from tests.commands import KEY, attempts
from tests.teacher.wire_server import Act, Server, completion, error

succeeds = functools.partial(commands.succeeds, sample.command)
fails = functools.partial(commands.fails, sample.command)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "attempts.jsonl"


# --- a chat endpoint --------------------------------------------------------------------------------------------------


@functools.cache
def problems() -> list[Problem]:
    return tasks.get("arithmetic").load("train")[:6]


def number(body) -> int:
    """Which of the problems is asked."""
    prompt = body["messages"][0]["content"]
    return next(n for n, problem in enumerate(problems()) if f"Question: {problem.question}\n" in prompt)


def right(n: int) -> str:
    return tasks.get("arithmetic").completion(problems()[n])


def says(*texts):
    """A server's behaviour: the texts in turn, each question for itself; `{}` is its gold answer."""

    def behave(body, times):
        return Act(completion(texts[(times - 1) % len(texts)].replace("{}", problems()[number(body)].gold)))

    return behave


def chat_flags(server: Server, out: Path, *more) -> tuple[str, ...]:
    where = ("--student=openai", f"--base_url={server.url}", f"--out={out}")
    return (*where, "--task=arithmetic", "--limit=6", "--model=m", "--concurrency=1", *more)


def test_every_verdict_of_an_endpoint(out):
    said = {
        0: (completion(right(0)), Verdict.RIGHT),
        1: (completion("The answer is 123456789."), Verdict.WRONG),
        2: (completion("Who knows?"), Verdict.UNPARSED),
        3: (completion("The answer is 1234567", "length"), Verdict.TRUNCATED),
        4: (completion(None, refusal="I'd rather not."), Verdict.UNPARSED),
        5: (completion("The answer is 1234567", "content_filter"), Verdict.TRUNCATED),
    }
    with Server(lambda body, times: Act(said[number(body)][0]), key=KEY) as server:
        told = succeeds(*chat_flags(server, out, "--temperature=0.5"))
        assert len(server.asked) == 6
        before = out.read_bytes()
        assert succeeds(*chat_flags(server, out, "--temperature=0.5")) == told
        assert out.read_bytes() == before
        out.unlink()  # the replies are paid for; the rows can be made again
        succeeds(*chat_flags(server, out, "--temperature=0.5"))
        assert len(server.asked) == 6
    assert out.read_bytes() == before
    assert "6 attempts at 6 questions: " in told
    rows = attempts(out)
    assert [row.verdict for row in rows] == [verdict for _, verdict in said.values()]
    assert rows[1].answer == "123456789"
    for row, problem, prompt in zip(rows, problems(), server.asked):
        assert (row.problem, row.student, row.prompt) == (problem, "m", prompt)
        assert row.prompt == tasks.get("arithmetic").prompt(problem)
        assert row.sampling == {"temperature": 0.5, "top_p": 1.0, "max_new_tokens": 512, "sample": 0}
        assert (row.prompt_tokens, row.completion_tokens) == (100, 20)
    assert KEY not in out.read_text()


def test_what_an_endpoint_does_not_call_an_answer_is_not_graded(out):
    said = {
        0: (Act(completion(right(0))), Verdict.RIGHT),
        1: (Act(completion(None, refusal="I won't. The answer is 123456789.")), Verdict.UNPARSED),
        2: (error("exceeds the available context size", 400), Verdict.PROMPT_TOO_LONG),
        3: (Act(completion("<think>So far\nThe answer is 1234567")), Verdict.TRUNCATED),
        4: (Act(completion(None, "length", reasoning_content="The answer is 1234567.")), Verdict.TRUNCATED),
        5: (Act(completion("The answer is 1234567.", "tool_calls")), Verdict.UNPARSED),
    }
    with Server(lambda body, times: said[number(body)][0]) as server:
        succeeds(*chat_flags(server, out))
    assert [row.verdict for row in attempts(out)] == [verdict for _, verdict in said.values()]


def test_an_endpoint_is_told_how_to_sample(out):
    bodies = []

    def behave(body, times):
        bodies.append(body)
        return Act(completion("The answer is 1."))

    with Server(behave) as server:
        flags = ("--limit=1", "--samples=2", "--temperature=0.9", "--top_p=0.8", "--max_new_tokens=99")
        succeeds(*chat_flags(server, out, *flags))
        succeeds(*chat_flags(server, out, *flags, "--seed=3"))
    for body in bodies:
        assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("m", 0.9, 0.8, 99)
    assert ["seed" in body for body in bodies] == [False, False, True, True]
    assert bodies[2]["seed"] != bodies[3]["seed"]
    assert [row.sampling.get("seed") for row in attempts(out)] == [None, None, 3, 3]


def test_several_students_in_one_file_and_what_a_mode_selects(out, tmp_path):
    with Server(says("2 - 1 = 1\nThe answer is 987654.", "So.\nThe answer is {}.")) as server:
        told = succeeds(*chat_flags(server, out, "--samples=4", "--mode=mistakes"))
        assert f"{tmp_path / 'attempts.mistakes.jsonl'}: 6 of all 24 attempts" in told
        again = ("2 - 1 =  1\n\nThe answer is 987654.", "so.\nThe answer is {}.", "Other.\nThe answer is {}.")
        server.behave = says(*again)
        succeeds(*chat_flags(server, out, "--model=n", "--samples=3", "--mode=cot_augment"))
    rows = attempts(out)
    assert collections.Counter(row.student for row in rows) == {"m": 24, "n": 18}
    chosen = {mode: attempts(tmp_path / f"attempts.{mode}.jsonl") for mode in ("mistakes", "cot_augment")}
    assert {row.verdict for row in chosen["mistakes"]} == {Verdict.WRONG}
    assert {row.verdict for row in chosen["cot_augment"]} == {Verdict.RIGHT}
    per_question = collections.Counter(row.problem.id for row in chosen["cot_augment"])
    assert per_question == {problem.id: 2 for problem in problems()}  # what differs in space and case alone is one
    assert {row.student for row in chosen["cot_augment"]} == {"m", "n"}
    assert {row.id for some in chosen.values() for row in some} < {row.id for row in rows}


def test_harder_questions_get_more_attempts_up_to_the_cap(out):
    failures = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 4}  # of the first four

    def behave(body, times):
        n = number(body)
        return Act(completion("The answer is 987654." if times <= failures[n] else right(n)))

    flags = ("--samples=4", "--difficulty_weighted", "--max_samples=10")
    with Server(behave) as server:
        succeeds(*chat_flags(server, out, *flags))
        asked = len(server.asked)
        before = out.read_bytes()
        succeeds(*chat_flags(server, out, *flags))
        assert len(server.asked) == asked
        assert out.read_bytes() == before
        dry = succeeds(*chat_flags(server, out, *flags, "--dry_run"))
        assert f"{60 - asked} requests to ask ({asked} are answered already)" in dry
    counts = collections.Counter(row.problem.id for row in attempts(out))
    assert [counts[problem.id] for problem in problems()] == [4, 6, 7, 9, 10, 10]


def test_worked_examples_stand_before_the_question(out, tmp_path):
    shots = "Solve.\n\nQuestion: 1 + 1?\nAnswer: Let's think step by step.\nThe answer is 2."
    (tmp_path / "shots.txt").write_text(shots + "\n")
    more = "The answer is {}.\n\nQuestion: What else?\nAnswer: The answer is 5."
    with Server(says(more)) as server:
        succeeds(
            *chat_flags(server, out, "--limit=1", "--prompt_style=few_shot", f"--examples={tmp_path / 'shots.txt'}")
        )
        succeeds(*chat_flags(server, out, "--limit=1", "--prompt_style=few_shot"))
    case = f"\n\nQuestion: {problems()[0].question}\nAnswer: Let's think step by step.\n"
    assert server.asked == [shots + case, prompts.worked_examples("gsm8k") + case]
    for row in attempts(out):
        assert (row.text, row.verdict) == (f"The answer is {problems()[0].gold}.", Verdict.RIGHT)


def test_problems_of_a_file(out, tmp_path):
    evolved = [row.model_copy(update={"id": f"e{n}", "split": "evolved"}) for n, row in enumerate(problems())]
    records.write(tmp_path / "evolved.jsonl", evolved)
    with Server(says("The answer is {}.")) as server:
        flags = (f"--base_url={server.url}", f"--out={out}", f"--problems={tmp_path / 'evolved.jsonl'}")
        told = succeeds("--student=openai", "--model=m", *flags)
    assert "6 attempts at 6 questions: 6 right" in told
    assert [row.problem for row in attempts(out)] == evolved


def test_a_spent_budget_keeps_what_it_bought_and_goes_on_later(out):
    with Server(says("The answer is {}.")) as server:
        said = fails(*chat_flags(server, out, "--max_tokens_total=1300"))
        assert "the same command goes on" in said
        assert 0 < len(attempts(out)) == len(server.asked) < 6
        succeeds(*chat_flags(server, out))
        assert len(attempts(out)) == len(server.asked) == 6


def test_rows_are_in_the_file_while_others_are_asked_for(out):
    asked = threading.Event()

    def behave(body, times):
        if number(body) == 5:
            asked.set()
            assert until(lambda: out.exists() and len(out.read_bytes().splitlines()) >= 3)
        return Act(completion(right(number(body))), delay=0.3)

    with Server(behave) as server:
        succeeds(*chat_flags(server, out))
    assert asked.is_set()
    assert [row.problem for row in attempts(out)] == problems()


def until(holds, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not holds():
        time.sleep(0.05)
    return holds()


def test_a_run_that_goes_on_counts_what_was_done_before(out):
    with Server(says("The answer is {}.", "The answer is 987654.")) as server:
        succeeds(*chat_flags(server, out, "--limit=4"))
        done = commands.run(sample.command, *chat_flags(server, out))
        assert "6/6 answered · right 100.0%" in done.stderr
        out.with_suffix(".replies.jsonl").unlink()  # without the replies the rows alone are not asked for again
        succeeds(*chat_flags(server, out))
        assert len(server.asked) == 6


def test_a_start_that_failed_leaves_no_files(out):
    with Server(lambda body, times: error("Who are you?", 401)) as server:
        assert "see OPENAI_API_KEY" in fails(*chat_flags(server, out))
    assert not out.exists()
    assert not out.with_suffix(".replies.jsonl").exists()


def test_nothing_bought_leaves_no_empty_file_behind(out, tmp_path):
    with Server(says("The answer is {}.")) as server:
        fails(*chat_flags(server, out, "--max_tokens_total=1"))
        assert not server.asked
    assert not [path for path in tmp_path.iterdir() if not path.stat().st_size]
    assert not out.exists()


def test_attempts_that_another_gold_has_graded_are_left_alone(out, tmp_path):
    """A task's file may be changed, and keep its ids."""
    with Server(says("The answer is {}.")) as server:
        flags = chat_flags(server, out, f"--problems={tmp_path / 'own.jsonl'}")
        flags = [flag for flag in flags if not flag.startswith("--task")]
        records.write(tmp_path / "own.jsonl", problems())
        succeeds(*flags)
        before = out.read_bytes()
        changed = [row.model_copy(update={"gold": "77"}) for row in problems()]
        records.write(tmp_path / "own.jsonl", changed)
        assert "graded by the gold" in fails(*flags)
        assert out.read_bytes() == before
        assert len(server.asked) == 6


def test_a_dry_run_asks_and_writes_nothing(out, tmp_path):
    with Server(says("?")) as server:
        said = succeeds(*chat_flags(server, out, "--dry_run", "--samples=3", "--usd_per_million=1,2"))
        assert not server.asked
    assert "18 requests to ask" in said
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_needs_no_jax(tmp_path):
    code = "import sys, lema_jax.sample; print({'jax', 'flax', 'transformers', 'openai', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--task=chess",), "no task 'chess'; choose one of "),
        (("--task=arithmetic", "--split=moon"), "no split 'moon'"),
        (("--task=arithmetic", "--samples=2", "--temperature=0"), "would all be the same"),
        (("--task=arithmetic", "--temperature=0", "--seed=1"), "is greedy, and has no --top_p or --seed"),
        (("--task=arithmetic", "--temperature=0", "--top_p=0.9"), "is greedy, and has no --top_p or --seed"),
        (("--task=arithmetic", "--problems=p.jsonl"), "either --task or --problems"),
        ((), "either --task or --problems"),
        (("--problems=/none.jsonl",), "cannot read /none.jsonl"),
        (("--problems=/none.jsonl", "--split=test"), "--split is of --task"),
        (("--task=arithmetic", "--model="), "--student=openai needs --model"),
        (("--task=arithmetic", "--dtype=bfloat16"), "--dtype is not for --student=openai"),
        (("--task=arithmetic", "--student=checkpoint"), "--model is not for --student=checkpoint"),
        (("--task=gsm8k", "--student=stepverify"), "--model is not for --student=stepverify"),
        (("--task=arithmetic", "--max_samples=9"), "--difficulty_weighted and --max_samples go together"),
        (("--task=arithmetic", "--difficulty_weighted"), "--difficulty_weighted and --max_samples go together"),
        (("--task=arithmetic", "--difficulty_weighted", "--max_samples=2", "--samples=2"), "must be above --samples=2"),
        (("--task=arithmetic", "--prompt_style=few_shot", "--examples=/none.txt"), "--examples: cannot read /none.txt"),
        (("--task=arithmetic", "--examples=/none.txt"), "is for --prompt_style=few_shot, not for paper"),
        (("--task=arithmetic", "more"), "unexpected argument 'more'"),
    ],
)
def test_user_mistakes_get_one_clear_line(flags, expected, out):
    assert expected in fails("--student=openai", "--model=m", f"--out={out}", *flags)
    assert not out.exists()


@pytest.mark.slow
def test_a_published_student_takes_no_settings(out, data_dir):
    of_task = ("--student=mathcritique", "--task=math", f"--data_dir={data_dir}", f"--out={out}")
    assert "--temperature is not for --student=mathcritique" in fails(*of_task, "--temperature=1")
    assert "100 attempts at 100 questions: 100 wrong" in succeeds(*of_task)
    before = out.read_bytes()
    assert "100 attempts at 100 questions: 100 wrong" in succeeds(*of_task, "--mode=mistakes")
    assert out.read_bytes() == before == out.with_suffix(".mistakes.jsonl").read_bytes()


def test_a_limit_counts_the_questions_that_have_published_attempts(out, data_dir):
    of_task = ("--student=stepverify", "--task=gsm8k", f"--data_dir={data_dir}", f"--out={out}")
    assert " attempts at 7 questions: " in succeeds(*of_task, "--limit=7")
    few = {row.problem.id for row in attempts(out)}
    out.unlink()
    assert " attempts at 8 questions: " in succeeds(*of_task, "--limit=8")
    assert few < {row.problem.id for row in attempts(out)}


def test_a_checkpoint_must_be_named_and_be_there(out, tmp_path):
    assert "--student=checkpoint needs --checkpoint" in fails("--task=arithmetic", f"--out={out}")
    assert "is no model folder" in fails("--task=arithmetic", f"--out={out}", f"--checkpoint={tmp_path / 'none'}")
