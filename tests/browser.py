"""What tests of pages share: a page that notes every request, and a server on this machine."""

import shutil
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

PHONE = {"width": 400, "height": 800}
SERIOUS = ("serious", "critical")


def executable() -> str:
    """Where a Chromium or Chrome is; '' for none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), "")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(folder):
    """The address under which a folder is served, as `python -m http.server` does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def opened(chromium, url, **settings):
    """A page at this address, which asks nobody else for anything and logs no error."""
    context = chromium.new_context(**settings)
    page = context.new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.goto(str(url))
    try:
        yield page
    finally:
        context.close()
    own = url.split("/results/")[0] if "/results/" in url else url.rsplit("/", 1)[0]
    strange = [url for url in asked if not url.startswith((own, "data:"))]
    assert not strange, strange
    assert not wrong, wrong


def violations(page) -> list[str]:
    """What axe-core finds on a page that is serious, a line each.

    It reads style sheets anew, which a page from disk may not: use `served`.
    """
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]
