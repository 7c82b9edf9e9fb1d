"""Any module with named cut points becomes a network with exits, and what cannot be cut there is refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

from offramp.models import torchvision_ops
from offramp.models.data import MEAN, STD, normalise
from offramp.models.graph import SplitError
from offramp.models.network import ExitHead, MultiExitNetwork
from offramp.models.split import with_exits

torchvision_ops.ensure()
from torchvision.models import VisionTransformer, mobilenet_v2, resnet18, vgg11  # noqa: E402

torch.set_num_threads(1)
SHAPE = (3, 32, 32)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Chain(nn.Module):
    """Three convolutions and a classifier; what is not said by a subclass stays as it is here."""

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        return self.fc(self.three(self.two(self.one(x).relu()).relu()).mean((2, 3)))


@pytest.fixture(scope="module")
def resnet():
    """Batch norms have seen images: fresh ones would hide an exchange of two of them."""
    torch.manual_seed(0)
    made = resnet18(num_classes=10).train()
    with torch.no_grad():
        made(torch.randn(8, *SHAPE))
    return made.eval()


@pytest.fixture(scope="module")
def network(resnet):
    return with_exits(resnet, ["layer1", "layer2.1.relu", "layer3"], input_shape=SHAPE)


def images(n, shape=SHAPE, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_residual_network_whole_and_split(resnet, network):
    assert (type(network), network.n_exits, network.input_shape) == (MultiExitNetwork, 4, SHAPE)
    assert [tuple(m.shape[1:]) for m in network.maps(images(1))] == [(64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)]
    x = images(5)
    whole, plain = network(x), resnet(x)
    assert whole.shape == (5, 4, 10)
    assert torch.allclose(whole[:, -1], plain, rtol=0.0, atol=1e-5)
    assert plain.std() > 1e-2
    for cut in range(5):
        features, near = network.head(x, cut)
        parts = ([] if near is None else [near]) + ([network.tail(features, cut)] if cut < 4 else [])
        assert torch.allclose(torch.cat(parts, 1), whole, rtol=0.0, atol=1e-5)


def test_weights_are_the_models_own(resnet, network):
    mine = {p.data_ptr() for p in network.parameters()}
    assert {p.data_ptr() for p in resnet.parameters()} < mine
    exits = sum(p.numel() for head in network.heads[:-1] for p in head.parameters())
    assert sum(p.numel() for p in network.parameters()) - exits == sum(p.numel() for p in resnet.parameters())
    assert isinstance(network.heads[-1].fc, nn.Linear)


def test_it_comes_in_the_mode_in_which_the_model_is():
    for training in (True, False):
        model = Chain().train(training)
        made = with_exits(model, ["one", "two"], input_shape=SHAPE)
        assert all(m.training == training for m in (*made.modules(), *model.modules()))
    model = Chain().train()
    model.two.eval()  # as who freezes a part of it does
    made = with_exits(model, ["one"], input_shape=SHAPE)
    assert {m for m in made.modules() if not m.training} == {model.two}


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "after", "widths"),
    [
        (lambda: mobilenet_v2(num_classes=5), ["features.2", "features.5"], [24, 32, 1280]),
        (lambda: vgg11(num_classes=5), ["features.2", "features.10"], [64, 256, 512]),
        (
            lambda: VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=12, mlp_dim=20, num_classes=5),
            ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"],
            [12, 12, 12],
        ),
    ],
    ids=["inverted residuals", "plain", "tokens"],
)
def test_other_families(model, after, widths):
    torch.manual_seed(1)
    made = model().eval()
    network = with_exits(made, after, input_shape=SHAPE)
    assert [m.shape[1] for m in network.maps(images(1))] == widths
    assert all(m.ndim == 4 for m in network.maps(images(1)))
    x = images(4, seed=2)
    assert torch.allclose(network.backbone(x), made(x), rtol=0.0, atol=1e-5)


@torch.no_grad()
def test_the_last_call_of_a_module_counts():
    """A block of torchvision's ResNet calls `relu` inside its branch and at its end: its end is the cut."""
    torch.manual_seed(0)
    model = resnet18(num_classes=3).eval()
    by_relu = with_exits(model, ["layer2.0.relu"], input_shape=SHAPE)
    by_block = with_exits(model, ["layer2.0"], input_shape=SHAPE)
    x = images(2)
    for a, b in zip(by_relu.maps(x), by_block.maps(x), strict=True):
        assert torch.equal(a, b)


