"""A network with exits gives the same answers whole and split at any cut, and its weights survive the disk."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from offramp.models.network import ExitHead, MultiExitNetwork, mobilenet_v2_exits
from offramp.models.weights import (
    SCHEMA,
    WeightsError,
    half_precision,
    load_weights,
    read_tensors,
    save_weights,
    write_tensors,
)

torch.set_num_threads(1)

CARD = {"network": "tiny", "epochs": 3, "exits": [{"accuracy": 0.5, "mean confidence": 0.25}] * 2}


def tiny(classes=4, width=6, seed=0):
    torch.manual_seed(seed)
    segments = [
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, width, 3, stride=2), nn.ReLU()),
    ]
    return MultiExitNetwork(segments, [ExitHead(4, classes), ExitHead(width, classes)], (3, 32, 32))


@pytest.fixture(scope="module")
def network():
    """MobileNetV2 with batch norms that have seen images: fresh ones would hide an exchange of two of them."""
    torch.manual_seed(0)
    made = mobilenet_v2_exits(classes=10, input_size=32).train()
    with torch.no_grad():
        for _ in range(2):
            made(torch.randn(8, 3, 32, 32))
    return made.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_seven_exits_of_ten_classes(network, images):
    assert network.n_exits == 7
    assert network(images).shape == (2, 7, 10)


@torch.no_grad()
@pytest.mark.parametrize("cut", range(8))
def test_whole_equals_head_and_tail_at_every_cut(network, images, cut):
    whole = network(images)
    features, near = network.head(images, cut)
    parts = [] if near is None else [near]
    if cut < network.n_exits:
        parts.append(network.tail(features, cut))
    joined = torch.cat(parts, dim=1)
    assert joined.shape == whole.shape
    assert torch.allclose(joined, whole, rtol=0.0, atol=1e-5)
    assert (near is None) == (cut == 0)
    if cut == 0:
        assert torch.equal(features, images)
    assert whole.std() > 1e-3  # else all answers would be close to all others


@torch.no_grad()
def test_exits_differ_from_each_other(network, images):
    whole = network(images)
    for i in range(6):
        assert not torch.allclose(whole[:, i], whole[:, i + 1], atol=1e-4)


@torch.no_grad()
def test_backbone_is_the_last_exit(network, images):
    assert torch.equal(network.backbone(images), network(images)[:, -1])


@torch.no_grad()
def test_backbone_is_mobilenet_as_torchvision_computes_it():
    from torchvision.models import mobilenet_v2

    torch.manual_seed(3)
    mine = mobilenet_v2_exits(classes=5, input_size=64).eval()
    torch.manual_seed(3)
    theirs = mobilenet_v2(weights=None, num_classes=5).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.allclose(mine.backbone(x), theirs(x), rtol=0.0, atol=1e-6)


@torch.no_grad()
def test_maps_are_what_the_exits_read(network, images):
    maps = list(network.maps(images))
    assert [m.shape[1] for m in maps] == [24, 32, 64, 96, 160, 320, 1280]
    whole = network(images)
    for i, (features, head) in enumerate(zip(maps, network.heads, strict=True)):
        assert torch.equal(head(features), whole[:, i])
        assert torch.equal(features, network.head(images, i + 1)[0])


@torch.no_grad()
def test_maps_are_made_as_they_are_asked_for(network, images):
    calls = []
    hooks = [s.register_forward_hook(lambda module, *_: calls.append(module)) for s in network.segments]
    maps = network.maps(images)
    next(maps)
    next(maps)
    for hook in hooks:
        hook.remove()
    assert calls == list(network.segments[:2])


@torch.no_grad()
@pytest.mark.parametrize("cut", range(3))
def test_other_heads_stand_in_for_the_networks_own(cut):
    network, other = tiny(seed=0).eval(), tiny(seed=1).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = torch.stack([h(f) for h, f in zip(other.heads, network.maps(x), strict=True)], 1)
    assert torch.equal(network(x, heads=list(other.heads)), expected)
    assert not torch.allclose(network(x), expected, atol=1e-3)
    features, near = network.head(x, cut, heads=other.heads)
    parts = ([] if near is None else [near]) + ([network.tail(features, cut, other.heads)] if cut < 2 else [])
    assert torch.equal(torch.cat(parts, 1), expected)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_heads_for_every_segment_or_none(n):
    network, x = tiny(), torch.zeros(1, 3, 32, 32)
    heads = [ExitHead(4, 4)] * n
    for run in (lambda: network(x, heads), lambda: network.head(x, 1, heads), lambda: network.tail(x, 0, heads)):
        with pytest.raises(ValueError, match=f"{n} heads were given, allowed are 2: one for every segment"):
            run()


@pytest.mark.parametrize("cut", [-1, 8, 70])
def test_wrong_cut_is_refused(network, images, cut):
    for run in (network.head, network.tail):
        with pytest.raises(ValueError, match=rf"cut {cut} is not in 0\.\.7"):
            run(images, cut)


def test_tail_of_nothing_is_refused(network, images):
    with pytest.raises(ValueError, match="cut 7 leaves nothing to the cloud"):
        network.tail(images, 7)


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "stride", "sides"), [(32, 1, [16, 8, 4, 4, 2, 2, 2]), (224, 2, [56, 28, 14, 14, 7, 7, 7])]
)
def test_small_images_keep_their_resolution_in_the_stem(size, stride, sides):
    made = mobilenet_v2_exits(input_size=size).eval()
    stem = made.segments[0][0][0]
    assert isinstance(stem, nn.Conv2d)
    assert tuple(stem.stride) == (stride, stride)
    assert made.input_shape == (3, size, size)
    x, found = torch.zeros(1, 3, size, size), []
    for segment in made.segments:
        x = segment(x)
        assert x.shape[2] == x.shape[3]
        found.append(x.shape[2])
    assert found == sides


def test_images_below_32_pixels_are_refused():
    with pytest.raises(ValueError, match="input_size 31 is too small: at least 32"):
        mobilenet_v2_exits(input_size=31)


def test_segments_and_heads_must_match():
    with pytest.raises(ValueError, match="1 segments but 2 heads"):
        MultiExitNetwork([nn.Identity()], [nn.Identity(), nn.Identity()], (3, 32, 32))


def test_exit_head_is_batch_norm_pooling_linear(network):
    head = ExitHead(5, 3).eval()
    assert [type(m) for m in head] == [nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    with torch.no_grad():
        norm, linear = head[0], head[-1]
        norm.running_mean.copy_(torch.arange(5.0))
        norm.running_var.copy_(torch.arange(1.0, 6.0))
        x = torch.randn(2, 5, 4, 3)
        normed = (x - torch.arange(5.0).view(1, 5, 1, 1)) / (torch.arange(1.0, 6.0).view(1, 5, 1, 1) + norm.eps).sqrt()
        assert torch.allclose(head(x), normed.mean(dim=(2, 3)) @ linear.weight.T + linear.bias, atol=1e-5)
    assert all(isinstance(h, ExitHead) for h in network.heads[:-1])
    assert not isinstance(network.heads[-1], ExitHead)


def test_side_exits_cost_little(network):
    heads = sum(p.numel() for h in network.heads[:-1] for p in h.parameters())
    assert heads < 0.01 * sum(p.numel() for p in network.parameters())


def test_half_precision_round_trip_and_card(tmp_path):
    one, other = tiny(seed=0), tiny(seed=1)
    for module in one.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    path = tmp_path / "tiny.safetensors"
    save_weights(one, path, CARD)
    assert load_weights(other, path) == CARD
    counters = [k for k in one.state_dict() if k.endswith("num_batches_tracked")]
    assert len(counters) == 3
    for name, tensor in one.state_dict().items():
        if name not in counters:
            assert torch.equal(other.state_dict()[name], tensor.half().float()), name
            assert other.state_dict()[name].dtype == torch.float32
    assert half_precision(one).keys() == {k for k in one.state_dict() if k not in counters}
    again = tmp_path / "again.safetensors"
    save_weights(other, again, CARD)  # rounding twice rounds once
    first, second = (read_tensors(p, SCHEMA)[0] for p in (path, again))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_card_is_written_as_text_beside_the_weights(tmp_path):
    save_weights(tiny(), tmp_path / "tiny.safetensors", CARD)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny.md", "tiny.safetensors"]
    text = (tmp_path / "tiny.md").read_text()
    assert "# Model card: tiny" in text
    assert "| epochs | 3 |" in text
    assert "| 2 | 0.5000 | 0.2500 |" in text


@torch.no_grad()
def test_loaded_network_answers_as_the_rounded_one(network, images, tmp_path):
    save_weights(network, tmp_path / "m.safetensors", CARD)
    other = mobilenet_v2_exits(classes=10, input_size=32).eval()
    load_weights(other, tmp_path / "m.safetensors")
    assert (other(images).softmax(-1) - network(images).softmax(-1)).abs().max() < 0.01


def test_file_of_the_shipped_network_is_small(network, tmp_path):
    save_weights(network, tmp_path / "m.safetensors", CARD)
    size = (tmp_path / "m.safetensors").stat().st_size
    assert 4e6 < size <= 6e6


def test_weights_beyond_float16_are_refused():
    made = tiny()
    with torch.no_grad():
        made.heads[1][-1].weight[0, 0] = 1e5
    with pytest.raises(WeightsError, match=r"weight heads\.1\.3\.weight leaves the range of float16"):
        half_precision(made)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_weights(tiny(), path, CARD)
    return path


def refused(network, path):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(network, path)
    assert str(path) in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())  # nothing was half loaded
    return str(caught.value)


def test_missing_weights(tmp_path):
    assert "not a readable file" in refused(tiny(), tmp_path / "nothing.safetensors")
    assert "not a readable file" in refused(tiny(), tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.9, 0.999])
def test_truncated_weights(saved, share):
    raw = saved.read_bytes()
    saved.write_bytes(raw[: int(len(raw) * share)])
    assert "not a readable file" in refused(tiny(), saved)


def test_file_that_is_no_weights_file(saved):
    saved.write_bytes(b"PK\x03\x04 a pickle in a zip archive" * 10)
    assert "not a readable file" in refused(tiny(), saved)


def test_foreign_schema(saved):
    write_tensors(saved, half_precision(tiny()), CARD, "offramp-weights-9")
    said = refused(tiny(), saved)
    assert "schema is 'offramp-weights-9', allowed is 'offramp-weights-1'" in said
    save_file(half_precision(tiny()), str(saved))
    assert "schema is None" in refused(tiny(), saved)


def test_header_that_is_missing_or_no_json(saved):
    save_file(half_precision(tiny()), str(saved), metadata={"schema": SCHEMA})
    assert "not a readable file" in refused(tiny(), saved)
    save_file(half_precision(tiny()), str(saved), metadata={"schema": SCHEMA, "header": json.dumps(CARD)[:-3]})
    assert "not a readable file" in refused(tiny(), saved)


def test_weights_of_another_shape(saved):
    write_tensors(saved, {**half_precision(tiny()), "segments.1.0.weight": torch.zeros(6, 4, 1, 1)}, CARD, SCHEMA)
    assert "segments.1.0.weight has shape (6, 4, 1, 1), allowed is (6, 4, 3, 3)" in refused(tiny(), saved)
    save_weights(tiny(), saved, CARD)
    assert "allowed is (7" in refused(tiny(width=7), saved)


def test_weights_of_another_network(saved):
    state = half_precision(tiny())
    write_tensors(saved, {k: v for k, v in state.items() if k != "heads.0.3.bias"}, CARD, SCHEMA)
    assert "1 tensors do not belong to this network, the first is 'heads.0.3.bias'" in refused(tiny(), saved)
    write_tensors(saved, {**state, "more": torch.zeros(1)}, CARD, SCHEMA)
    assert "the first is 'more'" in refused(tiny(), saved)


def test_killed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def killed(*_):
        raise OSError("killed")

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(OSError, match="killed"):
        save_weights(tiny(seed=5), saved, CARD)
    assert saved.read_bytes() == before
