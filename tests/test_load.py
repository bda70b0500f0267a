import argparse
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import attrib
from attrib.errors import InputError, UnknownNameError, WeightsError
from attrib.models import fingerprint, load_model, load_weights, model_names, spec_of
from attrib.models.load import read_state_dict
from attrib.models.split import spec_from_timm


def tiny():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))


def test_demo_carries_its_preprocessing_and_labels():
    model = load_model("demo", device="cpu")
    spec = spec_of(model)
    assert not model.training
    assert (spec.name, spec.input_size, spec.fit) == ("demo", (96, 96), "squash")
    assert "unicorn" in spec.labels
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.filterwarnings("ignore::attrib.errors.DegenerateMapWarning")  # random weights
def test_local_folder_as_timm_saves_it(tmp_path):
    import timm
    from timm.models import save_for_hf

    made = timm.create_model("test_resnet", num_classes=3)
    config = {"label_names": ["a", "b", "c"], "mean": (0.5,) * 3, "crop_mode": "border"}
    save_for_hf(made, tmp_path, model_config=config, safe_serialization=True)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["pretrained_cfg"].update(config)
    (tmp_path / "config.json").write_text(json.dumps(stored))
    model = load_model(f"local-dir:{tmp_path}", device="cpu")
    spec = spec_of(model)
    assert spec.labels == ("a", "b", "c")
    assert (spec.mean, spec.fit) == ((0.5, 0.5, 0.5), "pad")
    assert fingerprint(model) == fingerprint(made)
    assert attrib.explain(model, torch.rand(3, 90, 70), "b").label == "b"


def test_weights_of_our_own(tmp_path):
    import timm

    made = timm.create_model("test_resnet", num_classes=7)
    torch.save({"epoch": 3, "state_dict": made.state_dict()}, tmp_path / "w.pth")
    model = load_model("test_resnet", weights=tmp_path / "w.pth", num_classes=7, device="cpu")
    assert fingerprint(model) == fingerprint(made)
    assert spec_of(model).labels == ()


def test_torchvision_names_bring_preset_and_labels(tmp_path):
    from torchvision import models

    made = models.squeezenet1_1()
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    model = load_model(
        "torchvision/squeezenet1_1", weights=tmp_path / "w.safetensors", device="cpu"
    )
    spec = spec_of(model)
    assert (spec.input_size, spec.crop, spec.fit) == ((224, 224), 0.875, "crop")
    assert spec.labels[0] == "tench"
    assert len(spec.labels) == 1000


def test_imagenet_models_of_timm_know_their_labels(tmp_path):
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    model = load_model("test_resnet", weights=tmp_path / "w.pth", device="cpu")
    assert spec_of(model).labels[0].startswith("tench")
    assert spec_of(timm.create_model("test_resnet")).labels == spec_of(model).labels
    assert spec_of(timm.create_model("test_resnet", num_classes=9)).labels == ()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("resnet5O", UnknownNameError, "unknown model 'resnet5O'; did you mean 'resnet50"),
        ("torchvision/resnet19", UnknownNameError, "did you mean 'torchvision/resnet1"),
        ("local-dir:/nowhere", WeightsError, "no config.json as timm writes it"),
    ],
)
def test_unknown_names(name, error, message):
    with pytest.raises(error, match=message):
        load_model(name)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "resnet18"])
def test_weights_that_cannot_be_fetched_say_what_to_do(name, monkeypatch):
    import timm
    from torchvision import models

    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(models, "get_model", offline)
    with pytest.raises(WeightsError, match=rf"weights of '{name}': Name or.*--weights FILE"):
        load_model(name)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "_orig_mod."])
def test_wrapped_and_prefixed_state_dicts(wrapper, prefix, tmp_path):
    state = {prefix + key: value for key, value in tiny().state_dict().items()}
    torch.save(state if wrapper is None else {wrapper: state, "step": 1}, tmp_path / "w.pt")
    assert read_state_dict(tmp_path / "w.pt").keys() == tiny().state_dict().keys()


def test_checkpoints_of_timms_training_script(tmp_path):
    """They hold the optimiser and the command line beside the weights."""
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    checkpoint = {"epoch": 3, "arch": "resnet18", "state_dict": model.state_dict(), "version": 2}
    checkpoint |= {"optimizer": optimizer.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(checkpoint, tmp_path / "model_best.pth.tar")
    before = set(torch.serialization.get_safe_globals())  # torch keeps them in no order
    assert read_state_dict(tmp_path / "model_best.pth.tar").keys() == model.state_dict().keys()
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_number_of_classes_needs_weights():
    with pytest.raises(InputError, match=r"num_classes=5 without weights .* random; .*--weights"):
        load_model("test_resnet", num_classes=5)


def test_paths_in_place_of_names_say_how_they_are_given(tmp_path):
    with pytest.raises(UnknownNameError, match=f"'local-dir:{tmp_path}'"):
        load_model(str(tmp_path))
    (tmp_path / "birds.pth").touch()
    with pytest.raises(UnknownNameError, match="name of the architecture, and the file as weights"):
        load_model(str(tmp_path / "birds.pth"))


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tmp_path):
    model = tiny()
    before = fingerprint(model)
    state = tiny().state_dict()
    del state["0.bias"]
    state["extra"] = torch.zeros(1)
    state["2.weight"] = torch.zeros(9, 4)
    save_file(state, tmp_path / "w.safetensors")
    message = r"missing: 0.bias; unexpected: extra; wrong shape: 2.weight is \(9, 4\) in the file"
    with pytest.raises(WeightsError, match=message):
        load_weights(model, tmp_path / "w.safetensors")
    assert fingerprint(model) == before


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_files_that_are_no_weights(tmp_path, capsys):
    (tmp_path / "a.safetensors").write_bytes(b"no such format")
    (tmp_path / "b.pth").write_bytes(b"no such format")
    torch.save({"w": Evil()}, tmp_path / "c.pth")
    torch.save([1, 2], tmp_path / "d.pth")
    torch.save(tiny(), tmp_path / "f.pth")
    cases = {
        "a.safetensors": "a.safetensors cannot be read",
        "b.pth": "no safetensors file and no state dict",
        "c.pth": "no safetensors file and no state dict .* it holds .*print, .* could run code",
        "d.pth": "holds no state dict",
        "f.pth": r"it holds torch.nn.modules.container.Sequential, .* save model.state_dict\(\)",
        "e.pth": "e.pth does not exist",
        "e.safetensors": "e.safetensors does not exist",
    }
    for name, message in cases.items():
        with pytest.raises(WeightsError, match=message):
            read_state_dict(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


def test_timm_configurations():
    spec = spec_from_timm(
        {
            "architecture": "vit",
            "tag": "x",
            "input_size": (3, 384, 256),
            "crop_pct": None,
            "crop_mode": "squash",
            "interpolation": "bicubic",
            "label_names": ["a"],
        }
    )
    assert (spec.name, spec.input_size, spec.fit) == ("vit.x", (384, 256), "squash")
    assert (spec.interpolation, spec.labels) == ("bicubic", ("a",))
    assert spec.crop == attrib.ModelSpec.crop
    with pytest.raises(attrib.AttribError, match="crop is a fraction"):
        replace(spec, crop=1.5)


def test_label_names_by_number():
    names = {"0": "a", "2": "c"}
    assert spec_from_timm({"label_names": names, "num_classes": 3}).labels == ("a", "1", "c")
    assert spec_from_timm({"label_names": {1: "b", 0: "a"}}).labels == ("a", "b")


def test_all_names_are_listed():
    names = set(model_names())
    assert {"demo", "resnet50", "torchvision/vgg16"} <= names
