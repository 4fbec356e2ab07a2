"""The web page in a real browser, operated by mouse, touch and keyboard.

Screenshots are saved in report/studio for inspection.
"""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import CHROMIUM, FLAGS, launch_chromium, require_chromium
from foveal import zoo
from foveal.deployment.serve.model_registry import Models
from foveal.explainers import post_hoc_methods
from studio_server import running_server

require_chromium()

SCREENSHOTS = Path(__file__).parents[3] / "report" / "studio"
# The strokes of a 3: points (x, y) as fractions of the width and height of the pad.
THREE = [(0.3, 0.25), (0.45, 0.17), (0.62, 0.22), (0.64, 0.36), (0.5, 0.46)]
THREE += [(0.64, 0.54), (0.67, 0.7), (0.55, 0.82), (0.4, 0.83), (0.28, 0.74)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def server():
    names = [name for name in Models().by_name if name.startswith(("mnist", "cifar10-focus"))]
    with running_server(*names) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with launch_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium, server):
    """Open the page in new windows; fail on errors, policy violations and external requests."""
    complaints, contexts = [], []

    def open_new(**options):
        context = chromium.new_context(**{**DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on(
            "console", lambda message: message.type == "error" and complaints.append(message.text)
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: complaints.append(request.url) if is_external(request.url) else None,
        )
        page.goto(server.url)
        page.wait_for_selector(".keypoint")
        return page

    yield open_new
    for context in contexts:
        context.close()
    assert complaints == []


def is_external(url):
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:"))


def save_screenshot(page, name, full_page=True):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=full_page)


def wait_for_result(page, action):
    """Perform an action and return the detail of the result that is shown after it."""
    page.evaluate(
        """() => { window.shown = new Promise((resolve) => document.addEventListener(
        "foveal:shown", (event) => resolve(event.detail), { once: true })) }"""
    )
    action()
    return page.evaluate("window.shown")


def draw(page, points=THREE):
    box = page.locator("#pad").bounding_box()
    points_px = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*points_px[0])
    page.mouse.down()
    for x, y in points_px[1:]:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


def wait_until_idle(page):
    """Wait until no panel waits for a result."""
    page.wait_for_selector("[data-pending]", state="detached")
    page.wait_for_selector(".panel[aria-busy]", state="detached")


def prediction(page, panel=0):
    return page.locator(".panel .prediction").nth(panel).inner_text()


def keypoint_labels(page):
    return page.locator(".panel >> nth=0 >> .keypoint").evaluate_all(
        "(elements) => elements.map((element) => element.getAttribute('aria-label'))"
    )


def test_a_drawn_three_is_classified_with_keypoints_and_patches(open_page):
    page = open_page()
    page.click("#clear")
    wait_for_result(page, lambda: draw(page))
    wait_until_idle(page)
    assert page.locator(".panel .keypoint").count() == 3
    assert page.locator(".panel .patch").count() == 3
    assert page.locator(".keypoint text").all_text_contents() == ["1", "2", "3"]
    assert prediction(page) == "3"
    assert page.locator(".bars li").count() == 5
    assert "98.89% accuracy on mnist" in page.locator("p.card").inner_text()
    save_screenshot(page, "drawn")


def test_a_drawing_is_scaled_and_centred_like_mnist(open_page):
    """A digit drawn small in a corner is scaled and centred before it is classified."""
    page = open_page()
    small = [(0.05 + 0.2 * x, 0.05 + 0.2 * y) for x, y in THREE]
    page.click("#clear")
    wait_for_result(page, lambda: draw(page, small))
    wait_until_idle(page)
    assert prediction(page) == "3"
    href = page.locator(".shown-image image").get_attribute("href")
    pixels = page.evaluate(READ_PIXELS, href)
    ink = np.array(pixels).reshape(28, 28)
    rows, columns = np.nonzero(ink > 30)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21, 22)
    weight = ink / ink.sum()
    centre = [(weight.sum(1 - axis) * np.arange(28)).sum() for axis in (0, 1)]
    assert np.allclose(centre, 13.5, atol=0.8)
    wait_for_result(page, lambda: page.uncheck("#centre"))
    wait_until_idle(page)
    assert (
        page.evaluate(READ_PIXELS, page.locator(".shown-image image").get_attribute("href"))
        != pixels
    )


READ_PIXELS = """async (href) => {
    const image = new Image(); image.src = href; await image.decode();
    const canvas = document.createElement("canvas"); canvas.width = canvas.height = 28;
    const context = canvas.getContext("2d"); context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, 28, 28);
    return Array.from({ length: 784 }, (_, i) => data[4 * i]) }"""


