"""The site in a real browser: from disk and from a server, wide and narrow, light and dark."""

import browser
import pytest
import toy_site

pytestmark = pytest.mark.browser
PAGES = ["index.html", "site/evidence.html", "site/07_overall_performance.html"]
PAGE = PAGES[2]
BACKGROUND, WHITE = "getComputedStyle(document.body).backgroundColor", "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk") / "results" / "toy"
    toy_site.publish(folder)
    return folder


@pytest.fixture(scope="module")
def server(results):
    with browser.served(results.parent.parent) as host:
        yield f"{host}/results/toy"


@pytest.fixture(params=["disk", "server"])
def address(request, results, server):
    """Where the results lie for a browser."""
    return f"file://{results}" if request.param == "disk" else server


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(chromium, server, name, scheme):
    with browser.opened(chromium, f"{server}/{name}", color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        for details in page.locator("details").all():
            details.evaluate("each => { each.open = true; }")
        assert browser.violations(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_hostile_titles_are_text_and_no_host_is_asked(chromium, address, name):
    with browser.opened(chromium, f"{address}/{name}") as page:
        page.wait_for_timeout(200)
        if name != "site/evidence.html":
            assert page.get_by_text("<script>alert(2)</script>").count()
        assert page.evaluate("document.scripts.length") == 1
        assert page.locator("[onerror], [href^=javascript]").count() == 0
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth)")


def test_search_finds_leads_there_and_goes_by_keyboard(chromium, address):
    with browser.opened(chromium, f"{address}/{PAGE}") as page:
        page.keyboard.press("/")
        page.keyboard.type("quetzalc word")
        page.wait_for_selector("#results a")
        assert page.locator("#results a").count() == 3
        assert page.locator("#results mark").first.inner_text() == "quetzalc"
        assert page.locator("#search-status").inner_text() == "3 found"
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        target = page.evaluate("document.activeElement.href")
        page.keyboard.press("Enter")
        page.wait_for_url(target)
        assert target.endswith("#claims-2") and page.locator("#claims-2").is_visible()
        page.locator("#search").fill("alert(2)")
        page.wait_for_selector("#results a")
        page.locator("#search").fill("nothing-like-it")
        page.get_by_text("Nothing found.").wait_for()
        page.keyboard.press("Escape")
        assert not page.locator("#results").is_visible()
        page.locator("#search").fill("worked example: hit")
        page.wait_for_selector("#results a")
        assert page.locator("#results a").first.get_attribute("href").endswith("#examples")


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_tables_and_figures_but_no_page(chromium, results, name):
    url = f"file://{results}/{name}"
    with browser.opened(chromium, url, viewport=browser.PHONE, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == browser.PHONE["width"]
        for image in page.locator("figure img").all():
            width = image.bounding_box()["width"]
            if name == "index.html":  # the whole figure at a glance, and a link to its true size
                assert width <= browser.PHONE["width"]
            else:
                assert width == float(image.get_attribute("width"))


@pytest.mark.parametrize("width", [360, 400, 900, 1300, 1600])
def test_no_data_set_of_the_front_page_is_out_of_sight(chromium, results, width):
    with browser.opened(
        chromium, f"file://{results}/index.html", viewport={"width": width, "height": 800}
    ) as page:
        for table in page.locator("table.by-name").all():
            hidden = table.evaluate(
                "each => each.parentNode.scrollWidth - each.parentNode.clientWidth"
            )
            assert hidden <= 0
        narrow = width < 640
        named = "getComputedStyle(document.querySelector('.grid td'), '::before').content"
        assert page.evaluate(named) == ('"films"' if narrow else "none")


def test_tables_of_a_page_take_the_free_width_and_text_columns_have_room(chromium, results):
    for width, prose in ((1700, 900), (400, 400)):
        viewport = {"width": width, "height": 800}
        with browser.opened(chromium, f"file://{results}/{PAGE}", viewport=viewport) as page:
            main = page.locator("main").bounding_box()["width"]
            box = page.locator("#long .scroll").first.bounding_box()
            assert box["width"] == main > width / 1.5
            assert page.locator("#worked p").bounding_box()["width"] < prose
            cell = page.locator("#long td.long").first
            assert cell.bounding_box()["width"] > 200
            assert cell.evaluate("each => getComputedStyle(each).textAlign") == "left"


def test_text_of_figures_is_ten_pixels_high_at_their_true_size():
    import matplotlib.pyplot as plt

    from bigrec_lib.findings import pages, plots

    plots.style()
    assert plt.rcParams["figure.dpi"] == pages.DPI and pages.INCH == 96
    names = ("xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize", "font.size")
    assert min(plt.rcParams[name] for name in names) * pages.INCH / 72 >= 10


def test_the_theme_is_the_systems_until_it_is_chosen_and_then_kept(chromium, address):
    with browser.opened(chromium, f"{address}/index.html", color_scheme="dark") as page:
        dark = page.evaluate(BACKGROUND)
        page.get_by_role("button", name="Light").click()
        assert page.evaluate(BACKGROUND) == WHITE != dark
        page.locator('.contents a[href^="site/07"]').click()
        page.wait_for_url("**/site/07*")
        assert page.evaluate(BACKGROUND) == WHITE


def test_previous_and_next_go_through_all_pages(chromium, address):
    with browser.opened(chromium, f"{address}/site/{toy_site.JOBS[0]}.html") as page:
        for job in toy_site.JOBS[1:]:
            page.locator("a[rel=next]").click()
            assert page.url.endswith(f"/site/{job}.html")
        for _ in toy_site.JOBS:
            page.locator("a[rel=prev]").click()
        assert page.url.endswith("/index.html")


def test_everything_is_reached_by_keyboard(chromium, results):
    with browser.opened(chromium, f"file://{results}/{PAGE}") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        reached = set()
        for _ in range(80):
            page.keyboard.press("Tab")
            reached.add(page.evaluate(
                "document.activeElement.className || document.activeElement.rel"
            ))  # fmt: skip
        assert {"anchor", "scroll", "output", "prev"} <= reached


def test_print_shows_the_content_alone_on_white(chromium, results):
    with browser.opened(chromium, f"file://{results}/{PAGE}", color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate(BACKGROUND) == WHITE
        for hidden in ("aside", ".search", ".steps", ".theme", ".anchor"):
            assert not page.locator(hidden).first.is_visible(), hidden
        assert page.locator("table").first.is_visible() and page.locator("h1").is_visible()
        assert page.pdf()[:5] == b"%PDF-"


def test_without_scripts_a_page_says_the_same(chromium, results):
    url = f"file://{results}/{PAGE}"
    with browser.opened(chromium, url, java_script_enabled=False, color_scheme="dark") as page:
        assert page.locator("h1").is_visible() and not page.locator(".search").is_visible()
        page.locator(".toc a").first.click()
        assert page.url.endswith("#claims-2")
