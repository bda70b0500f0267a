"""The device path, without any data: the same answers as on the CPU, and no way back to it."""

import importlib
import io
import warnings
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

import attrib
from attrib.bottleneck import MaskModel, MaskNetworkOptions, PosthocMask
from attrib.bottleneck.aib_attached import AttachedAIB
from attrib.datasets import Folder, InMemory, Scenes
from attrib.datasets.scenes import CLASSES
from attrib.fit import MaskModelConfig, NetworkConfig, fit_mask_model, fit_network
from attrib.localize import component_engine, largest_component, largest_component_batched
from attrib.localize.level_sets import all_contours, largest_contours
from attrib.localize.pamr import pamr
from attrib.methods import RIB, Pool, untrained
from attrib.metrics import best_ious, resolve_metric
from attrib.metrics.thresholds import grid
from attrib.seeds import FORMATS, SeedOptions, make_seeds
from attrib.transfer import to_host
from attrib.types import Targets
from tests.mask_models import SMALL, corner_task
from tests.models import SPEC, Everything, images, make
from tests.reference.test_around import vit
from tests.test_faithfulness import NAMES, PAIRS, setting
from tests.test_localize import ADVERSARIAL
from tests.test_waits import WAITS

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_components_are_the_cpu_ones(name):
    masks = torch.from_numpy(ADVERSARIAL[name])[None].repeat(3, 1, 1)
    here, there = largest_component(masks), largest_component(masks.cuda())
    assert there.masks.is_cuda
    assert torch.equal(here.masks, there.masks.cpu())
    assert torch.equal(here.boxes, there.boxes.cpu())
    assert torch.equal(here.areas, there.areas.cpu())


def test_a_thousand_masks_at_once():
    masks = torch.rand(1000, 224, 224, generator=torch.Generator().manual_seed(0)) < 0.4
    here, there = largest_component(masks), largest_component_batched(masks.cuda())
    assert torch.equal(here.boxes, there.boxes.cpu())


@contextmanager
def never_waiting():
    """Raise wherever the host waits for the GPU."""
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("targets", [None, [0, 1, 2, 3], [[0, 1], [], [2], [4]]])
@pytest.mark.parametrize("method", ["cam", "infocam", "infocam+"])
def test_class_maps_never_wait(method, targets):
    explainer = attrib.Explainer(make("plain").cuda(), method, spec=SPEC)
    pictures = images(4).cuda()
    want = explainer(pictures, targets).maps
    with never_waiting():
        found = explainer(pictures, targets).maps
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("targets", [None, [0, 1, 2, 3], [[0, 1], [], [2], [4]]])
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam"])
def test_gradients_wait_for_whose_targets_are_whose_alone(method, targets, monkeypatch):
    explainer = attrib.Explainer(make("plain").cuda(), method, spec=SPEC)
    pictures = images(4).cuda()
    want = explainer(pictures, targets).maps
    monkeypatch.setattr("attrib.methods.gradient.to_host", awaited)
    with never_waiting():
        found = explainer(pictures, targets).maps
    torch.testing.assert_close(found, want)


LEAST = ("ablationcam", "eigencam", "fuse", "generic-attention", "lrp", "rollout", "saliency")
"""Methods that are not on the hot path, but should wait no more often than counted elsewhere."""


@pytest.mark.parametrize("spec", [*LEAST, "scorecam", "tta"])
def test_other_methods_wait_no_more_often_than_counted(spec):
    model = vit().float() if spec in ("rollout", "generic-attention") else make("plain")
    explainer = attrib.Explainer(model.cuda(), spec, spec=SPEC)
    given, targets = images(3).cuda(), [[0, 1], [], [3]]
    explainer(given, targets)
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            explainer(given, targets)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(w.message) for w in caught if "called a synchronizing" in str(w.message)]
    assert len(waits) <= WAITS[spec] + (spec == "eigencam")  # torch looks at the decomposition


