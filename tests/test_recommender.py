"""From titles to items in one call: against plain PEFT and the formulas, and with bad input."""

import ast
import html
import json
import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy import fresh_adapter, toy_titles
from toy_llms import load

from bigrec_lib.files import StudyError, sha256, write_json
from bigrec_lib.method import adapters, embedding, prompts
from bigrec_lib.study import cards, manifests, parameters, publish, recommender, row_keys

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
CALL = next(
    block
    for block in re.findall(r"(?:^    .*\n)+", README, re.MULTILINE)
    if "recommender.recommend(" in block
)
SHOWN = ast.literal_eval(re.search(r"history = (\[.*?\])", CALL, re.DOTALL).group(1))
MARKUP, EMOJI, HEBREW = "<b>Heat</b> & Co. (1995)", "🎬🍿 (2001)", "שלום עולם (1999)"
TITLES = [*toy_titles(20), MARKUP, EMOJI, HEBREW, *SHOWN]  # 20 toy titles, two of them namesakes
COUNTS = np.arange(len(TITLES)) % 7
RUN = "n8-s0"


def settings(cls, llm, **changes) -> dict:
    model = {"model": str(llm), "quantisation": "none", "dtype": "float32"}
    given = cls(study="toy", dataset="films", n_train=8, **model, **changes)
    return given.model_dump(exclude={"root"})


def publish_toy(project: Path, llm: Path) -> Path:
    """A published study without `runs/`, its adapter in PEFT's format; returns its folder."""
    base = load(llm)
    tuned = fresh_adapter(base, rank=2)
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapter = project / "tuned"
    adapters.save_adapter(tuned, adapter)
    results = project / "results" / "toy"
    group = [TITLES.index(title) for title in TITLES]
    items = pd.DataFrame({"dataset": "films", "item": range(len(TITLES)), "title": TITLES})
    items = items.assign(title_group=group, train_count=COUNTS)
    results.mkdir(parents=True)
    items.to_parquet(results / "items.parquet")
    example = {"dataset": "films", "split": "test", "history": [[0, 5, 3]], "target": 2}
    pd.DataFrame(example).to_parquet(results / "examples.parquet")
    row = row_keys.KEYS | {"dataset": "films", "run": RUN, "n_train": 8, "split": "test"}
    row |= {"method": "bigrec", "model": "tiny", "metric": "NDCG", "k": 20, "value": 0.25, "n": 4}
    pd.DataFrame([row, row | {"metric": "HR", "value": 0.5}]).to_csv(
        results / "metrics.csv", index=False
    )
    keys = row_keys.KEYS | {"dataset": "films"}
    of_run = keys | {"run": RUN, "n_train": 8}
    preparation = {"words": {}, "history": 3, "reader": ""}
    texts = {"first_beams": {"test": {"real": 0.5}}, "max_new_tokens": 12}
    weights = {f"adapter/{publish.WEIGHTS}": sha256(adapter / publish.WEIGHTS)}
    jobs = {
        "films.01_prepare_data": (keys, preparation, {"domain": "movies", "n_train": 90}, {}),
        f"films.{RUN}.02_tune_llm": (
            of_run, settings(parameters.TuneLLM, llm), {"steps": 2, "valid_loss": 1.5}, weights
        ),
        f"films.{RUN}.03_generate_titles": (
            of_run, settings(parameters.GenerateTitles, llm), texts, {}
        ),
        f"films.{RUN}.04_ground_to_items": (
            of_run, settings(parameters.GroundToItems, llm), {}, {}
        ),
    }  # fmt: skip
    written = {
        name: {"notebook": name.split(".")[-1], "keys": k, "parameters": p, "facts": f}
        | {"outputs": outputs}
        for name, (k, p, f, outputs) in jobs.items()
    }
    write_json({"jobs": written, "files": {}}, results / manifests.PUBLISHED)
    return results


def tuning(project: Path, llm: Path, **changes) -> parameters.TuneLLM:
    given = settings(parameters.TuneLLM, llm) | changes | {"root": str(project)}
    return parameters.TuneLLM(**given)


@pytest.fixture(scope="module")
def clone(tmp_path_factory, tiny_llm):
    """A project with what a study has published, and no `runs/`."""
    project = tmp_path_factory.mktemp("clone")
    results = publish_toy(project, tiny_llm)
    job = tuning(project, tiny_llm)
    shutil.copytree(project / "tuned", job.adapter)
    cards.publish_adapters(results, [job])
    shutil.rmtree(project / "runs")
    return project


