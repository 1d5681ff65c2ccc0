"""Files: whole or not there, of one computation and no other, written by one process at a time."""

from __future__ import annotations

import io
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from safetensors.torch import load_file

import qkutils as qk
from qkutils import store
from qkutils.atlas import check_atlas
from qkutils.atlas._state import Atlas
from qkutils.records import Sample

NAN = float("nan")


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """The system lets no file grow beyond this size while it lasts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- one file --------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "new" / "file.txt"
    assert store.write(path, "one") == path and path.read_text() == "one"
    with pytest.raises(KeyError), store.writing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    with small_disk(1000), pytest.raises(OSError, match="file.txt.*make room"):
        store.write(path, b"two" * 1000)
    assert path.read_text() == "one" and names(path.parent) == ["file.txt"]
    with store.writing(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("three")
    assert path.read_text() == "three" and names(path.parent) == ["file.txt"]


def test_an_error_that_is_not_the_files_passes_as_it_is(tmp_path):
    with pytest.raises(ConnectionResetError, match="^the host$"), store.writing(tmp_path / "file"):
        raise ConnectionResetError("the host")
    with pytest.raises(FileNotFoundError) as caught, store.writing(tmp_path / "file"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")


def test_where_nothing_can_be_written_is_known_before(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for place in ("", "pipe", "file/in/it", "x" * 300):
        with pytest.raises(OSError, match=(tmp_path / place).name):
            store.check_writable(tmp_path / place)
    assert store.check_writable(tmp_path / "a" / "b.nc") == tmp_path / "a" / "b.nc"
    assert names(tmp_path) == ["a", "file", "pipe"] and not names(tmp_path / "a")


HOLD = """
import sys, time
from qkutils import store
with store.locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_and_none_after_it_was_killed(tmp_path):
    path = tmp_path / "out.nc"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=f"out.nc.*process {process.pid} on"):
            with store.locked(path):
                pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / ".out.nc.0123abcd.writing").write_text("left by the killed one")
    (tmp_path / ".out.nc.other").write_text("of somebody else")
    with store.locked(path):
        assert ".out.nc.0123abcd.writing" not in names(tmp_path)
        with pytest.raises(BlockingIOError, match=str(os.getpid())), store.locked(path):
            pass
    assert names(tmp_path) == [".out.nc.other"]


def test_names_that_are_no_utf8_survive(tmp_path):
    keys = ["plain", "x\udce9.png", "back\\slash", "nul\0", "\\u0041", "日本.png", ""]
    fields = {"key": ("picture", np.array(keys, object)), "number": ("picture", np.arange(7))}
    dataset = xr.Dataset(fields, {"image": ("image", ["a\udcff", "b"])}, {"model": "m\udce9\\"})
    found = store.load(store.save(tmp_path / "file.nc", dataset))
    assert found.key.values.tolist() == keys and found.attrs == dataset.attrs
    assert found.image.values.tolist() == ["a\udcff", "b"] and found.sizes == dataset.sizes
    assert found.sel(image="a\udcff").number.identical(dataset.sel(image="a\udcff").number)


