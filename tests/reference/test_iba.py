"""IBA against its equations written out slowly, on one picture at a time in float64."""

import math

import pytest
import torch
from PIL import Image
from torch import nn

import attrib
from attrib.datasets import UnlabelledFolder, picture_batches
from attrib.errors import InputError, OutputError, SplitError
from attrib.images import Picture, preprocess
from attrib.methods.iba import IBA, Statistics, estimate_statistics, iba, method
from attrib.methods.iba.cut import cut, default_layer, rest_of
from attrib.surgery import inference
from attrib.types import ModelSpec
from tests.models import SPEC, Everything, Pooled, images, make

LAYER = "features.2"
LABELS = [3, 0, 3]


def mirrored(index, side):
    if index < 0:
        return -index
    return 2 * (side - 1) - index if index >= side else index


def literal_smooth(x, sigma):
    """A Gaussian window of side 2 round(2 sigma) + 1, edges mirrored, cell by cell."""
    reach = round(2 * sigma)
    span = range(-reach, reach + 1)
    weight = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma * sigma)) for i in span for j in span}
    total = sum(weight.values())
    _, u, v = x.shape
    rows = []
    for a in range(u):
        row = []
        for b in range(v):
            cells = [
                w / total * x[:, mirrored(a + i, u), mirrored(b + j, v)]
                for (i, j), w in weight.items()
            ]
            row.append(sum(cells))
        rows.append(torch.stack(row, 1))
    return torch.stack(rows, 1)


def literal(surprise, r, mean, std, active, noise, *, beta=10.0, lr=1.0, sigma=1.0):
    """The sheet for one picture's features [k, u, v]; noise is a list of draws per step."""
    s = std.clamp(min=0.01)
    alpha = torch.full_like(r, 5.0).requires_grad_()
    adam = torch.optim.Adam([alpha], lr=lr)
    seen = []
    for draws in noise:
        lam = literal_smooth(torch.sigmoid(alpha), sigma)
        r_n = (r - mean) / s
        capacity = (
            -0.5 * (1 + torch.log((1 - lam) ** 2) - (lam * r_n) ** 2 - (1 - lam) ** 2) * active
        )
        losses = []
        for eps in draws:
            z = (lam * r + (1 - lam) * (s * eps + mean)) * active
            losses.append(surprise(z))
        loss = sum(losses) / len(losses) + beta * capacity.mean()
        seen.append((alpha.detach().clone(), capacity.detach(), loss.detach()))
        (alpha.grad,) = torch.autograd.grad(loss, alpha)
        adam.step()
    return seen


def surprise_of(model, label, multi_label=False):
    def surprise(z):
        logits = model.fc(model.features[3:](z[None]).mean((2, 3)))[0]
        if multi_label:
            return -torch.sigmoid(logits[label]).log()
        return -torch.log(torch.exp(logits[label]) / torch.exp(logits).sum())

    return surprise


def literal_statistics(rows):
    """Welford, one picture at a time."""
    mean, squares, filled = torch.zeros_like(rows[0]), torch.zeros_like(rows[0]), 0
    for n, r in enumerate(rows, 1):
        change = r - mean
        mean = mean + change / n
        squares = squares + change * (r - mean)
        filled = filled + (r != 0).double()
    return mean, (squares / (len(rows) - 1)).sqrt(), filled / len(rows) > 0.01


def own(r):
    flat = r.flatten(1)
    mean, std = (x[:, None, None] for x in (flat.mean(1), flat.std(1)))
    return mean, std, ((flat != 0).double().mean(1) > 0.01)[:, None, None]


@pytest.fixture(scope="module")
def double():
    """A network in float64, its pictures, and their features behind the first ReLU."""
    with torch.random.fork_rng():
        model = make("plain").double().requires_grad_(False).eval()
    model.features[1].bias[2] = -9.0  # a channel that is never on
    pictures = images(3, (10, 14)).double()
    return model, pictures, model.features[:3](pictures)


def noise_of(seed, steps, samples, shape):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, *shape, generator=generator).double() for _ in range(steps)]


