"""A real browser for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]


def need_chromium() -> None:
    """Skip a module where there is no Chromium; CI must have it."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip(
            "the page is NOT tested: there is no Chromium. Get it: apt-get install chromium",
            allow_module_level=True,
        )


@contextmanager
def launched() -> Iterator[Any]:
    """Start Chromium and end it."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "CI needs Chromium: apt-get install chromium"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
