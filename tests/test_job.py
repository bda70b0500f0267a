"""The seeds job: whole files, resumed to the same bytes, whatever happens in between."""

import errno
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import attrib
from attrib.cli import app
from attrib.datasets import Folder
from attrib.datasets.scenes import CLASSES
from attrib.errors import InputError, ModelError, OutputError
from attrib.evaluate import evaluate_seeds
from attrib.methods import RIB
from attrib.seeds import FORMATS, Local, SeedOptions, make_seeds, pool_of, read_label_png
from tests.models import Everything
from tests.seed_jobs import COUNT, contents, folder, kill_job

ALL = tuple(FORMATS)
SMALL = SeedOptions(scales=(1.0, 0.5), formats=ALL)
RIB_SPEC = (
    "rib(steps=2, lr=1e-3, train_from=4, scales=(1.0, 0.5), loss_scales=(1.0,), others='{}', "
    "num_others=1, pool_pictures=6, pool_size=48, pool_long_side=(40, 64))"
)


@pytest.fixture(scope="module")
def straight(root, explainer, tmp_path_factory):
    """The job's results when nothing goes wrong."""
    out = tmp_path_factory.mktemp("straight")
    report = make_seeds(explainer, folder(root), out, SMALL)
    assert (report.made, report.kept, report.failed, report.complete) == (COUNT, 0, {}, True)
    return contents(out)


def test_what_is_written(root, straight, explainer, tmp_path):
    names = {f"{name}/p{i}{FORMATS[name].suffix}" for name in ALL for i in range(COUNT)}
    assert set(straight) == names | {"job.json", "rle.json", "boxes.json", "boxes.csv"}
    job = json.loads(straight["job.json"])
    assert job["method"] == "cam"
    assert job["options"]["scales"] == [1.0, 0.5]
    boxes = json.loads(straight["boxes.json"])
    assert [row["id"] for row in boxes] == [f"p{i}" for i in range(COUNT - 1)]
    assert all(0 < row["score"] <= 1 for row in boxes)
    for readers in (0, 4):
        out = tmp_path / f"again with {readers}"
        make_seeds(explainer, folder(root), out, SMALL, engine=Local(readers=readers))
        assert contents(out) == straight
    with pytest.raises(InputError, match="readers is 0 or more, got -1"):
        Local(readers=-1)
    empty = read_label_png(out / "label" / f"p{COUNT - 1}.png")
    assert empty.shape == (96, 96)
    assert not empty.any()


