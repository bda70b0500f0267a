"""Captum's explainers against Captum called by hand, on a clean model and on awkward ones."""

import captum.attr as by_hand
import pytest
import torch
from torch import nn

import attrib
from attrib.errors import MemoryWarning, SpecError
from attrib.methods import METHODS, SmoothGrad, captum
from attrib.methods.baselines.parts import least_squares, parts_of
from attrib.registry import format_spec
from tests.models import SPEC, Everything, Pooled, images, make

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:captum")
LABELS = [1, 3]


def maps(model, spec, batch=None):
    return attrib.Explainer(model, spec, spec=SPEC)(images(2) if batch is None else batch, LABELS)


def parts(count):
    return parts_of(images(2)[0], "grid", count, SPEC)[None, None]


def seeded(explain):
    """Draw as the methods do: for each picture from the same state."""
    import numpy as np

    out = []
    for image, label in zip(images(2), LABELS, strict=True):
        torch.manual_seed(0)
        np.random.seed(0)
        out.append(explain(image[None], label).detach())
    return torch.cat(out)


GRADIENTS = {
    "saliency": lambda m: by_hand.Saliency(m).attribute(images(2), LABELS).amax(1),
    "saliency(channels='sum')": lambda m: (
        by_hand.Saliency(m).attribute(images(2), LABELS, abs=False).sum(1)
    ),
    "input-x-gradient": lambda m: by_hand.InputXGradient(m).attribute(images(2), LABELS).sum(1),
    "integrated-gradients(steps=7)": lambda m: (
        by_hand.IntegratedGradients(m).attribute(images(2), 0, LABELS, n_steps=7).sum(1)
    ),
    "guided-backprop": lambda m: (
        by_hand.GuidedBackprop(m).attribute(images(2), LABELS).abs().sum(1)
    ),
    "deconvolution(channels='sum')": lambda m: (
        by_hand.Deconvolution(m).attribute(images(2), LABELS).sum(1)
    ),
    "guided-gradcam(channels='sum')": lambda m: (
        by_hand.GuidedGradCam(m, m.features[5])
        .attribute(images(2), LABELS, interpolate_mode="bilinear")
        .sum(1)
    ),
    "deeplift": lambda m: by_hand.DeepLift(m).attribute(images(2), 0, LABELS).sum(1),
    "occlusion(window=8, stride=4)": lambda m: by_hand.Occlusion(m).attribute(
        images(2), (3, 8, 8), (3, 4, 4), 0, LABELS
    )[:, 0],
    "feature-ablation(parts='grid', count=16)": lambda m: by_hand.FeatureAblation(m).attribute(
        images(2), 0, LABELS, feature_mask=parts(16)
    )[:, 0],
    "shapley-sampling(parts='grid', count=4, samples=3)": lambda m: seeded(
        lambda x, y: by_hand.ShapleyValueSampling(m).attribute(
            x, 0, y, feature_mask=parts(4), n_samples=3
        )[:, 0]
    ),
    "kernel-shap(parts='grid', count=4, samples=20)": lambda m: seeded(
        lambda x, y: by_hand.KernelShap(m).attribute(x, 0, y, feature_mask=parts(4), n_samples=20)[
            :, 0
        ]
    ),
    "smoothgrad(samples=4)": lambda m: seeded(
        lambda x, y: (
            by_hand.NoiseTunnel(by_hand.Saliency(m))
            .attribute(x, nt_samples=4, stdevs=0.15 * float(x.max() - x.min()), target=y, abs=False)
            .abs()
            .sum(1)
        )
    ),
    "gradient-shap(samples=4)": lambda m: seeded(
        lambda x, y: (
            by_hand.GradientShap(m)
            .attribute(
                x, torch.zeros_like(x), n_samples=4, stdevs=0.1 * float(x.max() - x.min()), target=y
            )
            .sum(1)
        )
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", GRADIENTS)
def test_a_baseline_is_captum_called_by_hand(spec):
    want = GRADIENTS[spec](make("plain").eval()).detach()
    found = maps(make("plain"), spec).maps
    assert want.abs().max() > 0
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_lime_is_captum_with_ridge_regression():
    from captum._utils.models.linear_model import SkLearnRidge

    def closeness(_x, _changed, kept, **_):
        return torch.exp(-((1 - kept.float().mean().sqrt()) ** 2) / 0.25**2)

    model = make("plain").eval()
    want = seeded(
        lambda x, y: by_hand.Lime(model, SkLearnRidge(alpha=1.0), closeness).attribute(
            x, 0, y, feature_mask=parts(4), n_samples=20
        )[:, 0]
    )
    found = maps(make("plain"), "lime(parts='grid', count=4, samples=20)").maps
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-6)


class Sequence(nn.Sequential):
    """A network of modules alone, each used once: what Captum's LRP is for."""

    def __init__(self):
        plain = make("plain")
        super().__init__(
            plain.features, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 5, 1)
        )

    def forward(self, x):
        return super().forward(x).flatten(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha1-beta0"])
def test_lrp_is_captum_called_by_hand(rule):
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, GammaRule

    model = Sequence().eval()
    found = maps(model, f"lrp(rule={rule!r})").maps
    kinds = {"gamma": GammaRule, "alpha1-beta0": Alpha1_Beta0_Rule}
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and rule in kinds:
            module.rule = kinds[rule]()
    want = by_hand.LRP(model).attribute(images(2), LABELS).sum(1)
    torch.testing.assert_close(found, want.detach(), rtol=1e-3, atol=1e-5)


def tunnelled(inner, **options):
    """Captum's noise tunnel around one of its explainers."""
    return seeded(
        lambda x, y: by_hand.NoiseTunnel(inner).attribute(
            x, nt_samples=4, stdevs=0.15 * float(x.max() - x.min()), target=y, **options
        )
    )


def noisy_shap(model, x, label):
    """The same, written out: the tunnel picks one reference for all copies, in another order."""
    noise = 0.15 * (x.max() - x.min()) * torch.randn(4, 3, 32, 32)
    return (
        by_hand.GradientShap(model)
        .attribute(
            x + noise,
            torch.zeros(4, 3, 32, 32),
            n_samples=3,
            stdevs=0.1 * float((x + noise).max() - (x + noise).min()),
            target=label,
        )
        .mean(0, keepdim=True)
    )


NOISY = {
    "saliency": lambda m: tunnelled(by_hand.Saliency(m), abs=False),
    "input-x-gradient": lambda m: tunnelled(by_hand.InputXGradient(m)),
    "integrated-gradients(steps=5)": lambda m: tunnelled(by_hand.IntegratedGradients(m), n_steps=5),
    "gradient-shap(samples=3)": lambda m: seeded(lambda x, y: noisy_shap(m, x, y)),
    "guided-backprop": lambda m: tunnelled(by_hand.GuidedBackprop(m)),
    "deconvolution": lambda m: tunnelled(by_hand.Deconvolution(m)),
    "guided-gradcam": lambda m: tunnelled(
        by_hand.GuidedGradCam(m, m.features[5]), interpolate_mode="bilinear"
    ),
    "deeplift": lambda m: tunnelled(by_hand.DeepLift(m)),
    "lrp": lambda m: tunnelled(by_hand.LRP(m)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("of", NOISY)
def test_smoothgrad_is_a_noise_tunnel_around_any_gradient_method(of):
    model = (Sequence() if of == "lrp" else make("plain")).eval()
    before = Everything(model)
    found = maps(model, f"smoothgrad(of={of!r}, samples=4, channels='sum')").maps
    before.assert_same(model)
    want = NOISY[of](model).sum(1)
    assert want.abs().max() > 0
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-6)


def test_smoothgrad_of_a_method_is_smoothgrad_of_its_spec():
    of = METHODS.make("deeplift(reference='black')")
    method = SmoothGrad(of=of, samples=3)
    assert method == METHODS.make(format_spec(method))
    assert method == SmoothGrad(of="deeplift( reference='black')", samples=3)
    assert format_spec(SmoothGrad(of="saliency()")) == "smoothgrad"


def test_smoothgrad_takes_all_gradient_methods_and_says_why_not_others():
    family = {n for n in METHODS if METHODS[n].family == "gradients of pixels"}
    assert {spec.split("(")[0] for spec in NOISY} == family - {"smoothgrad"}
    for of, message in (
        ("gradcam", "of='gradcam' does not explain the colours of pixels; known: .*'smooth"),
        ("smoothgrad", "does not explain the colours"),
        ("saliency(channels='sum')", "an option 'channels' that is smoothgrad's own"),
        ("gradient-shap(seed=3)", "an option 'seed' that is smoothgrad's own"),
    ):
        with pytest.raises(SpecError, match=message):
            METHODS.make(f"smoothgrad(of={of!r})")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_smoothgrad_in_any_steps_is_captums_tunnel(kind):
    model = make("plain").eval()
    want = tunnelled(by_hand.Saliency(model), nt_type=kind, nt_samples_batch_size=3, abs=False)
    spec = f"smoothgrad(kind={kind!r}, samples=4, batch=3)"
    torch.testing.assert_close(maps(model, spec).maps, want.abs().sum(1), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("of", ["gradient-shap", "integrated-gradients", "guided-gradcam", "lrp"])
def test_smoothgrad_keeps_to_its_batch(of):
    model, most = make("plain"), []
    model.features[0].register_forward_hook(lambda _m, _i, out: most.append(len(out)))
    maps(model, f"smoothgrad(of={of!r}, samples=7, batch=4)")
    assert max(most) == 4
    model.half()
    assert maps(model, f"smoothgrad(of={of!r}, samples=2)").maps.isfinite().all()


class Bare(Pooled):
    def forward(self, x):
        f, relu = self.features, nn.functional.relu
        maps = torch.relu_(f[4](f[3](relu(f[1](f[0](x)), inplace=True))))
        return self.fc(maps.mean((2, 3)))


@pytest.mark.parametrize("model", [Bare(), Pooled(inplace=True), make("shared-relu")])
@pytest.mark.parametrize("spec", ["guided-backprop", "deconvolution", "deeplift", "lrp"])
def test_in_place_shared_and_bare_relus_give_what_modules_give(spec, model):
    model.load_state_dict(make("plain").state_dict())
    classifier = attrib.split(model, features="features.4", head="fc", spec=SPEC, need="features")
    found = attrib.Explainer(classifier, spec)(images(2), LABELS)
    torch.testing.assert_close(found.maps, maps(make("plain"), spec).maps)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_deeplift_is_complete_where_pools_overlap(name):
    import torchvision

    model = torchvision.models.get_model(name).eval()
    x = torch.randn(1, 3, 64, 64)
    found = attrib.Explainer(model, "deeplift", spec=attrib.ModelSpec(input_size=(64, 64)))(x, 3)
    with torch.no_grad():
        change = model(x)[0, 3] - model(torch.zeros_like(x))[0, 3]
    torch.testing.assert_close(found.maps.sum(), change, rtol=1e-3, atol=1e-4)


def test_relu6_is_complete_too():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    with torch.no_grad():
        model[0].weight.mul_(20)
    classifier = attrib.split(model, spec=SPEC, need="features")
    found = attrib.Explainer(classifier, "deeplift")(images(1), 2)
    change = (model(images(1)) - model(0 * images(1)))[0, 2].detach()
    torch.testing.assert_close(found.maps.sum(), change, rtol=1e-3, atol=1e-4)


def test_integrated_gradients_add_up():
    model = make("plain").double().eval()
    x = images(2).double()
    found = maps(model, "integrated-gradients(steps=200)", x).maps.sum((1, 2))
    change = (model(x) - model(0 * x)).detach()[[0, 1], LABELS]
    torch.testing.assert_close(found, change, rtol=1e-2, atol=1e-3)


class Gated(Pooled):
    def forward(self, x):
        maps = self.features(x)
        return self.fc((maps * maps.mean((2, 3), keepdim=True).sigmoid()).mean((2, 3)))


@pytest.mark.parametrize(
    ("spec", "model", "message"),
    [
        ("lrp", Gated(), "cannot handle 'sigmoid' in Gated"),
        ("deeplift", Gated(), "cannot handle 'mul' in Gated"),
        ("guided-backprop", nn.Sequential(nn.Conv2d(3, 5, 3), nn.GELU()), "has no ReLU"),
    ],
)
def test_what_cannot_be_handled_is_refused_with_its_place(spec, model, message):
    if isinstance(model, nn.Sequential):
        model = nn.Sequential(*model, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = attrib.split(model, spec=SPEC, need="features")
    with pytest.raises(attrib.AttribError, match=message):
        attrib.Explainer(classifier, spec)(images(1))


@pytest.mark.parametrize(("window", "stride"), [(7, 5), (9, 9), (32, 3), (5, 1)])
def test_windows_that_hang_over_are_cut_as_captum_cuts_them(window, stride):
    model, given = make("plain").eval(), images(2, (32, 45))
    want = by_hand.Occlusion(model).attribute(
        given, (3, window, window), (3, stride, stride), 0, LABELS, perturbations_per_eval=8
    )
    found = maps(make("plain"), f"occlusion(window={window}, stride={stride})", given).maps
    torch.testing.assert_close(found, want[:, 0].detach(), rtol=1e-4, atol=1e-6)


PERTURBED = {
    "occlusion(window=16, stride=8)": 9,
    "feature-ablation(parts='grid', count=4)": 4,
    "shapley-sampling(parts='grid', count=4, samples=3)": 1 + 3 * 3,  # all are seen in the logits
    "kernel-shap(parts='grid', count=4, samples=20)": 19,
    "lime(parts='grid', count=4, samples=20)": 20,
    "kernel-shap(parts='grid', count=4, samples=1)": 0,
    "kernel-shap(parts='grid', count=4, samples=2)": 1,
}


@pytest.mark.parametrize("spec", PERTURBED)
def test_the_pictures_seen_in_part_serve_for_all_classes(spec):
    seen = []
    model = make("plain")
    model.features.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    explainer = attrib.Explainer(model, spec, spec=SPEC)
    seen.clear()
    together = explainer(images(2), [[0, 1, 3], [2]])
    assert sum(seen) == 2 + 2 * PERTURBED[spec]
    singly = [
        explainer(images(2)[i : i + 1], [c]).maps for i, c in ((0, 0), (0, 1), (0, 3), (1, 2))
    ]
    torch.testing.assert_close(together.maps, torch.cat(singly), rtol=1e-4, atol=1e-6)


def test_half_the_batch_where_memory_runs_out():
    class Small(Pooled):
        def forward(self, x):
            if len(x) > 3:
                raise torch.OutOfMemoryError("no more")
            return super().forward(x)

    model = Small()
    model.load_state_dict(make("plain").state_dict())
    with pytest.warns(MemoryWarning) as caught:
        found = maps(model, "occlusion(window=16, stride=8)")
    assert "batch=2 instead of 4" in str(caught[-1].message)
    want = maps(make("plain"), "occlusion(window=16, stride=8)")
    torch.testing.assert_close(found.maps, want.maps)


@pytest.mark.filterwarnings("ignore")
def test_any_other_explainer():
    method = captum(by_hand.IntegratedGradients, n_steps=5)
    assert METHODS.make(format_spec(method)) == method
    want = by_hand.IntegratedGradients(make("plain").eval()).attribute(
        images(2), target=LABELS, n_steps=5
    )
    torch.testing.assert_close(maps(make("plain"), method).maps, want.sum(1), rtol=1e-4, atol=1e-6)
    base = torch.zeros(2, 3, 32, 32)
    shap = maps(make("plain"), captum(by_hand.DeepLiftShap, baselines=base)).maps
    torch.testing.assert_close(shap, maps(make("plain"), "deeplift").maps, rtol=1e-4, atol=1e-6)


class Untargeted:
    """Explains the same for every class."""

    def __init__(self, forward):
        self.forward = forward

    def attribute(self, inputs):
        return inputs


class Empty:
    """Takes nothing to explain."""

    def attribute(self, inputs, target):
        return inputs


@pytest.mark.parametrize(
    ("explainer", "options", "message"),
    [
        ("LRP", {}, "LRP looks into the modules .* 'lrp' are methods of their own"),
        ("NoSuch", {}, "unknown explainer of captum.attr 'NoSuch'"),
        ("visualization", {}, "unknown explainer of captum.attr 'visualization'"),
        ("Summarizer", {}, "has no `attribute`"),
        (by_hand.LayerGradCam, {}, "the cells of a layer .* 'gradcam'"),
        (by_hand.LayerActivation, {"layer": nn.ReLU()}, "the cells of a layer"),
        (by_hand.NeuronGradient, {"layer": nn.ReLU()}, "a neuron and not a class"),
        (by_hand.NoiseTunnel, {}, r"goes around another explainer; use 'smoothgrad\(of="),
        (by_hand.FeaturePermutation, {}, "pairs are explained one by one; use 'feature-ablation'"),
        (by_hand.DeepLiftShap, {}, r"give DeepLiftShap what it needs: baselines=\.\.\.$"),
        (by_hand.Occlusion, {}, r"needs: sliding_window_shapes=\.\.\."),
        (by_hand.LimeBase, {}, r"needs: interpretable_model=\.\.\., similarity_func"),
        (by_hand.IntegratedGradients, {"nsteps": 3}, "'nsteps' here; did you mean 'n_steps'"),
        (by_hand.FeatureAblation, {"feature_maks": 0}, "did you mean 'feature_mask'"),
        (by_hand.Saliency, {"target": 3}, "no option 'target' here: attrib gives the classes"),
        (Untargeted, {}, "Untargeted takes no target"),
        (Empty, {}, "Empty takes neither a model nor a forward function"),
    ],
)
def test_an_explainer_that_does_not_fit_is_refused_before_it_runs(explainer, options, message):
    with pytest.raises(attrib.AttribError, match=message):
        captum(explainer, **options)


@pytest.mark.parametrize(
    ("explainer", "options", "given"),
    [
        ("IntegratedGradients", {"return_convergence_delta": True}, "tuple"),
        ("KernelShap", {"return_input_shape": False, "n_samples": 5}, r"\(1, 3072\)"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_explainer_that_gives_something_else_is_refused(explainer, options, given):
    with pytest.raises(SpecError, match=f"{explainer} gives {given}.*leave out options"):
        maps(make("plain"), captum(explainer, **options))


def test_the_linear_model_is_weighted_ridge_regression():
    x, y, w = torch.rand(40, 6) > 0.5, torch.randn(40, 3), torch.rand(40)
    full = torch.cat([x, torch.ones(40, 1)], 1).double()
    penalty = torch.diag(torch.tensor([0.7] * 6 + [0.0], dtype=torch.float64))
    gram = full.T @ (w[:, None].double() * full) + penalty
    want = torch.linalg.solve(gram, full.T @ (w[:, None].double() * y.double()))[:6]
    torch.testing.assert_close(least_squares(x, y, w, 0.7), want)


class Overwriting(Pooled):
    """Writes over what its sigmoid needs to go back."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x):
        maps = self.features(x).sigmoid()
        maps = maps.add_(1) if self.inplace else maps + 1
        return self.fc(maps.mean((2, 3)))


@pytest.mark.parametrize(
    "spec", ["saliency", "integrated-gradients(steps=3)", "smoothgrad(samples=2)", "captum"]
)
def test_what_a_model_overwrites_is_kept_aside_where_it_must_be(spec, monkeypatch):
    entered, keep = [], torch.autograd.graph.allow_mutation_on_saved_tensors
    monkeypatch.setattr(
        "torch.autograd.graph.allow_mutation_on_saved_tensors", lambda: entered.append(1) or keep()
    )
    torch.manual_seed(0)
    model = Overwriting()
    found = maps(model, spec).maps
    assert entered
    entered.clear()
    model.inplace = False
    torch.testing.assert_close(found, maps(model, spec).maps)
    assert entered == []


def test_another_error_of_a_model_is_not_tried_again():
    model, calls = make("plain"), []

    def fail(_module, _inputs):
        calls.append(1)
        raise RuntimeError("no such thing")

    split = attrib.split(model, spec=SPEC)
    model.features.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no such thing"):
        attrib.Explainer(split, "saliency")(images(1), [0])
    assert len(calls) == 1
