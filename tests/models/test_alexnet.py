"""B-AlexNet: its exits, its maps, its work, and that a cut changes no answer."""

import pytest
import torch
from torch import nn

from offramp.models.alexnet import alexnet_exits
from offramp.models.extract import profile_of

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return alexnet_exits().eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize(("size", "classes"), [(32, 10), (48, 7), (64, 10)])
def test_three_exits_whose_maps_halve(size, classes):
    made = alexnet_exits(classes=classes, input_size=size).eval()
    x = torch.randn(2, 3, size, size)
    assert made.input_shape == (3, size, size)
    assert made(x).shape == (2, 3, classes)
    assert [tuple(m.shape[1:]) for m in made.maps(x)] == [
        (64, size // 2, size // 2),
        (96, size // 4, size // 4),
        (64, size // 8, size // 8),
    ]


@torch.no_grad()
@pytest.mark.parametrize("cut", range(4))
def test_whole_equals_head_and_tail_at_every_cut(network, images, cut):
    whole = network(images)
    features, near = network.head(images, cut)
    parts = ([] if near is None else [near]) + ([network.tail(features, cut)] if cut < 3 else [])
    assert torch.allclose(torch.cat(parts, 1), whole, rtol=0.0, atol=1e-5)
    assert torch.equal(network.backbone(images), whole[:, -1])
    assert not torch.allclose(whole[:, 0], whole[:, 1], atol=1e-3)


def test_layers_are_those_of_the_paper(network):
    """Five convolutions and three fully connected layers; the branches have two and one convolution of their own."""

    def count(module, kind):
        return sum(isinstance(m, kind) for m in module.modules())

    assert [count(s, nn.Conv2d) for s in network.segments] == [2, 1, 2]
    assert [count(h, nn.Conv2d) for h in network.heads] == [2, 1, 0]
    assert [count(h, nn.Linear) for h in network.heads] == [1, 1, 3]


def test_profile_equals_a_count_by_hand(network):
    profile = profile_of(network)
    assert profile.segment_macs == (
        32 * 32 * 32 * 3 * 25 + 16 * 16 * 64 * 32 * 25,
        8 * 8 * 96 * 64 * 9,
        8 * 8 * (96 * 96 + 64 * 96) * 9,
    )
    assert profile.head_macs == (
        8 * 8 * (32 * 64 + 32 * 32) * 9 + 32 * 16 * 10,
        4 * 4 * 32 * 96 * 9 + 8 * 16 * 10,
        64 * 16 * 256 + 256 * 128 + 128 * 10,
    )
    assert profile.payload_bytes == (3072, 4 * 64 * 16 * 16, 4 * 96 * 8 * 8, 0)


def test_dropout_works_in_training_alone(network, images):
    made = alexnet_exits(dropout=0.5)
    made.load_state_dict(network.state_dict())
    with torch.no_grad():
        one, other = made.train()(images), made(images)
        assert torch.equal(one[:, :2], other[:, :2])
        assert not torch.equal(one[:, 2], other[:, 2])
        assert torch.equal(made.eval()(images), network(images))


@pytest.mark.parametrize("size", [16, 31, 33, 40, 0])
def test_sides_that_do_not_halve_exactly_are_refused(size):
    with pytest.raises(ValueError, match=f"input_size is {size}, allowed is a multiple of 16 pixels from 32 on"):
        alexnet_exits(input_size=size)
