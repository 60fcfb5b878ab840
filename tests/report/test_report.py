"""The report: synthetic results in, one self-contained page out."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace import cli, report
from weightspace.bench._paired import Comparison
from weightspace.bench._record import Result, Row, write_result
from weightspace.report import _pictures, format_table, write_report
from weightspace.report._load import load_result
from weightspace.report._page import page, sentence
from weightspace.report._pictures import distinct, gallery, pair_indices, render, resolution
from weightspace.report._plots import difference_bars, validation_curves
from weightspace.report._tables import accuracy, leaders, model_tables, points
from weightspace.transforms import AUGMENTATIONS
from weightspace.zoo import write_zoo

SPEC = ws.siren(2, 8, 8, 1)


def make_row(augmentation, tests, *, model="dwsnet", val=None, epochs=12, **extra):
    """A synthetic row, a fixture of the layout and no measurement."""
    val = tests[0] if val is None else val
    mean = sum(tests) / len(tests)
    spread = (sum((t - mean) ** 2 for t in tests) / (len(tests) - 1)) ** 0.5 if len(tests) > 1 else None
    history = [{"epoch": e + 1, "train": val, "val": val * (e + 1) / epochs} for e in range(epochs)]
    return {
        "model": model,
        "augmentation": augmentation,
        "transform": f"Transform({augmentation})",
        "options": {"hidden": 16},
        "train_options": {},
        "parameters": 31402,
        "seeds": list(range(len(tests))),
        "test_mean": mean,
        "test_std": spread,
        "val_mean": val,
        "train_last": 0.7,
        "under_trained": False,
        "seconds_mean": 123.4,
        "runs": [
            {"seed": s, "test": t, "val": val, "best_epoch": epochs, "history": history} for s, t in enumerate(tests)
        ],
        **extra,
    }


def make_data(*rows, **extra):
    psnr = {"mean": 31.7, "min": 20.0, "q05": 28.1, "median": 31.9, "q95": 35.2, "max": 40.0}
    split = {"count": 3000, "sources": 3000, "psnr": psnr}
    return {
        "schema": 2,
        "kind": "bench",
        "suite": "synthetic-fixture",
        "created": "2000-01-01T00:00:00+00:00",
        "commit": "abc123def456",
        "hardware": {"processor": "Imaginary CPU", "cores": 2, "threads": 1, "gpu": None},
        "versions": {"weightspace": "0", "torch": "2"},
        "workers": 2,
        "train": {"epochs": 12, "batch_size": 64, "lr": 0.002, "clip": None},
        "zoo": {
            "path": "/somewhere/zoo-of-tests",
            "spec": "<2->1 h1:32sine(30)>",
            "recipe": {"steps": 200, "lr": 0.002},
            "init_regime": "independent",
            "seed": 0,
            "views": 1,
            "classes": ["shirt", "boot"],
            "provenance": {"dataset": "Fashion-MNIST"},
            "splits": {"train": split, "test": {**split, "count": 1000}},
        },
        "rows": list(rows),
        **extra,
    }


def make_result(*rows, **extra):
    return Result.from_json(make_data(*rows, **extra))


@pytest.fixture
def data():
    return make_data(
        make_row("sign", [0.66, 0.67, 0.68]),
        make_row("none", [0.62, 0.63, 0.64]),
        make_row("dropout", [0.55], under_trained=True),
        make_row("none", [0.2], model="mlp"),
        make_row("noise", [0.19], model="mlp"),
    )


@pytest.fixture
def result(data):
    return Result.from_json(data)


@pytest.fixture
def result_path(tmp_path, data):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def zoo(tmp_path):
    gen = torch.Generator().manual_seed(0)
    weights = ws.Weights(0.1 * torch.randn(40, SPEC.num_params, generator=gen), SPEC)
    labels = torch.arange(40) % 3
    about = {"classes": ["shirt", "boot", "bag"], "provenance": {"height": 6, "width": 9}, "init_regime": "independent"}
    return write_zoo(tmp_path / "zoo", {"train": ws.Networks(weights, label=labels)}, **about)


SCRIPT = Path(report.__file__).with_name("page.js").read_text(encoding="utf-8").strip()
"""All that runs on the page."""


class Reader(HTMLParser):
    """Return the things that a browser would fetch or run, and the names on the page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.ids, self.references = [], [], [], re.findall(r"url\(#([^)]*)\)", text)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                (self.references if value.startswith("#") else self.links).append(value.removeprefix("#"))
            if name == "id":
                self.ids.append(value)


