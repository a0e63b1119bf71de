"""The reader's site: what its pages say, and that they are safe, whole and the same each time."""

import json
import math
import re
import shutil
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
import toy_results
import toy_site
from bs4 import BeautifulSoup

from bigrec_lib.files import StudyError
from bigrec_lib.findings import claims, front, pages, questions, rules, site, summary, worked
from bigrec_lib.findings.significance import Mean
from bigrec_lib.method import metrics
from bigrec_lib.study.parameters import NOTEBOOKS


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "results" / "toy"
    toy_site.publish(folder)
    return folder


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def html_pages(results):
    return [results / "index.html", *sorted((results / "site").glob("*.html"))]


# ----------------------------------------------------------------------------- the whole site


def test_every_file_is_told_of_and_a_second_site_is_the_same(results, tmp_path):
    again = tmp_path / "results" / "toy"
    written = toy_site.publish(again)
    assert sorted(path.relative_to(again) for path in written) == sorted(
        path.relative_to(results)
        for path in [*results.glob("*.html"), *results.glob("*.md"), *results.rglob("site/**/*")]
        if path.is_file()
    )
    for path in written:
        assert path.read_bytes() == (results / path.relative_to(again)).read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_every_link_within_the_site_leads_somewhere(results):
    for path in html_pages(results):
        page = soup(path)
        for tag in page.find_all(["a", "img", "link", "script"]):
            link = tag.get("href") or tag.get("src")
            if link.startswith(("https://", "data:")):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / unquote(name)).resolve() if name else path
            if target.name != "manifests.json":
                assert target.exists(), f"{path.name}: {link}"
            if anchor:
                assert soup(target).find(id=anchor), f"{path.name}: {link}"


def test_every_page_is_built_for_all_readers(results):
    for path in html_pages(results):
        page = soup(path)
        assert len(page.find_all("h1")) == len(page.find_all("main")) == 1
        ids = [tag["id"] for tag in page.find_all(id=True)]
        assert len(ids) == len(set(ids))
        levels = [int(tag.name[1]) for tag in page.main.find_all(re.compile("h[1-6]"))]
        assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), path.name
        assert all(table.find("caption").get_text() for table in page.find_all("table"))
        assert all(tag["scope"] in ("row", "col") for tag in page.find_all("th"))
        assert all(tag.get("alt") for tag in page.find_all("img"))
        assert path.stat().st_size < 1_500_000


def test_a_page_shows_a_notebook(results):
    page = soup(results / "site" / "07_overall_performance.html")
    assert page.h1.get_text() == f"Question 2 of {toy_site.HOSTILE}?"
    assert "50%|" not in page.get_text() and "secret_name" in page.details.get_text()
    assert [a["href"] for a in page.select(".toc a")] == ["#claims-2", "#claims-3", "#exercise-2"]
    assert page.find(id="claims")["class"] == ["cell", "code"]
    figure = page.find("figure")
    assert figure.img["alt"] == "Two lines, from 0.1 to 0.4"
    assert figure.img["width"] == str(round(660 * 96 / 110))
    said = "Left: what is seen."
    assert figure.figcaption.get_text().endswith(said) and page.get_text().count(said) == 1
    assert page.get_text().count("games") and str(page).count('rowspan="2"') == 2
    assert "<style" not in str(page)


def test_a_solution_is_folded_and_its_markup_is_not_printed(results):
    cell = soup(results / "site" / f"{toy_site.JOBS[1]}.html").find(id="exercise")
    (folded,) = cell.find_all("details")
    assert folded.summary.get_text() == "A solution <script>alert(4)</script>"
    assert folded.pre.get_text().strip() == 'print("<details>")'
    assert folded.a["href"] == "https://example.org" and "After." not in folded.get_text()
    assert "After." in cell.get_text() and "</details>" not in cell.get_text()


def test_the_rule_is_folded_but_for_what_it_says_of_the_own_claims(results):
    for job, own in ((toy_site.JOBS[1], []), ("07_overall_performance", ["C1"])):
        cell = soup(results / "site" / f"{job}.html").find(id="rule")
        (folded,) = cell.find_all("details", class_=lambda name: name != "code")
        folded.extract()
        assert [line.get_text()[:2] for line in cell.find_all("li")] == own
        names = {line.get_text().partition(":")[0] for line in folded.find_all("li")}
        assert names >= set(questions.QUESTIONS)
    text = (results / "site" / "search.js").read_text(encoding="utf-8")
    assert "Its rule was fixed" not in text


