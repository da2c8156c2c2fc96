"""The page of a run, opened in a browser: what is drawn, what a keyboard reaches, what a phone and a dark room show."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace

import pytest
from browsing import EVIL, browser, check_plots, needs_chromium

from hwnas.cli.main import main
from hwnas.errors import RuntimeUnavailable, SpecError
from hwnas.pipeline.gather import table_rows, training_figures
from hwnas.report.figures import FIGURES, SlotCost, read_figures
from hwnas.report.page import PAGE, page, write_page
from hwnas.report.pictures import write_pngs
from hwnas.report.plots import PALETTE, arch_lines, count, signed, size
from hwnas.report.run_plots import run_plots
from hwnas.report.target_plots import merged_slots, target_plots
from hwnas.report.token_figures import AttentionMap, AttentionRow, LengthCurve
from hwnas.spaces import make_space
from hwnas.training.metrics import COLUMNS


@pytest.fixture(scope="module")
def several(finished):
    """The figures of a run with two targets."""
    return read_figures(finished[1])


@pytest.fixture(scope="module")
def run(several):
    """The same as if it had one target."""
    return several.model_copy(update={"targets": several.targets[:1]})


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Opens a run's page."""
    with browser() as open_page:
        yield lambda run, **settings: open_page(write_page(tmp_path_factory.mktemp("page"), run), **settings)


@pytest.fixture(scope="module")
def desk(opened, run):
    """The page on a desk, light; tests leave it as they found it."""
    return opened(run)


def plots_of(run):
    """The plots of a run's page."""
    return [plot for own in (*target_plots(run), run_plots(run)) for plot in own]


def test_figures_are_those_of_the_answer(several, finished):
    _, out, report = finished
    assert [target.target for target in several.targets] == list(report["targets"])
    target, answer = several.targets[0], next(iter(report["targets"].values()))
    assert (target.measured_ms, target.predicted_ms) == (answer["measured_ms"], answer["predicted_ms"])
    assert sum(slot.found_ms for slot in target.slots) == pytest.approx(answer["predicted_ms"])
    assert target.search.candidates[0].arch == answer["network"]
    assert target.validation.mape == answer["validation"]["mape"]
    assert len(target.networks) == answer["validation"]["networks"]
    assert len(target.search.random) == answer["random_networks"]
    errors = [abs(n.predicted_ms / ms - 1) for n in target.networks for ms in n.measured_ms]
    assert sum(errors) / len(errors) == pytest.approx(answer["validation"]["mape"])
    front = target.search.front
    for one, next_ in pairwise(front):
        assert (one.predicted_ms, one.predicted_accuracy) < (next_.predicted_ms, next_.predicted_accuracy)
    assert max(n.predicted_accuracy for n in target.search.candidates) <= front[-1].predicted_accuracy + 1e-9
    chosen = {row.slot: [c.values for c in row.choices if c.chosen] for row in target.table}
    network = answer["network"]
    assert chosen["stage1.block1"] == [[network["kernel_1_1"], network["expansion_1_1"]]]
    assert (out / target.bundle / "manifest.json").is_file()
    assert (out / PAGE).read_text() == page(several)


def costs(**found):
    """Slots with these milliseconds, double in the largest network; `fixed` are those whose names start with f."""
    return [
        SlotCost(slot=name, group="g", op="op", found_ms=ms, largest_ms=2 * ms, fixed=name.startswith("f"))
        for name, ms in found.items()
    ]