def test_page_is_self_contained(result_path, zoo, tmp_path):
    out = write_report([result_path, result_path], tmp_path / "pages" / "report.html", zoo=zoo.path)
    text = out.read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.links
    assert all(link.startswith("data:image/png;base64,") for link in reader.links)
    assert not {"link", "iframe", "object"} & set(reader.tags)
    assert SCRIPT in text
    assert reader.tags.count("script") == 1
    assert "http" not in text
    assert "@import" not in text
    assert len(reader.ids) == len(set(reader.ids))
    assert set(reader.references) <= set(reader.ids)
    assert text.count("<svg") == 2 * 4
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]\b", text)  # every placeholder colour became a variable


def test_page_shows_the_figures(result, tmp_path, result_path):
    text = write_report([result_path.parent], tmp_path).read_text(encoding="utf-8")
    assert (tmp_path / "report.html").exists()
    for expected in (
        "+4.0 points",
        "63.0 ± 1.0",
        "67.0 ± 1.0",
        "(3 seeds)",
        "−8.0",
        "(1 seed)",
        "Fashion-MNIST",
        "independent inits",
        "31.7",
        "28.1",
        "35.2",
        "Imaginary CPU",
        "abc123def456",
        "weightspace bench synthetic-fixture",
        "<dt>epochs</dt><dd>12</dd>",
        "<dt>batch size</dt><dd>64</dd>",
        "3,000",
        "31,402",
        "†",
        "zoo-of-tests",
    ):
        assert expected in text, expected
    assert "/somewhere" not in text
    assert "55.0 ±" not in text


@pytest.mark.parametrize("regime", ["shared", "unknown"])
def test_other_init_regimes_are_marked(data, regime):
    warned = 'class="chip warn"'
    assert warned not in page([Result.from_json(data)], None)
    data["zoo"]["init_regime"] = regime
    text = page([Result.from_json(data)], None)
    assert warned in text
    assert f"{regime} inits" in text


def test_names_are_escaped():
    hostile = "<script>alert(1)</script>&$x_1$ --> `"
    text = page([make_result(make_row("none", [0.5]), make_row(hostile, [0.6]), suite=hostile)], None)
    reader = Reader(text)
    assert reader.tags.count("script") == 1
    assert text.count("&lt;script&gt;") >= 4
    assert "$x_1$" in text


def verdict_of(*rows, networks=1000):
    data = make_data(*rows)
    data["zoo"]["splits"]["test"]["count"] = networks
    return model_tables(Result.from_json(data))[0]


def test_verdict_helped_above_the_spread_of_seeds():
    table = verdict_of(make_row("none", [0.60, 0.61]), make_row("sign", [0.64, 0.65]))
    verdict = table.verdict
    assert (verdict.kind, verdict.source) == ("helped", "seeds")
    assert verdict.gain == pytest.approx(0.04)
    assert verdict.spread == pytest.approx(0.01)  # sqrt(2) * 0.01 / sqrt(2)
    assert "Augmentation helped" in sentence(table)


def test_verdict_within_the_spread_claims_nothing():
    table = verdict_of(make_row("none", [0.60, 0.64]), make_row("sign", [0.62, 0.66]))
    assert table.verdict.kind == "unclear"
    assert "No clear gain" in sentence(table)
    assert "helped" not in sentence(table)


@pytest.mark.parametrize(("networks", "kind"), [(1000, "unclear"), (10000, "helped")])
def test_verdict_of_single_seeds_asks_the_size_of_the_test_split(networks, kind):
    table = verdict_of(make_row("none", [0.60]), make_row("sign", [0.62]), networks=networks)
    assert (table.verdict.kind, table.verdict.source) == (kind, "test split")
    assert table.verdict.spread == pytest.approx(((0.24 + 0.2356) / networks) ** 0.5)
    assert "One seed each" in sentence(table)


def test_verdict_is_chosen_by_validation_not_by_test():
    table = verdict_of(make_row("none", [0.60]), make_row("lucky", [0.70], val=0.5), make_row("sign", [0.58], val=0.9))
    assert table.verdict.best is not None
    assert table.verdict.best.augmentation == "sign"
    assert table.verdict.kind == "not"
    assert sentence(table).startswith("No gain")
    assert [row.augmentation for row in leaders(table)] == ["sign", "lucky"]
    worse = verdict_of(make_row("none", [0.60]), make_row("sign", [0.58]))
    assert sentence(worse).startswith("No augmentation helped")