@pytest.mark.parametrize("kind", ["empty", "text", "half", "head", "hdf5", "classic"])
def test_a_file_that_is_damaged_or_foreign_is_refused(tmp_path, kind):
    whole = store.save(
        tmp_path / "whole.nc", xr.Dataset({"a": ("x", np.arange(1000))})
    ).read_bytes()
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["weights"] = np.zeros(3)
    classic = bytes(xr.Dataset({"a": 1}).to_netcdf(engine="scipy"))
    content = {"empty": b"", "text": b"no result", "half": whole[: len(whole) // 2]}
    content |= {"head": whole[:100], "hdf5": memory.getvalue(), "classic": classic}
    path = tmp_path / "file.nc"
    path.write_bytes(content[kind])
    with pytest.raises(ValueError, match="file.nc"):
        qk.open_atlas(path)
    if kind not in ("hdf5", "classic"):
        with pytest.raises(ValueError, match="file.nc"):
            store.load(path)


def test_a_digest_tells_contents_apart():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (4, 6, 3), dtype=np.uint8)
    picture, tensor = Image.fromarray(pixels), torch.zeros(2, 3)
    contents = [picture, Image.fromarray(pixels[:, ::-1].copy()), picture.convert("L")]
    contents += [Image.fromarray(pixels.reshape(6, 4, 3))]
    contents += [tensor, tensor.T, tensor + 1, tensor.double(), tensor.bfloat16(), b"", b"0"]
    contents += [{"a": 1}, {"a": 2}]
    assert len({store.digest(each) for each in contents}) == len(contents)
    assert store.digest(picture.copy()) == store.digest(picture)
    assert store.digest(torch.zeros(3, 2).T) == store.digest(tensor) == store.digest(tensor.numpy())
    assert store.digest({"a": 1, "b": 2}) == store.digest({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="int"):
        store.digest(3)


def test_the_parts_that_differ_are_named():
    one = {"model": "a", "options": {"k": 1, "statistics": ""}, "pictures": "x"}
    assert store.differing(one, one) == []
    other = {"model": "b", "options": {"k": 2, "statistics": ""}, "pictures": "x"}
    assert store.differing(one, other) == ["model", "k"]
    assert (
        store.differing({}, one) == store.differing(None, one) == ["model", "options", "pictures"]
    )


# ---- a result that is taken up again -----------------------------------------------------------


def study_of(one: float) -> dict:
    return {"model": "m", "options": {"query": one}}


def test_a_result_is_computed_once_and_its_parts_go(tmp_path):
    path, asked = tmp_path / "result.nc", []

    def compute(folder):
        for n in range(3):
            store.kept(folder / f"{n}.npy", lambda n=n: asked.append(n) or np.array([n]))
            if len(asked) == 2:
                asked.append("stopped")
                raise KeyboardInterrupt
        return xr.Dataset({"a": 1})

    with pytest.raises(KeyboardInterrupt):
        store.resumable(path, lambda: study_of(1), compute)
    (tmp_path / f"{path.name}.{store.digest(study_of(2))}").mkdir()  # of a run with other options
    result = store.resumable(path, lambda: study_of(1), compute)
    assert asked == [0, 1, "stopped", 2] and names(tmp_path) == ["result.nc"]
    assert store.resumable(path, lambda: study_of(1), compute).identical(result) and len(asked) == 4
    with pytest.raises(ValueError, match="result.nc.*other query"):
        store.resumable(path, lambda: study_of(2), compute)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_part_is_named(tmp_path, content):
    (tmp_path / "0.npy").write_bytes(content)
    with pytest.raises(ValueError, match="0.npy"):
        store.kept(tmp_path / "0.npy", lambda: np.zeros(1))


# ---- scans ------------------------------------------------------------------------------------


def scan(*args, **options) -> xr.Dataset:
    return qk.scan(*args, progress=False, **options)


def images(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


class Stop(Exception):
    """What cuts a scan off."""


def cut_off(net, *args, after: int = 2, **options) -> None:
    """Scans until some pictures have passed."""
    passed, note = itertools.count(), Atlas.note

    def stop(*given) -> None:
        if next(passed) == after:
            raise Stop
        note(*given)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Atlas, "note", stop)
        scan(net, *args, batch_size=1, save_every=0.0, **options)


@pytest.fixture(params=["finished", "cut off"])
def earlier(request, plain_vit, tmp_path):
    """A function that leaves a scan's file, or its state, behind, and gives where."""

    def leave(source, **options) -> Path:
        out = tmp_path / "atlas.nc"
        if request.param == "finished":
            scan(plain_vit, source, k=1, out=out, **options)
        else:
            cut_off(plain_vit, source, k=1, out=out, **options)
        return out

    return leave


def test_other_pictures_of_the_same_length_are_refused(plain_vit, earlier):
    out, other = earlier(images()), images()
    other[1] += 1e-3
    with pytest.raises(ValueError, match="atlas.nc.*'00000001'"):
        scan(plain_vit, other, k=1, out=out)
    with pytest.raises(ValueError, match="atlas.nc"):
        scan(plain_vit, images(seed=1), k=1, out=out)
    with pytest.raises(ValueError, match="atlas.nc.*'00000004'"):
        scan(plain_vit, images(5), k=1, out=out)
    assert int(scan(plain_vit, images(), k=1, out=out).done.sum()) == 4


@pytest.mark.parametrize("part", ["patch_embed.proj", "blocks.1.attn.qkv", "blocks.2.mlp.fc1"])
def test_a_network_that_differs_anywhere_is_refused(plain_vit, make_vit, earlier, part):
    out, other = earlier(images()), make_vit(seed=1)
    with torch.no_grad():
        other.get_submodule(part).weight[-1] += 0.1  # of qkv these are values
    assert qk.load(other).fingerprint == qk.load(plain_vit).fingerprint
    with pytest.raises(ValueError, match="atlas.nc.*other model"):
        scan(other, images(), k=1, out=out)
    shards = [
        scan(net, images(2, n), k=1, keys=[f"{n}a", f"{n}b"])
        for n, net in enumerate((plain_vit, other))
    ]
    with pytest.raises(ValueError, match="differ in model"):
        qk.merge(*shards)
    assert scan(make_vit(seed=1), images(), k=1, out=out).identical(scan(plain_vit, images(), k=1))


def test_other_preprocessing_is_refused(plain_vit, earlier, folder):
    model, out = qk.load(plain_vit), earlier(folder)
    other = type(model.transform)(model.transform.transforms[:-1])
    with pytest.raises(ValueError, match="atlas.nc.*preprocessing"):
        scan(replace(model, transform=other), folder, k=1, out=out)


def picture(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "set").mkdir()
    for n in range(4):
        picture(tmp_path / "set" / f"{n}.png", n)
    return tmp_path / "set"


def test_a_folder_with_the_same_names_is_refused(plain_vit, folder, earlier):
    out = earlier(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    picture(folder / "1.png", 9)
    with pytest.raises(ValueError, match="atlas.nc.*'1.png'"):
        scan(plain_vit, folder, k=1, out=out)
    (folder / "1.png").write_bytes(before["1.png"])
    (folder / "new.png").write_bytes(before["1.png"])
    with pytest.raises(ValueError, match="atlas.nc.*'new.png'"):
        scan(plain_vit, folder, k=1, out=out)
    (folder / "new.png").unlink()
    (folder / "2.png").rename(folder / "3.PNG")
    with pytest.raises(ValueError, match="atlas.nc.*'2.png'"):
        scan(plain_vit, folder, k=1, out=out)


@pytest.mark.filterwarnings("ignore:[12] images can't be read")
def test_a_mended_picture_is_read_again(plain_vit, folder, earlier):
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[:50])
    (folder / "3.png").write_text("never mended")
    picture(folder / "4.png", 4)
    out = earlier(folder)
    (folder / "0.png").write_bytes(whole)
    found = scan(plain_vit, folder, k=1, out=out)
    assert found.identical(scan(plain_vit, folder, k=1)) and qk.open_atlas(out).identical(found)
    assert found.done.values.tolist() == [True, True, True, False, True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Atlas, "note", lambda *_: pytest.fail("a picture was read"))
        assert scan(plain_vit, folder, k=1, out=out).identical(found)


@pytest.mark.filterwarnings("ignore:1 images can't be read")
def test_a_mended_picture_is_ranked_in_both_passes(plain_vit, folder, tmp_path):
    whole, out = (folder / "0.png").read_bytes(), tmp_path / "atlas.nc"
    (folder / "0.png").write_bytes(b"")
    scan(plain_vit, folder, k=1, out=out, precision="bfloat16")
    (folder / "0.png").write_bytes(whole)
    found = scan(plain_vit, folder, k=1, out=out, precision="bfloat16")
    assert found.identical(scan(plain_vit, folder, k=1, precision="bfloat16"))
    assert found.done.all() and names(tmp_path) == ["atlas.nc", "set"]


def test_one_picture_may_have_two_keys(plain_vit):
    one = scan(plain_vit, images(2), k=1, keys="ab")
    both = qk.merge(one, scan(plain_vit, images(2), k=1, keys="cd"))
    assert both.digest.values.tolist() == one.digest.values.tolist() * 2


def test_a_scan_of_names_that_are_no_utf8_is_kept_and_goes_on(plain_vit, folder, tmp_path):
    os.rename(os.fsencode(folder / "1.png"), os.fsencode(folder) + b"/x\xe9.png")
    out = tmp_path / os.fsdecode(b"atlas\xe9.nc")
    cut_off(plain_vit, folder, k=1, out=out)
    found = scan(plain_vit, folder, k=1, out=out)
    assert "x\\xe9.png" in found.key.values and found.done.all()
    assert qk.open_atlas(out).identical(found) and scan(plain_vit, folder, k=1, out=out).identical(
        found
    )


def test_where_the_atlas_can_not_be_written_nothing_is_read(plain_vit, tmp_path):
    (tmp_path / "file").write_text("")
    source = qk.pictures.Pictures(["a"], lambda _: pytest.fail("a picture was read"))
    for place in (tmp_path, tmp_path / "file" / "atlas.nc"):
        with pytest.raises(OSError, match=place.name):
            scan(plain_vit, source, out=place)


@pytest.mark.parametrize("after", [0, 2])
def test_a_full_disk_leaves_the_last_good_state(plain_vit, tmp_path, after):
    out, state = tmp_path / "atlas.nc", tmp_path / "atlas.nc.partial"
    if after:
        cut_off(plain_vit, images(), k=1, out=out, after=after)
    before = state.read_bytes() if after else None
    with small_disk(1000), pytest.raises(OSError, match="atlas.nc.*make room"):
        scan(plain_vit, images(), k=1, out=out, batch_size=1, save_every=0.0)
    assert names(tmp_path) == (["atlas.nc.partial"] if after else [])
    assert not after or state.read_bytes() == before
    assert scan(plain_vit, images(), k=1, out=out).identical(scan(plain_vit, images(), k=1))


@pytest.mark.parametrize("name", ["atlas.nc", "atlas.nc.partial"])
@pytest.mark.parametrize("kind", ["empty", "text", "half", "foreign", "modes cut off", "no scores"])
def test_a_state_that_is_damaged_or_foreign_is_refused_and_kept(plain_vit, tmp_path, name, kind):
    out, path = tmp_path / "atlas.nc", tmp_path / name
    atlas = scan(plain_vit, images(), k=1, out=out)
    whole, content = out.read_bytes(), {"empty": b"", "text": b"no atlas"}
    out.unlink()
    if kind == "foreign":
        store.save(path, xr.Dataset({"share": 1.0}, attrs={"identity": atlas.identity}))
    elif kind in ("modes cut off", "no scores"):
        cut = atlas.isel(mode=slice(4)) if "mode" in kind else atlas.assign(score=atlas.score + NAN)
        store.save(path, cut)
    else:
        path.write_bytes(content.get(kind, whole[: len(whole) // 2]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"{name}: "):
        scan(plain_vit, images(), k=1, out=out)
    assert path.read_bytes() == before and names(tmp_path) == [name]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_no_atlas_and_is_never_waited_for(tmp_path, kind):
    path = tmp_path / "atlas.nc"
    {"pipe": os.mkfifo, "folder": Path.mkdir}.get(kind, lambda p: p.symlink_to("/dev/zero"))(path)
    with pytest.raises(FileNotFoundError, match="atlas.nc"):
        qk.open_atlas(path)


def test_a_second_scan_of_one_file_is_refused(plain_vit, tmp_path):
    out, note, refused = tmp_path / "atlas.nc", Atlas.note, []

    def second(*given):
        note(*given)
        with pytest.raises(BlockingIOError, match=f"atlas.nc.*{os.getpid()}") as caught:
            scan(plain_vit, images(), k=1, out=out)
        refused.append(caught)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Atlas, "note", second)
        scan(plain_vit, images(), k=1, out=out)
    assert len(refused) == 1 and names(tmp_path) == ["atlas.nc"]


DAMAGE = {
    "score": lambda a: a.assign(score=a.score.where(a.layer != 1)),
    "score ": lambda a: a.drop_vars("score"),
    "score  ": lambda a: a.assign(score=-a.score),
    "score   ": lambda a: a.assign(score=a.score.isel(rank=[1, 0]).assign_coords(rank=[0, 1])),
    "score    ": lambda a: a.assign(score=a.score + np.inf),
    "mode": lambda a: a.isel(mode=slice(4)),
    "head": lambda a: a.isel(head=[1, 0, 2, 3]),
    "rank": lambda a: a.isel(rank=slice(1)),
    "query_patch": lambda a: a.assign(query_patch=a.query_patch.where(a.image < 0, 10**6)),
    "key_patch": lambda a: a.assign(key_patch=a.key_patch * 0 - 1),
    "key_patch ": lambda a: a.assign(key_patch=a.key_patch + 0.5),
    "image": lambda a: a.assign(image=a.image.where(a.image < 0, 999)),
    "image ": lambda a: a.assign(image=a.image.isel(layer=0)),
    "grid": lambda a: a.assign_attrs(grid=[3, 3]),
    "grid ": lambda a: a.assign_attrs(grid="4, 4"),
    "image_size": lambda a: a.assign_attrs(image_size=[64, 64]),
    "done": lambda a: a.assign(done=a.done & False),
    "digest": lambda a: a.assign(digest=a.digest.where(False, "")),
    "key": lambda a: a.assign_coords(key=a.key.where(False, "same")),
    "sigma": lambda a: a.assign(sigma=a.sigma * np.nan),
    "sign": lambda a: a.assign_coords(sign=[1, 2]),
    "logit_variance_sum": lambda a: a.drop_vars("logit_variance_sum"),
    "identity": lambda a: a.assign_attrs(identity=3),
}


@pytest.fixture(scope="module")
def atlas(plain_vit) -> xr.Dataset:
    return scan(plain_vit, images(), k=2, statistics=("variance",))


@pytest.mark.parametrize("named", DAMAGE)
def test_an_atlas_that_can_not_be_true_is_refused(atlas, tmp_path, named):
    check_atlas(atlas, whole=True)
    damaged, path = DAMAGE[named](atlas), tmp_path / "atlas.nc"
    for refuse in (qk.merge, lambda each: qk.atlas.save(each, path)):
        with pytest.raises(ValueError, match=named.strip()):
            refuse(damaged)
    store.save(path, damaged)
    with pytest.raises(ValueError, match=f"atlas.nc.*{named.strip()}"):
        qk.open_atlas(path)


def test_a_selection_of_an_atlas_is_one(atlas):
    check_atlas(atlas.isel(layer=[2], head=[1, 3], mode=slice(5), rank=[0]))
    with pytest.raises(ValueError, match="layer"):
        check_atlas(atlas.isel(layer=[1, 1]))
    with pytest.raises(ValueError, match="DataArray"):
        check_atlas(atlas.score)


# ---- the study ----------------------------------------------------------------------------------


def samples(count: int = 3) -> list[Sample]:
    rng, mask = np.random.default_rng(0), np.zeros((32, 32), bool)
    target, distractor = mask.copy(), mask.copy()
    target[:8, :8], distractor[16:24, 8:24] = True, True
    pictures = [
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(count)
    ]
    masks = {"target": target, "distractor": distractor}
    return [Sample(f"s{n}", each, masks) for n, each in enumerate(pictures)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("values", "model"),
        ("transform", "preprocessing"),
        ("query", "query"),
        ("pixel", "pictures"),
    ],
)
def test_a_study_is_known_by_all_that_it_depends_on(plain_vit, make_vit, tmp_path, change, named):
    path, model, of, options = tmp_path / "study.nc", qk.load(plain_vit), samples(), {}
    found = qk.studies.odd_one_out(model, of, path=path)
    assert qk.studies.odd_one_out(make_vit(seed=1), of, path=path).identical(found)
    if change == "values":
        other = make_vit(seed=1)
        with torch.no_grad():
            other.blocks[1].attn.qkv.weight[-1] += 0.1
        model = qk.load(other)
    elif change == "transform":
        model = replace(model, transform=type(model.transform)(model.transform.transforms[:-1]))
    elif change == "query":
        options = {"query": "weighted"}
    else:
        of[1].image.putpixel((0, 0), (1, 2, 3))
    with pytest.raises(ValueError, match=f"study.nc.*{named}"):
        qk.studies.odd_one_out(model, of, path=path, **options)


def test_a_study_of_names_that_are_no_utf8_is_kept(plain_vit, tmp_path):
    path, of = tmp_path / os.fsdecode(b"study\xe9.nc"), samples()
    of[1] = replace(of[1], key="caf\udce9")
    found = qk.studies.odd_one_out(plain_vit, of, path=path)
    assert qk.studies.odd_one_out(plain_vit, of, path=path).identical(found)


STUDY_DAMAGE = {
    "pictures cut off": lambda found: found.isel(image=slice(2)),
    "layers cut off": lambda found: found.isel(layer=[0]),
    "no shares": lambda found: found.drop_vars("share"),
    "NaN": lambda found: found.assign(share=found.share * NAN),
    "one number": lambda found: found.assign(share=found.share.where(found.layer > 0, 0.5)),
    "another order": lambda found: found.assign(
        share=found.share.copy(data=found.share.values[::-1])
    ),
}


@pytest.mark.parametrize("end", ["partial", "candidates", "again"])
def test_a_folder_in_the_place_of_a_state_is_known_before_the_scan(plain_vit, tmp_path, end):
    (tmp_path / f"a.nc.{end}").mkdir()
    with pytest.raises(IsADirectoryError, match=end):
        qk.scan(plain_vit, "nowhere", k=1, out=tmp_path / "a.nc")


@pytest.mark.parametrize("damage", [*STUDY_DAMAGE, "empty", "text", "half"])
def test_a_study_that_is_not_as_it_was_written_is_refused(plain_vit, tmp_path, damage):
    path = tmp_path / "study.nc"
    found = qk.studies.odd_one_out(plain_vit, samples(), path=path)
    assert qk.studies.odd_one_out(plain_vit, samples(), path=path).identical(found)
    if damage in STUDY_DAMAGE:
        changed = STUDY_DAMAGE[damage](found)
        store.save(path, changed.assign_coords(image=found.image[: changed.sizes["image"]]))
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"x"}.get(damage, whole[: len(whole) // 2]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="study.nc: "):
        qk.studies.odd_one_out(plain_vit, samples(), path=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize(
    "damage", [(), (7,), (1, 3, 9), "a picture more", "a layer less", "a region less"]
)
def test_a_part_of_a_study_of_another_shape_is_named(
    plain_vit, tmp_path, monkeypatch, damage, batch_size
):
    path = tmp_path / "study.nc"

    def stop(*_) -> None:
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("qkutils.studies._odd_one_out._label", stop)
        qk.studies.odd_one_out(plain_vit, samples(), batch_size=batch_size, path=path)
    (folder,) = tmp_path.glob("study.nc.*")
    last = max(folder.iterdir())
    own = np.load(last)
    others = {
        "a picture more": own.repeat(2, 0),
        "a layer less": own[:, 1:],
        "a region less": own[..., 1:],
    }
    np.save(last, np.zeros(damage) if isinstance(damage, tuple) else others[damage])
    with pytest.raises(ValueError, match=rf"{last.name}.*remove .*{folder.name}"):
        qk.studies.odd_one_out(plain_vit, samples(), batch_size=batch_size, path=path)


def test_a_second_study_of_one_file_is_refused(plain_vit, tmp_path):
    path = tmp_path / "study.nc"
    with store.locked(path), pytest.raises(BlockingIOError, match=f"study.nc.*{os.getpid()}"):
        qk.studies.odd_one_out(plain_vit, samples(), path=path)


# ---- models from the hub -------------------------------------------------------------------------

FETCHED = "vit_tiny_patch16_224.augreg_in21k"


@pytest.fixture
def hub(plain_vit, monkeypatch):
    """A hub that gives a small model."""
    monkeypatch.setattr("qkutils.models._loading._from_timm", lambda name, row: plain_vit)


def test_a_full_disk_leaves_no_half_fetched_model(hub, plain_vit, tmp_path):
    with small_disk(1000), pytest.raises(OSError, match=f"{FETCHED}.*make room"):
        qk.models.fetch(FETCHED, tmp_path)
    assert names(tmp_path) == []
    kept = load_file(qk.models.fetch(FETCHED, str(tmp_path)))
    assert all(torch.equal(kept[name], each) for name, each in plain_vit.state_dict().items())


def test_a_second_fetch_of_one_model_is_refused(hub, tmp_path):
    with store.locked(tmp_path / f"{FETCHED}.safetensors"):
        with pytest.raises(BlockingIOError, match=f"{FETCHED}.*{os.getpid()}"):
            qk.models.fetch(FETCHED, tmp_path)
    assert names(tmp_path) == []


def test_where_a_study_can_not_be_written_nothing_is_read(plain_vit, tmp_path):
    with pytest.raises(OSError, match=tmp_path.name):
        qk.studies.odd_one_out(plain_vit, [], path=tmp_path)
