"""Chromium for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]


def require_chromium() -> None:
    """Skip a module if Chromium is not installed; in CI it must be."""
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip(
            "the page is NOT tested: apt-get install chromium",
            allow_module_level=True,
        )


@contextmanager
def launch_chromium() -> Iterator[Any]:
    """Start Chromium, and close it at the end."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "CI requires Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