@pytest.mark.parametrize("rows", [[make_row("none", [0.6])], [make_row("sign", [0.6])]])
def test_nothing_to_compare(rows):
    result = make_result(*rows)
    (table,) = model_tables(result)
    assert table.verdict.kind == "unknown"
    assert "nothing to compare" in page([result], None)


def test_what_is_missing_is_a_dash():
    row = make_row("sign", [0.5], test_mean=None, val_mean=None, seconds_mean=None, train_last=None)
    row["runs"][0]["history"][3]["val"] = None
    data = make_data(make_row("none", [0.6]), row)
    data["zoo"]["splits"]["train"]["psnr"] = None
    result = Result.from_json(data)
    table = model_tables(result)[0]
    last = table.rows[-1]
    assert (last.augmentation, last.test_mean, table.difference(last), last.val_mean) == ("sign", None, None, None)
    assert "| sign | – | – | – | – | – | 1 |" in format_table(result)
    text = page([result], None)
    assert "nan" not in text.lower().replace("nano", "")
    assert ">inf<" not in text


@pytest.mark.parametrize("zoo", [{}, {"splits": 3}, {"splits": {"test": 3}}, {"classes": 3}, {"provenance": [1]}])
def test_odd_facts_of_a_zoo_still_make_a_page(zoo):
    assert "not recorded" in page([make_result(make_row("none", [0.5]), zoo=zoo)], None)


def test_bare_result_still_makes_a_page():
    text = page([Result(rows=(Row(model="m", augmentation="none"),))], None)
    assert "unknown inits" in text
    assert "<svg" not in text


def test_curves_over_the_amount_of_data(result):
    def row(share, augmentation, test):
        return Row(model=f"s-{share}", augmentation=augmentation, train_options={"share": share}, test_mean=test)

    rows = tuple(row(s, a, t) for s, a, t in ((0.1, "none", 0.4), (1.0, "none", 0.6), (0.1, "x", 0.5), (1.0, "x", 0.6)))
    text = page([Result(rows=rows)], None)
    assert "over the amount of data" in text
    assert ">share of the training signals<" in text
    assert ">10 %<" in text
    assert "over the amount of data" not in page([Result(rows=rows[:1])], None)
    assert "over the amount of data" not in page([result], None)
    other = tuple(dataclasses.replace(r, model=f"other-{r.model}") for r in rows)  # no line joins two models
    assert "over the amount of data" not in page([Result(rows=rows + other)], None)


def test_csv_has_the_numbers(result):
    rows = list(csv.DictReader(io.StringIO(format_table(result, "csv"))))
    assert len(rows) == len(result.rows)
    for row in rows:
        (own,) = [r for r in result.rows if (r.model, r.augmentation) == (row["model"], row["augmentation"])]
        for name, value in (("test", own.test_mean), ("test_std", own.test_std), ("validation", own.val_mean)):
            assert (None if row[name] == "" else float(row[name])) == value
    paired = Comparison(0.03, 0.01, 0.05, 0.01, 0.02, 1)
    hostile = 'a,"b"\n'
    text = format_table(Result(rows=(Row(model=hostile, augmentation="x", against_none=paired),)), "csv")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["model"], row["difference"], row["p_corrected"], row["times"]) == (hostile, "0.03", "0.02", "")


def test_latex_is_escaped_and_as_wide_as_its_head(result):
    text = format_table(result, "latex")
    assert text.count(r"\begin{tabular}{lrrrrrr}") == text.count(r"\end{tabular}") == 2
    assert r"sign & 67.0 $\pm$ 1.0 & +4.0 & 66.0 & 70.0 & 123 & 3 \\" in text
    assert r"dropout $\dagger$ & 55.0 & $-$8.0 &" in text
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 6
    rows = (Row(model="m", augmentation="50%_a&b\\{}#$~^"),)
    assert r"50\%\_a\&b\textbackslash{}\{\}\#\$\textasciitilde{}\textasciicircum{}" in format_table(
        Result(rows=rows), "latex"
    )
    with pytest.raises(ValueError, match=r"form: expected one of \['markdown', 'csv', 'latex'\], got 'html'"):
        format_table(result, "html")


def test_tables_are_written_from_the_command_line(result_path, tmp_path, capsys):
    files = {"csv": tmp_path / "a" / "t.csv", "latex": tmp_path / "t.tex"}
    options = [word for form, path in files.items() for word in (f"--{form}", str(path))]
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(result_path), "--out", str(tmp_path / "page.html"), *options])
    assert not ended.value.code
    for form, path in files.items():
        assert path.read_text(encoding="utf-8") == format_table(result_path, form)
    assert "t.csv" in capsys.readouterr().out


