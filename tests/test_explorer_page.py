"""The explorer in a browser: its values are the study's, titles stay text, anyone can use it."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from toy_explorer import GAMMAS, HOSTILE, K, N, publish, value

from bigrec_lib.method import metrics, reweighting
from bigrec_lib.study import explorer

pytestmark = pytest.mark.browser
WIDTHS = {"phone": 400, "desktop": 1280}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of a toy study with its explorer, and its worlds."""
    folder = tmp_path_factory.mktemp("my results") / "toy"
    worlds = publish(folder)
    explorer.write(folder)
    return folder, worlds


@pytest.fixture
def opened(chromium, site):
    """Opens the explorer; notes what it asks for and complains of, and fails if it complains."""
    contexts, noted = [], {"requests": [], "errors": []}

    def open_page(hash="", address="", width=1280, scheme="light"):
        size = {"width": width, "height": 900}
        contexts.append(chromium.new_context(viewport=size, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("request", lambda request: noted["requests"].append(request.url))
        page.on("pageerror", lambda error: noted["errors"].append(str(error)))
        page.on("console", lambda said: noted["errors"].append(said.text))
        page.on("dialog", lambda dialog: noted["errors"].append(dialog.message))
        page.goto((address or (site[0] / "explorer.html").as_uri()) + hash)
        page.noted = noted
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert noted["errors"] == []


def at(data="films", **more):
    return "#" + "&".join(f"{name}={quote(str(value))}" for name, value in
                          ({"data": data} | more).items())  # fmt: skip


def cells(page, selector):
    rows = page.locator(selector).all()
    return [[cell.inner_text() for cell in row.locator("td, th").all()] for row in rows]


@pytest.mark.parametrize("name", ["films", "<i>games</i>"])
def test_every_list_rank_and_metric_is_pythons_at_every_gamma(opened, site, name):
    world = site[1][name]
    page = opened(at(name))
    assert page.evaluate("data().name") == name
    found = page.evaluate(
        """() => Object.fromEntries(kindsOfWeights().map((weights) => {
             state.weights = weights;
             const all = data().examples.map((_, i) => i);
             return [weights, STUDY.gammas.map((_, step) => ({
               lists: all.map((i) => firstAt(i, step).map((each) => data().titles[each.title])),
               keys: all.map((i) => firstAt(i, step).map((each) => each.key ?? null)),
               places: all.map((i) => Object.values(atGamma(i, step))),
               metrics: Object.values(metricsAt(step, all)).map((each) => each.toFixed(6)),
             }))];
           }))"""
    )
    assert set(found) == set(world.weights)
    for weights, steps in found.items():
        pull = world.weights[weights]
        for gamma, step in zip(GAMMAS, steps, strict=True):
            wanted = world.list_at(weights, gamma)
            assert step["lists"] == [[world.titles[i] for i in row] for row in wanted]
            places = world.places(weights, gamma)
            assert step["places"] == places[["rank", "ties"]].to_numpy().tolist()
            said = [f"{value(places, metric):.6f}" for metric in ("HR", "NDCG")]
            assert step["metrics"] == said
        assert np.array(steps[7]["keys"], float).shape == (N, K)
        logs = reweighting.log_distances(
            np.linalg.norm(world.queries[:, None] - world.vectors, axis=2).astype(np.float64)
        )
        close = reweighting.reweighted(logs, pull, GAMMAS[150])
        keys = np.take_along_axis(close, world.list_at(weights, GAMMAS[150]), 1)
        assert np.allclose(np.array(steps[150]["keys"], float), keys, atol=1e-4)


def test_what_is_on_the_page_is_what_the_study_has(opened, site):
    world, row = site[1]["films"], 3
    shown = {"example": world.numbers[row], "method": "bigrec+popularity-all"}
    page = opened(at(**shown))
    assert page.locator("#gamma-value").inner_text() == "3"
    distances = np.sqrt(((world.queries[row] - world.vectors).astype(np.float64) ** 2).sum(1))
    hat = reweighting.minmax(distances)
    pull = world.weights["popularity-all"].astype(np.float64)
    first = world.list_at("popularity-all", 3.0)[row]
    table = cells(page, "#titles tr")
    assert [line[0] for line in table] == [str(place + 1) for place in range(K)]
    for line, candidate in zip(table, first, strict=True):
        assert line[1].startswith(world.titles[candidate][:20])
        pulled = hat[candidate] * (1 + pull[candidate]) ** -3.0
        for text, number in zip(line[2:6], (distances, hat, pull, None), strict=True):
            exact = pulled if number is None else number[candidate]
            assert float(text) == pytest.approx(exact, abs=5.1e-5)
    places = world.places("popularity-all", 3.0)
    said = f"{places['rank'][row]:,} title"
    assert page.locator("#place").inner_text().startswith(said)
    now, _ = cells(page, "#metrics tr")
    said = [f"{value(places, metric):.4f}" for metric in ("HR", "NDCG")]
    assert now == ["γ = 3, chosen on validation", *said]
    by_label = {line[0]: line[1] for line in cells(page, "#ranks tr")}
    for method, (ranks, _) in world.methods().items():
        label = {"bigrec": "BIGRec", "markov": "Markov <b>chain</b>", "random": "Random, one draw"}
        wanted = f"{ranks['rank'][row]:,}" + (f" + {ranks.ties[row]}" if ranks.ties[row] else "")
        assert by_label[label.get(method, method)].removesuffix(" tied") == wanted
    beams = cells(page, "#beams tr")
    assert [line[2] for line in beams] == [f"{-0.5 - 0.123456 * beam:.4f}" for beam in range(4)]
    page.locator("#prompt-shown").click()
    assert page.locator("#prompt").evaluate("node => node.textContent") == world.prompt(row)


def test_gamma_moves_by_keyboard_and_the_address_keeps_it(opened, site):
    world = site[1]["films"]
    page = opened(at(example=world.numbers[0], method="bigrec"))
    page.locator("#weights").select_option("collaborative")
    page.locator("#gamma").focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert page.locator("#gamma-value").inner_text() == "0.07"
    page.keyboard.press("End")
    assert page.locator("#gamma-value").inner_text() == "99"
    assert page.locator("#gamma").get_attribute("aria-valuetext") == "γ = 99"
    titles = page.locator("#titles bdi").all_inner_texts()
    wanted = [world.titles[i] for i in world.list_at("collaborative", 99.0)[0]]
    assert [title.split() for title in titles] == [title.split() for title in wanted]
    assert "gamma=99" in page.url and "weights=collaborative" in page.url
    again = opened("#" + page.url.partition("#")[2])
    assert again.locator("#titles bdi").all_inner_texts() == titles
    page.locator("#chosen").click()
    assert page.locator("#gamma-value").inner_text() == "22"
    page.locator("#zero").click()
    assert page.locator("#gamma-value").inner_text() == "0"


def test_the_other_seed_and_other_methods_show_their_published_lists(opened, site):
    world = site[1]["films"]
    page = opened(at(example=world.numbers[2], method="markov"))
    assert page.locator("#live").is_hidden()
    titles = page.locator("#titles bdi").all_inner_texts()
    lists = world.methods()["markov"][1]
    assert [t.split() for t in titles] == [world.titles[i].split() for i in lists[2]]
    page.locator("#seed").select_option("1")
    titles = page.locator("#titles bdi").all_inner_texts()
    assert [t.split() for t in titles] == [world.titles[i].split() for i in lists[N - 3]]
    page.locator("#method").select_option("bigrec")
    assert page.locator("#live").is_hidden()
    assert "for seed 0" in page.locator("#place").inner_text()
    page.locator("#method").select_option("random")
    assert "not part of this page" in page.locator("#titles").inner_text()


def test_buttons_and_filters_show_what_they_say(opened, site):
    world = site[1]["films"]
    page = opened(at(method="bigrec"))
    rank = metrics.effective_rank(world.methods()["bigrec"][0])
    number = "Number(new URLSearchParams(location.hash.slice(1)).get('example'))"
    for _ in range(6):
        for button, hit in {"#hit": True, "#miss": False}.items():
            page.locator(button).click()
            row = world.numbers.tolist().index(page.evaluate(number))
            assert (rank[row] < K) == hit
    page.locator("#collapse").click()
    row = world.numbers.tolist().index(page.evaluate(number))
    assert row < 10 and world.texts[row][0] == "Title, the (1990)"
    assert "for 10 of the 24" in page.locator("#often").inner_text()
    page.locator("#outcome").select_option("hit")
    assert page.locator("#status").inner_text().startswith(f"{(rank < K).sum()} of {N}")
    hits = pd.DataFrame({"rank": rank[rank < K], "ties": 0.0})
    zero, chosen = cells(page, "#metrics tr")
    assert chosen[0].endswith(", chosen on validation")
    assert zero == ["γ = 0", "1.0000", f"{value(hits, 'NDCG'):.4f}"]
    page.locator("#miss").click()
    assert page.locator("#outcome").input_value() == ""
    assert "The filter by outcome was taken off." in page.locator("#status").inner_text()
    page.locator("#hit").click()
    assert "taken off" not in page.locator("#status").inner_text()
    page.locator("#cold").select_option("cold")
    cold = world.of_titles[world.targets] == 0
    assert page.locator("#status").inner_text().startswith(f"{cold.sum()} of {N}")
    page.locator("#cold").select_option("")
    page.locator("#popularity").select_option("4")
    few = int(page.locator("#status").inner_text().split()[0])
    assert 0 < few < N
    page.locator("#continuity").select_option("none")
    page.locator("#outcome").select_option("hit")
    page.locator("#popularity").select_option("0")
    assert page.locator("#next").is_disabled() == (
        int((page.locator("#status").inner_text().split() + ["0"])[0].replace("No", "0")) < 2
    )


def test_words_are_found_in_history_truth_and_what_was_written(opened, site):
    world = site[1]["films"]
    page = opened(at(method="bigrec"))
    for sought in ("THE title", "1990", "nowhere"):
        page.locator("#sought").fill(sought)
        read = [[*world.history[row], world.targets[row]] for row in range(N)]
        of = [[*(world.titles[each] for each in read[row]), *world.texts[row]] for row in range(N)]
        every = ["\n".join(texts).lower() for texts in of]
        found = sum(all(word in text for word in sought.lower().split()) for text in every)
        shown = page.locator("#status").inner_text()
        assert shown.startswith(f"{found} of {N}" if found else "No example matches")


@pytest.mark.parametrize("row", range(len(HOSTILE)))
def test_markup_and_scripts_of_any_direction_in_titles_are_text(opened, site, row):
    world = site[1]["films"]
    page = opened(at(example=world.numbers[row], method="bigrec"))
    text = "node => node.textContent"
    assert page.locator("#truth").evaluate(text) == HOSTILE[row]
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script, main a, main b, svg svg").count() == 0
    first = page.locator("#beams bdi").first
    if row >= 10:
        assert first.evaluate(text) == f'"{world.titles[row - 10]}"'
    assert "Markov <b>chain</b>" in page.locator("#method option").all_inner_texts()


def test_right_to_left_titles_run_from_the_right_and_leave_their_line_as_it_is(opened, site):
    world = site[1]["films"]
    page = opened(at(example=world.numbers[8], method="bigrec"))
    truth = page.locator("#truth")
    assert truth.evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert truth.evaluate("node => getComputedStyle(node).unicodeBidi") == "isolate"
    then, title = (page.locator(x).bounding_box() for x in ("#then", "#truth"))
    assert then["x"] < title["x"]


def test_it_asks_for_its_two_files_and_no_other(opened, site):
    page = opened()
    assert page.locator("#titles tr").count() == K
    folder = site[0].as_uri()
    assert page.noted["requests"] == [f"{folder}/explorer.html", f"{folder}/explorer-data.js"]
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    said = " ".join(page.noted["errors"])
    assert "Content Security Policy" in said
    page.noted["errors"].clear()


def test_it_works_from_a_static_server(opened, site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            if self.path == "/favicon.ico":
                self.send_response(204)
                return self.end_headers()
            return super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site[0]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/explorer.html"
    try:
        page = opened(address=address)
        assert page.locator("#titles tr").count() == K
        assert all(url.startswith(address.removesuffix("explorer.html"))
                   for url in page.noted["requests"])  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_anyone_can_use_it(opened, site, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    world = site[1]["films"]
    for method in ("bigrec+popularity", "markov"):
        shown = at(example=world.numbers[13], method=method)
        page = opened(shown, width=width, scheme=scheme)
        page.locator("#prompt-shown").click()
        found = Axe().run(page).response["violations"]
        bad = [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found]
        assert [each for each in bad if each[1] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").count() == page.locator("main").count() == 1
        unlabelled = "[...document.querySelectorAll('select, input')].filter(n => !n.labels.length)"
        assert page.evaluate(f"{unlabelled}.length") == 0


def test_it_leads_back_and_shares_its_theme_with_the_site(opened):
    page = opened(at(method="bigrec"))
    links = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert links == ["index.html", "site/evidence.html", "index.html#notebooks"]
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.locator("#theme").click()
    assert page.evaluate(colour) != before
    assert page.evaluate("localStorage.getItem('theme')") == "dark"
    page.reload()
    assert page.evaluate(colour) != before and page.locator("#theme").inner_text() == "Light"
    names = page.locator("#list-head th").all_inner_texts()
    assert {"D̂, scaled", "D̃, adjusted"} <= set(names)


def test_every_control_is_reached_by_the_keyboard_in_the_order_of_the_page(opened):
    page = opened(at(method="bigrec"))
    wanted = page.evaluate(
        """[...document.querySelectorAll("select, button, input, summary")]
           .filter((node) => !node.disabled && node.offsetParent).map((node) => node.id)"""
    )
    reached = []
    for _ in range(len(wanted) + 8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert [each for each in reached if each in wanted][: len(wanted)] == wanted
    assert {"gamma", "dataset", "example", "hit", "chosen"} <= set(wanted)