def test_a_cut_table_leads_to_its_file_and_is_told_from_the_next(results):
    cell = soup(results / "site" / "07_overall_performance.html").find(id="long")
    said = [caption.get_text() for caption in cell.find_all("caption")]
    rest = " The first 3 of 9 rows: all of them are in tables/long.csv. Means."
    assert [re.sub(r"Table \d+\. ", "", text) for text in said] == [
        f"Exercise.{rest}", f"Exercise (2).{rest}"
    ]  # fmt: skip
    assert {a["href"] for a in cell.select("caption a")} == {"../tables/long.csv"}
    assert {td["class"][-1] for td in cell.select("tbody tr :first-child")} == {"long"}
    assert not [td for td in cell.select("td:last-child, th:last-child") if td.get("class")]


def test_the_name_of_a_file_that_is_not_there_is_no_link(results, tmp_path):
    body = BeautifulSoup("<code>tables/gone.csv</code><code>../x.csv</code>", "html.parser")
    for code in body.find_all("code"):
        pages.lead_to_table(body, code, results)
    assert body.find("a") is None


def test_long_names_of_columns_may_break_and_stay_what_they_are():
    body = BeautifulSoup("<table><tr><th>a_b_c</th><th>x</th></tr></table>", "html.parser")
    for header in body.find_all("th"):
        pages.allow_breaks(body, header)
    first, second = body.find_all("th")
    assert str(first) == "<th>a_<wbr/>b_<wbr/>c</th>" and str(second) == "<th>x</th>"


def test_a_title_that_the_user_had_is_marked(results):
    for card in soup(results / "index.html").select(".example"):
        had = {item.get_text() for item in card.select(".history li")}
        for item in card.select("dd > ol:not(.history) > li"):
            mark = item.find(class_="seen")
            title = item.get_text().removesuffix(" in the history") if mark else item.get_text()
            assert (title in had) == bool(mark)
    page = soup(results / "index.html").get_text()
    assert "a hit, for the truth is among the first 20" in page


def test_links_of_a_notebook_lead_to_pages_or_are_text(results):
    wanted = {"out": "https://example.org", "to": "07_overall_performance.html"}
    same_run = {"on": "films.n128-s0.03_generate_titles.html#claims"}
    for job in toy_site.JOBS:
        prose = soup(results / "site" / f"{job}.html").find(id="q")
        links = {a.get_text(): a["href"] for a in prose.find_all("a")}
        assert links == wanted | (same_run if job.startswith("films.n128-s0.") else {})
        assert "no, none and code" in prose.get_text()


def test_pages_follow_each_other_in_reading_order(results):
    names = [*toy_site.JOBS]
    for before, job, after in zip([None, *names], names, [*names[1:], None], strict=False):
        page = soup(results / "site" / f"{job}.html")
        to = {rel: page.find("a", rel=rel) for rel in ("prev", "next")}
        assert to["prev"]["href"] == (f"../site/{before}.html" if before else "../index.html")
        assert (to["next"] and to["next"]["href"]) == (after and f"../site/{after}.html")
    order = ["b.01_prepare_data", "a.n8-s0.02_tune_llm", "12_llm_size", "a.01_prepare_data",
             "a+b.n8-s0.02_tune_llm", "07_overall_performance"]  # fmt: skip
    assert sorted(order, key=site.reading_order) == [order[i] for i in (3, 1, 0, 4, 5, 2)]


def test_the_search_knows_prose_outputs_verdicts_and_examples(results):
    text = (results / "site" / "search.js").read_text(encoding="utf-8")
    entries = json.loads(text.removeprefix("window.searchEntries = ").rstrip(";\n"))
    assert all(set(entry) == {"page", "title", "text", "href"} for entry in entries)
    found = {e["href"]: e["text"] for e in entries if "quetzalcoatl" in e["text"]}
    assert len(found) == 3 and all(href.endswith("#claims-2") for href in found)
    assert not any("secret_name" in entry["text"] for entry in entries)
    assert sum(entry["title"].startswith("C1 on films") for entry in entries) == 4
    assert {e["title"] for e in entries} >= {f"Worked example: {k}" for k in ("hit", "near miss")}


