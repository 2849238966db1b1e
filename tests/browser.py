"""Headless Chromium for the tests of pages."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL on the CPU
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
REASON = "no Chromium is installed (on Debian: apt-get install chromium), and the page is tested in a real browser"


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The system's Chromium with a fresh profile; skips the test where there is none, fails it
    where one is due."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        assert not os.environ.get("SPACELAYER_NEEDS_CHROMIUM"), REASON
        pytest.skip(REASON)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=SWITCHES)
        expect.set_options(timeout=60_000)  # a busy machine is no fault of the page
        try:
            yield browser
        finally:
            browser.close()


def until(page: Page, holds: Callable[[], bool], tries: int = 300) -> None:
    """Waits until the page shows something."""
    for _ in range(tries):
        if holds():
            return
        page.wait_for_timeout(200)
    raise AssertionError("the page never came to show it")


def watch(page: Page) -> list[str]:
    """Collects what goes wrong in a page: console errors, exceptions, requests that leave the
    machine."""
    troubles = []
    page.on(
        "console",
        lambda message: troubles.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: troubles.append(str(error)))
    local = ("file:", "data:", "blob:", "http://127.0.0.1", "ws://127.0.0.1")
    page.on(
        "request",
        lambda request: None if request.url.startswith(local) else troubles.append(request.url),
    )
    return troubles
