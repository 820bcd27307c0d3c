"""A real Chromium without a window, and the server's page in it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

# No other network than the test's own, and nothing that needs a screen or a desktop.
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --no-proxy-server --window-size=1280,1000"
).split()


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is missing: scripts/setup.sh test"
    return path


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser with a profile of its own."""
    options = ChromeOptions()
    options.binary_location = _program("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="nomad-build-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = Service(_program("chromedriver"), env=os.environ | {"HOME": profile})
        driver = Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


class Page:
    """A tab of its own, with nothing stored."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        self.address = address
        old = driver.current_window_handle
        driver.switch_to.new_window("tab")
        self.tab = driver.current_window_handle
        driver.switch_to.window(old)
        driver.close()
        driver.switch_to.window(self.tab)
        driver.get_log("browser")

    def open(self, fragment: str = "") -> None:
        """Goes to a place of the page; the document is loaded when it is not there yet."""
        self.driver.get(f"{self.address}/{fragment}")

    def sign_in(self, token: str, fragment: str = "") -> None:
        """Opens the page and gives it the token by keyboard."""
        self.open(fragment)
        field = self.seen("#token")
        field.send_keys(token)
        field.submit()
        self.until(lambda: not self.shown("#sign-in"), "the token is taken")

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def next_frame(self) -> None:
        """Returns when the page has been drawn anew, after what it was about to do."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def until(self, probe: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Waits until the probe gives something true, and returns that."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := probe():
                    return found
            except (NoSuchElementException, StaleElementReferenceException):
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}\n{self.text('body')}\n{self.console()}")
            time.sleep(0.05)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def seen(self, selector: str) -> WebElement:
        """The element, once it can be seen."""
        return self.until(lambda: self.shown(selector) and self.one(selector), f"{selector} is seen")

    def shown(self, selector: str) -> bool:
        return any(element.is_displayed() for element in self.all(selector))

    def text(self, selector: str) -> str:
        """What can be read there."""
        return "\n".join(element.text for element in self.all(selector))

    def reads(self, selector: str, *words: str, seconds: float = 60) -> str:
        """Waits until all the words can be read there; the text."""
        self.until(lambda: all(word in self.text(selector) for word in words), f"{words} in {selector}", seconds)
        return self.text(selector)

    def press(self, *keys: str) -> None:
        """Keys, to whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def press_back(self) -> None:
        """Shift and Tab."""
        ActionChains(self.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()

    @property
    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def tab_to(self, wanted: Callable[[WebElement], bool], what: str, back: bool = False) -> WebElement:
        """Presses Tab until the focus is there; it must be visible at every stop."""
        for _ in range(60):
            self.press_back() if back else self.press(Keys.TAB)
            outline = self.run("return getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"no visible focus on {self.focused.get_attribute('outerHTML')}"
            if wanted(self.focused):
                return self.focused
        raise AssertionError(f"the keyboard does not reach {what}")

    def console(self) -> list[str]:
        """What the browser complained about since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def before_loading(self, script: str) -> None:
        """A script that runs in this tab before those of a page."""
        self.cdp("Page.addScriptToEvaluateOnNewDocument", source=script)

    def cdp(self, command: str, **arguments: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, arguments)
