"""Every timm family and torchvision builder: a cheap sample by default, all of them when slow."""

import pytest

pytest.importorskip("timm")

from benchmarks.coverage import (
    FAMILIES,
    PAGE,
    check,
    timm_model,
    torchvision_model,
    torchvision_names,
)

CHEAP_TIMM = (
    "byobnet cait coat convnext crossvit deit "
    "densenet efficientformer efficientnet efficientvim eva ghostnet "
    "hgnet iformer levit mambaout maxxvit mobilenetv3 "
    "nfnet pit pvt_v2 resnet resnetv2 starnet "
    "swin_transformer tnt vision_transformer vision_transformer_relpos xcit "
).split()
CHEAP_TORCHVISION = (
    "densenet121 efficientnet_b0 googlenet mnasnet0_5 mobilenet_v2 mobilenet_v3_small "
    "regnet_x_400mf resnet18 shufflenet_v2_x0_5 squeezenet1_1 swin_t alexnet "
).split()
REFUSED = {"vgg", "efficientvim"}

pytestmark = pytest.mark.filterwarnings("ignore")


def check_family(family):
    import timm

    if not timm.is_model(FAMILIES[family]):
        pytest.skip(f"timm {timm.__version__} has no {FAMILIES[family]}")
    row = check(family, FAMILIES[family], timm_model)
    assert (row.kind == "refused") == (family in REFUSED)


@pytest.mark.parametrize("family", CHEAP_TIMM)
def test_timm_sample(family):
    check_family(family)


@pytest.mark.parametrize("name", CHEAP_TORCHVISION)
def test_torchvision_sample(name):
    row = check(name, name, torchvision_model)
    assert (row.kind == "refused") == (name == "alexnet")


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in CHEAP_TIMM])
def test_other_timm_families(family):
    check_family(family)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in torchvision_names() if n not in CHEAP_TORCHVISION])
def test_other_torchvision_builders(name):
    row = check(name, name, torchvision_model)
    assert (row.kind == "refused") == name.startswith(("vgg", "alexnet"))


def test_every_family_is_listed():
    from timm.models import list_modules

    assert set(list_modules()) <= set(FAMILIES), "run benchmarks/coverage.py for the new families"
    assert len(REFUSED) / len(FAMILIES) <= 0.03


def test_the_page_covers_every_family_and_builder():
    text = PAGE.read_text(encoding="utf-8")
    for name in (*FAMILIES, *torchvision_names()):
        assert f"| {name} |" in text
