"""One catalogue for several data sets, and averaged adapters: by brute force and by hand."""

import numpy as np
import pytest
import torch
from toy import fresh_adapter
from toy_llms import TEXTS

from bigrec_lib.files import StudyError
from bigrec_lib.method import adapters, grounding, spaces
from bigrec_lib.method.llm import load_llm, with_adapter

RNG = np.random.default_rng(0)
OWN, OTHERS = ["Heat", "Fargo", "Up"], ["Doom", "Heat", "FARGO!", "Quake", "Up "]


def vectors_of(titles, d=4, seed=1):
    """Equal titles have equal vectors."""
    return np.stack(
        [np.random.default_rng([seed, *title.encode()]).normal(size=d) for title in titles]
    ).astype(np.float32)


def catalogue(own=OWN, others=OTHERS):
    return spaces.union(own, vectors_of(own), [(others, vectors_of(others))])


# ------------------------------------------------------------------------------------ catalogues


def test_own_titles_come_first_and_shared_ones_stand_once():
    found = catalogue()
    assert found.titles == ["Heat", "Fargo", "Up", "Doom", "FARGO!", "Quake", "Up "]
    assert (found.own, found.added) == (3, 4)
    assert (found.vectors == vectors_of(found.titles)).all()
    assert spaces.identical(OWN, OTHERS) == 1
    assert spaces.spelled_alike(found) == 2  # FARGO! and "Up "
    both = [(each, vectors_of(each)) for each in (OTHERS, ["Doom", "Myst"])]
    three = spaces.union(OWN, vectors_of(OWN), both)
    assert three.titles == [*found.titles, "Myst"]


def test_identical_catalogues_add_nothing():
    found = catalogue(others=OWN[::-1])
    assert found.titles == OWN and found.added == 0
    targets = np.array([0, 1, 2])
    queries = RNG.normal(size=(3, 4)).astype(np.float32)
    alone = grounding.ranks(queries, vectors_of(OWN), targets)
    assert grounding.ranks(queries, found.vectors, targets).equals(alone)
    assert spaces.beside_foreign(found, 10, 0) == 0
    assert spaces.with_some(found, 5, 0).titles == OWN


def test_a_catalogue_of_one_title():
    one = spaces.union(["Heat"], vectors_of(["Heat"]), [])
    assert np.isnan(spaces.beside_foreign(one, 5, 0))
    both = catalogue(["Heat"], ["Doom"])
    assert spaces.beside_foreign(both, 5, 0) == 1
    near, _ = grounding.nearest(both.vectors[:1], both.vectors, 20)
    assert near.tolist() == [[0, 1]] and spaces.off_domain(near, 1).tolist() == [0.5]


def test_vectors_of_two_llms_are_no_space():
    with pytest.raises(StudyError, match="embed both with the same model") as caught:
        spaces.union(OWN, vectors_of(OWN), [(OTHERS, vectors_of(OTHERS, 5))])
    assert "\n" not in str(caught.value)
    broken = vectors_of(OTHERS) * np.float32("nan")
    with pytest.raises(StudyError, match="NaN"):
        spaces.union(OWN, vectors_of(OWN), [(OTHERS, broken)])


def test_some_titles_are_drawn_under_the_seed_and_keep_their_vectors():
    whole = catalogue(others=[f"title {n}" for n in range(50)])
    few = spaces.with_some(whole, 10, 3)
    assert few.titles[:3] == OWN and few.added == 10 and len(set(few.titles)) == 13
    assert (few.vectors == vectors_of(few.titles)).all()
    assert few.titles == spaces.with_some(whole, 10, 3).titles
    assert few.titles != spaces.with_some(whole, 10, 4).titles