def test_the_readme_beside_it_shows_titles_as_text(results):
    from nbconvert.filters import markdown2html

    text = (results / "README.md").read_text(encoding="utf-8")
    page = BeautifulSoup(markdown2html(text), "html.parser")
    assert [image["src"] for image in page.find_all("img")] == ["figures/overall.png"]
    assert page.find("script") is None
    links = {unquote(a["href"]) for a in page.find_all("a")}
    links = {link for link in links if not link.startswith(("#", "http://evil.test"))}  # autolinks
    assert links == {"claims.csv", *(f"notebooks/{job}.ipynb" for job in toy_site.JOBS)}
    rows = [[cell.get_text() for cell in row.find_all(["td", "th"])] for row in page.find_all("tr")]
    (history,) = (row for row in rows if row[0] == "history")
    assert len(history) == 3 and toy_site.ALSO in history[1]


# --------------------------------------------------------------------------- the findings page


def row(verdict, n=1, **changes):
    empty = {name: "" for name in front.Row.__dataclass_fields__} | {"standing": 0.0}
    return front.Row(
        **empty | {"number": n, "claim": "C1", "dataset": "a", "verdict": verdict} | changes
    )


def test_a_cell_is_the_worst_row_that_could_be_judged():
    s, c, o, m = rules.SUPPORTED, rules.CONTRADICTED, rules.OPEN, rules.MISSING
    for verdicts, worst, missing in (
        ([m, s, s], 2, 1), ([s, o, o], 2, 0), ([o, s, c], 3, 0), ([m, m], 1, 2), ([m, o], 2, 1),
    ):  # fmt: skip
        better = 0 if verdicts[worst - 1] == s else verdicts.count(s)
        cell = front.cell([row(v, n) for n, v in enumerate(verdicts, 1)], "C1", "a")
        assert (cell.row.number, cell.rows, cell.missing) == (worst, len(verdicts), missing)
        assert cell.better == better and cell.worse == 0
    assert front.cell([row(s)], "C2", "a") is front.cell([row(s)], "C1", "b") is None


def test_of_a_claim_that_something_exists_the_cell_is_the_best_row():
    s, c, o, m = rules.SUPPORTED, rules.CONTRADICTED, rules.OPEN, rules.MISSING
    assert all("Some" in questions.QUESTIONS[name] for name in questions.ONE_SUFFICES)
    for verdicts, best, better, worse in (
        ([c, s, m], 2, 0, 1), ([c, o, c], 2, 0, 2), ([c, m, c], 1, 0, 0), ([m, m], 1, 0, 0),
    ):  # fmt: skip
        rows = [
            row(verdict, n, claim="Q3", standing=-float(n)) for n, verdict in enumerate(verdicts, 1)
        ]
        cell = front.cell(rows, "Q3", "a")
        found = (rows[cell.row.number - 1].verdict, cell.better, cell.worse)
        assert found == (verdicts[best - 1], better, worse)
        if verdicts == [c, m, c]:  # of two that are contradicted, the one that stands better
            assert cell.row.number == 1


def written(estimate, low, high, rule="better", metric="NDCG@20", guards="", reason=""):
    """A row of claims.csv, as pandas reads it."""
    values = {"estimate": estimate, "low": low, "high": high, "rule": rule, "metric": metric}
    empty = dict.fromkeys(("claim", "dataset", "statement", "where"), "") | {"seeds": 3, "n": 90}
    rest = {"verdict": rules.DEMONSTRATION, "corrected": 1.0, "guards": guards, "reason": reason}
    return next(pd.DataFrame([empty | rest | values]).itertuples())