@pytest.fixture(scope="module")
def opened(clone, tmp_path_factory, one_thread):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield recommender.Recommender.open("toy", project=clone)


def by_plain_peft(clone, llm, titles, beams, room):
    """Texts and distances by Hugging Face and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    base = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32)

    def vector(text):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        ids = ids if ids.numel() else torch.tensor([[tokenizer.eos_token_id]])
        return base(ids, output_hidden_states=True).hidden_states[-1][0, -1].double()

    with torch.inference_mode():
        vectors = torch.stack([vector(title) for title in dict.fromkeys(TITLES)])
    tuned = PeftModel.from_pretrained(base, f"{clone}/results/toy/adapters/films.{RUN}")
    prompt = prompts.prompt(titles, prompts.DOMAINS["movies"])
    ids = tokenizer(prompt, return_tensors="pt")
    out = tuned.generate(
        **ids, num_beams=beams, num_return_sequences=beams, do_sample=False,
        early_stopping=False, max_new_tokens=room,
    )  # fmt: skip
    new = out[:, ids["input_ids"].shape[1] :]
    texts = [prompts.title_of(prompts.decode(tokenizer, row)) for row in new]
    with torch.inference_mode(), tuned.disable_adapter():
        return texts, (vectors - vector(texts[0])).norm(dim=1).numpy()


def test_one_call_gives_what_plain_peft_and_the_formulas_give(clone, opened, tiny_llm):
    history = TITLES[:3]
    texts, distances = by_plain_peft(clone, tiny_llm, history, 3, room=12)
    candidates = list(dict.fromkeys(TITLES))
    counts = np.array([COUNTS[[t == c for t in TITLES]].sum() for c in candidates])
    w = (counts - counts.min()) / (counts.max() - counts.min())
    scaled = (distances - distances.min()) / (distances.max() - distances.min())
    for gamma in (0.0, 2.0):
        found = opened.recommend(history, 6, 3, gamma, False)
        assert found.texts == texts and found.read == history
        adjusted = scaled * (1 + w) ** -gamma
        order = np.argsort(adjusted, kind="stable")[:6]
        assert found.items.title.tolist() == [candidates[number] for number in order]
        assert found.items.distance.to_numpy() == pytest.approx(distances[order], abs=1e-4)
        assert found.items.adjusted.to_numpy() == pytest.approx(adjusted[order], abs=1e-4)
        assert found.items.seen.tolist() == [title in history for title in found.items.title]


def test_only_titles_of_the_catalogue_are_written_under_constraint(opened):
    found = opened.recommend(TITLES[:2], 3, 4, 0.0, True)
    assert set(found.texts) <= set(TITLES) and len(set(found.texts)) == 4
    assert found.items.title[0] == found.texts[0] and found.items.distance[0] == 0


def test_any_title_of_the_catalogue_is_read_as_it_is(opened):
    history = [MARKUP, EMOJI, HEBREW]
    found = opened.recommend(history, 2, 2, 0.0, False)
    assert found.read == history
    assert all(f'"{title}"' in opened.prompt(history)[1] for title in history)


def test_of_a_hundred_titles_the_newest_are_read_and_one_is_enough(opened):
    history = (TITLES * 5)[:100]
    assert opened.recommend(history, 2, 2, 0.0, False).read == history[-3:]
    assert opened.recommend(history[:1], 2, 2, 0.0, False).read == history[:1]


def test_more_items_than_there_are_is_all_of_them(opened):
    items = opened.recommend(TITLES[:1], 10_000, 1, 0.0, False).items
    assert sorted(items.title) == sorted(set(TITLES))


def test_case_accents_and_punctuation_of_a_title_do_not_matter(opened):
    typed = f"  {TITLES[4].lower().replace('(', '').replace(')', '')}"
    assert opened.recommend([typed], 1, 1, 0.0, False).read == [TITLES[4]]


def test_for_an_unknown_title_the_nearest_are_offered(opened):
    wrong = TITLES[4].replace("(", "") + " Part II"
    with pytest.raises(recommender.UnknownTitle) as caught:
        opened.recommend([TITLES[0], wrong, "<script>alert(1)</script>", "𓀀𓀁"], 1, 1, 0.0, False)
    first, second, third = str(caught.value).splitlines()
    assert first.startswith(repr(wrong)) and TITLES[4] in first.partition("nearest")[2]
    assert "<script>" in second and third.endswith("no title is like it")


@pytest.mark.parametrize(
    ("titles", "numbers", "message"),
    [
        ([], {}, "at least one title"),
        (TITLES[0], {}, r"put it in \[ \]"),
        (TITLES[:1], {"k": 0}, "k is 0"),
        (TITLES[:1], {"beams": 0}, "beams is 0"),
        (TITLES[:1], {"gamma": -1.0}, "gamma is -1"),
        (TITLES[:1], {"gamma": float("nan")}, "gamma is nan"),
    ],
)
def test_a_bad_request_is_refused_with_what_to_do(opened, titles, numbers, message):
    given = {"k": 1, "beams": 1, "gamma": 0.0, "constrained": False} | numbers
    with pytest.raises(StudyError, match=message):
        opened.recommend(titles, **given)


def test_a_catalogue_is_embedded_once(clone, opened, monkeypatch):
    def never(*_):
        raise AssertionError("embedded again")

    monkeypatch.setattr(embedding, "compute", never)
    again = recommender.Recommender.open("toy", "films", clone)
    assert (again.vectors == opened.vectors).all()


def test_the_adapter_and_the_vectors_of_a_run_come_first(clone, opened, tmp_path, tiny_llm):
    project = tmp_path / "project"
    shutil.copytree(clone, project)
    job = tuning(project, tiny_llm)
    shutil.copytree(project / "tuned", job.adapter)
    jobs = manifests.read_published(project / "results/toy")["jobs"]
    assert recommender.adapter_of(project, "toy", "films", jobs)[1] != job.adapter
    write_json({}, job.output / manifests.NAME)
    assert recommender.adapter_of(project, "toy", "films", jobs)[1] == job.adapter
    grounded = project / "runs/toy/films" / RUN / "grounding"
    embedding.save(grounded / "vectors/titles.safetensors", vectors=opened.vectors * 2)
    write_json({}, grounded / manifests.NAME)
    again = recommender.Recommender.open("toy", project=project)
    assert (again.vectors == opened.vectors * 2).all()


def without(results: Path, key: str) -> None:
    """Take a job out of what is published."""
    published = manifests.read_published(results)
    del published["jobs"][key]
    write_json(published, results / manifests.PUBLISHED)


@pytest.mark.parametrize("stage", ["03_generate_titles", "04_ground_to_items"])
def test_of_an_unfinished_study_what_is_missing_is_named(clone, tmp_path, stage):
    project = tmp_path / "project"
    shutil.copytree(clone, project)
    without(project / "results/toy", f"films.{RUN}.{stage}")
    with pytest.raises(StudyError, match=f"films.{RUN}.{stage} is missing: run `make study STUDY="):
        recommender.Recommender.open("toy", project=project)


def test_what_is_not_there_is_named_with_the_command_that_makes_it(clone, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(clone, project)
    with pytest.raises(StudyError, match="make study STUDY=mine`, or choose one of toy"):
        recommender.Recommender.open("mine", project=project)
    with pytest.raises(StudyError, match="no data set 'games': choose one of films"):
        recommender.Recommender.open("toy", "games", project)
    shutil.rmtree(project / "results/toy/adapters")
    with pytest.raises(StudyError, match="no adapter for films.*`make study STUDY=toy` tunes one"):
        recommender.Recommender.open("toy", project=project)
    without(project / "results/toy", "films.01_prepare_data")
    with pytest.raises(StudyError, match="it has published none"):
        recommender.Recommender.open("toy", project=project)


def test_the_call_in_the_readme_runs(clone, opened, tmp_path, monkeypatch, capsys):
    shutil.copytree(clone / "results/toy", tmp_path / "results/quick")
    monkeypatch.setattr(recommender, "ROOT", tmp_path)
    names: dict = {}
    exec(textwrap.dedent(CALL), names)
    assert names["found"].read == SHOWN[-3:] and names["found"].texts[0] in capsys.readouterr().out


def test_one_call_and_the_notebook_have_the_same_defaults():
    import inspect

    given = inspect.signature(recommender.recommend).parameters
    page = parameters.TryIt()
    for name in ("study", "dataset", "k", "beams", "gamma", "constrained"):
        assert given[name].default == getattr(page, name), name


# ------------------------------------------------------------------------- published adapters


def test_a_card_says_what_the_adapter_is_and_no_path_of_this_machine(clone, tiny_llm):
    folder = clone / "results/toy/adapters" / f"films.{RUN}"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_llm.name and config["r"] == 2
    card = (folder / "README.md").read_text()
    assert str(tiny_llm) not in card and str(clone) not in card
    for part in ("Data", "Settings", "Metrics", "Intended use and limits", "Licence"):
        assert f"\n## {part}\n" in card
    assert "| BIGRec | 0.2500 | 0.5000 |" in card and "50% of its first beams" in card
    assert "8 of 90 training samples" in card and "the base as it is, in float32" in card


def test_adapters_are_listed_checked_and_written_once(clone, tmp_path, tiny_llm):
    results = tmp_path / "results" / "toy"
    shutil.copytree(clone / "results/toy", results)
    job = tuning(tmp_path, tiny_llm)
    files = manifests.read_published(results)["files"]
    assert len(files) == 3 and all(sha256(results / name) == files[name] for name in files)
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert cards.publish_adapters(results, [job]) == [results / "adapters" / f"films.{RUN}"]
    assert before == {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    (results / "adapters" / f"films.{RUN}" / "README.md").write_text("changed")
    cards.publish_adapters(results, [job])
    assert all(sha256(results / name) == files[name] for name in files)
    cards.publish_adapters(results, [])
    assert not list((results / "adapters").iterdir())
    assert manifests.read_published(results)["files"] == {}


def test_an_adapter_that_was_tuned_anew_is_not_kept(clone):
    published = manifests.read_published(clone / "results/toy")
    assert publish.kept_adapters(published) == sorted(published["files"])
    outputs = published["jobs"][f"films.{RUN}.02_tune_llm"]["outputs"]
    outputs[f"adapter/{publish.WEIGHTS}"] = "0" * 64
    assert publish.kept_adapters(published) == []


def test_an_adapter_that_is_gone_or_not_published_is_named(clone, tmp_path, tiny_llm):
    results = tmp_path / "results" / "toy"
    shutil.copytree(clone / "results/toy", results)
    with pytest.raises(StudyError, match="films.n9-s0.02_tune_llm is not published"):
        cards.publish_adapters(results, [tuning(tmp_path, tiny_llm, n_train=9)])
    shutil.rmtree(results / "adapters")
    with pytest.raises(StudyError, match=f"runs/toy/films/{RUN}/tuning/adapter: run `make study"):
        cards.publish_adapters(results, [tuning(tmp_path, tiny_llm)])


# ---------------------------------------------------------------------------------- the form


@pytest.fixture
def page(opened, clone):
    from bigrec_lib.study import form

    p = parameters.TryIt(study="toy", root=str(clone), k=4, beams=2)
    return form.Form(opened, TITLES[:2], p)


def test_what_is_typed_is_completed_from_the_catalogue(page):
    page.typed.value = "HEAT"
    assert set(page.typed.options) == {MARKUP, *(t for t in SHOWN if "heat" in t.casefold())}
    page.typed.value = MARKUP
    page.entered(None, {"event": "submit"}, None)
    assert page.history.value == [*TITLES[:2], MARKUP] and page.typed.value == ""
    page.put("   ")
    assert page.history.value[-1] == MARKUP and page.said.value == ""


def test_an_unknown_title_is_answered_with_buttons_and_markup_is_text(page):
    page.put(f"{TITLES[4]} II <img src=x onerror=alert(1)>")
    assert TITLES[4] in [button.description for button in page.offers.children]
    assert "<img" not in page.said.value and "&lt;img" in page.said.value
    next(b for b in page.offers.children if b.description == TITLES[4]).click()
    assert page.history.value == [*TITLES[:2], TITLES[4]] and page.offers.children == ()


def test_a_click_shows_texts_items_and_distances(page, opened):
    page.history.value = [MARKUP]
    page.constrained.value, page.gamma.value = True, 1.0
    page.ask.click()
    found = opened.recommend([MARKUP], 4, 2, 1.0, True)
    cells = list(map(html.unescape, re.findall(r"<td>(.*?)</td>", page.shown.value)))
    assert cells[: 2 * len(found.texts) : 2] == found.texts
    items = cells[2 * len(found.texts) :]
    assert items[::4] == found.items.title.tolist()
    assert list(map(float, items[1::4])) == pytest.approx(found.items.distance.tolist(), abs=1e-3)
    assert "<b>Heat" not in page.shown.value and "titles read: 1;" in page.said.value
    page.history.value = ["nowhere at all"]
    page.ask.click()
    assert "is not in the catalogue" in page.said.value and not page.ask.disabled
