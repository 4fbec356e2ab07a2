"""The documentation: its snippets, its links, and what its pages load."""

import doctest
import os
import re
import shlex
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
import yaml
from mkdocs.commands.build import build
from mkdocs.config import load_config

import foveal
from foveal import cli
from foveal.detectors import DETECTORS
from foveal.metrics import METRICS
from foveal.models import MODELS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
}
FENCE = re.compile(r"^```(?P<kind>[\w-]+)(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
CONTINUED = re.compile(r"\\\n\s*")
INDENTED = re.compile(r"^    (foveal [^\n]*)$", re.M)
# Pages whose commands are run, not only parsed.
RUN = ("docs/tutorials/own-photos.md", "docs/tutorials/high-resolution.md")
# Pages whose snippets are run against a server and a proxy by another test file.
RUN_ELSEWHERE = {"docs/serving.md": "tests/deployment/serve/test_serve_deployed.py"}
# Titles of snippets that no test can run, by page.
NOT_RUN = {
    "docs/tutorials/own-photos.md": ["the whole training, some minutes", "for real photos"],
}
# Quoted texts, numbers and durations in the output of commands, which differ between machines.
VARIABLE = re.compile(r"'[^']*'|\d[\d.,]*( min\b| h\b| s\b)?")

USAGE_ERROR = typer.BadParameter.__base__  # UsageError, which typer does not export


def snippets(path):
    """Return (kind, title, code, line) of each fenced snippet of a page."""
    text = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]*)"', match["options"])
        line = text[: match.start()].count("\n") + 1
        yield match["kind"], title[1] if title else "", match["code"], line


def commands(code):
    """Return the `foveal` commands of a shell snippet as lists of words."""
    joined = CONTINUED.sub(" ", code)
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["foveal"]]


def run_shell(code):
    """Run the `foveal` commands of a shell snippet in this process."""
    for words in commands(code):
        typer.main.get_command(cli.app).main(words, standalone_mode=False)


def parse(words):
    """Parse a command's words as the command line does, without running it.

    Placeholders, such as a name in angle brackets or an ellipsis, count as ordinary words.
    """
    group = typer.main.get_command(cli.app)
    context = group.context_class(group, info_name="foveal")
    if not words or words[0].startswith("-"):
        group.parse_args(context, list(words))
        return
    name, command, arguments = group.resolve_command(context, list(words))
    command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN_ELSEWHERE])
def test_the_snippets_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for registry in (MODELS, DETECTORS, METRICS):  # pages may register parts
        monkeypatch.setattr(registry, "_known", dict(registry._known))
    printed = ""
    namespace = {"__name__": "page"}
    finder, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    for kind, title, code, line in snippets(PAGES[page]):
        if title:
            continue
        if kind == "python":
            exec(compile("\n" * line + code, PAGES[page], "exec"), namespace)
        elif kind == "pycon":
            test = finder.get_doctest(code, {}, f"{page}:{line}", str(PAGES[page]), line)
            test.globs = namespace
            messages = []
            runner.run(test, out=messages.append, clear_globs=False)
            assert runner.failures == 0, "".join(messages)
        elif kind == "sh" and page in RUN:
            run_shell(code)
            printed += "".join(capsys.readouterr())
        elif kind == "text" and page in RUN:
            missing = [
                line
                for line in code.splitlines()
                if without_variation(line) not in without_variation(printed)
            ]
            assert missing == []


def without_variation(text):
    """Return a text with values that differ between machines replaced by #."""
    return VARIABLE.sub("#", text)


def test_untested_snippets_are_listed():
    titles = {
        page: [title for _, title, _, _ in snippets(path) if title] for page, path in PAGES.items()
    }
    assert {page: page_titles for page, page_titles in titles.items() if page_titles} == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_snippets_are_in_a_tested_language(page):
    kinds = {kind for kind, _, _, _ in snippets(PAGES[page])}
    other_kinds = {"nginx"} if page in RUN_ELSEWHERE else set()
    assert kinds <= {"python", "pycon", "sh", "yaml", "json", "text", "toml"} | other_kinds


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_and_their_options_exist(page):
    text = CONTINUED.sub(" ", PAGES[page].read_text(encoding="utf-8"))
    shell_snippets = INDENTED.findall(text)
    shell_snippets += [
        CONTINUED.sub(" ", code) for kind, _, code, _ in snippets(PAGES[page]) if kind == "sh"
    ]
    for words in (words for code in shell_snippets for words in commands(_without_remark(code))):
        try:
            parse(words)
        except typer.Exit:  # --help ends a parse
            pass
        except USAGE_ERROR as error:
            pytest.fail(f"foveal {' '.join(words)}: {error.format_message()}")


def _without_remark(code):
    """Remove the description that follows a command after two or more spaces."""
    return "\n".join(re.split(r" {2,}", line.strip())[0] for line in code.splitlines())


