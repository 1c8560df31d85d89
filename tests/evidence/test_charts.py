"""Plots are well-formed SVG in the page's own colours, whatever the names in them."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.evidence import charts
from lema_jax.evidence.stats import Interval, wilson

NASTY = "<script>alert(1)</script> & $x^{2}$ \"'"


def texts(svg):
    return {element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def plots(name):
    return {
        "intervals": charts.intervals([(name, 0.5, wilson(5, 10)), ("b", 0.6, wilson(6, 10))], name, {name: 0, "b": 1}),
        "differences": charts.intervals([(name, -0.01, Interval(-0.03, 0.01))], name, {name: 1}, zero=True),
        "grouped": charts.grouped([name, "y"], {name: [(0.5, wilson(5, 10)), (0.0, wilson(0, 3))]}, name, {name: 1}),
        "curves": charts.curves({name: ([1, 2], [3.0, 2.0]), "b": ([1], [float("nan")])}, name, {name: 0, "b": 9}),
        "seeds": charts.intervals([(name, 0.5, wilson(5, 10))], name, {name: 1}, points={name: [0.4, 0.6]}),
        "shares": charts.by_share([(0.0, 0.5, wilson(5, 10), [0.4, 0.6]), (0.5, 0.4, wilson(4, 10), [0.4])], name),
        "bars": charts.bars({name: 1234, "b": 0}, name),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", plots("a"))
def test_plots_are_self_contained_and_coloured_by_the_style_sheet(kind):
    svg = plots("a")[kind]
    assert "var(--series-" in svg
    assert "#0101" not in svg
    assert "#0102" not in svg
    assert "<style" not in svg  # a style inside would reach the whole page
    assert "<!--" not in svg
    root = ET.fromstring(svg)
    assert {"width", "height"}.isdisjoint(root.attrib)
    assert root.attrib["role"] == "img"


@pytest.mark.slow
@pytest.mark.parametrize("kind", plots("a"))
def test_names_are_text_and_never_markup(kind):
    svg = plots(NASTY)[kind]
    assert "<script" not in svg
    labelled = ET.fromstring(svg).attrib["aria-label"]  # where the plot shows no name
    assert any(text and text.startswith("<script>alert(1)</script>") for text in (*texts(svg), labelled))


def test_dollars_are_not_read_as_mathematics():
    assert "costs $x^{2}$" in texts(charts.bars({"costs $x^{2}$": 1}, "n"))


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None)
def test_any_name_gives_well_formed_svg(names):
    name = names[0]
    ET.fromstring(charts.bars(dict.fromkeys(names, 1), name))
    ET.fromstring(charts.curves({name: ([1, 2], [3.0, 2.0]), "b": ([1], [1.0])}, name, {name: 0, "b": 1}))


@pytest.mark.slow
def test_ids_of_different_plots_do_not_collide_and_equal_plots_are_equal():
    first, second = plots("a")["bars"], plots("a")["intervals"]
    ids = [{e.attrib["id"] for e in ET.fromstring(svg).iter() if "id" in e.attrib} for svg in (first, second)]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])
    assert plots("a")["bars"] == first


def test_a_long_name_of_a_group_is_on_two_lines_and_whole():
    drawn = texts(charts.grouped(["Counting & Probability (n=38)"], {"a": [(0.5, wilson(5, 10))]}, "a", {"a": 1}))
    assert {"Counting & Probability", "(n=38)"} <= drawn


def test_counts_stand_beside_their_bars():
    assert {"1,234", "wrong"} <= texts(charts.bars({"wrong": 1234, "kept": 5}, "rows"))


def test_seeds_of_an_arm_share_one_entry_of_the_legend():
    lines = {f"{arm} {seed}": ([1, 2], [3.0, seed]) for arm in ("cot", "lema") for seed in (1, 2)}
    drawn = charts.curves(lines, "loss", {"cot": 0, "lema": 1}, names={key: key.split()[0] for key in lines})
    assert len(ET.fromstring(drawn).findall(".//{http://www.w3.org/2000/svg}text[.='lema']")) == 1
    assert "var(--series-1)" in drawn


@pytest.mark.slow
def test_only_the_baseline_has_the_grey_colour():
    names = {str(number): number for number in range(20)}
    drawn = [charts.intervals([(name, 0.5, wilson(5, 10))], "a", names) for name in names]
    assert ["--series-0" in svg for svg in drawn] == [True] + [False] * 19


@pytest.mark.parametrize("count", [2, 5, 14])
@pytest.mark.parametrize(("letter", "points"), [("i", 2.8), ("e", 6.1), ("m", 9.7)])
@pytest.mark.parametrize("length", [3, 12, 20])
def test_every_name_of_a_legend_is_within_the_plot(count, letter, points, length):
    names = {f"{letter * length}{number}": number for number in range(count)}
    drawn = ET.fromstring(charts.curves({name: ([1, 2], [3.0, 4.0]) for name in names}, "loss", names))
    entries = [one for one in drawn.iter("{http://www.w3.org/2000/svg}text") if one.text in names]
    *_, width, height = map(float, drawn.attrib["viewBox"].split())
    assert len(entries) == count
    assert all(float(one.attrib["x"]) + points * len(one.text) < width for one in entries)
    assert all(0 < float(one.attrib["y"]) < height - 140 for one in entries)  # the lines have room


def test_names_that_share_a_colour_have_other_lines():
    names = {f"arm {number}": number for number in range(20)}
    drawn = ET.fromstring(charts.curves({name: ([1, 2], [3.0, 4.0]) for name in names}, "loss", names))
    styles = {one.attrib.get("style", "") for one in drawn.iter("{http://www.w3.org/2000/svg}path")}
    assert len([style for style in styles if "stroke-width: 1.6" in style]) == 20