@pytest.mark.parametrize(
    ("rule", "from_worst"),
    [
        ("better", [(-0.02, -0.04, -0.001), (-0.05, -0.2, 0.1), (0.002, -0.01, 0.014),
                    (0.0071, 0.0001, 0.0141)]),
        ("no worse", [(-0.9, -1.0, -0.8), (-0.4, -0.6, -0.2), (-0.1, -0.3, 0.1),
                      (-0.1, -0.15, -0.05)]),
        ("flat", [(0.5, 0.4, 0.6), (-0.2, -0.3, -0.1), (0.0, -0.2, 0.2), (-0.05, -0.06, -0.04)]),
    ],
)  # fmt: skip
def test_of_equal_verdicts_the_cell_shows_the_worst_estimate_whatever_their_order(rule, from_worst):
    for given in (from_worst, from_worst[::-1]):
        rows = [front.row_of(n, written(*values, rule)) for n, values in enumerate(given)]
        order = sorted(rows, key=lambda row: row.standing)
        assert [given[row.number] for row in order] == from_worst
        assert given[front.cell(rows, "", "").row.number] == from_worst[0]


@pytest.mark.parametrize("guard", ["a + b", ""])
def test_a_guard_counts_where_it_keeps_a_row_from_being_decided(guard):
    mean = Mean(-0.0024, 0.0006, 1e9, 5, 900, 1000)  # 1.96 errors are half an interval
    bad = claims.row({}, mean, "better", {"a + b": mean, "gain": mean})["guards"]
    assert len(claims.guards_in(bad)) == 2
    good = "gain 0.0016 [0.0005, 0.0026], p = 0.0049"
    unmet = claims.UNMET + guard if guard else ""
    given = [
        written(0.008, 0.006, 0.010, guards=good),
        written(0.022, 0.020, 0.024, guards=f"{bad}; {good}", reason=unmet),
    ]
    for order in ([0, 1], [1, 0]):
        cell = front.cell([front.row_of(n, given[n]) for n in order], "", "")
        failing = "below zero: " + bad.partition(", p = ")[0].replace("-", "−")
        assert (cell.row.number, cell.row.unmet) == ((1, failing) if guard else (0, ""))
        assert cell.row.standing == pytest.approx(-2 if guard else 4, abs=0.1)


@pytest.mark.parametrize(
    ("values", "text", "arrow"),
    [
        ((0.0, 0.0, 0.0), "nothing differs", "–"),
        ((-1.0, -1.0, -1.0, "no worse"), "too few hits: one side has none", "–"),
        ((0.0, 0.0, 0.0, "no worse"), "nothing differs", "–"),
        ((-1.0, -1.0, -1.0), "−1.0000, no interval", "–"),
        ((-1.0, -1.5, -0.5, "no worse"), "−100 % [−150 %, −50 %]", "↓"),
        ((0.0, -0.001, 0.001), "+0.0000 [−0.0010, +0.0010]", "↔"),
        ((math.nan, math.nan, math.nan), "", "–"),
    ],
)
def test_no_interval_is_printed_where_there_is_no_spread(values, text, arrow):
    row = front.row_of(1, written(*values))
    assert (row.value, row.arrow) == (text, arrow)


def level(dataset="a", **changes):
    gain = summary.Interval(0.003, -0.004, 0.01)
    plain = {"samples": 128, "seeds": 1, "examples": 150, "bigrec": 0.007, "best": "Item kNN",
             "best_value": 0.012, "random": 0.002, "hits": 4, "hit_examples": 3, "lists": 150,
             "chance": 0.8, "best_hits": 7, "gain": gain}  # fmt: skip
    return summary.Level(dataset=dataset, **plain | changes)


def test_the_result_in_short_follows_the_numbers():
    run, result = summary.opening([level()], "tiny-llm")
    assert run.startswith("LLM: tiny-llm. a: 128 samples, 1 seed, 150 test examples.")
    assert "nothing is decided: " in run
    assert "4 of 150 lists on a (0.8 by chance, 7 by Item kNN)" in result
    assert "from the same samples, is lower on a." in result
    assert "Nowhere is it shown" in result and "all samples" not in result
    better = {"bigrec": 0.02, "gain": summary.Interval(0.01, 0.005, 0.015)}
    run, result, doubts = summary.opening([level(seeds=3, **better), level("b", seeds=3)], "")
    assert run == "Each data set: 128 samples, 3 seeds, 150 test examples."
    assert "better than other users on a: a personal gain." in result
    assert "from the same samples, is higher on a and lower on b." in result
    assert doubts == "C1 compares with the model that validation prefers; its cells name it."
    full = {"full": "Markov chain", "full_value": 0.08}
    like = {"tuned": summary.Interval(0.001, -0.001, 0.003)}
    _, result, _ = summary.opening([level(seeds=3, **better, **full, **like)], "")
    assert "is higher on a, and next to the best model without an LLM that learnt from" in result
    assert "all samples, is lower on a." in result
    assert result.endswith(
        "but on a (+0.0010 [−0.0010, +0.0030]) BIGRec is not shown to be better than its untuned "
        "LLM."
    )
    run, _ = summary.opening([level(), level("b", samples=64, seeds=5)], "x")
    assert "b: 64 samples" in run and "nothing is decided on a: " in run


