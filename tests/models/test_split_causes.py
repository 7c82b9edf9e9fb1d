"""What a network cannot be split for is named: in-place writes, chance, batches, kinds of weights, arguments."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from offramp.models.graph import SplitError
from offramp.models.split import with_exits

torch.set_num_threads(1)
SHAPE = (3, 16, 16)


class Chain(nn.Module):
    """Three convolutions and a classifier; `between` is what happens behind the second."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 8, 3)
        self.fc, self.relu, self.norm = nn.Linear(8, 4), nn.ReLU(inplace=True), nn.Identity()

    def between(self, x):
        return x

    def forward(self, x):
        return self.fc(self.three(self.between(self.two(self.one(x)))).mean((2, 3)))


class Method(Chain):
    def between(self, x):
        x.relu_()
        return x


class Module(Chain):
    def between(self, x):
        self.relu(x)
        return x


class Rarely(Chain):
    """No random pixel gets there, a real one may."""

    def between(self, x):
        functional.hardtanh(x, -1e6, 1e6, inplace=True)
        return x


class OfView(Chain):
    def between(self, x):
        x.view(x.shape).mul_(2.0)
        return x


class Alias(Chain):
    def between(self, x):
        also = x.view(x.shape)
        also += 1.0
        return x


class Dropping(Chain):
    def between(self, x):
        return functional.dropout(x, 0.5, training=True)


class Read(Chain):
    """Both write in place as well, and what they give is read."""

    def between(self, x):
        return self.relu(x.clone()).mul_(2.0)


class Idle(Chain):
    """Computes what nobody reads, and writes nowhere."""

    def between(self, x):
        x.abs().sum()
        return x


class Batch(Chain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)

    def between(self, x):
        return self.norm(x)


class Centred(Chain):
    def between(self, x):
        return x - x.mean(0, keepdim=True)


class Infinite(Chain):
    def between(self, x):
        return x / 0.0


class Asserting(Chain):
    def forward(self, x):
        assert x.shape[-1] == 32, "images are 32 wide"
        return super().forward(x)


CAUSES = {
    "method": (Method, "'relu_' writes into what it reads, and nothing reads what it gives; allowed is to read that"),
    "module": (Module, "'relu' writes into what it reads, and nothing reads what it gives"),
    "not seen": (Rarely, "'hardtanh' writes into what it reads, and nothing reads what it gives"),
    "of a view": (OfView, "'mul_' writes into what it reads, and nothing reads what it gives"),
    "alias": (
        Alias,
        r"the input: split and whole differ by .*; nothing reads what .*'add' gives: allowed is none that",
    ),
    "chance": (Dropping, r"the model answers the same images otherwise from call to call: .*dropout\(training=True\)"),
    "batch norm": (Batch, "the model answers one image otherwise than the same among 3: .*without running statistics"),
    "batch mean": (Centred, "the model answers one image otherwise than the same among 3"),
    "infinite": (Infinite, "logits of random pixels that are nan or infinite"),
    "assertion": (Asserting, r"cannot read images \(3, 3, 16, 16\) \(images are 32 wide\), allowed is an input_shape"),
    "half": (lambda: Chain().half(), r"weights 'one.weight' are torch.float16 on cpu, allowed is to convert"),
    "double": (lambda: Chain().double(), r"weights 'one.weight' are torch.float64 on cpu"),
    "meta": (lambda: Chain().to("meta"), r"weights 'one.weight' are torch.float32 on meta"),
    "script": (lambda: torch.jit.trace(Chain(), torch.zeros(1, *SHAPE)), "the model is a ScriptModule"),
}


@pytest.mark.parametrize("case", CAUSES)
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_the_cause_is_named(case):
    make, message = CAUSES[case]
    with pytest.raises(SplitError, match=message) as caught:
        with_exits(make(), ["two"], input_shape=SHAPE)
    assert "channels-last" not in str(caught.value)


@pytest.mark.parametrize("model", [Read, Idle])
def test_what_looks_alike_is_cut(model):
    made = model().eval()
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert torch.allclose(with_exits(made, ["two"], input_shape=SHAPE).backbone(x), made(x), atol=1e-5)
    with torch.inference_mode():
        assert with_exits(made, ["one", "two"], input_shape=SHAPE).n_exits == 3


def test_heads_of_ones_own_are_asked_as_well():
    norm = nn.Sequential(nn.BatchNorm2d(6, track_running_stats=False), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    with pytest.raises(SplitError, match="an exit's head answers one image otherwise"):
        with_exits(Chain(), ["two"], input_shape=SHAPE, heads=[norm.append(nn.Linear(6, 4))])


@pytest.mark.parametrize(
    ("after", "shape", "message"),
    [
        ("two", SHAPE, "after is 'two', allowed is a list"),
        ([1], SHAPE, r"after is \[1\], allowed is a list"),
        (["two"], (3, -4, 16), r"input_shape is \(3, -4, 16\), allowed are whole numbers > 0"),
        (["two"], (3, 16.5, 16), r"input_shape is \(3, 16.5, 16\), allowed are whole numbers > 0"),
        (["two"], (3, 0, 16), r"input_shape is \(3, 0, 16\), allowed are whole numbers > 0"),
        (["two"], (3, True, 16), r"input_shape is \(3, True, 16\), allowed are whole numbers > 0"),
        (["two"], (1, 16, 16), r"cannot read images \(3, 1, 16, 16\) \(.*channels.*\), allowed is an input_shape"),
        (["two"], (3, 2, 2), r"cannot read images \(3, 3, 2, 2\)"),
    ],
)
def test_arguments_are_read_as_given(after, shape, message):
    with pytest.raises(SplitError, match=message) as caught:
        with_exits(Chain(), after, input_shape=shape)
    assert "channels-last" not in str(caught.value)
    assert with_exits(Chain(), ("two",), input_shape=np.array(SHAPE)).input_shape == SHAPE
