"""The web page: what visitors may ask for, what they get, and the page in a real browser.

The browser's part is skipped where Gradio, selenium, Chromium or its driver are not installed;
`make test-browser` installs the first two.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from threading import Lock

import pytest
import torch
from PIL import Image

import attrib
from attrib.app import AppOptions, Studio, build, cut, deadline, draw, held, pack, read_upload
from attrib.cli import app
from attrib.datasets import Scenes
from attrib.errors import (
    DeadlineError,
    ImageError,
    InputError,
    MissingExtraError,
    TargetError,
    UnknownNameError,
)
from attrib.methods import METHODS

CHROMIUM, DRIVER = (
    next((path for name in names if (path := shutil.which(name))), None)
    for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
)
MISSING = [name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None]
in_a_browser = pytest.mark.skipif(
    bool(MISSING) or CHROMIUM is None or DRIVER is None,
    reason="needs gradio, selenium, Chromium and its driver",
)
METHODS_ASKED = ["infocam+", "gradcam"]


@pytest.fixture(scope="module")
def upload(tmp_path_factory):
    path = tmp_path_factory.mktemp("upload") / "scene.png"
    scene = Scenes(length=1, size=(120, 160), seed=4)[0]
    Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture(scope="module")
def studio():
    return Studio(AppOptions(device="cpu"))


@pytest.fixture(scope="module")
def answer(studio, upload):
    return studio.explain(read_upload(upload, studio.options), "demo", "", METHODS_ASKED)


def test_what_needs_weights_is_not_offered_and_slow_families_only_by_name():
    offered = AppOptions().methods
    assert {"cam", "infocam+", "gradcam", "integrated-gradients"} <= set(offered)
    assert not {"ib-mask", "aib", "rollout", "lime", "tta"} & set(offered)
    assert all(not METHODS[name].needs_weights for name in offered)
    assert AppOptions(methods=("lime(samples=8)",)).methods == ("lime(samples=8)",)


@pytest.mark.parametrize(
    "wrong", [{"models": ()}, {"timeout": 0}, {"max_megapixels": -1}, {"timeout": float("nan")}]
)
def test_limits_are_above_nothing(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        AppOptions(**wrong)


def test_an_unknown_method_is_refused_at_the_start():
    with pytest.raises(UnknownNameError, match="gradcam"):
        AppOptions(methods=("gradcamm",))


def test_visitors_choose_among_the_models_of_the_page():
    mine = AppOptions(models=("demo", "local-dir:mine"))
    assert mine.model("local-dir:mine") == "local-dir:mine"
    with pytest.raises(UnknownNameError, match="on this page"):
        mine.model("resnet18")


@pytest.mark.parametrize(
    "name",
    [
        "local-dir:/etc",
        "hf-hub:a/b",
        "hf_hub:a/b",
        "aib:x.pt",
        "a/b",
        "../x",
        "",
        "torchvision/a/b",
    ],
)
def test_no_path_and_no_repository_is_taken_from_a_visitor(name):
    options = AppOptions(allow_models=True)
    with pytest.raises(InputError, match="no folder, file or hub repository"):
        options.model(name)
    assert options.model("torchvision/resnet18") == "torchvision/resnet18"
    assert options.model("resnet50.a1_in1k") == "resnet50.a1_in1k"


def test_a_refused_model_is_not_loaded(studio, upload, monkeypatch):
    monkeypatch.setattr("attrib.app.studio.load_model", None)
    with pytest.raises(UnknownNameError):
        studio.predict(read_upload(upload, studio.options), "local-dir:/etc")


def test_large_files_and_pictures_are_refused_before_they_are_decoded(upload, monkeypatch):
    size = upload.stat().st_size / 1e6
    with pytest.raises(ImageError, match="save it smaller"):
        read_upload(upload, AppOptions(max_megabytes=size * 0.99))
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(ImageError, match="160") as refused:
        read_upload(upload, AppOptions(max_megapixels=0.0191))
    assert str(upload.parent) not in str(refused.value)
    monkeypatch.undo()
    picture = read_upload(upload, AppOptions(max_megapixels=0.0192))
    assert (picture.name, tuple(picture.pixels.shape)) == ("scene.png", (3, 120, 160))


def test_predictions_are_the_models_own(studio, upload):
    top = studio.predict(read_upload(upload, studio.options), "demo")
    explanation = attrib.explain("demo", upload, [top[1][2]])
    assert explanation.label == top[1][0]
    assert explanation.score == pytest.approx(top[1][1], abs=1e-6)
    scores = [score for _, score, _ in top]
    assert scores == sorted(scores, reverse=True)


def test_an_answer_is_that_of_explain(answer, upload):
    for method in METHODS_ASKED:
        expected = attrib.explain("demo", upload, method=method)
        found = answer.explanations[method]
        assert (found.target, found.box) == (expected.target, expected.box)
        assert torch.allclose(found.heatmap, expected.heatmap.to(found.heatmap.device), atol=1e-5)


def test_a_class_is_named_or_numbered(studio, upload):
    picture = read_upload(upload, studio.options)
    label, _, index = studio.predict(picture, "demo")[2]
    for target in (label, str(index), f" {label} "):
        found = studio.explain(picture, "demo", target, ["cam"])
        assert found.explanations["cam"].target == index
    with pytest.raises(UnknownNameError, match="nothing-like-it"):
        studio.explain(picture, "demo", "nothing-like-it", ["cam"])
    with pytest.raises(TargetError, match="99"):
        studio.explain(picture, "demo", "99", ["cam"])


def test_what_a_visitor_did_not_choose_or_may_not(studio, upload):
    picture = read_upload(upload, studio.options)
    with pytest.raises(InputError, match="choose a method"):
        studio.explain(picture, "demo", "", [])
    with pytest.raises(UnknownNameError, match="on this page"):
        studio.explain(picture, "demo", "", ["ib-mask(weights='/etc/passwd')"])


def test_a_method_that_fails_does_not_take_the_others_along(upload):
    options = AppOptions(methods=("cam", "gradcam(layer='nowhere')"), device="cpu")
    found = Studio(options).explain(read_upload(upload, options), "demo", "", options.methods)
    assert list(found.explanations) == ["cam"]
    assert "nowhere" in found.failures["gradcam(layer='nowhere')"]


def test_models_are_loaded_once_and_the_oldest_goes(upload, monkeypatch):
    loads = []

    def load(name, device):
        loads.append(name)
        return attrib.load_model("demo", device=device)

    monkeypatch.setattr("attrib.app.studio.load_model", load)
    options = AppOptions(models=("a", "b", "c"), kept_models=2, device="cpu")
    studio, picture = Studio(options), read_upload(upload, options)
    for name in "abacab":
        studio.predict(picture, name)
    assert "".join(loads) == "abcb"


def test_another_threshold_runs_no_model(answer, upload, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    for threshold in (0.1, 0.5, 0.9):
        again = cut(answer, threshold)
        for method, found in again.explanations.items():
            before = answer.explanations[method]
            where = attrib.localize(before.attribution, threshold=threshold)
            assert torch.equal(found.mask, where.masks[0][0])
            assert found.attribution is before.attribution
    areas = [int(cut(answer, t).explanations["infocam+"].mask.sum()) for t in (0.1, 0.5, 0.9)]
    assert areas[0] > areas[1] > areas[2]


def test_what_is_drawn_follows_what_is_asked_for(answer):
    def pixels(*parts):
        figure = draw(answer, parts)
        assert len([a for a in figure.axes if a.get_title()]) == len(METHODS_ASKED)
        figure.canvas.draw()
        return bytes(figure.canvas.buffer_rgba())

    assert len({pixels(*p) for p in ((), ("heatmap",), ("mask",), ("box",))}) == 4


def test_large_pictures_are_drawn_small(studio):
    scene = attrib.read_image(Scenes(length=1, size=(640, 1280), seed=4)[0].image)
    answer = studio.explain(scene, "demo", "", ["cam"])
    axis = next(a for a in draw(answer).axes if a.get_title())
    assert axis.get_images()[0].get_array().shape[:2] == (320, 640)
    x0, y0, x1, y1 = answer.explanations["cam"].box
    drawn = axis.patches[0].get_bbox().extents + 0.5
    assert drawn.tolist() == pytest.approx([x0 / 2, y0 / 2, x1 / 2, y1 / 2], abs=0.5)


def test_a_zip_holds_what_save_writes_and_old_ones_go(answer, tmp_path):
    old = pack(answer, tmp_path)
    os.utime(old, (time.time() - 3600,) * 2)
    path = pack(cut(answer, 0.5), tmp_path)
    assert not old.parent.exists()
    with zipfile.ZipFile(path) as archive:
        stems = ("1-infocam+", "2-gradcam")
        names = {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "json", "npz")}
        assert set(archive.namelist()) == names
        written = json.loads(archive.read("1-infocam+.json"))
    assert written == cut(answer, 0.5).explanations["infocam+"].to_dict()


def test_what_takes_too_long_ends_with_the_model_as_it_was(upload):
    options = AppOptions(methods=("rib(steps=100000)",), timeout=1.5, device="cpu")
    studio, picture = Studio(options), read_upload(upload, options)
    studio.predict(picture, "demo")
    kept = studio._kept["demo"]
    model = kept.classifier.model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(DeadlineError, match=r"1\.5 s"):
        studio.explain(picture, "demo", "", options.methods)
    assert not kept.lock.locked()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert studio.predict(picture, "demo")


def test_the_deadline_leaves_time_to_clear_up_and_is_gone_afterwards():
    cleaned = []

    def work():
        try:
            while True:
                torch.ones(2).sum()
        finally:
            cleaned.append(torch.ones(2).sum())

    with pytest.raises(DeadlineError), deadline(0.01):
        work()
    assert cleaned
    assert torch.ones(2).sum() == 2


def test_who_swallows_the_deadline_meets_it_again():
    caught = []

    def work():
        while len(caught) < 2:
            try:
                torch.ones(2).sum()
            except DeadlineError as error:
                caught.append(error)

    with deadline(0.01):
        work()
    assert len(caught) == 2


def test_waiting_for_a_model_counts():
    lock = Lock()
    with held(lock, 1.0), pytest.raises(DeadlineError), held(lock, 0.01):
        pass
    assert not lock.locked()


def test_without_gradio(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'attrib\[app\]'"):
        build(AppOptions(), tmp_path)


def test_the_command_passes_on_what_it_is_given(monkeypatch):
    from typer.testing import CliRunner

    served = {}
    monkeypatch.setattr("attrib.app.serve", lambda *a, **k: served.update(options=a[0], **k))
    assert CliRunner().invoke(app, ["app"]).exit_code == 0
    assert (served["host"], served["options"].models) == ("127.0.0.1", ("demo",))
    assert not served["options"].allow_models
    given = [
        "--model",
        "demo",
        "-m",
        "resnet18",
        "--method",
        "cam",
        "--timeout",
        "7",
        "--port",
        "1",
    ]
    assert CliRunner().invoke(app, ["app", *given, "--allow-models"]).exit_code == 0
    expected = AppOptions(
        models=("demo", "resnet18"), methods=("cam",), timeout=7, allow_models=True
    )
    assert (served["options"], served["port"]) == (expected, 1)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page of its own process, of 1 MB and 0.03 megapixels at most."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path_factory.mktemp("temporary")
    code = "from attrib.cli import main; main()"
    limits = ["--max-megabytes", "1", "--max-megapixels", "0.03", "--device", "cpu"]
    server = subprocess.Popen(
        [sys.executable, "-c", code, "app", "--port", str(port), *limits],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: listens(port), 300)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(120)
    assert not list(temporary.glob("attrib-app-*"))  # what visitors left is gone


def listens(port):
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def wait(what, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s in vain")


@pytest.fixture
def browser(address, tmp_path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1280,1100"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(service=webdriver.ChromeService(DRIVER), options=options)
    driver.get(address)
    wait(lambda: driver.find_elements("css selector", "#picture input[type=file]"))
    yield driver
    if folder := os.environ.get("ATTRIB_SCREENSHOTS"):
        driver.save_screenshot(f"{folder}/{time.monotonic_ns()}.png")
    driver.quit()


def element(browser, css):
    return wait(lambda: browser.find_elements("css selector", css))[0]


def result(browser):
    return element(browser, "#result textarea").get_property("value")


def shown_maps(browser):
    return [
        image.get_attribute("src") for image in browser.find_elements("css selector", "#maps img")
    ]


def give(browser, path):
    element(browser, "#picture input[type=file]").send_keys(str(path))
    wait(lambda: "scene" in element(browser, "#picture").text)


@in_a_browser
def test_a_visit(browser, address, upload, answer, tmp_path):
    give(browser, upload)
    element(browser, "#explain").click()
    wait(lambda: shown_maps(browser))
    expected = answer.explanations["infocam+"]
    box = " ".join(map(str, expected.box))
    first = result(browser).splitlines()[0]
    assert first == f"infocam+: {expected.label} {expected.score:.1%}, box {box}"

    before = shown_maps(browser)
    browser.execute_script("""
        const range = document.querySelector("#threshold input[type=range]");
        range.value = 0.6;
        range.dispatchEvent(new Event("input", {bubbles: true}));
        range.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
    """)
    wait(lambda: shown_maps(browser) not in ([], before))
    box = cut(answer, 0.6).explanations["infocam+"].box
    assert result(browser).splitlines()[0].endswith(f"box {' '.join(map(str, box))}")

    element(browser, "#pack").click()
    element(browser, "#file a").click()
    wait(lambda: list(tmp_path.glob("*.zip")))
    with zipfile.ZipFile(next(tmp_path.glob("*.zip"))) as archive:
        written = json.loads(archive.read("1-infocam+.json"))
    assert written["results"][0]["box"] == list(box)


@in_a_browser
def test_too_large_a_picture_is_told(browser, tmp_path):
    Image.new("RGB", (200, 160)).save(tmp_path / "scene.png")
    give(browser, tmp_path / "scene.png")
    element(browser, "#explain").click()
    wait(lambda: "pixels" in element(browser, "body").text.replace("megapixels", ""))
    assert not shown_maps(browser)