def test_a_lead_that_rests_on_some_targets_or_on_few_hits_is_said_to():
    better = {"bigrec": 0.02, "gain": summary.Interval(0.01, 0.005, 0.015), "hits": 1, "lists": 150}
    some = {"bigrec": 0.003, "best": 0.005, "lead": summary.Interval(-0.002, -0.005, 0.001)}
    parts = {
        "untied": summary.Part(examples=100, **some),
        "cold": summary.Part(30, 0.01, 0.0, summary.Interval(0.01, 0.01, 0.01)),
        "warm": summary.Part(examples=120, **some),
    }
    _, _, doubts = summary.opening([level(**better, parts=parts), level("b", parts=parts)], "")
    assert "There 50 of 150 targets have the same time as the last history item" in doubts
    assert "BIGRec has 0.0030 and Item kNN 0.0050, a difference of −0.0020 [−0.0050" in doubts
    assert "of a that do not occur in training the difference is +0.0100 (Item kNN has no" in doubts
    assert "on those that do −0.0020 [−0.0050, +0.0010]." in doubts
    same = summary.Part(30, 0.01, 0.01, summary.Interval(0.0, 0.0, 0.0))
    assert summary.lead_of(same, "Item kNN") == "nothing differs"
    assert doubts.count("n b") == 1 and "last history item: 50 of 150 on b." in doubts
    assert "fewer on a (0.7%)." in doubts


def test_the_grid_has_every_claim_and_every_data_set():
    rows = [row(rules.SUPPORTED), row(rules.OPEN, claim="X9", dataset="b")]
    claims = front.grid(rows, {"a": "", "b": ""})
    assert [claim.name for claim in claims] == [*questions.QUESTIONS, "X9"]
    there = {(claim.name, name) for claim in claims for name, cell in claim.cells.items() if cell}
    assert there == {("C1", "a"), ("X9", "b")}


def test_what_was_found_is_listed_by_verdict_the_worst_first():
    rows = [
        *(row(rules.SUPPORTED, dataset=dataset) for dataset in "ab"),
        row(rules.OPEN, dataset="b"),
        row(rules.OPEN, dataset="c"),
        *(row(verdict, claim="X9") for verdict in (rules.SUPPORTED, rules.CONTRADICTED)),
        row(rules.MISSING, claim="X9", dataset="b"),
        row(rules.DEMONSTRATION, claim="X9", dataset="c"),
    ]
    title = questions.QUESTIONS["C1"]
    assert list(front.found(front.grid(rows, dict.fromkeys("abc", ""))).items()) == [
        (rules.CONTRADICTED, ["X9 X9 (a)"]),
        (rules.SUPPORTED, [f"C1 {title} (a)"]),
        (front.IN_PART, [f"C1 {title} (b: 1 of 2 rows)"]),
        (rules.OPEN, [f"C1 {title} (c)"]),
    ]


def test_a_cell_says_its_bound_its_size_if_unusual_and_the_guard_that_fails():
    guards = "gain 0.0016 [0.0005, 0.0026], p = 0.0049; a − b -0.0023 [-0.0035, -0.0012], p = 0.2"
    plain = written(0.1, 0.0, 0.2, guards=guards)._replace(statement="x − y")
    shown = front.row_of(1, plain)
    assert shown.compares("3 seeds, 90 examples") == "x − y, NDCG@20"
    assert shown.compares("5 seeds, 90 examples") == "x − y, NDCG@20; 3 seeds, 90 examples"
    failing = plain._replace(rule="no worse", reason=f"{claims.UNMET}a − b")
    assert front.row_of(1, failing).compares("3 seeds, 90 examples") == (
        "x − y, NDCG@20; no worse: above −30 %; below zero: a − b −0.0023 [−0.0035, −0.0012]"
    )
    unsure = failing._replace(guards=guards.replace("-0.0012]", "0.0012]"))
    assert (
        front.row_of(1, unsure)
        .compares("3 seeds, 90 examples")
        .endswith("; not shown to be above zero: a − b −0.0023 [−0.0035, 0.0012]")
    )
    against = plain._replace(claim="C4", verdict=rules.CONTRADICTED)
    assert "need not have the" in front.row_of(1, against).compares("3 seeds, 90 examples")


