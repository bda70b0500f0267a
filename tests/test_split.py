import pytest
import timm
import torch
from torch import nn

import attrib
from attrib.errors import InputError, ModelError, SplitError
from attrib.models import ClassSum, spec_of, split, to_gap
from attrib.models.layout import Layout, Levels, detect, grid_shape
from attrib.types import ModelSpec
from tests.models import SPEC, Everything, Flat, InPlace, MlpHead, Pooled, images, make


def test_a_custom_model_is_understood_without_configuration():
    classifier = split(make("plain"), spec=SPEC)
    assert classifier.anatomy.features == "features"
    assert (classifier.linear, classifier.exact, classifier.num_classes) == ("fc", True, 5)
    found = classifier.forward(images())
    assert found.grid.shape == (3, 12, 8, 8)
    torch.testing.assert_close(found.logits, classifier.model.eval()(images()))


def test_a_relu_in_the_forward_function_is_found():
    class Late(Pooled):
        def __init__(self):
            super().__init__()
            self.features = self.features[:5]

        def forward(self, x):
            return self.fc(torch.relu_(self.features(x)).mean((2, 3)))

    classifier = split(Late(), spec=SPEC)
    assert classifier.anatomy.rectify
    assert classifier.exact


def test_named_parts():
    classifier = split(MlpHead(), features="body", head="top", spec=SPEC)
    assert not classifier.exact
    assert classifier.linear is None
    assert "not linear" in classifier.note
    with pytest.raises(SplitError, match="no linear head"):
        _ = classifier.weight


def test_a_head_that_is_only_the_last_layer_is_not_believed():
    """Naming the last of two linear layers gives the wrong width, and is said to."""
    with pytest.raises(SplitError, match="cannot be applied to a single cell"):
        split(MlpHead(), features="body", head="top.2", spec=SPEC)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (MlpHead, {}, SplitError, r"Name the two parts.*it holds: body, top"),
        (Pooled, {"features": "layer9", "head": "fc"}, SplitError, "it holds|holds: features, fc"),
        (Pooled, {"features": "features.77", "head": "fc"}, SplitError, "features holds: 0, 1"),
        (Pooled, {"features": "features"}, InputError, "both features= and head="),
        (Pooled, {"spec": ModelSpec(mean=(0.5,), std=(0.5,))}, SplitError, "failed on a probe"),
        (Flat, {}, SplitError, "Name the two parts"),
        (lambda: "resnet50", {}, InputError, "got str; attrib.load_model"),
    ],
)
def test_errors_say_what_to_do(model, options, error, message):
    with pytest.raises(error, match=message):
        split.__wrapped__(model(), **({"spec": SPEC} | options))


def test_models_that_return_no_logits_are_refused():
    class Pair(Pooled):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(SplitError, match=r"returns tuple with 0, 1, expected logits .*output=0"):
        split(Pair(), spec=SPEC, need="features")


def test_splitting_changes_nothing():
    for model in (make("in-place"), make("random"), MlpHead(), Flat()):
        before = Everything(model)
        split(model, spec=SPEC, need="features")
        before.assert_same(model)


def test_a_compiled_model_is_looked_through():
    inner = make("plain")
    assert split(torch.compile(inner), spec=SPEC).model is inner


def test_models_spread_over_devices_are_refused_with_a_reason():
    inner, inside = make("plain"), make("plain")
    inside.features = nn.DataParallel(inside.features)
    for model, path in (
        (nn.DataParallel(inner), "model.module"),
        (torch.compile(nn.DataParallel(inner)), "model._orig_mod.module"),
        (inside, "model.features.module"),
    ):
        with pytest.raises(ModelError, match=rf"is inside, {path}\. .*--shard auto") as raised:
            split(model, spec=SPEC, need="features")
        assert str(raised.value).startswith("DataParallel runs copies")