@pytest.mark.parametrize(
    "words", ["evaluates mnist-focus", "explain mnist-focus a.png --shiny", "evaluate mnist-focus"]
)
def test_an_invalid_command_is_detected(words):
    with pytest.raises(USAGE_ERROR):
        parse(words.split())


def test_generated_pictures_are_current():
    import architecture
    import families

    pictures = {architecture.PICTURE: architecture.picture(), **families.pictures()}
    stale = [path.name for path, svg in pictures.items() if path.read_text(encoding="utf-8") != svg]
    assert not stale, "regenerate them: make figures"


def test_the_table_of_models_is_current():
    import figures

    text = (DOCS / "which-model.md").read_text(encoding="utf-8")
    assert text == figures.fill(text), "regenerate it: make figures"


def test_every_command_extra_and_package_is_described():
    command_line = (DOCS / "command-line.md").read_text(encoding="utf-8")
    missing = [
        name
        for name in typer.main.get_command(cli.app).commands
        if f"foveal {name}`" not in command_line
    ]
    assert missing == []
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"docs", "dist", "dev"}  # for developers
    assert [name for name in extras if f"`{name}`" not in index] == []
    architecture = (DOCS / "architecture.md").read_text(encoding="utf-8")
    parts = [path.parent.name for path in (ROOT / "src" / "foveal").glob("*/__init__.py")]
    assert parts
    assert [name for name in parts if f"| `{name}` |" not in architecture] == []


def test_the_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == foveal.__version__
    assert citation["license"] == "MIT"


class Page(HTMLParser):
    """A page's links, resources, anchors and images without alternative text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.resources, self.anchors = [], [], set()
        self.images_without_text = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "img" and not (values.get("alt") or "").strip():
            self.images_without_text.append(values.get("src"))
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.resources.append(values.get("src"))
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.resources.append(values.get("href"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the site by path, built like `make docs`, with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    build(config)
    return {path: Page(path) for path in folder.rglob("*.html")}


def test_the_site_has_a_page_for_each_source(site):
    sources = {path.stem for path in DOCS.rglob("*.md")}
    assert sources <= {path.stem for path in site}


def test_every_link_within_the_site_resolves(site):
    dead_links = []
    for path, page in site.items():
        if path.name == "404.html":  # served at any address, so its links start at the root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = site[target].anchors if target in site else None
            exists = target.is_file() and not (parts.fragment and anchors is not None)
            if not exists and (anchors is None or unquote(parts.fragment) not in anchors):
                dead_links.append(f"{path.name}: {link}")
    assert dead_links == []


def test_every_image_has_alternative_text(site):
    missing = [(path.name, src) for path, page in site.items() for src in page.images_without_text]
    assert missing == []


def test_the_site_loads_nothing_from_other_hosts(site):
    external = re.compile(r"^(https?:)?//")
    resources = {url for page in site.values() for url in page.resources if url}
    assert resources
    assert [url for url in resources if external.match(url)] == []
    folder = next(path for path in site if path.name == "404.html").parent
    for sheet in folder.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]*", text) == [], sheet


# Elements that overflow the page on the right and are not inside a scrollable element.
OVERFLOWING = """() => { const width = document.documentElement.clientWidth;
    const scrolls = (e) => ["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX);
    const inside = (e) => e && (scrolls(e) || inside(e.parentElement));
    return [...document.querySelectorAll(".md-content *")]
        .filter((e) => e.getBoundingClientRect().width > 0)
        .filter((e) => e.getBoundingClientRect().right > width + 1)
        .filter((e) => !inside(e.parentElement)).map((e) => e.outerHTML.slice(0, 80)) }"""


@pytest.fixture(scope="module")
def phone():
    """A page in Chromium as narrow as a phone."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("the width of pages is NOT tested: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        yield browser.new_page(viewport={"width": 400, "height": 900})
        browser.close()


def test_no_page_is_wider_than_a_phone(site, phone):
    overflowing = {}
    for path in site:
        phone.goto(path.as_uri())
        overflowing[path.name] = phone.evaluate(OVERFLOWING)
    assert {name: elements for name, elements in overflowing.items() if elements} == {}


def test_an_element_wider_than_a_phone_is_detected(phone):
    phone.set_content('<div class="md-content"><p style="width: 500px">wide</p></div>')
    assert len(phone.evaluate(OVERFLOWING)) == 1


def test_every_link_and_picture_of_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"(!?)\[([^\]]*)\]\(([^)#\s]+)", text)
    assert links
    assert [link for _, _, link in links if "//" not in link and not (ROOT / link).exists()] == []
    assert [link for mark, alt, link in links if mark and not alt] == []


def test_the_licences_page_is_current():
    import licences

    page = licences.PAGE.read_text(encoding="utf-8")
    missing = [name for name in licences.requirements() if f"| {name} |" not in page]
    assert not missing, "regenerate it: python tools/licences.py"
