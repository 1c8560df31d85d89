"""The page holds what was measured, asks no network, and shows any text of a model's as text."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.evidence import compare, page
from lema_jax.evidence.runs import Run
from lema_jax.records import Verdict
from tests import made_runs
from tests.html_page import Parsed


def made(*verdicts_by_name, text=None, baseline=0, **given):
    runs = [
        Run(
            name,
            name,
            tuple(
                made_runs.prediction(
                    made_runs.problem(i, meta={"steps": i % 2}), made_runs.LETTERS[letter], f"{name}{seed}", text
                )
                for i, letter in enumerate(letters)
            ),
        )
        for seed, (name, letters) in enumerate(verdicts_by_name)
    ]
    arms = compare.arms(runs)
    comparisons = {arm.name: compare.compare(arms[baseline], arm) for arm in arms if arm is not arms[baseline]}
    return page.runs_page(arms, comparisons, baseline=arms[baseline], **given)


def test_page_shows_table_findings_groups_and_changes():
    parsed = Parsed(made(("cot", "rrwwut" * 10), ("lema", "rwrwwr" * 10)))
    said = " ".join(parsed.text)
    assert "lema answers 16.7 points more of the 60 questions right than cot" in said
    assert "cot · lema on arithmetic" in said
    assert "Steps" in said
    kinds = [item["data-kinds"] for item in parsed.items()]
    assert (kinds.count("fixed"), kinds.count("broken"), kinds.count("both wrong")) == (20, 10, 20)
    assert len(kinds) == 50  # those that both got right are counted in the table, not listed
    assert {item["data-field-0"] for item in parsed.items()} == {"0", "1"}


def test_each_question_knows_its_change_against_every_run():
    parsed = Parsed(made(("cot", "rw"), ("lema", "wr"), ("lema", "rw")))
    assert [item["data-kinds"] for item in parsed.items()] == ["broken|both right", "fixed|both wrong"]
    assert "lema #2" in " ".join(parsed.text)


def test_a_single_run_needs_no_comparison():
    parsed = Parsed(made(("cot", "rrw")))
    assert not parsed.items()
    assert "What changed" not in " ".join(parsed.text)


def test_nothing_is_fetched_and_only_our_script_may_run():
    text = made(("cot", "rrw"), ("lema", "rwr"))
    parsed = Parsed(text)
    links = [v for _, attributes in parsed.tags for k, v in attributes.items() if k in ("src", "href", "xlink:href")]
    assert all(link.startswith("#") for link in links)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert len([tag for tag, _ in parsed.tags if tag == "script"]) == 1
    assert "color-scheme" in text
    assert any(attributes.get("name") == "viewport" for _, attributes in parsed.tags)


def test_markup_in_a_models_text_stays_text():
    evil = "</p></details><script>alert('x')</script><img src=x onerror=alert(1)><!-- {{ 7*7 }} {% raw %}"
    parsed = Parsed(made(("cot", "rw"), ("lema<b>", "wr"), text=evil))
    assert len([tag for tag, _ in parsed.tags if tag == "script"]) == 1
    assert not [tag for tag, _ in parsed.tags if tag in ("img", "b")]
    assert sum(evil in text for text in parsed.text) == 4  # two questions, two answers each


@pytest.fixture(scope="module")
def plain():
    return Parsed(made(("cot", "rw"), ("lema", "wr"), text="plain"))


@pytest.mark.slow
@given(text=st.text(st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=10, deadline=None)
def test_any_text_leaves_the_structure_of_the_page(plain, text):
    tags = Parsed(made(("cot", "rw"), ("lema", "wr"), text=text)).tags
    assert len(tags) == len(plain.tags)


def test_training_curves_funnel_and_cost_are_shown_where_given():
    curve = {"loss": ([1, 2], [3.0, 2.0]), "tokens": ([1, 2], [10.0, 50.0]), "tokens_per_second": ([1, 2], [5.0, 5.0])}
    given = {"training": {"run one": curve | {"same": ([1, 2], [1.0, 1.0])}}, "funnels": {"corrections": {"kept": 31}}}
    said = Parsed(made(("cot", "rw"), ("lema", "wr"), **given)).text
    assert "Loss" in said
    assert "Same" not in said  # a line that never moves says nothing
    assert {"run one", "60", "0:00:12"} <= set(said)
    assert {"corrections", "31"} <= {text.strip() for text in said}


def test_a_name_has_one_colour_in_all_plots():
    line = {"loss": ([1, 2], [3.0, 2.0])}
    arms = (("student", "rwr"), ("cot", "wrr"), ("lema", "wrr"))
    text = made(*arms, baseline=1, training={"cot": line, "lema": line, "more": line})
    plots = [set(re.findall(r"--series-(\d)", svg)) for svg in re.findall("<svg.*?</svg>", text, re.DOTALL)]
    accuracy, difference, steps, loss = plots
    assert accuracy == steps == {"0", "1", "2"}
    assert difference == {"1", "2"}
    assert loss == {"0", "2", "3"}


@pytest.mark.parametrize(("other", "kind"), [("rr", "fixed"), ("ww", "broken"), ("rw", "both wrong")])
def test_the_first_kind_of_change_that_there_is_is_shown_first(other, kind):
    text = made(("cot", "rw"), ("lema", other))
    assert re.findall(r"<option selected>([\w ]+)</option>", text) == [kind]


@pytest.mark.slow
def test_many_groups_are_spread_over_several_plots(monkeypatch):
    arguments = ("cot", "rw" * 10), ("lema", "wr" * 10)
    before = [tag for tag, _ in Parsed(made(*arguments)).tags].count("svg")
    monkeypatch.setattr(page, "TALLEST", 1)
    parsed = Parsed(made(*arguments))
    assert [tag for tag, _ in parsed.tags].count("svg") == before + 1
    assert {"0 (n=10)", "1 (n=10)"} <= {text.strip() for text in parsed.text}


def test_the_choice_of_a_checkpoint_is_shown():
    assert "Chosen on dev: late" in " ".join(Parsed(made(("cot", "rw"), choice="Chosen on dev: late")).text)


def test_verdicts_are_named_beside_each_answer():
    parsed = Parsed(made(("cot", "ut"), ("lema", "rr")))
    badges = [a["class"] for tag, a in parsed.tags if tag == "span" and "badge" in a.get("class", "")]
    assert [badges.count(f"badge {verdict}") for verdict in (Verdict.UNPARSED, Verdict.TRUNCATED)] == [1, 1]


@pytest.mark.long
def test_a_real_browser_runs_the_filter_and_nothing_else(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    evil = "<script>document.title='attacked'</script><img src=x onerror=\"document.title='attacked'\">"
    (tmp_path / "page.html").write_text(made(("cot", "rww" * 20), ("lema", "wrw" * 20), text=evil))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=2000")
    command = [browser, *flags, "--dump-dom", f"file://{tmp_path / 'page.html'}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "<output>20 match</output>" in dom
    assert "<title>cot · lema on arithmetic</title>" in dom
    shown = [item for item in Parsed(dom).items() if "hidden" not in item]
    assert {item["data-kinds"] for item in shown} == {"fixed"}
    assert len(shown) == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "kind", "words"),
    [("r" * 60, "better", "▲ better"), ("w" * 60, "worse", "▼ worse"), ("rw" * 30, "unclear", "≈ unclear")],
)
def test_how_a_finding_reads_is_a_word_and_a_sign_and_not_colour_alone(other, kind, words):
    parsed = Parsed(made(("cot", "wr" * 30), ("lema", other)))
    found = [attributes["class"] for tag, attributes in parsed.tags if "finding" in attributes.get("class", "")]
    assert found == [f"finding {kind}"]
    assert words in parsed.text