def test_distributed_data_parallel_is_refused(tmp_path):
    from torch import distributed

    file = f"file://{tmp_path / 'meet'}"
    distributed.init_process_group("gloo", init_method=file, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(make("plain"))
        with pytest.raises(ModelError, match=r"^DistributedDataParallel runs .*model\.module"):
            attrib.explain(wrapped, torch.zeros(3, 9, 9), method="cam")
    finally:
        distributed.destroy_process_group()


def test_a_flattening_model_explains_itself():
    class VGG(Flat):
        pass

    VGG.__module__ = "torchvision.models.vgg"
    with pytest.raises(SplitError, match=r"attrib\.to_gap\(model\).*'gradcam' work"):
        split(VGG(), spec=SPEC)
    assert split(VGG(), spec=SPEC, need="features").num_classes == 5


def test_to_gap_keeps_the_convolutions_and_leaves_the_model_alone():
    model = Flat()
    before, rng = Everything(model), torch.get_rng_state()
    gap = to_gap(model, width=16, spec=SPEC)
    before.assert_same(model)
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(gap.features[0].weight, model.features[0].weight)
    assert gap.features[0].weight is not model.features[0].weight
    assert len(gap.features) == 6
    classifier = split(gap)
    assert classifier.exact
    assert classifier.forward(images()).grid.shape == (3, 16, 8, 8)
    assert attrib.Explainer(gap, "infocam+")(images(2)).maps.shape == (2, 11, 11)
    assert to_gap(model, num_classes=3, spec=SPEC)(images()).shape == (3, 3)


def test_to_gap_needs_a_convolutional_part():
    with pytest.raises(SplitError, match="no module 'trunk'"):
        to_gap(Flat(), features="trunk", spec=SPEC)


def test_vgg16_gap_of_the_paper():
    from torchvision.models import vgg16

    gap = to_gap(vgg16(num_classes=7))
    classifier = split(gap)
    found = classifier.forward(torch.zeros(1, 3, 224, 224))
    assert found.grid.shape == (1, 1024, 14, 14)
    assert classifier.exact


def test_spec_travels_with_the_model():
    model = make("plain")
    assert spec_of(model).name == "Pooled"
    model.attrib_spec = SPEC
    assert spec_of(model) is SPEC


def test_the_gradient_layer_of_a_class_token_is_before_the_last_attention():
    vit = timm.create_model("test_vit", num_classes=4)
    classifier = split(vit)
    assert classifier.gradient_layer == "blocks.5.norm1"
    assert not classifier.exact
    pooled = timm.create_model("test_vit", num_classes=4, global_pool="avg", fc_norm=False)
    assert split(pooled).gradient_layer == ""
    assert split(pooled).exact


TRANSFORMERS = {
    "plain": (timm.models.VisionTransformer, {}, 1),
    "scaled": (timm.models.VisionTransformer, {"init_values": 0.3, "qkv_bias": False}, 1),
    "registers": (timm.models.VisionTransformer, {"reg_tokens": 3, "num_classes": 3}, 4),
    "distilled": (timm.models.deit.VisionTransformerDistilled, {}, 2),
    "normed queries": (timm.models.VisionTransformer, {"qk_norm": True}, None),
    "attention pool": (
        timm.models.VisionTransformer,
        {"global_pool": "map", "class_token": True},
        None,
    ),
    "talking heads": (timm.models.Cait, {"depth_token_only": 2}, None),
}
"""Transformers of timm's; tokens that are followed through the last block, None where all are."""


def transformer(kind, **options):
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
    model = kind(**{**size, "num_classes": 4, **options}).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.2 * noise)
    return model


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_the_class_token_is_followed_to_the_same_gradients(case):
    kind, options, prefix = TRANSFORMERS[case]
    model = transformer(kind, **options).train()
    before, batch = Everything(model), images(3).double()
    pairs = [[0, 2], [1], [2, 1]]
    explainer = attrib.Explainer(model, "gradcam(relu=False)", spec=SPEC)
    found, tokens = explainer(batch, pairs), explainer.classifier._class_tokens
    before.assert_same(model)
    layer = explainer.classifier.gradient_layer
    followed = tokens.get(layer)
    assert (followed and followed.prefix) == prefix
    tokens[layer] = None
    want = explainer(batch, pairs)
    assert torch.equal(found.logits, want.logits)
    assert want.maps.abs().max() > 0
    torch.testing.assert_close(found.maps, want.maps)


def test_a_model_that_raises_where_its_class_token_is_followed_is_left_as_it_was():
    model = transformer(timm.models.VisionTransformer)
    explainer = attrib.Explainer(model, "gradcam", spec=SPEC)
    explainer(images(1).double())
    layer = explainer.classifier.gradient_layer
    assert explainer.classifier._class_tokens[layer] is not None

    def fail(_module, inputs):
        if inputs[0].shape[1] == 1:
            raise IndexError("the user's own error")

    model.norm.register_forward_pre_hook(fail)
    before = Everything(model)
    with pytest.raises(IndexError, match="the user's own error"):
        explainer(images(1).double())
    before.assert_same(model)


def test_attention_pooling_and_registers():
    options = {"num_classes": 4, "global_pool": "map", "reg_tokens": 3}
    classifier = split(timm.create_model("test_vit", class_token=False, **options))
    assert classifier.layout == Layout("tokens", 3)
    found = attrib.Explainer(classifier, "infocam+")(torch.randn(2, 3, 160, 160))
    assert found.maps.isfinite().all()
    assert not found.exact


def test_non_square_transformer():
    vit = timm.create_model("test_vit", num_classes=4, img_size=(64, 128))
    spec = ModelSpec(input_size=(64, 128))
    found = attrib.Explainer(vit, "cam", spec=spec)(torch.randn(1, 3, 64, 128))
    assert found.maps.shape == (1, 4, 8)


