"""The page in a real browser: what people do with it, by mouse, finger and keyboard.

Screenshots are kept below report/studio, to be looked at.
"""

import json
import shutil
import xml.etree.ElementTree as ElementTree
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import CHROMIUM, FLAGS, launched, need_chromium
from foveal import zoo
from foveal.deployment.serve.model_registry import Models
from foveal.explainers import post_hoc_methods
from studio_server import running

need_chromium()

SHOTS = Path(__file__).parents[3] / "report" / "studio"
THREE = [(0.3, 0.25), (0.45, 0.17), (0.62, 0.22), (0.64, 0.36), (0.5, 0.46)]
THREE += [(0.64, 0.54), (0.67, 0.7), (0.55, 0.82), (0.4, 0.83), (0.28, 0.74)]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def server():
    names = [name for name in Models().by_name if name.startswith(("mnist", "cifar10-focus"))]
    with running(*names) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with launched() as browser:
        yield browser


@pytest.fixture
def opened(chromium, server):
    """Open the page in windows; fail on whatever a script or the policy complains of."""
    complaints, contexts = [], []

    def call(**options):
        context = chromium.new_context(**{**DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda one: complaints.append(one.url) if outside(one.url) else None)
        page.goto(server.url)
        page.wait_for_selector(".keypoint")
        return page

    yield call
    for context in contexts:
        context.close()
    assert complaints == []


def outside(url):
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:"))


def shot(page, name):
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def acted(page, act):
    """Do something and return the detail of the answer that is shown after it."""
    page.evaluate(
        """() => { window.shown = new Promise((resolve) => document.addEventListener(
        "foveal:shown", (event) => resolve(event.detail), { once: true })) }"""
    )
    act()
    return page.evaluate("window.shown")


def draw(page, places=THREE):
    box = page.locator("#pad").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


def settled(page):
    """Wait until no panel waits for an answer."""
    page.wait_for_selector("[data-pending]", state="detached")
    page.wait_for_selector(".panel[aria-busy]", state="detached")


def answer(page, panel=0):
    return page.locator(".panel .prediction").nth(panel).inner_text()


def places(page):
    return page.locator(".panel >> nth=0 >> .keypoint").evaluate_all(
        "(all) => all.map((one) => one.getAttribute('aria-label'))"
    )


def test_a_three_is_drawn_and_its_keypoints_patches_and_answer_are_shown(opened):
    page = opened()
    page.click("#clear")
    acted(page, lambda: draw(page))
    settled(page)
    assert page.locator(".panel .keypoint").count() == 3
    assert page.locator(".panel .patch").count() == 3
    assert page.locator(".keypoint text").all_text_contents() == ["1", "2", "3"]
    assert answer(page) == "3"
    assert page.locator(".bars li").count() == 5
    assert "98.89% accuracy on mnist" in page.locator("p.card").inner_text()
    shot(page, "drawn")


def test_a_drawing_becomes_such_a_picture_as_the_models_know(opened):
    """Drawn small in a corner, a digit is the same as drawn large in the middle."""
    page = opened()
    small = [(0.05 + 0.2 * x, 0.05 + 0.2 * y) for x, y in THREE]
    page.click("#clear")
    acted(page, lambda: draw(page, small))
    settled(page)
    assert answer(page) == "3"
    href = page.locator(".shown-image image").get_attribute("href")
    pixels = page.evaluate(PIXELS, href)
    ink = np.array(pixels).reshape(28, 28)
    rows, columns = np.nonzero(ink > 30)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21, 22)
    weight = ink / ink.sum()
    middle = [(weight.sum(1 - axis) * np.arange(28)).sum() for axis in (0, 1)]
    assert np.allclose(middle, 13.5, atol=0.8)
    acted(page, lambda: page.uncheck("#centre"))
    settled(page)
    assert page.evaluate(PIXELS, page.locator(".shown-image image").get_attribute("href")) != pixels


PIXELS = """async (href) => { const image = new Image(); image.src = href; await image.decode();
    const canvas = document.createElement("canvas"); canvas.width = canvas.height = 28;
    const context = canvas.getContext("2d"); context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, 28, 28);
    return Array.from({ length: 784 }, (_, i) => data[4 * i]) }"""