def test_shares_and_places_by_brute_force():
    """Every distance in fp64, one text at a time."""
    whole = catalogue([f"own {n}" for n in range(30)], [f"other {n}" for n in range(40)])
    queries = RNG.normal(size=(25, 4)).astype(np.float32)
    targets = RNG.integers(0, 30, 25)
    near, _ = grounding.nearest(queries, whole.vectors, 20)
    shares = spaces.off_domain(near, whole.own)
    shown = spaces.own_or_none(near, whole.own)
    alone = grounding.ranks(queries, whole.vectors[:30], targets)["rank"]
    united = grounding.ranks(queries, whole.vectors, targets)["rank"]
    for row, (query, target) in enumerate(zip(queries, targets, strict=True)):
        far = np.linalg.norm(whole.vectors.astype(float) - query.astype(float), axis=1)
        first = np.argsort(far, kind="stable")[:20]
        assert shares[row] == sum(i >= 30 for i in first) / 20
        assert shown[row].tolist() == [i if i < 30 else -1 for i in first]
        assert united[row] - alone[row] == (far[30:] < far[target]).sum()


def test_the_neighbours_of_own_titles_by_brute_force():
    whole = catalogue([f"own {n}" for n in range(30)], [f"other {n}" for n in range(40)])
    v = whole.vectors.astype(float)
    far = ((v[:, None] - v) ** 2).sum(-1)
    np.fill_diagonal(far, np.inf)
    expected = (far[:30].argmin(1) >= 30).mean()
    assert spaces.beside_foreign(whole, 30, 0) == expected


# -------------------------------------------------------------------------------------- adapters


@pytest.fixture
def tuned(tiny_llm, tmp_path):
    """Folders of three adapters of random weights, and the base."""
    folders = []
    for seed in range(3):
        model = fresh_adapter(load_llm(str(tiny_llm), dtype="float32"), seed=seed, rank=2, alpha=6)
        torch.manual_seed(seed)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.3)
        folders.append(tmp_path / str(seed))
        adapters.save_adapter(model, folders[-1])
    return folders


def whole_updates(update):
    """Layer -> scale · B A, multiplied out in fp64."""
    return {name: update.scale * b.double() @ a.double() for name, (a, b) in update.layers.items()}


def test_the_average_adapter_is_the_mean_of_the_updates(tuned, tmp_path):
    updates = [adapters.read_update(folder) for folder in tuned]
    adapters.save_update(adapters.mean_update(updates), tmp_path / "mean")
    mean = whole_updates(adapters.read_update(tmp_path / "mean"))
    wholes = [whole_updates(update) for update in updates]
    for name, found in mean.items():
        expected = sum(whole[name] for whole in wholes) / 3
        assert torch.allclose(found, expected, rtol=0, atol=1e-15)
    stored = adapters.read_update(tmp_path / "mean")
    assert stored.config["r"] == 6 and stored.scale == updates[0].scale / 3
    a, b = stored.layers[name]
    assert torch.equal(a[2:4], updates[1].layers[name][0])  # no number changes
    assert torch.equal(b[:, 2:4], updates[1].layers[name][1])


def test_an_llm_with_the_average_adapter_computes_with_the_mean_of_the_updates(
    tiny_llm, tuned, tmp_path
):
    updates = [adapters.read_update(folder) for folder in tuned]
    adapters.save_update(adapters.mean_update(updates), tmp_path / "mean")
    base = load_llm(str(tiny_llm), dtype="float32")
    ids = torch.tensor([base.tokenizer(TEXTS[0])["input_ids"]])
    added = {
        name.removeprefix("base_model.model."): sum(whole_updates(u)[name] for u in updates) / 3
        for name in updates[0].layers
    }
    with torch.no_grad():
        untuned = base.model(ids).logits
        for name, delta in added.items():
            base.model.get_submodule(name).weight += delta.float()
        expected = base.model(ids).logits
        fresh = load_llm(str(tiny_llm), dtype="float32")
        found = with_adapter(fresh.model, tmp_path / "mean").eval()(ids).logits
    assert torch.allclose(found, expected, atol=1e-3) and not torch.allclose(
        found, untuned, atol=0.1
    )