class Deciding(nn.Module):
    """Its forward hangs on values, and it may be given more: neither matters where it is not looked into."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(6, 6, 3, 2, 1)

    def forward(self, x, scale=1.0):
        return self.inner(x) * scale if x.sum() > 1e9 else self.inner(x).relu()


def test_what_holds_no_cut_point_may_do_what_it_wants():
    model = Chain()
    model.two = Deciding()
    assert with_exits(model, ["one", "two"], input_shape=SHAPE).n_exits == 3
    with pytest.raises(SplitError, match=r"calls one of \['one', 'two.inner'\] cannot be followed"):
        with_exits(model, ["one", "two.inner"], input_shape=SHAPE)


@torch.no_grad()
def test_pixels_of_another_training():
    """The image is standardised here by one pair of numbers, the model was trained with another."""
    model = Chain().eval()
    network = with_exits(model, ["one"], input_shape=SHAPE, **IMAGENET)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    theirs = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0).sub(
        torch.tensor(IMAGENET["mean"]).view(1, 3, 1, 1)
    ) / torch.tensor(IMAGENET["std"]).view(1, 3, 1, 1)
    assert torch.allclose(network.backbone(normalise(pixels)), model(theirs), rtol=0.0, atol=1e-5)
    plain = with_exits(model, ["one"], input_shape=SHAPE, mean=MEAN, std=STD)
    assert torch.allclose(plain.backbone(images(2)), model(images(2)), rtol=0.0, atol=1e-5)


@torch.no_grad()
def test_exits_of_ones_own_and_a_classifier_by_name():
    own = [nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), ExitHead(6, 4)]
    network = with_exits(Chain(), ["one", "two"], input_shape=SHAPE, heads=own)
    assert list(network.heads)[:2] == own
    flat = with_exits(Chain(), ["one"], input_shape=SHAPE, classifier="two", heads=lambda c, k: ExitHead(c, k))
    assert [m.shape[1] for m in flat.eval().maps(images(1))] == [6, 6]
    assert isinstance(flat.heads[-1].three, nn.Conv2d)


# Refusals


class Shortcut(Chain):
    def forward(self, x):
        one = self.one(x)
        return self.fc(self.three(self.two(one.relu()).relu()).mean((2, 3)) + one.mean())


class Aside(nn.Module):
    """Writes down what it read, or reads what was written down: no graph shows it."""

    def __init__(self, conv, note, *, writes):
        super().__init__()
        self.conv, self.note, self.writes = conv, note, writes

    def forward(self, x):
        if self.writes:
            self.note["x"] = x.mean()
        return self.conv(x) + self.note["x"]


def stashing():
    made, note = Chain(), {}
    made.one, made.two = Aside(made.one, note, writes=True), Aside(made.two, note, writes=False)
    return made


class Pair(Chain):
    def forward(self, x):
        return super().forward(x), x


class Lists(Chain):
    def __init__(self):
        super().__init__()
        self.both = Both()

    def forward(self, x):
        one, two = self.both(x)
        return self.fc(self.three(self.two(one * two)).mean((2, 3)))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2)

    def forward(self, x):
        return self.conv(x), self.conv(x)


class Unused(Chain):
    def __init__(self):
        super().__init__()
        self.again = nn.ReLU()


class Shared(Chain):
    def __init__(self):
        super().__init__()
        self.again = nn.ReLU()

    def forward(self, x):
        return self.fc(self.three(self.two(self.again(self.two(self.one(x))))).mean((2, 3)))


class Overwriting(Chain):
    def forward(self, x):
        return self.fc(self.three(self.two(self.one(x).relu_()).relu()).mean((2, 3)))


class Consuming(Chain):
    def forward(self, x):
        return super().forward(x.mul_(2.0))


class Viewing(Chain):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8 * 9, 4)

    def forward(self, x):
        return self.fc(self.three(self.two(self.one(x))).view(len(x), -1))


class Noisy(Chain):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


CASES = {
    "unknown": (Chain, ["one", "four"], "cut point is 'four', allowed are .*'three'"),
    "unused": (Unused, ["one", "again"], "cut point 'again' is never called"),
    "order": (Chain, ["two", "one"], "cut point 'two' is not the only way on: 'one' does not come behind it"),
    "around": (Shortcut, ["one", "two"], "cut point 'two' is not the only way on: 'add' also reads 'mean"),
    "in a branch": (lambda: resnet18(num_classes=3), ["layer1.0.conv1"], "'add' also reads 'maxpool'"),
    "in secret": (stashing, ["one"], "cut point 'one': split and whole differ by"),
    "a pair": (Lists, ["both"], "cut point 'both' gives no tensor, allowed is a map"),
    "no logits": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3)), ["0"], r"the model gives \(3, 6, 30, 30\) for 3 images"),
    "two outputs": (Pair, ["one"], "the model gives tuple for 3 images"),
    "weights twice": (Shared, ["one", "again"], "weights 'two.weight' are used on both sides of cut point 'again'"),
    "overwritten": (Overwriting, ["one"], "cut point 'one' is overwritten by what follows"),
    "input overwritten": (Consuming, ["one"], "the input is overwritten by what follows"),
    "view": (Viewing, ["one"], "cannot read images .* in channels-last memory order"),
    "drawn": (Noisy, ["one"], "the model answers the same images otherwise from call to call: by "),
    "last map": (Chain, ["one", "three"], "cut point 'three' is not followed by another feature map"),
    "no map": (Chain, ["one", "fc"], "cut point 'fc' is not followed by another feature map"),
    "same": (Chain, ["one", "one"], "after is .*, allowed is a list of one name or more that differ"),
    "none": (Chain, [], "after is .*, allowed is a list of one name or more that differ"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_cut_is_refused(case):
    make, after, message = CASES[case]
    model = make().eval()
    with pytest.raises(SplitError, match=message):
        with_exits(model, after, input_shape=SHAPE)
    assert not any(m.training or m._forward_hooks for m in model.modules())


def test_options_are_checked():
    for options, message in (
        ({"heads": [ExitHead(6, 4)]}, "heads are 1, allowed are 2"),
        ({"heads": [ExitHead(6, 4), ExitHead(6, 5)]}, r"exit behind 'two' gives \(3, 5\), allowed is \(3, 4\)"),
        ({"mean": MEAN}, "mean and std are given one without the other"),
        ({"mean": MEAN, "std": (1.0, 0.0, 1.0)}, "std > 0"),
        ({"input_shape": (32, 32)}, r"input_shape is \(32, 32\), allowed"),
        ({"classifier": "fc"}, r"cut point 'fc' gives \(3, 4\), allowed is a map"),
        ({"classifier": "one"}, "cut point 'two' is not the only way on: 'one' does not come behind it"),
    ):
        with pytest.raises(SplitError, match=message):
            with_exits(Chain(), ["one", "two"], **{"input_shape": SHAPE, **options})