def test_the_picture_follows_the_hand_while_it_draws(opened):
    page = opened()
    page.click("#clear")
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 40)
    page.mouse.down()
    acted(page, lambda: page.mouse.move(box["x"] + 100, box["y"] + 200, steps=5))
    assert answer(page) != "…"  # the button is still down
    page.mouse.up()


def test_a_photo_is_uploaded_and_one_is_dropped_and_one_pasted(opened, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    page = opened()
    acted(page, lambda: page.select_option(".model", "cifar10-focus"))
    page.get_by_label("Photo").check()
    assert "and not on digits" in page.locator(".hint").inner_text()
    acted(page, lambda: page.set_input_files("#file", path))
    settled(page)
    assert "digits" not in page.locator(".hint").inner_text()
    assert answer(page) in zoo.load("cifar10-focus").inputs.classes
    assert page.locator("#given-name").inner_text() == "photo.png"
    assert shape_of_picture(page) == [60, 60]  # the middle, finer than the model's 32 x 32
    shot(page, "photo")
    for event, holder in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        acted(page, lambda event=event, holder=holder: page.evaluate(GIVE, [event, holder]))
        assert page.locator("#given-name").inner_text() == f"<i>{event}</i>.png"
    page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    assert "not an image" in page.locator("#notice").inner_text()


def shape_of_picture(page):
    """Return width and height in pixels of the picture below the marks."""
    href = page.locator(".shown-image image").get_attribute("href")
    return page.evaluate(
        "async (href) => { const image = new Image(); image.src = href; await image.decode();"
        " return [image.width, image.height] }",
        href,
    )


def test_a_photo_goes_to_the_model_of_photos_and_is_drawn_as_it_was_given(chromium, tmp_path):
    with Image.open(files("skimage.data") / "coffee.png") as image:
        image.resize((2400, 1600)).save(tmp_path / "photo.jpg")
    with running("mnist-focus", "imagenet") as server:
        page = chromium.new_page(**DESKTOP)
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.wait_for_selector(".keypoint")
        page.get_by_label("Photo").check()
        acted(page, lambda: page.set_input_files("#file", tmp_path / "photo.jpg"))
        settled(page)
        chosen = [page.locator(one).input_value() for one in (".model", ".method")]
        assert chosen == ["imagenet", "contributions"]
        assert answer(page) == "espresso"
        assert shape_of_picture(page) == [1600, 1067]
        box = page.locator(".shown-image svg").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(1.5, rel=0.01)
        assert "7 × 11 locations" in page.locator(".hint").inner_text()
        shot(page, "photograph")
        acted(page, lambda: page.get_by_role("radio", name="Draw").check())
        settled(page)
        assert (page.locator(".model").input_value(), answer(page)) == ("mnist-focus", "3")
        acted(page, lambda: page.select_option(".model", "mnist-focus"))
        acted(page, lambda: page.get_by_role("radio", name="Photo").check())
        assert page.locator(".model").input_value() == "mnist-focus"  # as chosen by hand
        page.close()


GIVE = """async ([event, holder]) => { const canvas = document.createElement("canvas");
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    const given = new DataTransfer();
    given.items.add(new File([blob], `<i>${event}</i>.png`, { type: "image/png" }));
    const made = new Event(event, { bubbles: true, cancelable: true });
    Object.defineProperty(made, holder, { value: given });
    document.dispatchEvent(made) }"""


def test_a_broken_picture_is_said_and_the_page_goes_on(chromium, server):
    page = chromium.new_page()  # not watched: the browser itself logs a refusal as an error
    page.goto(server.url)
    page.wait_for_selector(".keypoint")
    page.get_by_label("Photo").check()
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
    page.wait_for_selector(".warning:visible")
    assert "a.png" in page.locator(".warning").inner_text()
    page.get_by_label("Samples").check()
    acted(page, lambda: page.locator(".samples button").first.click())
    assert page.locator(".warning").is_hidden()
    assert answer(page) == "0"
    page.close()


def test_samples_are_offered_and_answered(opened):
    page = opened()
    page.get_by_label("Samples").check()
    page.wait_for_selector(".samples button")
    assert page.locator(".samples button").count() == 20
    right = 0
    for index in (0, 5, 9, 14, 19):
        sample = page.locator(".samples button").nth(index)
        acted(page, sample.click)
        settled(page)
        right += sample.locator("img").get_attribute("alt").endswith(answer(page))
    assert right >= 4


def test_the_camera_takes_a_picture(chromium, server):
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector(".keypoint")
    page.get_by_label("Camera").check()
    page.click("#camera-start")
    page.wait_for_selector("#camera-take:enabled")
    acted(page, lambda: page.click("#camera-take"))
    assert answer(page)
    shot(page, "camera")
    browser.close()


def test_a_keypoint_is_dragged_the_answer_follows_and_it_is_put_back(opened):
    page = opened()
    before, own = places(page), page.locator(".confidence").inner_text()
    frame = page.locator(".keypoint >> nth=0 >> .hit").bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    acted(page, lambda: page.mouse.move(x - 90, y + 120, steps=6))
    page.mouse.up()
    settled(page)
    assert places(page)[0] != before[0]
    assert places(page)[1:] == before[1:]
    assert "at the model's own keypoints: 3" in page.locator(".source").inner_text()
    assert page.locator(".confidence").inner_text() != own
    shot(page, "dragged")
    acted(page, lambda: page.click(".release"))
    settled(page)
    assert places(page) == before


def test_the_page_opens_with_the_model_named_first(chromium):
    with running("mnist-cnn", "cifar10-focus", "mnist-focus") as server:
        page = chromium.new_page(**DESKTOP)
        page.goto(server.url)
        page.wait_for_selector("[data-ready]")
        page.click("#compare")
        chosen = page.locator(".panel select.model").evaluate_all(
            "(all) => all.map((one) => one.value)"
        )
        page.close()
    assert chosen == ["mnist-cnn", "cifar10-focus"]


def test_two_models_are_side_by_side(opened):
    page = opened()
    page.click("#compare")
    page.wait_for_selector(".panel >> nth=1 >> .parts figure")
    settled(page)
    models = page.locator(".model").evaluate_all("(all) => all.map((one) => one.value)")
    assert models == ["mnist-focus", "mnist-attention"]
    boxes = [page.locator(".panel").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert [answer(page, i) for i in (0, 1)] == ["3", "3"]
    assert page.locator(".panel >> nth=1 >> .parts img").count() == 3  # a map at each depth
    shot(page, "two-models")
    page.locator(".panel >> nth=1 >> .remove").click()
    assert page.locator(".panel").count() == 1


def test_evidence_only_and_all_but_it_have_answers_of_their_own(opened, server):
    page = opened()
    page.get_by_label("Samples").check()
    page.wait_for_selector(".samples button")
    acted(page, page.locator(".samples button").nth(6).click)
    settled(page)
    said = page.locator(".evidence figcaption").all_inner_texts()
    assert said[0].startswith("Evidence only")
    assert said[1].startswith("Everything but the evidence")
    assert all("→" in one for one in said)
    only, without = page.locator(".evidence img").evaluate_all("(all) => all.map((i) => i.src)")
    whole = page.evaluate(PIXELS, page.locator(".shown-image image").get_attribute("href"))
    shown = [np.array(page.evaluate(PIXELS, one)) for one in (only, without)]
    grey = round(255 * float(zoo.load("mnist-focus").mean))
    assert ((shown[0] == np.array(whole)) | (shown[0] == grey)).all()
    assert ((shown[0] == grey) | (shown[1] == grey)).all()


def test_post_hoc_methods_are_shown_on_the_same_image(opened):
    page = opened()
    acted(page, lambda: page.select_option(".model", "mnist-cnn"))
    settled(page)
    assert page.locator(".method").input_value() == "grad-cam"
    assert page.locator(".signed").is_visible()
    page.click("text=Compare with post-hoc methods")
    page.wait_for_selector("text=/rise, \\d+ passes/")
    assert page.locator(".post-hoc img").count() == len(post_hoc_methods())
    shot(page, "post-hoc")


@pytest.mark.parametrize("kind", ["png", "svg", "json"])
def test_what_is_shown_is_downloaded(opened, tmp_path, kind):
    page = opened()
    with page.expect_download() as started:
        page.click(f".downloads button[data-kind={kind}]")
    path = tmp_path / started.value.suggested_filename
    started.value.save_as(path)
    assert path.name == f"mnist-focus-3.{kind}"
    if kind == "json":
        told = json.loads(path.read_text())
        assert told["model"] == "mnist-focus"
        assert len(told["images"][0]["keypoints"]) == 3
    elif kind == "svg":
        root = ElementTree.parse(path).getroot()
        assert {"1", "2", "3"} <= {text.text for text in root.iter() if text.tag.endswith("text")}
    else:
        with Image.open(path) as image:
            assert image.size[0] == 1920
            assert np.asarray(image.convert("L")).std() > 20
        SHOTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, SHOTS / "download.png")


def test_a_phone_shows_all_without_scrolling_sideways(opened):
    page = opened(**PHONE)
    settled(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    assert page.locator("#glance").is_visible()  # the answer beside the pad
    shot(page, "phone")
    page.locator(".panel .shown-image").scroll_into_view_if_needed()
    page.click("#compare")
    page.wait_for_selector(".panel >> nth=1 >> .parts figure")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = page.locator("button:visible, select:visible").evaluate_all(
        "(all) => all.filter((one) => !one.closest('#glance, .fraction') && "
        "one.getBoundingClientRect().height < 36).length"
    )
    assert small == 0  # for fingers
    shot(page, "phone-two")


def test_a_finger_draws(opened, chromium):
    page = opened(**PHONE)
    page.click("#clear")
    session = page.context.new_cdp_session(page)
    box = page.locator("#pad").bounding_box()
    at = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in THREE]

    def touch():
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at[0]]})
        for place in at[1:]:
            session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [place]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    acted(page, touch)
    settled(page)
    assert answer(page) == "3"
    assert page.evaluate("window.scrollY") == 0


