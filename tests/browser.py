"""Pages opened in headless Chromium: what their consoles say, what they show. Tests skip where there is no Chromium."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")


@dataclass(frozen=True)
class Opened:
    """dom: the document after its scripts have run. console: every line that the page wrote or was told there."""

    dom: str
    console: list[str]


def opened(page: Path, profile: Path, *more: str) -> Opened:
    """Open a file with no network. profile: an empty directory for what the browser keeps."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    quiet = ["--no-first-run", "--disable-extensions", "--disable-background-networking", "--proxy-server=127.0.0.1:9"]
    done = subprocess.run(
        [CHROMIUM, *flags, *quiet, "--enable-logging=stderr", "--dump-dom", *more, page.absolute().as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Opened(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])
