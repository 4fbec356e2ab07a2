"""Terminology: texts of the package, pages, recipes, tools and docs use standard terms."""

import ast
import io
import json
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Banned words, each with its replacement.
BANNED = {
    r"\bplaces?\b": "location, position, index or path",
    r"\b(?:the|an?|this|their|its|same|some|own) shares?\b|\bshares? of\b": "fraction",
    r"\bchances?\b": "probability",
    r"\bgreatest\b": "maximum or largest",
    r"\bwhole numbers?\b": "integer",
    r"\brivals?\b": "baseline",
    r"\bcontestants?\b": "candidate",
    r"\b(?:is|are|was|were|be) (?:asked|told)\b": "called or given",
    r"\btells? (?:of|the class|much|little|nothing|all)\b": "reveals or encodes",
    r"^What (?:every|all|each) .*\b(?:is|are|does|do|needs?|shares?)\.?$": "a noun phrase",
    r"\b(?:one|two|images?|rows?|names?|numbers?|lines?|files?|values?|seconds?|patches|passes)"
    r" an? (?:second|class|channel|image|row|file|epoch|line|thread|step|model|method)\b": "per",
    r"\b(?:seams?|guards?|lanes?)\b": "the field's word",
}

# Allowed uses, each with its reason.
ALLOWED = {
    r"in[- ]place": "PyTorch's term",
    r"in (?:the |their |its )?place of": "instead of",
    r"take[sn]? (?:the )?places? of|takes? place|took place": "idioms",
    r"(?:in|into|back in|out of|all) place\b": "an idiom",
    r"decimal places?": "of a number",
    r"placeholder": "another word",
    r"(?:by|at|than|to|above|below|near|is|of) chance\b(?! that)|chance level": "statistics",
}

ALLOWED_USES = re.compile("|".join(ALLOWED), re.IGNORECASE)


def find_banned(text):
    """Return the sentences of a text with banned words, each with a replacement."""
    problems = []
    for sentence in re.split(r"(?<=[.!?:;|])\s+", " ".join(text.split())):
        plain = ALLOWED_USES.sub("", re.sub(r"`[^`]*`", "", sentence))
        problems += [
            f"{sentence!r}: {replacement}"
            for word, replacement in BANNED.items()
            if re.search(word, plain)
        ]
    return problems


def prose(source):
    """Yield the strings and comments of Python source."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def without_code(markdown):
    """Return the prose of a page without code blocks, inline code, links and generated tables."""
    text = re.sub(r"^```.*?^```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!-- figures:.*?<!-- end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def without_marks(page):
    """Return a script or web page without the marks that would hide text from `find_banned`."""
    return re.sub(r"[`<>{}]", " ", page)


PACKAGE = ROOT / "src" / "foveal"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted([*(ROOT / "tools").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
MARKDOWN = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in MARKDOWN), *sorted((ROOT / "docs").rglob("*.md"))]
STATIC = PACKAGE / "deployment" / "serve" / "static"
REPORTS = PACKAGE / "evaluation" / "report"
WEB = sorted([*STATIC.glob("*.js"), *STATIC.glob("*.html"), *REPORTS.glob("*.html")])
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CARDS = sorted((PACKAGE / "zoo" / "weights").glob("*/card.json"))


def relative(path):
    return str(path.relative_to(ROOT))


def test_there_are_files_of_every_kind():
    assert all((SOURCES, SCRIPTS, PAGES, WEB, RECIPES, CARDS))


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=relative)
def test_the_source_uses_standard_terms(path):
    problems = [
        line for text in prose(path.read_text(encoding="utf-8")) for line in find_banned(text)
    ]
    assert problems == []


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_the_docs_use_standard_terms(path):
    assert find_banned(without_code(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", [*WEB, *RECIPES], ids=relative)
def test_web_pages_reports_and_recipes_use_standard_terms(path):
    assert find_banned(without_marks(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", CARDS, ids=relative)
def test_a_card_describes_its_model_in_standard_terms(path):
    card = json.loads(path.read_text(encoding="utf-8"))
    assert find_banned(card["recipe"].get("about", "")) == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_docstring_is_a_noun_phrase(path):
    words = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split()
    assert words, "a module needs a docstring"
    assert words[0] not in {"What", "How", "Where", "Whether", "That", "Return", "When", "Who"}


@pytest.mark.parametrize(
    "line",
    [
        "the share of the images",
        "one a class",
        "# the places where it looks",
        "What every model is",
        "<p>one of its places</p>",
        "`the place of ${name}`",
    ],
)
def test_a_banned_word_is_detected(line):
    assert find_banned(without_marks(line))


@pytest.mark.parametrize(
    "line",
    ["in place of a mask", "two maps share a scale", "better than chance", "closer to chance"],
)
def test_an_allowed_use_is_accepted(line):
    assert find_banned(line) == []