def test_all_is_done_by_keyboard_alone(opened):
    page = opened()
    keys = page.keyboard
    tab_to(page, "#pad")
    keys.press("Space")
    acted(page, lambda: [keys.press("ArrowDown") for _ in range(14)])
    keys.press("Space")
    settled(page)
    assert answer(page) == "1"
    tab_to(page, ".keypoint[data-index='1']")
    before = places(page)
    acted(page, lambda: keys.press("ArrowRight"))
    settled(page)
    for _ in range(2):
        keys.press("ArrowRight")
    settled(page)
    assert column(places(page)[1]) in (column(before[1]) + 3, 25)
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    shot(page, "keyboard")
    acted(page, lambda: keys.press("Escape"))
    settled(page)
    assert places(page) == before
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
    raise AssertionError(f"no way by keyboard to {selector}")


def test_keypoints_differ_by_number_and_shape_not_by_colour_alone(opened):
    page = opened()
    shapes = page.locator(".keypoint").evaluate_all(
        """(all) => all.map((one) => [one.querySelector("g > :first-child").tagName,
        one.querySelector("polygon")?.points.length ?? 0,
        one.querySelector("rect:nth-of-type(3)")?.getAttribute("stroke-dasharray")].join())"""
    )
    assert len(set(shapes)) == len(shapes) == 3


def test_it_is_dark_where_the_system_is(opened):
    page = opened(color_scheme="dark")
    settled(page)
    page.click("#compare")
    page.wait_for_selector(".panel >> nth=1 >> .parts figure")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in background[4:-1].split(",")) < 60
    shot(page, "dark")


def test_the_api_page_describes_the_api(opened, server):
    page = opened()
    page.click("text=API")
    page.wait_for_selector("text=POST /v1/explain")
    assert page.locator("text=multipart/form-data").first.is_visible()
    shot(page, "api")