def test_a_layer_that_one_adapter_lacks_counts_as_zero(tiny_llm, tuned, tmp_path):
    """One domain may have tuned more layers than another."""
    llm = load_llm(str(tiny_llm), dtype="float32")
    wide = fresh_adapter(llm, rank=2, alpha=6, target_modules=("q_proj", "up_proj"))
    for weight in wide.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.3)
    adapters.save_adapter(wide, tmp_path / "wide")
    read = [adapters.read_update(tuned[0]), adapters.read_update(tmp_path / "wide")]
    same = adapters.on_same_layers(read)
    adapters.save_update(adapters.mean_update(same), tmp_path / "mean")
    mean = whole_updates(adapters.read_update(tmp_path / "mean"))
    wholes = [whole_updates(update) for update in read]
    assert set(mean) == set(wholes[0]) | set(wholes[1])
    for name, found in mean.items():
        expected = sum(whole[name] for whole in wholes if name in whole) / 2
        assert torch.allclose(found, expected, rtol=0, atol=1e-15)
    fresh = load_llm(str(tiny_llm), dtype="float32")
    with_adapter(fresh.model, tmp_path / "mean")  # fits: every layer has its place
    found = adapters.cosines(*same)
    missing = {name for name in mean if not all(name in whole for whole in wholes)}
    assert {name for name, value in found.items() if np.isnan(value)} == missing


def test_the_average_is_that_of_peft(tiny_llm, tuned):
    """PEFT's own way to put adapters side by side."""
    from peft import PeftModel

    base = load_llm(str(tiny_llm), dtype="float32").model
    model = PeftModel.from_pretrained(base, str(tuned[0]), adapter_name="0")
    for number in (1, 2):
        model.load_adapter(str(tuned[number]), adapter_name=str(number))
    model.add_weighted_adapter(["0", "1", "2"], [1 / 3] * 3, "mean", combination_type="cat")
    ours = whole_updates(adapters.mean_update([adapters.read_update(f) for f in tuned]))
    for name, expected in ours.items():
        layer = model.get_submodule(name)
        assert torch.allclose(layer.get_delta_weight("mean").double(), expected, atol=1e-5)


def test_cosines_are_those_of_the_large_matrices(tuned):
    first, second = (adapters.read_update(folder) for folder in tuned[:2])
    found = adapters.cosines(first, second)
    one, two = (whole_updates(update) for update in (first, second))
    for name in one:
        expected = torch.cosine_similarity(one[name].flatten(), two[name].flatten(), dim=0)
        assert found[name] == pytest.approx(float(expected), abs=1e-12)
    flat = [torch.cat([w.flatten() for w in whole.values()]) for whole in (one, two)]
    assert found[""] == pytest.approx(float(torch.cosine_similarity(*flat, dim=0)), abs=1e-12)
    assert adapters.cosines(first, first) == pytest.approx(dict.fromkeys(found, 1.0))


def test_an_adapter_that_learnt_nothing_has_no_direction(tiny_llm, tmp_path, tuned):
    adapters.save_adapter(
        fresh_adapter(load_llm(str(tiny_llm), dtype="float32"), rank=2, alpha=6), tmp_path / "new"
    )
    fresh = adapters.read_update(tmp_path / "new")
    assert np.isnan(list(adapters.cosines(fresh, adapters.read_update(tuned[0])).values())).all()


@pytest.mark.parametrize("change", [{"rank": 4}, {"alpha": 8}, {"target_modules": ("q_proj",)}])
def test_adapters_of_another_shape_are_not_averaged(tiny_llm, tuned, tmp_path, change):
    settings = {"rank": 2, "alpha": 6} | change
    model = fresh_adapter(load_llm(str(tiny_llm), dtype="float32"), **settings)
    adapters.save_adapter(model, tmp_path / "other")
    pair = [adapters.read_update(folder) for folder in (tuned[0], tmp_path / "other")]
    with pytest.raises(StudyError, match="tune all of them with the same settings") as caught:
        adapters.mean_update(pair)
    assert "\n" not in str(caught.value)
    if "target_modules" in change:
        with pytest.raises(StudyError, match="tune the same layers"):
            adapters.cosines(*pair)
