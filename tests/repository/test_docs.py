"""The documentation: what it shows runs, what it links to is there, and nothing is fetched."""

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
FENCE = re.compile(r"^```(?P<kind>[\w-]+)(?P<more>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
CONTINUED = re.compile(r"\\\n\s*")
INDENTED = re.compile(r"^    (foveal [^\n]*)$", re.M)
# Pages whose commands are run, not only read.
RUN = ("docs/tutorials/own-photos.md", "docs/tutorials/high-resolution.md")
# Pages whose snippets are run against a server and a proxy, by the test named here.
RUN_ELSEWHERE = {"docs/serving.md": "tests/deployment/serve/test_serve_deployed.py"}
# Snippets that no test can run, by the page and the reason in their title.
NOT_RUN = {
    "docs/tutorials/own-photos.md": ["the whole training, some minutes", "for real photos"],
}
VARIES = re.compile(r"'[^']*'|\d[\d.,]*( min\b| h\b| s\b)?")  # from one machine to another

WRONG = typer.BadParameter.__base__  # of every wrong use of the command line


def snippets(path):
    """Return (kind, title, code, line) of each fenced snippet of a page."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        title = re.search(r'title="([^"]*)"', found["more"])
        line = text[: found.start()].count("\n") + 1
        yield found["kind"], title[1] if title else "", found["code"], line


def commands(code):
    """Return the `foveal` commands of a shell snippet as lists of words."""
    whole = CONTINUED.sub(" ", code)
    lines = [shlex.split(line, comments=True) for line in whole.splitlines()]
    return [words[1:] for words in lines if words[:1] == ["foveal"]]


def run_shell(code):
    for words in commands(code):
        typer.main.get_command(cli.app).main(words, standalone_mode=False)


def parse(words):
    """Parse a command's words as the command line does, without running it.

    A name in angle brackets, an ellipsis, … stands for something: it is a word like any other.
    """
    group = typer.main.get_command(cli.app)
    context = group.context_class(group, info_name="foveal")
    if not words or words[0].startswith("-"):
        group.parse_args(context, list(words))
        return
    name, command, rest = group.resolve_command(context, list(words))
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN_ELSEWHERE])
def test_the_snippets_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for registry in (MODELS, DETECTORS, METRICS):  # which a page may add to
        monkeypatch.setattr(registry, "_known", dict(registry._known))
    said = ""
    names = {"__name__": "page"}
    finder, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    for kind, title, code, line in snippets(PAGES[page]):
        if title:
            continue
        if kind == "python":
            exec(compile("\n" * line + code, PAGES[page], "exec"), names)
        elif kind == "pycon":
            test = finder.get_doctest(code, {}, f"{page}:{line}", str(PAGES[page]), line)
            test.globs = names
            faults = []
            runner.run(test, out=faults.append, clear_globs=False)
            assert runner.failures == 0, "".join(faults)
        elif kind == "sh" and page in RUN:
            run_shell(code)
            said += "".join(capsys.readouterr())
        elif kind == "text" and page in RUN:
            assert [line for line in code.splitlines() if same(line) not in same(said)] == []


def same(text):
    """Return a text with what varies from one machine to another all alike."""
    return VARIES.sub("#", text)


def test_the_snippets_that_no_test_runs_are_listed():
    titles = {
        page: [title for _, title, _, _ in snippets(path) if title] for page, path in PAGES.items()
    }
    assert {page: found for page, found in titles.items() if found} == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_snippets_are_of_a_kind_that_is_tested(page):
    kinds = {kind for kind, _, _, _ in snippets(PAGES[page])}
    elsewhere = {"nginx"} if page in RUN_ELSEWHERE else set()
    assert kinds <= {"python", "pycon", "sh", "yaml", "json", "text", "toml"} | elsewhere


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist_and_know_their_options(page):
    text = CONTINUED.sub(" ", PAGES[page].read_text(encoding="utf-8"))
    shown = INDENTED.findall(text)
    shown += [CONTINUED.sub(" ", c) for kind, _, c, _ in snippets(PAGES[page]) if kind == "sh"]
    for words in (words for code in shown for words in commands(_without_remark(code))):
        try:
            parse(words)
        except typer.Exit:  # --help ends a parse
            pass
        except WRONG as error:
            pytest.fail(f"foveal {' '.join(words)}: {error.format_message()}")


def _without_remark(code):
    """Take from a line what two or more spaces set apart: what the command does, in words."""
    return "\n".join(re.split(r" {2,}", line.strip())[0] for line in code.splitlines())


@pytest.mark.parametrize(
    "words", ["evaluates mnist-focus", "explain mnist-focus a.png --shiny", "evaluate mnist-focus"]
)
def test_a_command_that_does_not_exist_is_seen(words):
    with pytest.raises(WRONG):
        parse(words.split())


def test_the_pictures_made_from_code_are_current():
    import architecture
    import families

    drawn = {architecture.PICTURE: architecture.picture(), **families.pictures()}
    stale = [path.name for path, svg in drawn.items() if path.read_text(encoding="utf-8") != svg]
    assert not stale, "draw them anew: make figures"


def test_the_table_of_choice_is_current():
    import figures

    text = (DOCS / "which-model.md").read_text(encoding="utf-8")
    assert text == figures.fill(text), "write it anew: make figures"


def test_every_command_extra_and_part_is_described():
    command_line = (DOCS / "command-line.md").read_text(encoding="utf-8")
    assert [
        n for n in typer.main.get_command(cli.app).commands if f"foveal {n}`" not in command_line
    ] == []
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"docs", "dist", "dev"}  # for its makers
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
    """What a page refers to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors, self.unnamed = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "img" and not (given.get("alt") or "").strip():
            self.unnamed.append(given.get("src"))
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.loaded.append(given.get("src"))
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it: a warning fails it."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    build(config)
    return {path: Page(path) for path in folder.rglob("*.html")}


def test_the_site_has_a_page_for_each_text(site):
    texts = {path.stem for path in DOCS.rglob("*.md")}
    assert texts <= {path.stem for path in site}


def test_every_link_within_the_site_resolves(site):
    dead = []
    for path, page in site.items():
        if path.name == "404.html":  # shown at any address, so its links begin at the root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = site[target].anchors if target in site else None
            there = target.is_file() and not (parts.fragment and known is not None)
            if not there and (known is None or unquote(parts.fragment) not in known):
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_every_image_has_a_text(site):
    assert [(path.name, src) for path, page in site.items() for src in page.unnamed] == []


def test_the_site_fetches_nothing_from_outside(site):
    outside = re.compile(r"^(https?:)?//")
    loaded = {src for page in site.values() for src in page.loaded if src}
    assert loaded
    assert [src for src in loaded if outside.match(src)] == []
    folder = next(path for path in site if path.name == "404.html").parent
    for sheet in folder.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]*", text) == [], sheet