def test_a_cell_says_if_too_few_users_are_hit():
    few = f"{claims.FEW} 49, of at least 50"
    shown = front.row_of(1, written(0.1, 0.0, 0.2, reason=few)._replace(statement="a slope"))
    assert shown.compares("3 seeds, 90 examples") == f"a slope, NDCG@20; {few}"


def test_numbers_of_a_row_are_those_of_the_file(results):
    frame = pd.read_csv(results / "claims.csv").fillna({"reason": ""})
    rows = front.read_rows(results)
    assert [row.number for row in rows] == list(range(1, len(frame) + 1))
    for shown, written in zip(rows, frame.itertuples(), strict=True):
        numbers = re.findall(r"[+−][\d.]+", shown.value)
        values = [written.estimate, written.low, written.high]
        assert [float(n.replace("−", "-")) for n in numbers] == pytest.approx(values, abs=6e-5)
        sure = {"↑": written.low > 0, "↓": written.high < 0, "↔": written.low <= 0 <= written.high}
        assert sure[shown.arrow] and sum(sure.values()) == 1
    relative = frame.iloc[[0]].assign(rule="flat", estimate=-0.004, low=-0.1234, high=0.5)
    text = front.row_of(1, next(relative.itertuples())).value
    assert text == "−0.4 % [−12 %, +50 %]"


def test_the_front_page_links_each_verdict_to_its_evidence(results):
    page = soup(results / "index.html")
    cell = page.find(id="C1").find_next("td")
    assert cell.a["href"] == "site/07_overall_performance.html#claims"
    assert cell.find(class_="rows")["href"] == "site/evidence.html#C1-films"
    shown = front.cell(front.read_rows(results), "C1", "films").row
    assert cell.find(class_="of").get_text() == f"{shown.statement}, {shown.metric}"
    asked = {th["id"] for th in page.select(".grid th[scope=row]")}
    waiting = {item["id"] for item in page.select("#waiting li")}
    assert asked == {"C1"} and waiting == set(questions.QUESTIONS) - asked
    assert page.find("figure").img["alt"].startswith("NDCG@20 of every method")
    lacks = page.find(class_="lacks").get_text()
    there = {job.split(".")[-1] for job in toy_site.JOBS} | {"00_try_it"}
    steps = {name for name in NOTEBOOKS if name < "07"}
    assert {name for name in NOTEBOOKS if name in lacks} == steps - there


def test_levels_are_the_means_of_the_ranks(results):
    scores = pd.read_parquet(results / "ranks.parquet").query("split == 'test' and n_train == 128")
    plain = scores[scores.run.str.fullmatch(r"n128-s\d") & (scores.dataset == "films")]
    gain = (1 / (plain["rank"] + 2).map(math.log2)).where(plain["rank"] < 20, 0)
    means = gain.groupby(plain.method).mean()
    films = summary.levels(results)[0]
    assert films.bigrec == pytest.approx(means["bigrec"])
    others = [name for name in means.index if not name.startswith("bigrec") and name != "random"]
    assert films.best_value == pytest.approx(means[others].max())
    assert (films.samples, films.seeds, films.examples) == (128, 4, 400)
    hits = plain[(plain.method == "bigrec") & (plain["rank"] < 20)]
    assert (films.hits, films.lists) == (len(hits), 1600)
    assert films.chance == pytest.approx(1600 * 20 / toy_results.ITEMS)
    clear = gain[plain.example % 4 > 0].groupby(plain.method).mean()  # as toy_results ties them
    best = max(others, key=means.__getitem__)
    untied = films.parts["untied"]
    assert untied.examples == 300 and untied.bigrec == pytest.approx(clear["bigrec"])
    assert untied.lead.mean == pytest.approx(clear["bigrec"] - clear[best])
    everywhere = films.parts[summary.ALL]
    assert (everywhere.bigrec, everywhere.best) == (films.bigrec, films.best_value)
    assert films.hit_examples == hits.example.nunique()
    assert films.best_hits == ((plain.method == best) & (plain["rank"] < 20)).sum()
    assert films.parts["cold"].examples + films.parts["warm"].examples == films.examples
    expected = sum(1 / math.log2(place + 2) for place in range(20)) / toy_results.ITEMS
    assert films.random == pytest.approx(expected)


