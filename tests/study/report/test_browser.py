"""The page in a browser, where one is installed: no complaints, nothing wider than the screen."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from study.report.examples import full
from study.report.test_pages import hostile
from w8a16.study.report import report_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# A frame is as wide as asked, where a window has a least width; it reports when it has been laid out.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><body><iframe id="page" srcdoc="{page}"
 style="width: {width}px; height: 900px; border: 0"></iframe><p id="found">nothing</p><script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const inner = frame.contentDocument;
  const wide = [...inner.querySelectorAll("body *")].filter((element) =>
    element.getBoundingClientRect().right > {width} + 0.5 && !element.closest(".scroll, svg"));
  document.getElementById("found").textContent =
    `width ${{inner.documentElement.scrollWidth}} beyond ${{wide.length}} dark ` +
    getComputedStyle(inner.body).backgroundColor;
}};
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


def browse(page: Path, profile: Path, *more: str) -> subprocess.CompletedProcess[str]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--no-first-run", f"--user-data-dir={profile}", "--enable-logging=stderr", *more]
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("width", [320, 360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["full", "long", "hostile"])
def test_nothing_is_wider_than_the_screen(kind: str, scheme: str, width: int, tmp_path: Path) -> None:
    report = {"full": full, "long": lambda: full(500), "hostile": hostile}[kind]()
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(page=html.escape(report_html(report)), width=width), encoding="utf-8")
    scheme_flag = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    result = browse(frame, tmp_path / "profile", scheme_flag)
    found = re.search(r'id="found">width (\d+) beyond (\d+) dark rgb\((\d+)', result.stdout)
    assert found, result.stdout[-500:] + result.stderr[-2000:]
    assert int(found[1]) <= width
    assert int(found[2]) == 0
    assert (int(found[3]) < 64) == (scheme == "dark")


def test_the_console_stays_empty(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_html(full()), encoding="utf-8")
    complaints = [
        line for line in browse(page, tmp_path / "profile").stderr.splitlines() if "CONSOLE" in line
    ]
    assert complaints == []


def test_the_console_check_sees_complaints(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    text = report_html(full()).replace("</body>", '<img src="https://example.invalid/x.png"></body>')
    page.write_text(text, encoding="utf-8")
    assert "Content Security Policy" in browse(page, tmp_path / "profile").stderr
