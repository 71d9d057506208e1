"""A headless Chromium without network access, driven by selenium and Debian's chromedriver."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver import ActionChains, Chrome, ChromeOptions  # noqa: E402 - only if it is installed
from selenium.webdriver.chrome.service import Service  # noqa: E402 - likewise

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    # Resolve no host names, neither for the page nor for the browser itself.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def missing_reason() -> str:
    """Why no browser is available; empty if there is one."""
    if CHROMIUM.exists() and DRIVER.exists():
        return ""
    return f"{CHROMIUM} and {DRIVER} are not installed (apt-get install chromium chromium-driver)"


class Browser:
    """A browser window that collects its console messages and network requests."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, page: Path) -> None:
        self.drain_logs()
        self.driver.get(page.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script such as `return document.title`, and return its result."""
        return self.driver.execute_script(script, *arguments)

    def resize(self, width: int, height: int = 900) -> None:
        """Set the viewport's size in CSS pixels, which may be smaller than a real window."""
        self._send_command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def emulate_media(self, scheme: str = "light", media: str = "screen") -> None:
        """Emulate the preferred color scheme and the media type."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._send_command("Emulation.setEmulatedMedia", media=media, features=features)

    def set_scripts(self, *, allowed: bool) -> None:
        """Allow or forbid scripts in pages opened from now on."""
        self._send_command("Emulation.setScriptExecutionDisabled", value=not allowed)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Take a screenshot of the window, or of the whole page."""
        if whole:
            height = self.run("return document.documentElement.scrollHeight")
            self.resize(self.run("return innerWidth"), min(height, 8000))
        path.write_bytes(self.driver.get_screenshot_as_png())

    def drain_logs(self) -> tuple[list[str], list[str]]:
        """Console messages and requested URLs since the last call."""
        messages = [f"{one['level']}: {one['message']}" for one in self._log("browser")]
        events = [json.loads(one["message"])["message"] for one in self._log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return messages, urls

    def press(self, *keys: str) -> None:
        """Press keys one after the other on the focused element."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def _log(self, kind: str) -> list[Any]:
        return list(self.driver.execute("getLog", {"type": kind})["value"])

    def _send_command(self, command: str, **values: Any) -> None:
        self.driver.execute_cdp_cmd(command, values)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Open a browser that writes only to its profile directory."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    home = {"HOME": str(profile), "XDG_CONFIG_HOME": str(profile), "XDG_CACHE_HOME": str(profile)}
    driver = Chrome(options, Service(str(DRIVER), env={**os.environ, **home}))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