def test_markdown_table(result):
    first, second = format_table(result).split("\n\n| ")
    lines = first.splitlines()
    assert lines[0].startswith("| dwsnet (31,402 parameters) | test accuracy, % |")
    assert lines[2] == "| sign | 67.0 ± 1.0 | +4.0 | 66.0 | 70.0 | 123 | 3 |"
    assert lines[3].startswith("| none | 63.0 ± 1.0 | – |")
    assert lines[4].startswith("| dropout † | 55.0 | −8.0 |")
    assert "† under-trained" in first
    assert "†" not in second


def test_formats():
    assert accuracy(0.5, 0.0) == "50.0 ± 0.0"
    assert points(-1e-6) == "0.0"


def test_plots_draw_what_is_there(result):
    table = model_tables(result)[0]
    bars, curves = difference_bars(table, "a"), validation_curves(table, "b")
    assert bars is not None
    assert curves is not None
    assert ">+4.0<" in bars
    assert ">none<" not in bars
    assert ">no augmentation<" in curves
    assert "font-family" not in bars + curves
    alone = model_tables(make_result(make_row("sign", [0.5])))[0]
    absolute = difference_bars(alone, "a")
    assert absolute is not None
    assert ">50.0<" in absolute
    short = model_tables(make_result(make_row("none", [0.5], epochs=1)))[0]
    assert validation_curves(short, "a") is None