@pytest.mark.parametrize(
    ("slots", "merged", "sum_ms"),
    [
        ({"f1": 0.2, "a": 0.5, "f2": 0.1}, [], None),
        ({"f1": 0.2, "a": 0.5, "f2": -0.1}, ["f1", "f2"], 0.1),
        ({"f1": 0.1, "a": 0.5, "b": 0.3, "f2": -0.2}, ["f1", "b", "f2"], 0.2),  # b is cheaper than a
        ({"a": 0.5, "b": -0.1, "c": 0.3}, ["b", "c"], 0.2),  # no slot is marked, as in older runs
    ],
)
def test_slots_that_the_fit_cannot_distinguish_share_a_bar(slots, merged, sum_ms, run):
    given = costs(**slots)
    kept, names = merged_slots(given)
    assert names == merged
    assert min(s.found_ms for s in kept) >= 0
    assert sum(s.found_ms for s in kept) == pytest.approx(sum(slots.values()))
    if sum_ms is not None:
        assert kept[-1].found_ms == pytest.approx(sum_ms)
        assert kept[-1].largest_ms == pytest.approx(2 * sum_ms)
    target = run.targets[0].model_copy(update={"slots": given})
    [plot] = [p for p in target_plots(run.model_copy(update={"targets": [target]}))[0] if p.name == "slots"]
    assert all(x >= 0 for bars in plot.figure.data for x in bars.x)
    assert (f"cannot distinguish {', '.join(merged)}" in plot.note) == bool(merged)


