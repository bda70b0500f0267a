"""CAMs without gradients, attention, and methods around methods, against literal references."""

import re

import pytest
import timm
import torch
from torch.nn import functional as F  # noqa: N812

import attrib
from attrib.errors import ModelError
from tests.models import SPEC, Everything, Flat, Pooled, images, make

X, LABELS = images(2).double(), [1, 3]


def maps(model, spec):
    return attrib.Explainer(model, spec, spec=SPEC)(X, LABELS).maps


@pytest.fixture
def model():
    return make("plain").double()


def test_xgradcam(model):
    a = model.eval().features(X).detach().requires_grad_()
    for i, y in enumerate(LABELS):
        (g,) = torch.autograd.grad(model.fc(a.mean((2, 3)))[i, y], a)
        want = sum((a[i, k] * g[i, k]).sum() / a[i, k].sum() * a[i, k] for k in range(12)).relu()
        torch.testing.assert_close(maps(model, "xgradcam")[i], want.detach())


def test_eigencam(model):
    a = model.eval().features(X).detach()
    for i in range(2):
        cells = a[i].flatten(1).T
        _, vectors = torch.linalg.eigh(torch.cov(cells.T))
        want = (cells @ vectors[:, -1]).view(8, 8)
        length = cells.norm(dim=1).view(8, 8)
        if torch.corrcoef(torch.stack([want.flatten(), length.flatten()]))[0, 1] < 0:
            want = -want
        torch.testing.assert_close(maps(model, "eigencam(relu=False)")[i], want)


def test_scorecam(model):
    a = model.eval().features(X).detach()
    for i, y in enumerate(LABELS):
        scores = []
        for k in range(12):
            mask = F.interpolate(a[i, k][None, None], size=(32, 32), mode="bilinear")
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(model(X[i : i + 1] * mask)[0, y].item())
        weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
        want = sum(weights[k] * a[i, k] for k in range(12)).relu()
        torch.testing.assert_close(maps(model, "scorecam")[i], want)


def test_ablationcam(model):
    a = model.eval().features(X).detach()
    for i, y in enumerate(LABELS):
        whole, want = model(X)[i, y].detach(), torch.zeros(8, 8).double()
        for k in range(12):
            without = a[i].clone()
            without[k] = 0
            lost = whole - model.fc(without.mean((1, 2)))[y].detach()
            want += lost / whole.abs() * a[i, k]
        torch.testing.assert_close(maps(model, "ablationcam")[i], want.relu())


def test_tta_is_the_mean_over_views(model):
    def cam(x):
        return attrib.Explainer(model, "cam", spec=SPEC)(x, LABELS).maps

    big = F.interpolate(X, size=(48, 48), mode="bilinear", antialias=True)
    want = [cam(X), cam(X.flip(3)).flip(2)]
    for view in (cam(big), cam(big.flip(3)).flip(2)):
        want.append(F.interpolate(view[:, None], size=(8, 8), mode="bilinear")[:, 0])
    found = maps(model, "tta(method='cam', scales=(1.0, 1.5))")
    torch.testing.assert_close(found, torch.stack(want).mean(0))


def test_tta_true_is_scales_and_mirror_images(model):
    sizes = []
    model.features.register_forward_pre_hook(lambda _, x: sizes.append(tuple(x[0].shape[2:])))
    explainer = attrib.Explainer(model, "cam", spec=SPEC, tta=True)
    explainer(X, LABELS)  # so that what is found out lazily is known
    sizes.clear()
    explainer(X, LABELS)
    assert sorted(sizes) == sorted([(32, 32), (24, 24), (40, 40)] * 2)


@pytest.mark.parametrize("name", ["saliency", "gradcam(relu=False)"])
def test_tta_of_a_model_of_one_size_says_how_to_leave_scales_out(name):
    model = Flat().double()
    with pytest.raises(ModelError, match=r"at 0.75 times its size, \(24, 24\)") as caught:
        attrib.Explainer(model, name, spec=SPEC, tta=True)(X, LABELS)
    (told,) = re.findall(r'method="(.*?)",', str(caught.value))
    mirrored = (
        maps(model, name).flip(2) + attrib.Explainer(model, name, spec=SPEC)(X.flip(3), LABELS).maps
    )
    torch.testing.assert_close(maps(model, told), mirrored.flip(2) / 2)


def test_tta_hands_on_that_memory_ran_out():
    class Small(Pooled):
        def forward(self, x):
            if x.shape[2] > 32:
                raise torch.OutOfMemoryError("no more")
            return super().forward(x)

    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        maps(Small().double(), "tta(method='gradcam')")