def test_stages_in_order():
    stages = split(timm.create_model("resnet18", num_classes=3)).stages
    assert [s.stride for s in stages] == [2, 4, 8, 16, 32]
    assert [s.name for s in stages] == ["act1", "layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize(
    ("shape", "size", "want"),
    [
        ((1, 512, 7, 7), (224, 224), Layout("nchw")),
        ((1, 7, 7, 768), (224, 224), Layout("nhwc")),
        ((1, 4, 8, 768), (64, 128), Layout("nhwc")),
        ((1, 197, 768), (224, 224), Layout("tokens", 1)),
        ((1, 196, 768), (224, 224), Layout("tokens", 0)),
        ((1, 261, 768), (256, 256), Layout("tokens", 5)),
        ((1, 32, 768), (64, 128), Layout("tokens", 0)),
        ((1, 512, 1, 1), (224, 224), None),
        ((1, 1000), (224, 224), None),
        ((1, 12, 197, 64), (224, 224), None),
        ((1, 16, 35, 35), (299, 299), Layout("nchw")),
    ],
)
def test_layouts_are_told_by_shape(shape, size, want):
    assert detect(torch.zeros(shape), size) == want


def test_layout_round_trip():
    grid = torch.randn(2, 5, 3, 4)
    for layout, raw in (
        (Layout("nchw"), grid),
        (Layout("nhwc"), grid.permute(0, 2, 3, 1)),
        (Layout("tokens", 1), torch.cat([torch.ones(2, 1, 5), grid.flatten(2).mT], 1)),
    ):
        assert torch.equal(layout.grid(raw, (48, 64)), grid)
        constant = layout.constant(grid[:, :, 0, 0])
        assert layout.channels(constant) == 5
    levels = Levels((Layout("tokens", 1), Layout("nchw")), (5, 2))
    raw = [torch.cat([torch.ones(2, 1, 5), grid.flatten(2).mT], 1), torch.randn(2, 2, 3, 4)]
    torch.testing.assert_close(levels.grid(raw, (48, 64)), torch.cat([grid, raw[1]], 1))
    assert [tuple(x.shape) for x in levels.constant(torch.zeros(6, 7))] == [(6, 2, 5), (6, 2, 1, 1)]
    with pytest.raises(SplitError, match="13 cells form no grid"):
        grid_shape(13, (48, 64))


def test_chunked_class_maps_are_the_whole_ones(monkeypatch):
    from attrib.models import classifier as module

    classifier = split(MlpHead(), features="body", head="top", spec=SPEC)
    grid = classifier.forward(images(5)).grid
    classes = ClassSum(label=torch.randint(5, (7, 2)), factor=(0.7, -1.3), every=0.4)
    image = torch.tensor([0, 0, 1, 2, 4, 4, 4])
    whole, maps = classifier.evidence(grid, image, classes), classifier.class_maps(grid)
    monkeypatch.setattr(module, "CHUNK_CELLS", 5 * 64 * 2)
    torch.testing.assert_close(classifier.evidence(grid, image, classes), whole)
    torch.testing.assert_close(classifier.class_maps(grid), maps)
    torch.testing.assert_close(whole, added_up(classes, maps, image))


def added_up(classes, maps, image):
    """Do what a `ClassSum` says, class by class."""
    out = classes.every * maps[image].sum(1)
    for row, labels in enumerate(classes.label.tolist()):
        for label, factor in zip(labels, classes.factor, strict=True):
            out[row] += factor * maps[image[row], label]
    return out


@pytest.mark.parametrize("factor", [(1.0,), (2.0, -1.0), (1.0, 0.5, -3.0)])
@pytest.mark.parametrize("every", [0.0, -0.25])
def test_evidence_is_what_the_class_maps_add_up_to(factor, every):
    classifier = split(make("plain"), spec=SPEC)
    grid = classifier.forward(images(3)).grid
    label = torch.tensor([[0, 0, 1], [2, 1, 0], [3, 3, 3], [1, 2, 0]])[:, : len(factor)]
    classes, image = ClassSum(label=label, factor=factor, every=every), torch.tensor([0, 1, 1, 2])
    want = added_up(classes, classifier.class_maps(grid), image)
    torch.testing.assert_close(classifier.evidence(grid, image, classes), want)
    none = ClassSum(label=label[:0], factor=factor, every=every)
    assert classifier.evidence(grid, image[:0], none).shape == (0, *grid.shape[2:])


def test_in_place_heads_do_not_rewrite_the_features():
    classifier = split(InPlace(), features="features.4", head="fc", spec=SPEC)
    assert classifier.forward(images()).grid.min() < 0