def test_a_run_that_was_moved_has_the_same_page(finished, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(finished[1] / FIGURES, moved)
    assert page(read_figures(moved)) == (finished[1] / PAGE).read_text()


def test_what_is_no_run_or_not_finished_is_told_apart(finished, tmp_path):
    with pytest.raises(SpecError, match="is not a folder"):
        read_figures(tmp_path / "nothing")
    with pytest.raises(SpecError, match=r"neither figures\.json nor stages"):
        read_figures(tmp_path)
    unfinished = tmp_path / "unfinished"
    (unfinished / "stages").mkdir(parents=True)
    profiled = next((finished[1] / "stages").glob("profile-*"))
    shutil.copytree(profiled, unfinished / "stages" / profiled.name)
    with pytest.raises(SpecError, match=r"not finished \(finished stages: profile\)"):
        read_figures(unfinished)
    text = (finished[1] / FIGURES).read_text()
    for changed, words in (
        (text[: len(text) // 2], "malformed"),
        (json.dumps({**json.loads(text), "schema": 2}), "newer hwnas"),
        (json.dumps({**json.loads(text), "targets": []}), "targets"),
    ):
        (tmp_path / FIGURES).write_text(changed)
        with pytest.raises(SpecError, match=words):
            read_figures(tmp_path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("space_size", float("nan")),
        ("training.curves.0.name", "loss_of_face"),
        ("training.curves.0.steps", []),
        ("training.curves.0.values", []),
        ("training.curves.0.values.0", float("inf")),
        ("targets.0.budget_ms", 0),
        ("targets.0.predicted_ms", 1e308),
        ("targets.0.measured_ms", -1),
        ("targets.0.test_accuracy", 2),
        ("targets.0.size_bytes", 10**400),
        ("targets.0.search.front", []),
        ("targets.0.networks", []),
        ("targets.0.networks.0.predicted_ms", 0),
        ("targets.0.slots", []),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused(finished, tmp_path, where, value):
    figures = json.loads((finished[1] / FIGURES).read_text())
    *path, last = [int(part) if part.isdigit() else part for part in where.split(".")]
    inner = figures
    for part in path:
        inner = inner[part]
    inner[last] = value
    (tmp_path / FIGURES).write_text(json.dumps(figures))
    with pytest.raises(SpecError, match=r"malformed: .*Write it again with the same `hwnas compile`"):
        read_figures(tmp_path)


def test_a_slot_without_ops_has_no_row_in_the_heat_map(run):
    """Runs of before kept it in their figures."""
    target = run.targets[0]
    bare = [row.model_copy(update={"choices": []}) for row in target.table]
    with_bare = run.model_copy(update={"targets": [target.model_copy(update={"table": [*bare, *target.table]})]})
    assert [plot.rows for plot in target_plots(with_bare)[0]] == [plot.rows for plot in target_plots(run)[0]]
    alone = run.model_copy(update={"targets": [target.model_copy(update={"table": bare})]})
    assert "table" not in {plot.name.partition("-")[0] for plot in target_plots(alone)[0]}


def test_a_phase_of_the_largest_network_alone_leaves_gaps_in_the_other_curves(tmp_path):
    """Once-for-all's way: first the largest network, then the others with it."""
    rows = [f"{step},{'full' if step < 300 else 'all'},0.1,{step},{'' if step < 300 else 7},,9" for step in range(600)]
    (tmp_path / "metrics.csv").write_text("\n".join([",".join(COLUMNS), *rows]))
    found = training_figures(tmp_path, {"full": 300, "all": 300})
    assert [curve.name for curve in found.curves] == ["loss_largest", "loss_smallest"]
    largest, smallest = found.curves
    assert largest.steps == smallest.steps == largest.values
    assert len(largest.steps) == 200
    assert smallest.values == [None] * 100 + [7] * 100
    [plot] = run_plots(SimpleNamespace(targets=[None], training=found))
    assert plot.summary == "Loss at the end: 598.000 of the largest subnet, 7.000 of the smallest subnet."
    assert [plot.rows[0], plot.rows[-1]] == [("1", "1.0000", "not trained"), ("598", "598.0000", "7.0000")]


@pytest.mark.parametrize(
    ("name", "fix", "slots", "kinds"),
    [
        ("darts-tiny", {}, 24, {"normal_first", "normal_second", "reduce_first", "reduce_second"}),
        ("nasbench201-tiny", {}, 18, {"edge"}),
        ("nasbench201-tiny", {"edge_0_1": [0, 1]}, 18, {"edge"}),
        ("resnet50", {}, 21, {"width_stem", "depth_stem", "expansion"}),
    ],
)
def test_the_table_has_no_more_columns_than_can_be_read(make_table, this, name, fix, slots, kinds):
    """The sums in a cell of DARTS read 11 variables: all their values would be millions of columns."""
    space = make_space(name).fix(**fix)
    rows = table_rows(make_table(space, this), space, space.largest)
    assert len(rows) == slots
    assert {kind for row in rows for kind in row.variables} == kinds
    assert all(1 <= len(row.choices) <= 64 for row in rows)


def test_a_training_that_left_no_step_has_no_curves(tmp_path):
    assert training_figures(tmp_path, {"all": 4}) is None
    (tmp_path / "metrics.csv").write_text(",".join(COLUMNS) + "\n")
    assert training_figures(tmp_path, {"all": 4}) is None


def test_colours_have_one_partner_each():
    light = [pair[0] for pair in PALETTE.values()]
    assert len(set(light)) == len(light)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for pair in PALETTE.values() for colour in pair)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_texts_and_marks_stand_out(mode):
    """WCAG 2.2: a contrast of 4.5 for texts, of 3 for what data is drawn with."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colours = {role: luminance(pair[mode]) for role, pair in PALETTE.items()}
    for cell in ("heat_low", "heat_middle", "heat_high"):  # figures stand on them
        low, high = sorted((colours["ink"], colours[cell]))
        assert (high + 0.05) / (low + 0.05) >= 4.5, cell
    for role, least in {"ink": 7, "muted": 4.5, "link": 4.5, "found": 3, "model": 3, "other": 3, "largest": 3}.items():
        for ground in ("paper", "ground"):
            low, high = sorted((colours[role], colours[ground]))
            assert (high + 0.05) / (low + 0.05) >= least, (role, ground)


def test_an_arch_in_lines():
    arch = {"resolution": 28, "depth_1": 2, "kernel_1_1": 3, "kernel_1_2": 5, "depth_2": 1, "kernel_2_1": 7}
    assert arch_lines(arch) == ["resolution 28", "depth 2 1", "kernel 3 5 | 7"]
    assert arch_lines({"width_stem": 65, "width_0": 80}) == ["width stem 65", "width 80"]


def test_numbers_of_networks():
    assert [count(n) for n in (7.0, 12_345.0, 1.65e9, 2.18e19)] == ["7", "12,345", "1.65 × 10⁹", "2.18 × 10¹⁹"]


def test_sizes_and_differences():
    assert [size(bytes_) for bytes_ in (342_100, 999_400, 12_345_678)] == ["342 kB", "999 kB", "12.3 MB"]
    assert [signed(number, 1) for number in (-0.44, 2)] == ["−0.4", "+2.0"]


def test_the_loss_is_said_to_be_averaged_only_where_it_is(run):
    [plot] = run_plots(run)
    assert "Means" not in plot.note
    longer = run.training.model_copy(update={"phases": {"all": 10 * max(run.training.phases.values())}})
    [plot] = run_plots(run.model_copy(update={"training": longer}))
    assert plot.note == "Means over a few steps each."


def test_names_from_files_are_escaped(run):
    [target] = run.targets
    evil = run.model_copy(
        update={
            "data": EVIL,
            "provenance": {**run.provenance, "Data": {"classes": EVIL, EVIL: EVIL}},
            "targets": [target.model_copy(update={"bundle": EVIL, "target": EVIL})],
        }
    )

    class Tags(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.found.append(tag)
            assert not any(name.startswith("on") for name, _ in attrs)

    before, after = Tags(), Tags()
    before.found, after.found = [], []
    before.feed(page(run))
    after.feed(page(evil))
    assert after.found.count("script") == before.found.count("script")
    assert "img" not in after.found


@needs_chromium
def test_all_plots_are_drawn(run, desk):
    check_plots(desk, plots_of(run))


@needs_chromium
def test_all_plots_of_several_targets_are_drawn_and_names_from_files_do_nothing(several, opened):
    first, second = several.targets
    evil = several.model_copy(
        update={
            "provenance": {"Data": {"classes": EVIL}},
            "targets": [first, second.model_copy(update={"target": EVIL})],
        }
    )
    shown = opened(evil)
    check_plots(shown, plots_of(evil))
    assert "hwnas" in shown.title()
    assert EVIL in shown.locator("#provenance").inner_text()
    assert shown.locator("main img").count() == 0


@needs_chromium
def test_what_heads_read_and_latency_over_the_length_are_drawn(run, opened):
    [target] = run.targets
    heads = [AttentionRow(layer=1, head=head, shares=[0.1, 0.6, 0.3]) for head in (1, 2)]
    maps = [
        AttentionMap(label="9", columns=["<start>", "[MAX", EVIL], tokens=1, rows=heads),
        AttentionMap(label="1", columns=["1", "10", "19"], tokens=9, rows=heads),
    ]
    curves = [
        LengthCurve(mixer=mixer, lengths=[128, 512], latency_ms=times)
        for mixer, times in (("attention", [0.2, 2.0]), ("conv", [0.3, 1.0]))
    ]
    tokens = run.model_copy(update={"targets": [target.model_copy(update={"attention": maps, "lengths": curves})]})
    shown = opened(tokens)
    check_plots(shown, plots_of(tokens))
    assert "[MAX" in shown.locator("[id='attention-1'] .xaxislayer-above").text_content()
    table = shown.locator("figure:has([id='attention-1']) details tbody tr").first
    assert "[MAX (token 2): 60.00%" in table.text_content()
    assert "conv at 512 tokens" in shown.locator("[id='lengths']").get_attribute("aria-label")


@needs_chromium
def test_hover_shows_the_arch(run, desk):
    desk.locator("#front").scroll_into_view_if_needed()
    star = desk.locator("#front .scatterlayer .trace").last.locator(".point").last
    star.hover(force=True)
    desk.wait_for_selector("#front .hoverlayer .hovertext")
    said = desk.locator("#front .hoverlayer").text_content()
    [target] = run.targets
    assert f"resolution {target.search.candidates[0].arch['resolution']}" in said
    assert "kernel" in said


@needs_chromium
def test_a_keyboard_reaches_every_control(desk):
    reached = []
    for _ in range(200):
        desk.keyboard.press("Tab")
        what = desk.evaluate(
            "(e => [e.tagName, e.id || e.textContent.trim().slice(0, 30), getComputedStyle(e).outlineStyle])"
            "(document.activeElement)"
        )
        if what[0] == "BODY" or (reached and what[:2] == reached[0][:2]):
            break
        reached.append(what)
    tags = [tag for tag, _, _ in reached]
    assert reached[0][:2] == ["A", "Skip to the content"]
    assert "theme" in [name for _, name, _ in reached]
    assert tags.count("SUMMARY") == desk.locator("summary").count()
    assert tags.count("BUTTON") == desk.locator("button").count()
    assert all(outline != "none" for _, _, outline in reached)
    desk.locator("summary").first.focus()
    desk.keyboard.press("Enter")
    assert desk.locator("details").first.evaluate("d => d.open")
    desk.keyboard.press("Tab")
    assert desk.evaluate("document.activeElement.getAttribute('role')") == "region"
    desk.locator("summary").first.press("Enter")


@needs_chromium
def test_a_series_is_hidden_and_shown(desk):
    button = desk.get_by_role("button", name="random, evaluated")
    traces = desk.locator("#front .scatterlayer .trace")
    before = traces.count()
    button.press("Space")
    assert button.get_attribute("aria-pressed") == "false"
    assert traces.count() == before - 1
    for _ in range(2):
        desk.locator("#theme").click()
        assert traces.count() == before - 1
    button.press("Space")
    assert traces.count() == before


@pytest.mark.long
@needs_chromium
def test_readable_on_a_phone(several, opened):
    shown = opened(several, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for details in shown.locator("details").all():
        details.evaluate("d => d.open = true")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    smallest = shown.evaluate(
        "Math.min(...[...document.querySelectorAll('p, dt, dd, td, th, a, button, summary, .plot text')]"
        ".filter(e => e.textContent.trim() && e.getClientRects().length)"
        ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert smallest >= 11
    wide = shown.evaluate(
        "[...document.querySelectorAll('.plot')].filter(e => e.getBoundingClientRect().right > 390).length"
    )
    assert wide == 0


@pytest.mark.long
@needs_chromium
def test_dark_by_the_system_and_by_the_button(run, opened):
    shown = opened(run, color_scheme="dark")

    def colours():
        return shown.evaluate(
            "[getComputedStyle(document.body).backgroundColor, "
            "document.querySelector('#front .main-svg').style.background]"
        )

    def rgb(role, mode):
        red, green, blue = (int(PALETTE[role][mode][i : i + 2], 16) for i in (1, 3, 5))
        return f"rgb({red}, {green}, {blue})"

    assert colours() == [rgb("ground", 1), rgb("paper", 1)]
    toggle = shown.locator("#theme")
    assert toggle.inner_text() == "Light mode"
    toggle.press("Enter")
    assert toggle.inner_text() == "Dark mode"
    assert colours() == [rgb("ground", 0), rgb("paper", 0)]


@pytest.mark.long
@needs_chromium
def test_a_picture_of_each_plot(run, tmp_path):
    from PIL import Image

    plots = plots_of(run)
    paths = write_pngs(plots, tmp_path / "png")
    assert [path.stem for path in paths] == [plot.name for plot in plots]
    for path in paths:
        with Image.open(path) as image:
            assert image.width == 1920
            assert len(image.convert("RGB").resize((200, 100)).getcolors(20_000)) > 10


def test_no_browser_for_pictures(run, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/no/such/browser")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeUnavailable, match="apt-get install chromium"):
        write_pngs(plots_of(run), tmp_path / "png")


def test_command(finished, tmp_path, monkeypatch, capsys):
    """It writes the page where it is asked to, and says in one line what a folder is not."""
    out = tmp_path / "page.html"

    def run_command(*arguments):
        monkeypatch.setattr("sys.argv", ["hwnas", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    code, said = run_command(finished[1], "--out", out, "--json")
    assert (code, json.loads(said.out)) == (0, {"page": str(out), "pictures": []})
    assert out.read_text() == (finished[1] / PAGE).read_text()
    code, said = run_command(tmp_path)
    assert (code, said.err.startswith("error: ")) == (2, True)