def test_fuse_is_the_mean_of_normalised_layers(model):
    inner = maps(model, "layercam(layer='features.2')")
    fine = inner / inner.amax((1, 2), keepdim=True)
    coarse = maps(model, "layercam(layer='features.5')")
    coarse = coarse / coarse.amax((1, 2), keepdim=True)
    coarse = F.interpolate(coarse[:, None], size=(16, 16), mode="bilinear")[:, 0]
    found = maps(model, "fuse(method='layercam', layers=('features.2', 'features.5'))")
    torch.testing.assert_close(found, (fine + coarse) / 2)


def test_smooth_without_noise_is_the_method(model):
    torch.testing.assert_close(
        maps(model, "smooth(method='gradcam', noise=0)"), maps(model, "gradcam")
    )
    assert not torch.allclose(maps(model, "smooth"), maps(model, "gradcam"))


def test_explain_wraps(model):
    found = attrib.Explainer(model, "cam", spec=SPEC, tta=True, smooth=True)(X, LABELS)
    assert found.method == "tta(method=\"smooth(method='cam')\")"


def vit(**options):
    torch.manual_seed(0)
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5, **options
    ).double()


def written_out(model, x):
    """Attention of each block by hand, from the block's own weights, with logits."""
    tokens, layers = model.eval()._pos_embed(model.patch_embed(x)), []
    for block in model.blocks:
        b, t, k = tokens.shape
        q, key, v = block.attn.qkv(block.norm1(tokens)).view(b, t, 3, 3, 8).permute(2, 0, 3, 1, 4)
        layers.append((q @ key.mT / 8**0.5).softmax(-1))
        out = block.attn.proj((layers[-1] @ v).transpose(1, 2).reshape(b, t, k))
        tokens = tokens + out
        tokens = tokens + block.mlp(block.norm2(tokens))
    return layers, model.forward_head(model.norm(tokens))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("registers", [0, 2])
def test_attention_methods(fused, registers):
    model = vit(reg_tokens=registers)
    for block in model.blocks:
        block.attn.fused_attn = fused
    before = Everything(model)
    rolled, relevant = maps(model, "rollout"), maps(model, "generic-attention")
    before.assert_same(model)
    layers, logits = written_out(model, X)
    one = torch.eye(17 + registers).double()
    for i, y in enumerate(LABELS):
        flow, relevance = one, one
        gradients = torch.autograd.grad(logits[i, y], layers, retain_graph=True)
        for layer, gradient in zip(layers, gradients, strict=True):
            flow = (layer[i].mean(0) / 2 + one / 2) @ flow
            relevance = relevance + (layer[i] * gradient[i]).relu().mean(0) @ relevance
        first = 1 + registers
        torch.testing.assert_close(
            rolled[i].double(), flow[0, first:].view(4, 4), rtol=1e-4, atol=1e-6
        )
        torch.testing.assert_close(
            relevant[i].double(), relevance[0, first:].view(4, 4), rtol=1e-4, atol=1e-7
        )


def test_attention_methods_refuse_other_models(model):
    with pytest.raises(attrib.AttribError, match="no such transformer: it has none"):
        maps(model, "rollout")


@pytest.mark.parametrize("wrapped", ["input-x-gradient", "cam"])
def test_a_wrapped_method_is_normalised_as_itself(model, wrapped):
    for spec in (f"tta(method={wrapped!r})", f"smooth(method={wrapped!r}, samples=1)"):
        explainer = attrib.Explainer(model, spec, spec=SPEC)
        want = "max" if wrapped == "input-x-gradient" else "minmax"
        assert explainer.method.normalize == explainer(X, LABELS).normalize == want


@pytest.mark.parametrize("name", ["rollout", "generic-attention"])
@pytest.mark.parametrize("targets", [None, [[0, 3], [1]], [[], [2, 4]], [[], []]])
def test_attention_methods_run_the_model_once(name, targets):
    model, calls = vit(), []
    model.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    whole = attrib.Explainer(model, name, spec=SPEC)
    whole(X, targets)  # finds out how tokens lie
    calls.clear()
    found = whole(X, targets)
    assert len(calls) == 1
    parts = attrib.Explainer(model, f"{name}(batch=1)", spec=SPEC)(X, targets)
    for one, other in ((found.maps, parts.maps), (found.logits, parts.logits)):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(found.logits, model(X).detach())
    assert torch.equal(found.targets.label, parts.targets.label)
    if not found.maps.numel():
        assert whole(X[:0], []).maps.shape == found.maps.shape
