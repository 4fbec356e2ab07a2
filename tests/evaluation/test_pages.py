"""Pages with hostile names of models, classes and data, in a real browser."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from browser import launch_chromium, require_chromium
from foveal.datasets import load_images
from foveal.detectors import Harris
from foveal.evaluation.compare import compare
from foveal.evaluation.report import ReportEntry, write_report
from foveal.evaluation.report.compare_page import write_comparison
from foveal.foundation.escaping import printable
from foveal.models import FocusNet, Inputs, presets
from hostile import (
    CONTROL_CHARACTERS,
    EXTERNAL_SCRIPT,
    IMAGE_TAG,
    NAMES,
    NOT_UTF_8,
    SCRIPT_TAG,
    SVG_AFTER_QUOTES,
    TEMPLATE,
    TEXTS,
    TWO_LINES,
    is_plain,
    write_images,
)
from studio_server import running_server

require_chromium()

# A script that defines `ran`, which hostile names call if a browser executes them.
REPORT_RUN = "window.ran = () => { window.didRun = true }"
SIZE = (28, 28)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Write a folder of images with hostile names of classes and files."""
    root = tmp_path_factory.mktemp("photos") / SVG_AFTER_QUOTES
    for split in ("train", "test"):
        for name in NAMES:
            write_images(root / split / name, [f"{name}{index}" for index in range(2)])
    return root


def save_model(model, folder: Path) -> Path:
    """Write a model with hostile text in its card into a folder; return the folder."""
    folder.mkdir()
    model.save_weights(folder)
    figures = {"data": EXTERNAL_SCRIPT, "accuracy": 0.5}
    recipe = {"about": SCRIPT_TAG}
    card = {"trained_on": CONTROL_CHARACTERS, "recipe": recipe, "figures": figures}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def focus_net(classes) -> FocusNet:
    torch.manual_seed(0)
    inputs = Inputs(SIZE, classes=tuple(classes))
    return presets.focus(Harris(3), width=8, num_classes=len(inputs.classes), inputs=inputs).eval()


@pytest.fixture(scope="module")
def chromium():
    with launch_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium):
    """Return a function that opens a page.

    At the end, assert that no script of a hostile name ran, that no page sent a request to another
    machine, and that no error was logged.
    """
    complaints, pages = [], []

    def open_address(address: str):
        page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.add_init_script(REPORT_RUN)
        page.on(
            "console", lambda message: message.type == "error" and complaints.append(message.text)
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: is_local(request.url) or complaints.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_address
    for page in pages:
        assert page.evaluate("window.didRun") is None
        page.context.close()
    assert complaints == []


def is_local(url):
    """Return whether a URL is that of a file, of data, or of a server on this machine."""
    return url.startswith(("file:///", "data:", "http://127.0.0.1:", "blob:http://127.0.0.1:"))


def test_script_that_runs_is_detected(chromium, tmp_path):
    (tmp_path / "page.html").write_text(f"<p>{IMAGE_TAG}</p>")
    page = chromium.new_page()
    page.add_init_script(REPORT_RUN)
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("window.didRun")
    page.close()


def test_no_script_runs_in_a_report(open_page, tmp_path):
    explanation = focus_net(TEXTS).explain(torch.rand(len(TEXTS), 1, *SIZE))
    labels = torch.arange(len(TEXTS))
    card = {"accuracy": 0.5, "evidence_fraction": 0.1, "data": SCRIPT_TAG, "images": 13}
    curve = {"epoch": [0.0], "val_accuracy": [0.5], "val_loss": [2.0]}
    entries = [ReportEntry(name, card, explanation, labels, curve, note=name) for name in TEXTS]
    page = open_page(write_report(entries, tmp_path, title=SCRIPT_TAG).as_uri())
    assert page.title() == f"{SCRIPT_TAG} – Foveal"
    names = page.locator("th[scope=row]").all_text_contents()
    assert names == [printable(name) for name in TEXTS]
    assert page.locator("script, svg, [onerror], [onload]").count() == 0


def test_no_script_runs_in_a_comparison_and_tables_contain_no_formulas(open_page, photos, tmp_path):
    classes = load_images(str(photos), "test", size=SIZE).classes
    model = save_model(focus_net(classes), tmp_path / IMAGE_TAG)
    comparison = compare([str(model)], str(photos), tmp_path / "out")
    name = f"=cmd(\\input{{x}}){CONTROL_CHARACTERS}"
    comparison = replace(
        comparison, models=tuple({**row, "model": name} for row in comparison.models)
    )
    page = open_page(write_comparison(comparison, tmp_path / "out").as_uri())
    assert page.locator("script, svg, [onerror], [onload]").count() == 0
    assert page.locator("th[scope=row]").first.text_content() == printable(name)
    plots = list((tmp_path / "out" / "plots").glob("*.svg"))
    assert plots
    for plot in plots:
        open_page(plot.as_uri())
    assert "\n'=cmd(" in (tmp_path / "out" / "models.csv").read_text()
    table = (tmp_path / "out" / "models.tex").read_text()
    assert r"=cmd(\textbackslash{}input\{x\})" in table
    assert is_plain(table)
    json.loads((tmp_path / "out" / "results.json").read_text())


def test_no_script_runs_in_the_studio_and_its_downloads(open_page, tmp_path):
    # As many classes as the studio shows.
    classes = (TEMPLATE, CONTROL_CHARACTERS, TWO_LINES, NOT_UTF_8, SCRIPT_TAG)
    model = save_model(focus_net(classes), tmp_path / TWO_LINES)
    (photo,) = write_images(tmp_path, [IMAGE_TAG])
    with running_server(str(model)) as server:
        page = open_page(server.url)
        page.wait_for_selector(".keypoint")
        assert page.locator(".model option").text_content() == printable(model.name)
        page.get_by_label("Photo").check()
        page.set_input_files("#file", photo)
        page.wait_for_selector("#given-name:visible")
        page.wait_for_selector(".panel[aria-busy]", state="detached")
        assert page.locator("#given-name").text_content() == photo.name
        names = page.locator(".bars .name").all_text_contents()
        assert len(names) == len(classes)
        assert all(map(is_plain, names))
        assert SCRIPT_TAG in names
        for kind in ("svg", "png"):
            with page.expect_download() as download:
                page.click(f".downloads button[data-kind={kind}]")
            download.value.save_as(tmp_path / f"download.{kind}")
        open_page((tmp_path / "download.svg").as_uri())
        ElementTree.parse(tmp_path / "download.svg")
        assert page.locator("script:not([src])").count() == 0