@pytest.mark.parametrize("orientation", [1, 6])
def test_jpegs_decoded_there_are_nearly_those_of_pillow(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    soft, file = torch.randint(256, (1, 3, 6, 8)).float(), io.BytesIO()
    soft = torch.nn.functional.interpolate(soft, (96, 128), mode="bicubic")[0].clamp(0, 255)
    image = Image.fromarray(soft.byte().permute(1, 2, 0).numpy())
    image.save(file, "JPEG", quality=95, exif=exif)
    explainer = attrib.Explainer(make("plain").cuda(), "cam", spec=SPEC, decode="device")
    found = explainer.reader().read(file.getvalue())
    want = attrib.read_image(file.getvalue())
    assert found.pixels.is_cuda
    assert found.pixels.shape == want.pixels.shape
    off = (found.pixels.cpu().float() - want.pixels.float()).abs()
    assert off.max() <= 16
    assert off.mean() < 1


@pytest.mark.parametrize("own", [True, False])
def test_a_captured_program_gives_what_the_program_gives(own):
    """By a graph of ours, and by one of torch's, as docs/device.md says."""
    explainer = attrib.Explainer(attrib.load_model("demo", device="cuda"), "infocam+")
    program = explainer.export(boxes="all", tolerance=1e-3)
    module = program.program.module()
    captured = program.captured(2) if own else torch.compile(module, mode="reduce-overhead")
    given = torch.randn(2, 3, 96, 96, device="cuda")
    with torch.no_grad():
        want = module(given)
        for _ in range(3):  # the graph is captured on the way
            found = [x.clone() for x in captured(given)]
    for now, before in zip(found[:3], want[:3], strict=True):
        torch.testing.assert_close(now, before, rtol=1e-3, atol=1e-3)


def awaited(*tensors):
    """Wait, where it is meant."""
    torch.cuda.set_sync_debug_mode("default")
    try:
        return to_host(*tensors)
    finally:
        torch.cuda.set_sync_debug_mode("error")


@pytest.mark.filterwarnings("ignore::attrib.errors.DegenerateMapWarning")
@pytest.mark.parametrize("rule", ["fraction", "percentile", "otsu"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("method", ["cam", "infocam+", "tta(method='infocam')"])
def test_from_pictures_to_boxes_results_alone_are_awaited(method, fit, rule, monkeypatch):
    if component_engine(torch.device("cuda")) != "triton":
        pytest.skip("no Triton for this GPU; plain torch asks once per round")
    explainer = attrib.Explainer(make("plain").cuda(), method, spec=SPEC, fit=fit)
    pictures = torch.randint(256, (4, 3, 40, 60), dtype=torch.uint8)
    classes, options = [[0, 1], [], [3], [2]], {"rule": rule, "threshold": 0.5}
    want = explainer.explain(pictures, classes, **options)
    for place in ("attrib.localize.localize", "attrib.explain"):
        monkeypatch.setattr(importlib.import_module(place), "to_host", awaited)
    with never_waiting():
        found = explainer.explain(pictures, classes, **options)
    for now, before in zip(found, want, strict=True):
        assert torch.equal(now.localization.boxes, before.localization.boxes)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_class_maps_in_half_precision(precision):
    half = attrib.Explainer(make("plain").cuda(), "infocam+", spec=SPEC, autocast=precision)
    want = attrib.Explainer(make("plain"), "infocam+", spec=SPEC)(images(4), [0, 1, 2, 3]).maps
    half(images(4).cuda(), [0, 1, 2, 3])
    with never_waiting():
        found = half(images(4).cuda(non_blocking=True), [0, 1, 2, 3])
    span = float(want.max() - want.min())
    torch.testing.assert_close(found.maps.cpu(), want, rtol=0, atol=0.03 * span)


def test_components_never_wait():
    if component_engine(torch.device("cuda")) != "triton":
        pytest.skip("no Triton for this GPU; plain torch asks once per round")
    masks = torch.rand(50, 60, 70, generator=torch.Generator().manual_seed(0)) < 0.4
    there = masks.cuda()
    largest_component(there)
    with never_waiting():
        found = largest_component(there)
    assert torch.equal(found.boxes.cpu(), largest_component(masks).boxes)


@pytest.mark.parametrize("size", [(1000, 224, 224), (3, 1024, 1500), (7, 1, 5000), (7, 5000, 1)])
def test_triton_and_torch_label_alike(size):
    if component_engine(torch.device("cuda")) != "triton":
        pytest.skip("no Triton for this GPU")
    masks = (torch.rand(size, generator=torch.Generator().manual_seed(0)) < 0.41).cuda()
    found, want = (largest_component(masks, engine) for engine in ("triton", "torch"))
    for field in ("masks", "boxes", "areas"):
        assert torch.equal(getattr(found, field), getattr(want, field)), field


@pytest.mark.parametrize("find", [all_contours, largest_contours])
def test_triton_and_torch_find_the_same_contours(find):
    if component_engine(torch.device("cuda")) != "triton":
        pytest.skip("no Triton for this GPU")
    scores = torch.rand(40, 120, 90, generator=torch.Generator().manual_seed(0)).cuda()
    cuts = torch.arange(0, 255, 3, device="cuda")
    answers = []
    for engine in ("triton", "torch"):
        found = find(scores, cuts, engine)
        rows = torch.cat([found.image[:, None], found.cut[:, None], found.boxes], 1)
        answers.append(rows.unique(dim=0, return_counts=True))
    for here, there in zip(*answers, strict=True):
        assert torch.equal(here, there)


@pytest.mark.parametrize("contours", ["largest", "all"])
def test_boxes_at_all_thresholds_are_the_cpu_ones(contours):
    cells = torch.randn(6, 1, 14, 14, dtype=torch.float64)
    planes = torch.nn.functional.interpolate(cells, size=(224, 224), mode="bicubic")[:, 0]
    low, high = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    scores = (planes - low) / (high - low)
    truth = [torch.tensor([[40.0, 30, 150, 170]], dtype=torch.float64)] * 6
    here = best_ious(scores, grid(0.01), truth, contours)
    there = best_ious(scores.cuda(), grid(0.01), truth, contours)
    assert there.is_cuda
    assert torch.equal(here, there.cpu())


DRAWN_THERE = ("gradient-shap", "kernel-shap", "lime", "shapley-sampling", "smoothgrad")
"""Captum draws on the device, whose numbers are other ones."""
SAME = [n for n in untrained() if n not in DRAWN_THERE and not attrib.METHODS[n].needs_attention]


@pytest.mark.filterwarnings("ignore::attrib.errors.DegenerateMapWarning")  # random weights
@pytest.mark.parametrize("method", SAME)
def test_maps_and_boxes_are_the_cpu_ones(method):
    model = make("plain")
    here = attrib.Explainer(model, method, spec=SPEC)(images(4), [0, 1, 2, 3])
    model.cuda()
    before, state = Everything(model), torch.cuda.get_rng_state()
    there = attrib.Explainer(model, method, spec=SPEC)(images(4).cuda(), [0, 1, 2, 3])
    before.assert_same(model)
    assert torch.equal(state, torch.cuda.get_rng_state())
    assert there.maps.is_cuda
    torch.testing.assert_close(here.maps, there.maps.cpu(), rtol=1e-2, atol=1e-3)
    exact = type(there)(**{**vars(there), "maps": here.maps.cuda()})
    boxes = attrib.localize(exact).boxes
    assert boxes.is_cuda
    assert torch.equal(attrib.localize(here).boxes, boxes.cpu())


def test_explain_stays_on_the_device_until_asked():
    e = attrib.explain("demo", torch.rand(3, 200, 150))
    assert e.heatmap.is_cuda
    assert e.mask.is_cuda
    assert e.to_dict()["results"][0]["status"] in ("ok", "negative")


@pytest.mark.parametrize("host", [False, True])
@pytest.mark.parametrize("expected", [False, True])
def test_rib_with_others_is_the_cpu_one(expected, host, monkeypatch):
    if host:
        monkeypatch.setattr("attrib.methods.rib.others.ON_DEVICE", 0)
    labels = torch.eye(5, dtype=torch.bool).repeat(4, 1)
    pool = Pool(images=images(20), labels=labels, expected=expected)
    method = RIB(
        others=pool, num_others=4, steps=3, lr=1e-3, scales=(1.0, 0.5), loss_scales=(1.0,),
        train_from=0, explode_ratio=1.1,
    )  # fmt: skip
    here = attrib.Explainer(make("plain"), method, spec=SPEC)(images(2), [1, 2])
    there = attrib.Explainer(make("plain").cuda(), method, spec=SPEC)(images(2), [1, 2])
    torch.testing.assert_close(here.maps, there.maps.cpu(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"channels_last": True}])
def test_rib_in_faster_arithmetic(options):
    method = RIB(steps=2, scales=(1.0,), loss_scales=(1.0,), **options)
    found = attrib.Explainer(make("plain").cuda(), method, spec=SPEC)(images(2), [1, 2])
    want = attrib.Explainer(make("plain"), method, spec=SPEC)(images(2), [1, 2]).maps
    torch.testing.assert_close(found.maps.cpu(), want, rtol=0, atol=0.05 * float(want.max()))


@pytest.mark.parametrize("conditional", [False, True])
def test_a_mask_network_trains_as_on_the_cpu(conditional):
    network = MaskNetworkOptions(width=2, stride=4, conditional=conditional)
    labels = torch.eye(5, dtype=torch.bool)[[0, 3, 4]]
    losses, masks = [], []
    for device in ("cpu", "cuda"):
        classifier = attrib.split(make("plain").to(device), spec=SPEC)
        found = PosthocMask(classifier, network=network)
        x, generator = images(3).to(device), torch.Generator().manual_seed(0)
        output = found(x, labels.to(device), generator)
        assert output.probability.device.type == device
        loss = output.terms.loss("ib", 0.1).mean()
        loss.backward()
        losses.append(loss.detach().cpu())
        masks.append(output.probability.detach().cpu())
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(*masks, rtol=1e-2, atol=1e-3)


def test_a_mask_model_trains_as_on_the_cpu(tmp_path):
    pictures, labels, _ = corner_task(64)
    config = MaskModelConfig(epochs=1, warm_up=1, batch_size=16, lr=1e-3, warm_up_lr=1e-3)
    losses = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = MaskModel(SMALL, channels=1, classes=2).to(device)
        report = fit_mask_model(model, pictures, labels, out=tmp_path / device, config=config)
        assert model.mask_logits(pictures[:2].to(device)).device.type == device
        losses.append(report["history"][0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_refinement_is_the_cpu_one():
    pictures, maps = torch.rand(2, 3, 40, 56), torch.rand(2, 3, 40, 56)
    there = pamr(pictures.cuda(), maps.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), pamr(pictures, maps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_faithfulness_is_the_cpu_one(name):
    classifier, batch, maps, explain = setting()
    here = resolve_metric(name)(classifier, batch, maps, PAIRS, explain)
    classifier.model.cuda()
    pairs = Targets(image=PAIRS.image.cuda(), label=PAIRS.label.cuda())
    there = resolve_metric(name)(classifier, batch.cuda(), maps.cuda(), pairs, explain)
    assert there.is_cuda
    torch.testing.assert_close(here, there.cpu(), rtol=1e-2, atol=2e-3)


def test_a_comparison_tells_memory():
    found = attrib.compare("demo", torch.rand(3, 96, 96), ["cam", "gradcam"], "cat")
    assert all(row.peak_bytes > 0 and not row.notes for row in found.rows)


def test_seeds_of_a_data_set(tmp_path):
    rows = ["path,labels"]
    for i in range(3):
        scene = Scenes(length=3, size=80, seed=i)[i]
        Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{CLASSES[scene.label]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = Folder(tmp_path, tmp_path / "labels.csv", classes=CLASSES)
    options = SeedOptions(scales=(1.0, 0.5), formats=("npz",), refine="pamr")
    maps = []
    for device in ("cpu", "cuda"):
        explainer = attrib.Explainer(attrib.load_model("demo", device=device), "cam")
        assert make_seeds(explainer, data, tmp_path / device, options).made == 3
        files = [tmp_path / device / "npz" / f"{i}.npz" for i in range(3)]
        maps.append([FORMATS["npz"].read(file).high_res for file in files])
    for here, there in zip(*maps, strict=True):
        torch.testing.assert_close(here, there, rtol=0, atol=0.02)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("variant", ["plain", "aib-qt"])
def test_networks_train_on_the_device(variant, bfloat16, tmp_path):
    scenes = Scenes(length=16, size=32, seed=1)
    train = InMemory(
        name="scenes",
        labels=CLASSES,
        pixels=torch.stack([scenes[i].image for i in range(16)]),
        classes=torch.tensor([scenes[i].label for i in range(16)]),
    )
    config = NetworkConfig(
        variant=variant, width=1 / 16, latent=8, epochs=1, batch_size=16, bfloat16=bfloat16
    )
    losses = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        classifier, report = fit_network(train, out=out, config=config, test=train, device=device)
        losses[device] = report["history"][0]["loss"]
        assert next(classifier.parameters()).device.type == device
        assert 0 <= report["error"] <= 100
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.1 if bfloat16 else 1e-2)
    again = attrib.load_model(f"aib:{tmp_path / 'cuda' / 'network.safetensors'}")
    x = torch.randn(2, 3, 32, 32).cuda()
    torch.testing.assert_close(again(x), classifier(x))


def test_attention_on_an_earlier_layer():
    classifier = attrib.split(make("plain").cuda(), spec=SPEC)
    attached = AttachedAIB(classifier, latent=8, layer="features.2", modulation="gate")
    assert attached(images(2).cuda()).logits.is_cuda
    assert attached.attention_map(images(2).cuda()).shape == (2, 16, 16)


@pytest.mark.parametrize("boxes", ["largest", "all"])
def test_a_program_exported_on_the_gpu_gives_what_the_model_gives_there(boxes):
    model = attrib.load_model("demo", device="cuda")
    explainer = attrib.Explainer(model, "infocam+")
    given = torch.randn(5, 3, 96, 96, device="cuda")
    program = explainer.export(boxes=boxes, tolerance=1e-3)
    logits, target, maps, found, settled = program.program.module()(given)
    true = explainer(given)
    assert all(x.is_cuda for x in (logits, target, maps, found, settled))
    assert torch.equal(target, true.targets.label)
    assert torch.allclose(maps, true.maps, rtol=0, atol=1e-3 * float(true.maps.abs().max()))
    assert program.metadata["device"].startswith("cuda")