def test_a_label_image_is_its_maps_thresholded(root, straight, explainer, tmp_path):
    """The definition once more, from the picture on: views, maps, sums, normalised, argmax."""
    from PIL.Image import Resampling
    from torch.nn.functional import interpolate

    data = folder(root)
    make_seeds(explainer, data, tmp_path, SMALL)
    classifier = explainer.classifier
    for i in range(COUNT - 1):
        sample = data[i]
        image = Image.open(sample.picture).convert("RGB")
        total = 0
        for scale in (1.0, 0.5):
            size = tuple(round(side * scale) for side in image.size)
            x = np.array(image.resize(size, Resampling.BICUBIC), np.float64) / 255
            x = torch.from_numpy((x - classifier.spec.mean) / classifier.spec.std)
            x = x.float().permute(2, 0, 1)[None]
            (label,) = sample.labels
            maps = classifier.class_maps(classifier.forward(torch.cat([x, x.flip(3)])).grid)
            both = maps[0, label].relu() + maps[1, label].relu().flip(1)
            side = 16 * ((image.size[0] - 1) // 16 + 1)
            total = total + interpolate(both[None, None], size=(side, side), mode="bilinear")[0, 0]
        total = total[: image.size[1], : image.size[0]]
        want = torch.where(total / (total.max() + 1e-5) > 0.25, label + 1, 0)
        assert torch.equal(read_label_png(tmp_path / "label" / f"p{i}.png").long(), want)


@pytest.mark.parametrize("others", ["sampled", "expected"])
def test_rib_over_a_data_set(root, tmp_path, others):
    explainer = attrib.Explainer("demo", RIB_SPEC.format(others))
    before = Everything(explainer.classifier.model)
    options = SeedOptions(formats=("npz",))
    report = make_seeds(explainer, folder(root), tmp_path / "a", options)
    assert (report.made, report.failed) == (COUNT, {})
    before.assert_same(explainer.classifier.model)
    for i in (1, 2):
        make_seeds(explainer, folder(root), tmp_path / "b", options, shard=(i, 2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    alone = attrib.Explainer("demo", RIB_SPEC.format("sampled").replace("others='sampled', ", ""))
    make_seeds(alone, folder(root), tmp_path / "c", options)
    assert contents(tmp_path / "a")["npz/p0.npz"] != contents(tmp_path / "c")["npz/p0.npz"]


def test_a_pool_has_no_picture_that_cannot_be_read(root, explainer, tmp_path):
    for path in root.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = Folder(tmp_path, tmp_path / "labels.csv", classes=CLASSES)
    (tmp_path / "p1.png").write_bytes(b"no picture")
    options = RIB(pool_pictures=10, pool_size=40, pool_long_side=(30, 50))
    pool = pool_of(data, explainer.classifier, options)
    assert pool.images.shape == (COUNT - 2, 3, 40, 40)
    assert torch.equal(pool.labels.sum(1), torch.ones(COUNT - 2, dtype=torch.int64))


def test_killed_at_any_moment_and_repeated(root, straight, explainer, tmp_path):
    """Twice, by SIGKILL, after one picture more each time; also with half a line written."""
    journal = tmp_path / "journal" / "1-of-1.jsonl"
    for wanted in (1, 3):
        done = kill_job(root, tmp_path, SMALL, wanted)
    with journal.open("ab") as file:
        file.write(b'{"id": "p5", "stat')
    (tmp_path / "label" / ".p5.123.png").write_bytes(b"half a file")
    data = Folder(root, root / "labels.csv", classes=CLASSES)
    report = make_seeds(explainer, data, tmp_path, SMALL)
    assert (report.kept, report.made, report.complete) == (done, COUNT - done, True)
    assert contents(tmp_path) == straight
    assert all(json.loads(row) for row in journal.read_text().splitlines())


def test_files_that_were_lost_are_made_again(root, straight, explainer, tmp_path):
    make_seeds(explainer, folder(root), tmp_path, SMALL)
    (tmp_path / "npz" / "p2.npz").unlink()
    (tmp_path / "irn" / "p3.npy").write_bytes(b"")
    report = make_seeds(explainer, folder(root), tmp_path, SMALL)
    assert (report.made, report.kept) == (2, COUNT - 2)
    assert contents(tmp_path) == straight


def test_shards_make_what_one_run_makes(root, straight, explainer, tmp_path):
    reports = [
        make_seeds(explainer, folder(root), tmp_path, SMALL, shard=(i, 4)) for i in (4, 1, 3)
    ]
    assert [r.made for r in reports] == [1, 2, 1]
    assert not any(r.complete for r in reports)
    assert not (tmp_path / "rle.json").exists()
    assert make_seeds(explainer, folder(root), tmp_path, SMALL, shard=(2, 4)).complete
    assert contents(tmp_path) == straight
    assert make_seeds(explainer, folder(root), tmp_path, SMALL).kept == COUNT
    with pytest.raises(InputError, match=r"i from 1 to n, got \(5, 4\)"):
        make_seeds(explainer, folder(root), tmp_path, SMALL, shard=(5, 4))


def test_another_job_is_refused(root, explainer, tmp_path):
    make_seeds(explainer, folder(root), tmp_path, SeedOptions(scales=(1.0,)))
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"job: options\.threshold was 0\.25, is 0\.3\. Give"):
        make_seeds(explainer, folder(root), tmp_path, SeedOptions(scales=(1.0,), threshold=0.3))
    other = attrib.Explainer("demo", "infocam+")
    with pytest.raises(InputError, match=r"another job: method was 'cam', is 'infocam\+'\. Give"):
        make_seeds(other, folder(root), tmp_path, SeedOptions(scales=(1.0,)))
    other = attrib.Explainer("demo", "cam")
    with torch.no_grad():
        next(other.classifier.model.parameters())[0] += 1
    with pytest.raises(InputError, match="weights was"):
        make_seeds(other, folder(root), tmp_path, SeedOptions(scales=(1.0,)))
    assert contents(tmp_path) == before
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(InputError, match=r"job\.json is damaged"):
        make_seeds(explainer, folder(root), tmp_path, SeedOptions(scales=(1.0,)))


def test_a_second_process_on_the_same_shard_is_refused(root, explainer, tmp_path):
    from attrib.journal import Journal

    held = f"""
import time
from pathlib import Path
from attrib.journal import Journal
with Journal(Path({str(tmp_path)!r}), "1-of-1").open():
    print("held", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", held]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is writing"):
            make_seeds(explainer, folder(root), tmp_path, SMALL)
        process.kill()
    with Journal(tmp_path, "1-of-1").open():
        pass


@pytest.fixture
def damaged(root, tmp_path):
    """The same pictures, one of them corrupt."""
    place = tmp_path / "pictures"
    place.mkdir()
    for path in root.glob("*.*"):
        (place / path.name).write_bytes(path.read_bytes())
    whole = (place / "p2.png").read_bytes()
    (place / "p2.png").write_bytes(whole[: len(whole) // 2])
    return place


def test_a_corrupt_picture_is_recorded_and_the_job_goes_on(
    root, straight, damaged, explainer, tmp_path
):
    data = Folder(damaged, damaged / "labels.csv", classes=CLASSES)
    out = tmp_path / "out"
    report = make_seeds(explainer, data, out, SMALL)
    assert (report.made, report.complete) == (COUNT - 1, True)
    assert list(report.failed) == ["p2"]
    assert "p2.png' is damaged" in report.failed["p2"]
    assert not (out / "label" / "p2.png").exists()
    assert len(json.loads((out / "boxes.json").read_text())) == COUNT - 2
    (damaged / "p2.png").write_bytes((root / "p2.png").read_bytes())
    again = make_seeds(explainer, data, out, SMALL)
    assert (again.made, again.kept, again.failed) == (1, COUNT - 1, {})
    assert contents(out) | {"job.json": b""} == straight | {"job.json": b""}  # names the folder


def test_when_every_picture_fails_the_job_gives_up(root, explainer, tmp_path, monkeypatch):
    monkeypatch.setattr("attrib.seeds.job.IN_A_ROW", 3)
    place = tmp_path / "pictures"
    place.mkdir()
    for path in root.glob("*.*"):
        (place / path.name).write_bytes(b"" if path.suffix == ".png" else path.read_bytes())
    data = Folder(place, place / "labels.csv", classes=CLASSES)
    with pytest.raises(
        ModelError, match=r"3 pictures in a row failed, the last \(p2\) with: .*empty"
    ):
        make_seeds(explainer, data, tmp_path / "out", SMALL)


def test_a_full_disk_stops_the_job_and_a_rerun_goes_on(
    root, straight, explainer, tmp_path, monkeypatch
):
    written = Path.write_bytes

    def full(path, data):
        if path.parent.name == "npz" and ".p3." in path.name:
            written(path, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return written(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"No space left on device.*repeat the command"):
            make_seeds(explainer, folder(root), tmp_path, SMALL)
    assert not list((tmp_path / "npz").glob("*p3*"))
    report = make_seeds(explainer, folder(root), tmp_path, SMALL)
    assert 3 <= report.kept < COUNT
    assert contents(tmp_path) == straight


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "../b"], r"names the picture '\.\./b'; expected a path within"),
        (["/a", "b"], "expected a path within"),
        (["a", "b", "a"], "lists a more than once"),
    ],
)
def test_ids_that_cannot_be_files(ids, message, root, explainer, tmp_path):
    class Renamed:
        name, labels, category_ids = "renamed", CLASSES, folder(root).category_ids

        def __len__(self):
            return len(ids)

        def __getitem__(self, index):
            return replace(folder(root)[index], id=ids[index])

        def mask(self, index):
            return folder(root).mask(index)

    with pytest.raises(InputError, match=message):
        make_seeds(explainer, Renamed(), tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_options_that_make_no_sense(tmp_path):
    for options, message in (
        ({"formats": ()}, "at least one format"),
        ({"formats": ("png",)}, "unknown seed format 'png'"),
        ({"scales": (1.0, 0.0)}, "scales are positive"),
        ({"alpha": -1.0}, "alpha is positive"),
        ({"foreground": 0.1, "background": 0.2}, "foreground 0.1 is below background 0.2"),
        ({"saliency": tmp_path / "none"}, "folder of masks"),
    ):
        with pytest.raises(attrib.AttribError, match=message):
            SeedOptions(**options)


def test_a_method_that_cannot_be_set_up_claims_no_folder(root, explainer, tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("no such layer")

    monkeypatch.setattr("attrib.seeds.maker._plain_sums", refuse)
    with pytest.raises(InputError, match="no such layer"):
        make_seeds(explainer, folder(root), tmp_path, SMALL)
    assert not any(tmp_path.iterdir())


def test_labels_that_are_not_the_models_are_refused(root, explainer, tmp_path):
    other = Folder(root, root / "labels.csv", classes=tuple(reversed(CLASSES)))
    with pytest.raises(InputError, match="class names differ"):
        make_seeds(explainer, other, tmp_path)


def test_saliency_turns_disagreement_into_ignore(root, explainer, tmp_path):
    salient = tmp_path / "salient"
    salient.mkdir()
    data = folder(root)
    for i in range(COUNT):
        Image.fromarray((data.mask(i).numpy() > 0).astype(np.uint8) * 255).save(
            salient / f"p{i}.png"
        )
    options = SeedOptions(scales=(1.0,), formats=("label", "npz"), saliency=salient)
    make_seeds(explainer, data, tmp_path / "with", options)
    make_seeds(explainer, data, tmp_path / "without", SeedOptions(scales=(1.0,)))
    for i in range(COUNT):
        ours = read_label_png(tmp_path / "with" / "label" / f"p{i}.png")
        plain = read_label_png(tmp_path / "without" / "label" / f"p{i}.png")
        want = torch.where((plain > 0) == (data.mask(i) > 0), plain, 255)
        assert torch.equal(ours, want)
    Image.new("L", (3, 3)).save(salient / "p0.png")
    report = make_seeds(explainer, data, tmp_path / "odd", options)
    assert list(report.failed) == ["p0"]


def test_a_model_of_one_size_takes_squashed_pictures(root, tmp_path):
    import timm

    model = timm.create_model("test_vit", num_classes=8).eval()
    explainer = attrib.Explainer(model, "cam")
    options = SeedOptions(scales=(1.0,), fit="squash", formats=("npz",))
    report = make_seeds(explainer, folder(root), tmp_path, options)
    assert (report.made, report.failed) == (COUNT, {})
    maps = FORMATS["npz"].read(tmp_path / "npz" / "p1.npz")
    assert maps.high_res.shape == (1, 64, 64)


@pytest.mark.parametrize("method", ["infocam+", "gradcam"])
def test_any_method_with_refinement(root, tmp_path, method):
    explainer = attrib.Explainer("demo", method)
    options = SeedOptions(scales=(1.0,), formats=("npz",), refine="pamr")
    assert make_seeds(explainer, folder(root), tmp_path, options).made == COUNT
    maps = FORMATS["npz"].read(tmp_path / "npz" / "p0.npz")
    assert maps.cam.shape == (1, 14, 14)
    assert 0.1 < maps.high_res.max() <= 1


def test_scoring_what_was_made(root, explainer, tmp_path):
    data = folder(root)
    options = SeedOptions(scales=(1.0, 0.5), formats=("label", "npz"), threshold=0.3)
    make_seeds(explainer, data, tmp_path, options)
    page = tmp_path / "worst.html"
    of_maps = evaluate_seeds(data, tmp_path, threshold=0.3, worst=2, html=page)
    of_labels = evaluate_seeds(data, tmp_path, kind="label")
    assert (of_maps["format"], of_labels["format"]) == ("npz", "label")
    assert of_maps["fixed"]["miou"] == pytest.approx(of_labels["fixed"]["miou"], abs=0.2)  # half
    assert of_maps["sweep"]["0.3"] == pytest.approx(of_maps["fixed"]["miou"])
    assert of_maps["oracle"]["miou"] == max(of_maps["sweep"].values())
    assert "oracle" not in of_labels
    perfect = evaluate_seeds(data, root / "masks", kind="label")
    assert perfect["fixed"]["miou"] == 100
    text = page.read_text()
    assert text.count("<figure>") == 2
    assert all(row["id"] in text for row in of_maps["worst"])
    (tmp_path / "npz" / "p1.npz").unlink()
    with pytest.raises(InputError, match=r"1 of 6 pictures have no seed .* p1"):
        evaluate_seeds(data, tmp_path)
    assert evaluate_seeds(data, tmp_path, skip_missing=True)["missing"] == 1
    with pytest.raises(InputError, match="holds no seeds of the format irn"):
        evaluate_seeds(data, tmp_path, kind="irn")


def test_ignored_pixels_are_dropped_or_wrong(root, tmp_path):
    data = folder(root)
    half = data.mask(0).clone()
    half[: len(half) // 2] = 255
    for i in range(COUNT):
        Image.fromarray((half if i == 0 else data.mask(i)).numpy()).save(tmp_path / f"p{i}.png")
    dropped = evaluate_seeds(data, tmp_path, kind="label")
    scored = evaluate_seeds(data, tmp_path, kind="label", ignored="scored")
    assert dropped["fixed"]["miou"] == 100
    recall = scored["fixed"]["classes"]["background"]["recall"]
    truth = torch.cat([data.mask(i).flatten() for i in range(COUNT)])
    lost = (data.mask(0)[half == 255] == 0).sum()
    assert recall == pytest.approx(100 * float(1 - lost / (truth == 0).sum()))


def test_the_commands(root, damaged, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    out = tmp_path / "out"
    data = ("--dataset", "folder", "--root", root, "--labels", root / "labels.csv")
    made = run("seeds", *data, "--model", "demo", "--scales", "1,0.5", "--out", out,
               "--format", "label,irn", "--refine", "pamr")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert f"made {COUNT}, kept 0, failed 0" in made.output
    scored = run("evaluate", "seeds", out, *data, "--masks", root / "masks", "--allow-pickle",
                 "--json", tmp_path / "scores.json", "--html", tmp_path / "worst.html")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    assert "fixed background 0.25" in scored.output
    result = json.loads((tmp_path / "scores.json").read_text())
    assert (result["schema"], result["format"]) == ("attrib.seed-scores/1", "irn")
    assert len(result["sweep"]) == 66
    documented = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    section = documented.split("## `attrib.seed-scores/1`")[1].split("\n## ")[0]
    for name in {
        *result,
        *result["oracle"],
        *result["worst"][0],
        *result["fixed"]["classes"]["cat"],
    }:
        assert f"`{name}`" in section, name
    bad = ("--dataset", "folder", "--root", damaged, "--labels", damaged / "labels.csv")
    failed = run("seeds", *bad, "--model", "demo", "--out", tmp_path / "bad", "--scales", "1")
    assert failed.exit_code == 1
    assert "failed: p2: " in failed.output
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attrib.seeds.maker.SeedMaker.__call__", interrupted)
        stopped = run("seeds", *data, "--model", "demo", "--out", tmp_path / "stopped")
    assert stopped.exit_code == 130
    assert "goes on when the command is repeated" in stopped.output
    for options, message in {
        ("--shard", "2"): "or auto under torchrun, got '2'",
        ("--scales", "a"): "numbers like 1,0.5,1.5, got 'a'",
        ("--format", "png"): "unknown seed format 'png'",
        ("--method", "rib", "--scales", "1"): "rib has scales and flips of its own",
    }.items():
        refused = run("seeds", *data, "--model", "demo", "--out", tmp_path / "no", *options)
        assert isinstance(refused.exception, attrib.AttribError)
        assert message in str(refused.exception)


def interrupted(*_):
    raise KeyboardInterrupt


def test_memory_is_kept_in_processes_of_our_own():
    """On glibc, and only where the user has said nothing else."""
    code = "from attrib.cli.memory import keep_freed_memory as keep; print(keep())"

    def said(**environment):
        plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=plain | environment
        )
        return done.stdout.strip()

    assert said(MALLOC_ARENA_MAX="1") == "False"
    assert said() == str(sys.platform == "linux" and platform.libc_ver()[0] == "glibc")