# What sticks out at the right and lies in nothing that scrolls by itself.
STICKING_OUT = """() => { const width = document.documentElement.clientWidth;
    const scrolls = (one) => ["auto", "scroll", "hidden"].includes(getComputedStyle(one).overflowX);
    const held = (one) => one && (scrolls(one) || held(one.parentElement));
    return [...document.querySelectorAll(".md-content *")]
        .filter((one) => one.getBoundingClientRect().width > 0)
        .filter((one) => one.getBoundingClientRect().right > width + 1)
        .filter((one) => !held(one.parentElement)).map((one) => one.outerHTML.slice(0, 80)) }"""


@pytest.fixture(scope="module")
def phone():
    """A page in Chromium that is as narrow as a phone."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and not os.environ.get("CI"):
        pytest.skip("the width of pages is NOT tested: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=flags)
        yield browser.new_page(viewport={"width": 400, "height": 900})
        browser.close()


def test_no_page_is_wider_than_a_phone(site, phone):
    wide = {}
    for path in site:
        phone.goto(path.as_uri())
        wide[path.name] = phone.evaluate(STICKING_OUT)
    assert {name: found for name, found in wide.items() if found} == {}


def test_what_is_wider_than_a_phone_is_seen(phone):
    phone.set_content('<div class="md-content"><p style="width: 500px">wide</p></div>')
    assert len(phone.evaluate(STICKING_OUT)) == 1


def test_every_link_and_picture_of_the_readme_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"(!?)\[([^\]]*)\]\(([^)#\s]+)", text)
    assert links
    assert [link for _, _, link in links if "//" not in link and not (ROOT / link).exists()] == []
    assert [link for mark, alt, link in links if mark and not alt] == []


def test_the_page_of_licences_is_current():
    import licences

    page = licences.PAGE.read_text(encoding="utf-8")
    missing = [name for name in licences.requirements() if f"| {name} |" not in page]
    assert not missing, "write it anew: python tools/licences.py"
