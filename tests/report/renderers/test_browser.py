"""The page in a real browser: it says nothing on the console, asks for nothing, and fits a laptop and a phone."""

import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from run_extras import write_attack, write_costs, write_kernels, write_weights

from campfire.report import render
from campfire.report.records.compare import load

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--log-level=0",
]
MEASURE = """<!doctype html><title>probe</title><iframe src="report.html" style="border:0;width:WIDTHpx;height:800px"></iframe>
<script>onload = () => { const page = frames[0].document, all = [...page.querySelectorAll("body *")];
const out = all.filter(x => !x.closest(".scroll, svg") && x.getBoundingClientRect().right > WIDTH + 1);
document.title = JSON.stringify({wide: page.documentElement.scrollWidth, out: out.map(x => x.outerHTML.slice(0, 80)),
asked: frames[0].performance.getEntriesByType("resource").map(x => x.name)}); }</script>"""
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium is installed")


@pytest.fixture
def page(runs, tmp_path) -> Path:
    """A report with every section, in a folder of its own."""
    for run in runs:
        write_costs(run)
        write_kernels(run)
        write_attack(run)
        write_weights(run, 0.5)
    path = tmp_path / "site" / "report.html"
    path.parent.mkdir()
    path.write_text(render(load(runs), "html"), encoding="utf-8")
    return path


def browse(url: str, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *flags, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)


def served(folder: Path) -> tuple[http.server.ThreadingHTTPServer, list[str]]:
    """A server of that folder, and the paths that it is asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, format, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked


def test_from_disk_it_is_silent_and_drawn(page, tmp_path):
    picture = tmp_path / "page.png"
    done = browse(page.as_uri(), tmp_path / "profile", "--window-size=1280,900", f"--screenshot={picture}")
    assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 20_000


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_fetched_and_nothing_sticks_out(page, tmp_path, width):
    (page.parent / "probe.html").write_text(MEASURE.replace("WIDTH", str(width)))
    server, asked = served(page.parent)
    try:
        url = f"http://127.0.0.1:{server.server_port}/probe.html"
        done = browse(url, tmp_path / "profile", "--dump-dom", f"--window-size={width + 200},900")
    finally:
        server.shutdown()
        server.server_close()
    found = json.loads(done.stdout.partition("<title>")[2].partition("</title>")[0].replace("&quot;", '"'))
    assert found == {"wide": width, "out": [], "asked": []}
    assert set(asked) <= {"/probe.html", "/report.html", "/favicon.ico"}