def test_the_personal_gain_and_chance_are_those_of_the_analysis():
    """Of the committed study: 07 wrote them on its own way, over all methods."""
    quick = Path(__file__).parent.parent / "results" / "quick"
    (found,) = summary.levels(quick)
    table = pd.read_csv(quick / "tables" / "references.csv")
    (wanted,) = table[(table.method == "bigrec") & (table.samples == "few")].itertuples()
    got = (found.random, found.gain.mean, found.gain.low, found.gain.high)
    assert got == pytest.approx((wanted.random, wanted.gain, wanted.low, wanted.high))
    assert summary.llm_of(quick).startswith("smollm2-135m-instruct, 135 million parameters (the")


@pytest.mark.parametrize("lost", ["claims.csv", "lists.parquet", "examples.parquet",
                                  "generations.parquet", "ranks.parquet", "figures/overall.png",
                                  "manifests.json"])  # fmt: skip
def test_what_an_unfinished_study_lacks_is_named(results, tmp_path, lost):
    part = tmp_path / "toy"
    shutil.copytree(results, part)
    (part / lost).unlink()
    site.write(part, toy_site.JOBS[2:])
    text = soup(part / "index.html").get_text()
    named = {
        "claims.csv": "verdicts: no analysis", "lists.parquet": "not published",
        "examples.parquet": "no examples.parquet", "generations.parquet": "not published",
        "ranks.parquet": "no ranks.parquet", "figures/overall.png": "the figure of all methods",
    }  # fmt: skip
    assert named.get(lost, "02_tune_llm") in text


def test_a_site_of_nothing_is_refused(tmp_path, capsys):
    with pytest.raises(StudyError, match="run the study first"):
        site.write(tmp_path, [])
    assert site.main([str(tmp_path)]) == 1 and "run the study first" in capsys.readouterr().err


# ---------------------------------------------------------------------------- worked examples


def test_a_worked_example_is_what_the_tables_say(tmp_path):
    toy_results.write(tmp_path)
    lists = pd.read_parquet(tmp_path / "lists.parquet").query("method == 'bigrec'")
    shown = worked.examples(tmp_path, "films")
    assert [each.kind for each in shown] == ["hit", "near miss"]  # no rank is beyond NEAR
    assert len({each.user for each in shown}) == 2
    assert shown[0].rank < metrics.HIT <= shown[1].rank < metrics.NEAR
    for each in shown:
        of_run = (lists.dataset == "films") & (lists.run == each.run)
        (items,) = lists[of_run & (lists.example == each.example)]["items"]
        assert each.text == f"title {items[0]}"
        assert each.grounded == [f"title {item}" for item in items[:3]]
        assert each.user == each.example // 2 and each.catalogue == toy_results.ITEMS
        assert (each.target in [f"title {item}" for item in items]) == (each.rank < 20)


def test_only_known_markup_of_an_output_is_kept():
    for text in (
        toy_site.HOSTILE,
        toy_site.ALSO,
        "<b style='x' onclick='y'>a</b>",
        "<svg/onload=x>",
    ):
        for made in (pages.clean(text), pages.markdown(text)):
            tags = BeautifulSoup(made, "html.parser").find_all(True)
            assert {tag.name for tag in tags} <= set(pages.TAGS) and all(not t.attrs for t in tags)
    assert unescape(pages.clean(toy_site.HOSTILE)) == toy_site.HOSTILE


def test_templates_and_styles_are_files():
    for path in Path(site.__file__).parent.glob("*.py"):
        assert "<div" not in path.read_text() and "font:" not in path.read_text(), path.name