@pytest.mark.parametrize(
    "options", [{}, {"beta": 1.0, "lr": 0.3, "sigma": 0.5}, {"beta": 100.0, "sigma": 1.3}]
)
def test_every_step_is_that_of_the_equations(double, options):
    model, pictures, r = double
    mean, std, active = literal_statistics(model.features[:3](images(20, (10, 14), 5).double()))
    assert 0 < active.double().mean() < 1
    assert (std < 0.01).any()
    known = Statistics(layer=LAYER, mean=mean, std=std, active=active, count=20)
    noise = noise_of(4, 4, 3, r.shape[1:])
    split = attrib.split(model, spec=SPEC)

    def loss(z):
        rows = [
            torch.stack([surprise_of(model, y)(row) for row in z[:, n]]).mean()
            for n, y in enumerate(LABELS)
        ]
        return torch.stack(rows)

    found = list(iba(loss, r, known, noise, **options))
    assert len(found) == 4
    for n, label in enumerate(LABELS):
        want = literal(surprise_of(model, label), r[n], mean, std, active, noise, **options)
        for got, (alpha, capacity, value) in zip(found, want, strict=True):
            torch.testing.assert_close(got.alpha[n], alpha, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(got.capacity[n], capacity, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(got.loss[n], value, rtol=1e-9, atol=1e-9)
    if not options:
        method_ = IBA(layer=LAYER, statistics=known, steps=4, samples=3, seed=4)
        maps = attrib.Explainer(split, method_)(pictures, LABELS).maps
        torch.testing.assert_close(maps, found[-1].capacity.sum(1) / math.log(2))


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_name_alone_takes_each_pictures_own_statistics(double, multi_label):
    model, pictures, r = double
    spec = ModelSpec(input_size=(10, 14), multi_label=multi_label)
    found = attrib.Explainer(model, IBA(layer=LAYER, steps=3, samples=2, seed=1), spec=spec)(
        pictures, LABELS
    )
    assert found.unit == "bits"
    noise = noise_of(1, 3, 2, r.shape[1:])
    for n, label in enumerate(LABELS):
        surprise = surprise_of(model, label, multi_label)
        *_, (_, capacity, _) = literal(surprise, r[n], *own(r[n]), noise)
        torch.testing.assert_close(found.maps[n], capacity.nansum(0) / math.log(2))


def test_every_constant_has_the_published_default():
    m = IBA()
    assert (m.beta, m.lr, m.steps, m.samples, m.sigma) == (10, 1, 10, 10, 1)
    assert m.statistics is None


def test_statistics_are_welfords_however_pictures_are_batched(double):
    model, _, _ = double
    pictures = images(11, (10, 14), 2).double() + 3
    classifier = attrib.split(model, spec=SPEC)
    before = Everything(model)
    mean, std, active = literal_statistics(model.features[:3](pictures))
    for sizes in ([11], [1, 4, 6]):
        known = estimate_statistics(classifier, pictures.split(sizes), LAYER)
        torch.testing.assert_close(known.mean, mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(known.std, std, rtol=1e-10, atol=1e-10)
        assert torch.equal(known.active, active)
        assert (known.layer, known.count) == (LAYER, 11)
    before.assert_same(model)


def test_statistics_of_a_folder_are_those_of_its_pictures(double, tmp_path):
    """However they lie there and are batched; from a folder or a data set."""
    model, _, _ = double
    classifier = attrib.split(model, spec=SPEC)
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(256, (7, 32, 32, 3), generator=generator).byte()
    (tmp_path / "deeper").mkdir()
    for i, picture in enumerate(pixels):
        place = tmp_path / "deeper" if i > 4 else tmp_path
        Image.fromarray(picture.numpy()).save(place / f"{i}.png")
    given, _ = preprocess(
        [Picture(pixels=p) for p in pixels.permute(0, 3, 1, 2)],
        classifier.spec,
        dtype=torch.float64,
    )
    want = estimate_statistics(classifier, [given], LAYER)
    for source, size in ((tmp_path, 3), (str(tmp_path), 16), (UnlabelledFolder(tmp_path), 1)):
        found = estimate_statistics(classifier, picture_batches(classifier, source, size), LAYER)
        torch.testing.assert_close(found.mean, want.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.std, want.std, rtol=1e-5, atol=1e-6)
        assert found.count == 7
    with pytest.raises(InputError, match="batch_size is 1 or more"):
        picture_batches(classifier, tmp_path, 0)
    with pytest.raises(InputError, match="nowhere is no folder"):
        picture_batches(classifier, tmp_path / "nowhere")


def test_statistics_from_a_file_and_what_does_not_fit(double, tmp_path):
    model, pictures, _ = double
    classifier = attrib.split(model, spec=SPEC)
    known = estimate_statistics(classifier, [pictures], LAYER)
    path = tmp_path / "statistics.safetensors"
    known.save(path)

    def maps(layer, statistics, batch=pictures):
        options = IBA(layer=layer, statistics=statistics, steps=2, samples=2)
        return attrib.Explainer(classifier, options)(batch, 0).maps

    assert torch.equal(maps(LAYER, str(path)), maps(LAYER, known))
    assert not torch.equal(maps(LAYER, None), maps(LAYER, known))
    with pytest.raises(InputError, match=r"of layer 'features.2', the bottleneck is at 'features'"):
        maps("", str(path))
    with pytest.raises(InputError, match=r"\(8, 5, 7\), these images give \(8, 16, 16\)"):
        maps(LAYER, str(path), images(1).double())
    with pytest.raises(InputError, match="holds no statistics of a layer"):
        maps(LAYER, str(tmp_path / "none.safetensors"))
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(InputError, match="holds no statistics of a layer"):
        Statistics.load(tmp_path / "text.safetensors")
    with pytest.raises(OutputError, match="cannot write"):
        known.save(path / "below" / "x.safetensors")
    with pytest.raises(InputError, match="at least two images, got 1"):
        estimate_statistics(classifier, [pictures[:1]], LAYER)
    with pytest.raises(InputError, match="images of one size"):
        estimate_statistics(classifier, [pictures, images(1).double()], LAYER)
    assert "statistics=<Statistics of layer 'features.2' over 3 pictures>" in (
        attrib.registry.format_spec(IBA(statistics=known))
    )


def test_a_grid_too_small_to_smooth_says_what_to_do():
    with pytest.raises(InputError, match=r"side of 4 cells is too small for sigma=2.*takes 5"):
        attrib.Explainer(make("plain"), "iba(sigma=2)", spec=SPEC)(images(1, (16, 24)))
    found = attrib.Explainer(make("plain"), "iba(sigma=0, steps=1)", spec=SPEC)(images(1, (4, 8)))
    assert found.maps.shape == (1, 1, 2)


def test_pairs_do_not_depend_on_their_chunk(monkeypatch):
    explainer = attrib.Explainer(make("plain"), "iba(steps=4, samples=3)", spec=SPEC)
    pairs = [[1, 4], [2], [0, 3]]
    whole = explainer(images(3), pairs).maps
    monkeypatch.setattr(method, "CHUNK_VALUES", 1)
    torch.testing.assert_close(explainer(images(3), pairs).maps, whole, rtol=1e-3, atol=1e-4)


class Counted(nn.Conv2d):
    runs = 0

    def forward(self, x):
        self.runs += len(x)
        return super().forward(x)


def test_what_comes_before_the_layer_runs_once():
    model = Pooled()
    model.features[0] = Counted(3, 8, 3, 2, 1)
    model.features[3] = Counted(8, 12, 3, 2, 1)
    explainer = attrib.Explainer(model, f"iba(layer={LAYER!r}, steps=3, samples=5)", spec=SPEC)
    model.features[0].runs = model.features[3].runs = 0
    explainer(images(2))
    assert model.features[0].runs == 2
    assert model.features[3].runs == 2 + 2 + 3 * 5 * 2  # the pictures, a trial, the draws


class Residual(nn.Module):
    """A shortcut goes around the layer inside."""

    def __init__(self):
        super().__init__()
        self.stem, self.inside = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 6, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(self.block(x + self.inside(x).relu()).mean((2, 3)))


def test_ways_on_from_a_layer():
    from timm.models.vision_transformer import VisionTransformer

    transformer = VisionTransformer(
        img_size=32, patch_size=4, embed_dim=24, depth=3, num_heads=2, num_classes=4
    )
    for model, layer, passed, stub in (
        (Residual(), "block.0", ("stem", "inside"), True),
        (Residual(), "inside", (), False),
        (transformer, "blocks.1", ("blocks.0",), False),
    ):
        classifier = attrib.split(model, spec=SPEC)
        with inference(model):
            start = cut(classifier, images(2), layer)
            rest = rest_of(classifier, start)
            assert (rest.passed, rest.stub) == (passed, stub)
            other = start.grid.flip(0)
            got = rest(other, torch.tensor([0, 1]))
            assert not torch.allclose(got, start.logits)
        if model is transformer:  # the last block's class token reads no later cells
            assert default_layer(classifier) == "blocks.1"
        found = attrib.Explainer(classifier, f"iba(layer={layer!r}, steps=2, samples=2)")(images(2))
        assert found.maps.isfinite().all()
        assert found.maps.std() > 0


def test_a_layer_that_runs_twice_is_refused():
    explainer = attrib.Explainer(make("shared-relu"), f"iba(layer={LAYER!r})", spec=SPEC)
    with pytest.raises(SplitError, match="it runs more than once; name another"):
        explainer(images(2))


def test_default_layer_is_the_last_with_cells_of_at_most_16_pixels():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(*(nn.Conv2d(k, 6, 3, 2, 1) for k in (3, 6, 6, 6, 6)))
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(self.features(x).mean((2, 3)))

    deep = attrib.split(Deep(), spec=ModelSpec(input_size=(128, 128)))
    assert default_layer(deep) == "features.3"
    assert default_layer(attrib.split(make("plain"), spec=SPEC)) == "features"
    assert attrib.Explainer(deep, "iba(steps=1)")(images(1, (128, 128))).maps.shape == (1, 8, 8)


def test_what_the_class_needs_lets_more_through():
    """One channel at one place decides: the bits must be there."""

    class Corner(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(3, 2, 1)
            self.pool = nn.AdaptiveMaxPool2d(1)
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(self.pool(self.features(x)).flatten(1))

    model = Corner()
    with torch.no_grad():
        model.features.weight.zero_()
        model.features.weight[0, 0] = 1
        model.features.bias.zero_()
        model.fc.weight.copy_(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]))
        model.fc.bias.copy_(torch.tensor([-8.0, 8.0]))
    picture = 0.1 * images(1, (12, 12))
    picture[0, 0, 3, 8] = 9
    classifier = attrib.split(model, spec=ModelSpec(input_size=(12, 12)), need="features")
    map_ = attrib.Explainer(classifier, "iba(layer='features')")(picture, 0).maps[0]
    assert divmod(int(map_.argmax()), 12) == (3, 8)
    assert map_[3, 8] > 3 * map_.median()