def test_page_is_the_same_twice(result, zoo):
    assert page([result], gallery(zoo)) == page([copy.deepcopy(result)], gallery(zoo))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, r"expected result schema 2 \(or 1, of weightspace 0\.1\.0\), got 3; report it with"),
        ({"rows": []}, r"at least one row, got none"),
        ({"kind": "speed"}, r"kind 'bench' \(`weightspace bench` writes one\), got kind 'speed'"),
        ({"rows": [{"model": "mlp"}]}, r"rows\[0\]\.augmentation: expected a value, got none"),
    ],
)
def test_other_results_are_refused(data, tmp_path, change, message):
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**data, **change}))
    with pytest.raises(ValueError, match=message):
        write_report([path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_result_of_the_first_version_makes_a_page(data, tmp_path):
    for row in data["rows"]:
        row |= {"track": "hybrid", "respects": "full"}
    (tmp_path / "result.json").write_text(json.dumps({**data, "schema": 1}))
    (tmp_path / "new").mkdir()
    new = Result.from_json(
        {**data, "rows": [{**row, "track": "probing", "equivariance": "full"} for row in data["rows"]]}
    )
    write_result(tmp_path / "new", new)
    pages = [write_report([path], tmp_path / f"{i}.html") for i, path in enumerate([tmp_path, tmp_path / "new"])]
    first, second = (page.read_text(encoding="utf-8") for page in pages)
    assert first == second
    assert first.count("<svg") == 4  # the curves too


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_what_draws_is_an_extra(result_path, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"a report needs (matplotlib|Jinja2), .*pip install weightspace\[report\]"):
        write_report([result_path], tmp_path / "report.html")
    assert "| sign |" in format_table(load_result(result_path))  # tables of text need neither
    assert not (tmp_path / "report.html").exists()


def test_importing_the_room_reads_nothing_that_draws():
    code = "import sys, weightspace.report; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_bad_paths_are_refused(tmp_path, result_path):
    with pytest.raises(ValueError, match=r"at least one result\.json, got none"):
        write_report([], tmp_path / "a.html")
    with pytest.raises(TypeError, match="put it in a list"):
        write_report(str(result_path), tmp_path / "a.html")
    with pytest.raises(ValueError, match="got no file; `weightspace bench` writes one"):
        load_result(tmp_path / "absent.json")
    (tmp_path / "text.json").write_text("no JSON")
    with pytest.raises(ValueError, match="in JSON, got something else: "):
        load_result(tmp_path / "text.json")
    with pytest.raises(ValueError, match="expected a zoo"):
        write_report([result_path], tmp_path / "a.html", zoo=tmp_path / "nowhere")
    assert not (tmp_path / "a.html").exists()


def test_gallery_draws_every_fitting_augmentation(zoo):
    drawn = gallery(zoo)
    assert drawn is not None
    assert [strip.name for strip in drawn.strips[1:]] + list(drawn.left_out) == sorted(
        AUGMENTATIONS, key=lambda name: (name in drawn.left_out, list(AUGMENTATIONS).index(name))
    )
    assert drawn.left_out == ("positive-scale", "linear-mix")
    assert drawn.size == (6, 9)
    assert set(drawn.labels) == {"shirt", "boot", "bag"}
    assert {len(strip.pictures) for strip in drawn.strips} == {6}
    moved = {strip.name: strip.moved for strip in drawn.strips[1:]}
    assert all(moved[name] <= 1 for name in ("permute", "sign", "phase", "label-smoothing"))
    assert all(moved[name] > 1 for name in ("rotate", "noise", "mixup"))


def test_gallery_aligns_pairs(zoo):
    drawn = gallery(zoo)
    assert drawn is not None
    assert drawn.measured == 20
    assert drawn.distances["signed"] < drawn.distances["permutation"] < drawn.distances["none"]
    assert len(drawn.pairs) == 6
    for pair in drawn.pairs:
        assert pair.distances["permutation"] <= pair.distances["none"]
    text = page([make_result(make_row("none", [0.5]))], drawn)
    assert "permutations and signs aligned" in text
    assert f"{drawn.distances['none']:.3g} (not aligned)" in text
    assert "Left out, because these networks do not have what they need: positive-scale, linear-mix." in text


def test_networks_of_other_inputs_are_not_drawn(tmp_path, result_path):
    spec = ws.siren(3, 4, 1)
    weights = ws.Weights(torch.zeros(3, spec.num_params), spec)
    path = write_zoo(tmp_path / "zoo3", {"train": ws.Networks(weights)}).path
    text = write_report([result_path], tmp_path / "a.html", zoo=path).read_text(encoding="utf-8")
    assert "not functions of two coordinates" in text


def test_render_clips_and_keeps_colours():
    spec = ws.siren(2, 4, 3)
    weights = ws.Weights(torch.zeros(2, spec.num_params), spec)
    weights.view("1.bias").copy_(torch.tensor([[9.0, -9.0, 0.0], [0.0, 0.0, 0.0]]))
    picture = render(weights, (2, 5))
    assert picture.shape == (2, 2, 5, 3)
    assert (picture[0] == [255, 0, 128]).all()
    grey = render(ws.Weights(torch.zeros(1, SPEC.num_params), SPEC), (3, 2))
    assert np.array_equal(grey, np.full((1, 3, 2), 128))


def test_choice_of_networks_and_pairs():
    labels = torch.tensor([2, 2, 0, 1, 2, 0])
    assert distinct(labels, 4).tolist() == [2, 3, 0, 1]
    assert pair_indices(labels) == [(2, 3), (4, 5), (0, 1)]
    assert pair_indices(torch.zeros(20)) == [(2 * i, 2 * i + 1) for i in range(6)]
    assert pair_indices(torch.zeros(1)) == []


def test_resolution():
    assert resolution({"height": 32, "width": 30}) == (32, 30)
    assert resolution({"height": "32"}) == (28, 28)
    assert resolution({"height": 0, "width": 8}) == resolution({"height": True, "width": 8}) == (28, 28)
    assert resolution({"height": 1024, "width": 1024}) == (128, 128)
    assert resolution({"height": 10**9, "width": 1}) == (128, 1)
    assert resolution({"height": 100, "width": 400}) == (32, 128)


NAMES = [
    'a version="',
    "font-family: ",
    'id="x',
    "url(#x)",
    "#010101",
    '"><script>alert(1)</script>',
    "--> ]]> <!--",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_from_files_neither_break_plots_nor_are_changed_in_them(tmp_path, name):
    rows = [make_row(augmentation, [0.5, 0.6]) for augmentation in ("none", name, "other")]
    write_result(tmp_path, Result.from_json(make_data(*rows)))
    text = write_report([tmp_path], tmp_path / "page.html").read_text(encoding="utf-8")
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        tree = ElementTree.fromstring(plot.replace("<svg", '<svg xmlns:xlink="y"', 1))
        assert name.strip() in [(node.text or "").strip() for node in tree.iter("text")]
    assert text.count("<script") == 1


def test_wide_networks_are_drawn_a_few_at_a_time(monkeypatch):
    calls = []
    monkeypatch.setattr(_pictures, "evaluate", lambda w, x: calls.append(len(w)) or ws.evaluate(w, x))
    weights = ws.testing.random_weights(SPEC, 5, generator=torch.Generator().manual_seed(0))
    whole = render(weights, (4, 4))
    monkeypatch.setattr(_pictures, "_MOST_VALUES", 2 * 16 * 8)
    assert (render(weights, (4, 4)) == whole).all()
    assert calls == [5, 2, 2, 1]