def test_the_prediction_updates_while_drawing(open_page):
    page = open_page()
    page.click("#clear")
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 40)
    page.mouse.down()
    wait_for_result(page, lambda: page.mouse.move(box["x"] + 100, box["y"] + 200, steps=5))
    assert prediction(page) != "…"  # the button is still down
    page.mouse.up()


def test_photos_can_be_uploaded_dropped_and_pasted(open_page, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    page = open_page()
    wait_for_result(page, lambda: page.select_option(".model", "cifar10-focus"))
    page.get_by_label("Photo").check()
    assert "and not on digits" in page.locator(".hint").inner_text()
    wait_for_result(page, lambda: page.set_input_files("#file", path))
    wait_until_idle(page)
    assert "digits" not in page.locator(".hint").inner_text()
    assert prediction(page) in zoo.load("cifar10-focus").inputs.classes
    assert page.locator("#given-name").inner_text() == "photo.png"
    assert shape_of_picture(page) == [60, 60]  # the central square, finer than the model's 32 x 32
    save_screenshot(page, "photo")
    for event, holder in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        wait_for_result(
            page, lambda event=event, holder=holder: page.evaluate(INSERT_FILE, [event, holder])
        )
        assert page.locator("#given-name").inner_text() == f"<i>{event}</i>.png"
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    assert "not an image" in page.locator("#notice").inner_text()


def shape_of_picture(page):
    """Return the width and height in pixels of the displayed picture."""
    href = page.locator(".shown-image image").get_attribute("href")
    return page.evaluate(
        "async (href) => { const image = new Image(); image.src = href; await image.decode();"
        " return [image.width, image.height] }",
        href,
    )


def test_a_photo_selects_the_photo_model_and_keeps_its_aspect_ratio(chromium, tmp_path):
    with Image.open(files("skimage.data") / "coffee.png") as image:
        image.resize((2400, 1600)).save(tmp_path / "photo.jpg")
    with running_server("mnist-focus", "clothing-attention", "imagenet") as server:
        page = chromium.new_page(**DESKTOP)
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.wait_for_selector(".keypoint")
        page.get_by_label("Photo").check()
        wait_for_result(page, lambda: page.set_input_files("#file", tmp_path / "photo.jpg"))
        wait_until_idle(page)
        selected = [page.locator(selector).input_value() for selector in (".model", ".method")]
        assert selected == ["imagenet", "contributions"]
        assert prediction(page) == "espresso"
        assert shape_of_picture(page) == [1600, 1067]
        box = page.locator(".shown-image svg").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(1.5, rel=0.01)
        assert "7 × 11 locations" in page.locator(".hint").inner_text()
        save_screenshot(page, "photograph")
        wait_for_result(page, lambda: page.get_by_role("radio", name="Draw").check())
        wait_until_idle(page)
        assert (page.locator(".model").input_value(), prediction(page)) == ("mnist-focus", "3")
        wait_for_result(page, lambda: page.select_option(".model", "mnist-focus"))
        wait_for_result(page, lambda: page.get_by_role("radio", name="Photo").check())
        assert page.locator(".model").input_value() == "mnist-focus"  # as chosen by hand
        page.close()


INSERT_FILE = """async ([event, holder]) => { const canvas = document.createElement("canvas");
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    const transfer = new DataTransfer();
    transfer.items.add(new File([blob], `<i>${event}</i>.png`, { type: "image/png" }));
    const insertion = new Event(event, { bubbles: true, cancelable: true });
    Object.defineProperty(insertion, holder, { value: transfer });
    document.dispatchEvent(insertion) }"""


def test_a_broken_picture_gives_a_warning_and_the_page_keeps_working(chromium, server):
    page = chromium.new_page()  # not open_page: the browser logs a refused request as an error
    page.goto(server.url)
    page.wait_for_selector(".keypoint")
    page.get_by_label("Photo").check()
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
    page.wait_for_selector(".warning:visible")
    assert "a.png" in page.locator(".warning").inner_text()
    page.get_by_label("Samples").check()
    wait_for_result(page, lambda: page.locator(".samples button").first.click())
    assert page.locator(".warning").is_hidden()
    assert prediction(page) == "0"
    page.close()


def test_samples_are_offered_and_classified(open_page):
    page = open_page()
    page.get_by_label("Samples").check()
    page.wait_for_selector(".samples button")
    assert page.locator(".samples button").count() == 20
    correct = 0
    for index in (0, 5, 9, 14, 19):
        sample = page.locator(".samples button").nth(index)
        wait_for_result(page, sample.click)
        wait_until_idle(page)
        correct += sample.locator("img").get_attribute("alt").endswith(prediction(page))
    assert correct >= 4


def test_the_camera_takes_a_picture(chromium, server):
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector(".keypoint")
    page.get_by_label("Camera").check()
    page.click("#camera-start")
    page.wait_for_selector("#camera-take:enabled")
    wait_for_result(page, lambda: page.click("#camera-take"))
    assert prediction(page)
    save_screenshot(page, "camera")
    browser.close()


def test_dragging_a_keypoint_updates_the_prediction_and_can_be_undone(open_page):
    page = open_page()
    before, confidence = keypoint_labels(page), page.locator(".confidence").inner_text()
    box = page.locator(".keypoint >> nth=0 >> .hit").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    wait_for_result(page, lambda: page.mouse.move(x - 90, y + 120, steps=6))
    page.mouse.up()
    wait_until_idle(page)
    assert keypoint_labels(page)[0] != before[0]
    assert keypoint_labels(page)[1:] == before[1:]
    assert "at the model's own keypoints: 3" in page.locator(".source").inner_text()
    assert page.locator(".confidence").inner_text() != confidence
    save_screenshot(page, "dragged")
    wait_for_result(page, lambda: page.click(".release"))
    wait_until_idle(page)
    assert keypoint_labels(page) == before


def test_the_page_opens_with_the_first_model_of_the_command(chromium):
    with running_server("mnist-cnn", "cifar10-focus", "mnist-focus") as server:
        page = chromium.new_page(**DESKTOP)
        page.goto(server.url)
        page.wait_for_selector("[data-ready]")
        page.click("#compare")
        selected = page.locator(".panel select.model").evaluate_all(
            "(selects) => selects.map((select) => select.value)"
        )
        page.close()
    assert selected == ["mnist-cnn", "cifar10-focus"]


def test_two_models_are_shown_side_by_side(open_page):
    page = open_page(viewport={"width": 1280, "height": 1100})
    page.click("#compare")
    page.wait_for_selector(".panel >> nth=1 >> .parts figure")
    wait_until_idle(page)
    models = page.locator(".model").evaluate_all(
        "(selects) => selects.map((select) => select.value)"
    )
    assert models == ["mnist-focus", "mnist-attention"]
    boxes = [page.locator(".panel").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert [prediction(page, i) for i in (0, 1)] == ["3", "3"]
    assert page.locator(".panel >> nth=1 >> .parts img").count() == 3  # a map at each depth
    page.mouse.move(0, 0)
    save_screenshot(page, "two-models", full_page=False)  # copied to docs/images/studio.png
    page.locator(".panel >> nth=1 >> .remove").click()
    assert page.locator(".panel").count() == 1


def test_evidence_only_and_everything_else_are_classified_separately(open_page, server):
    page = open_page()
    page.get_by_label("Samples").check()
    page.wait_for_selector(".samples button")
    wait_for_result(page, page.locator(".samples button").nth(6).click)
    wait_until_idle(page)
    captions = page.locator(".evidence figcaption").all_inner_texts()
    assert captions[0].startswith("Evidence only")
    assert captions[1].startswith("Everything but the evidence")
    assert all("→" in caption for caption in captions)
    only, without = page.locator(".evidence img").evaluate_all(
        "(images) => images.map((image) => image.src)"
    )
    whole = page.evaluate(READ_PIXELS, page.locator(".shown-image image").get_attribute("href"))
    pixels = [np.array(page.evaluate(READ_PIXELS, source)) for source in (only, without)]
    grey = round(255 * float(zoo.load("mnist-focus").mean))
    assert ((pixels[0] == np.array(whole)) | (pixels[0] == grey)).all()
    assert ((pixels[0] == grey) | (pixels[1] == grey)).all()


def test_post_hoc_methods_are_shown_for_the_same_image(open_page):
    page = open_page()
    wait_for_result(page, lambda: page.select_option(".model", "mnist-cnn"))
    wait_until_idle(page)
    assert page.locator(".method").input_value() == "grad-cam"
    assert page.locator(".signed").is_visible()
    page.click("text=Compare with post-hoc methods")
    page.wait_for_selector("text=/rise, \\d+ passes/")
    assert page.locator(".post-hoc img").count() == len(post_hoc_methods())
    save_screenshot(page, "post-hoc")


@pytest.mark.parametrize("kind", ["png", "svg", "json"])
def test_the_displayed_result_can_be_downloaded(open_page, tmp_path, kind):
    page = open_page()
    with page.expect_download() as download:
        page.click(f".downloads button[data-kind={kind}]")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == f"mnist-focus-3.{kind}"
    if kind == "json":
        response = json.loads(path.read_text())
        assert response["model"] == "mnist-focus"
        assert len(response["images"][0]["keypoints"]) == 3
    elif kind == "svg":
        root = ElementTree.parse(path).getroot()
        assert {"1", "2", "3"} <= {text.text for text in root.iter() if text.tag.endswith("text")}
    else:
        with Image.open(path) as image:
            assert image.size[0] == 1920
            assert np.asarray(image.convert("L")).std() > 20
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, SCREENSHOTS / "download.png")


def test_the_page_fits_a_phone_without_horizontal_scrolling(open_page):
    page = open_page(**PHONE)
    wait_until_idle(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    assert page.locator("#glance").is_visible()  # the prediction next to the pad
    save_screenshot(page, "phone")
    page.locator(".panel .shown-image").scroll_into_view_if_needed()
    page.click("#compare")
    page.wait_for_selector(".panel >> nth=1 >> .parts figure")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small_controls = page.locator("button:visible, select:visible").evaluate_all(
        "(controls) => controls.filter((control) => !control.closest('#glance, .fraction') && "
        "control.getBoundingClientRect().height < 36).length"
    )
    assert small_controls == 0  # every control is large enough for touch
    save_screenshot(page, "phone-two")


def test_drawing_works_by_touch(open_page, chromium):
    page = open_page(**PHONE)
    page.click("#clear")
    session = page.context.new_cdp_session(page)
    box = page.locator("#pad").bounding_box()
    points = [
        {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in THREE
    ]

    def touch():
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [points[0]]})
        for point in points[1:]:
            session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    wait_for_result(page, touch)
    wait_until_idle(page)
    assert prediction(page) == "3"
    assert page.evaluate("window.scrollY") == 0


def test_the_page_works_by_keyboard_only(open_page):
    page = open_page()
    keys = page.keyboard
    tab_to(page, "#pad")
    keys.press("Space")
    wait_for_result(page, lambda: [keys.press("ArrowDown") for _ in range(14)])
    keys.press("Space")
    wait_until_idle(page)
    assert prediction(page) == "1"
    tab_to(page, ".keypoint[data-index='1']")
    before = keypoint_labels(page)
    wait_for_result(page, lambda: keys.press("ArrowRight"))
    wait_until_idle(page)
    for _ in range(2):
        keys.press("ArrowRight")
    wait_until_idle(page)
    assert column(keypoint_labels(page)[1]) in (column(before[1]) + 3, 25)
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    save_screenshot(page, "keyboard")
    wait_for_result(page, lambda: keys.press("Escape"))
    wait_until_idle(page)
    assert keypoint_labels(page) == before
    tab_to(page, "#compare", back=True)
    keys.press("Enter")
    page.wait_for_selector(".panel >> nth=1")
    assert page.evaluate("document.activeElement.className") == "model"


def column(label):
    return int(label.split("column ")[1].split(",")[0])


def tab_to(page, selector, back=False):
    for _ in range(40):
        if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"{selector} cannot be reached by keyboard")


def test_keypoints_differ_by_number_and_shape_not_only_by_colour(open_page):
    page = open_page()
    shapes = page.locator(".keypoint").evaluate_all(
        """(keypoints) => keypoints.map((keypoint) => [
        keypoint.querySelector("g > :first-child").tagName,
        keypoint.querySelector("polygon")?.points.length ?? 0,
        keypoint.querySelector("rect:nth-of-type(3)")?.getAttribute("stroke-dasharray")].join())"""
    )
    assert len(set(shapes)) == len(shapes) == 3


def test_dark_mode_follows_the_system(open_page):
    page = open_page(color_scheme="dark")
    wait_until_idle(page)
    page.click("#compare")
    page.wait_for_selector(".panel >> nth=1 >> .parts figure")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in background[4:-1].split(",")) < 60
    save_screenshot(page, "dark")


def test_the_api_page_describes_the_api(open_page, server):
    page = open_page()
    page.click("text=API")
    page.wait_for_selector("text=POST /v1/explain")
    assert page.locator("text=multipart/form-data").first.is_visible()
    save_screenshot(page, "api")
