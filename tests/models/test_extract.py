"""Extraction says what the network says of the distorted images, once per condition, and goes on where it stopped."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from offramp.bandits import Profile
from offramp.environments import Condition, ConfidenceCache
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion
from offramp.models.extract import exits_of, extract, model_hash, profile_of
from offramp.models.network import ExitHead, MultiExitNetwork, mobilenet_v2_exits
from offramp.models.weights import WeightsError

torch.set_num_threads(1)

CLASSES = 5
DISTORTIONS = (
    Distortion(name="pristine", family="pristine"),
    Distortion(name="blur 1.0", family="blur", parameters={"sigma": 1.0}),
    Distortion(name="noise 20", family="noise", parameters={"sigma": 20}, seed=3),
)


def tiny(seed=0):
    torch.manual_seed(seed)
    segments = [
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), nn.ReLU()),
    ]
    made = MultiExitNetwork(segments, [ExitHead(4, CLASSES), ExitHead(8, CLASSES)], (3, 32, 32))
    with torch.no_grad():
        for head in made.heads:
            head[-1].weight.mul_(20.0)  # else all classes would be nearly as likely, and nothing would be compared
        made.train()(torch.randn(8, 3, 32, 32))
    return made.eval()


def splits(seed=0):
    rng = np.random.default_rng(seed)

    def part(n, first):
        colour, pattern = rng.integers(0, 190, (n, 1, 1, 3)), rng.integers(0, 66, (n, 8, 8, 3))
        return Split(
            images=(colour + pattern).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2),
            labels=rng.integers(0, CLASSES, n),
            index=np.arange(n) + first,
        )

    return {"train": part(4, 0), "validation": part(7, 100), "test": part(13, 0)}


def run(folder, *, network=None, parts=None, distortions=DISTORTIONS, **options):
    """Extract, and return the cache and what was reported on the way."""
    seen = []
    cache = extract(
        network or tiny(), parts or splits(), distortions, folder, lambda *done: seen.append(done), chunk=8, **options
    )
    return cache, seen


def computed(seen):
    """Conditions of which images were passed through the network; one that was there reports no rate."""
    return sorted({name for name, _, _, rate in seen if not math.isnan(rate)})


@torch.no_grad()
def test_cache_holds_a_direct_forward_pass_on_the_distorted_images(tmp_path):
    network, parts = tiny(), splits()
    cache, _ = run(tmp_path, network=network, parts=parts)
    images = np.concatenate([parts["validation"].images, parts["test"].images])
    index = np.concatenate([parts["validation"].index, parts["test"].index])
    assert cache.confidence.shape == (3, 1, 20, 2)
    for s, distortion in enumerate(DISTORTIONS):
        for n in range(20):
            distorted = distortion(images[n : n + 1], index[n : n + 1])
            probability = network(normalise(distorted))[0].softmax(-1)
            best = probability.amax(-1).double().numpy()
            assert np.abs(cache.confidence[s, 0, n] - best).max() < 1e-5
            assert np.array_equal(cache.prediction[s, 0, n], probability.argmax(-1).numpy())
    assert cache.confidence.std() > 0.05
    assert len(np.unique(cache.prediction)) > 2
    assert not np.allclose(cache.confidence[0], cache.confidence[1], atol=1e-3)
    assert not np.allclose(cache.confidence[0], cache.confidence[2], atol=1e-3)


def test_cache_says_where_it_comes_from(tmp_path):
    network, parts = tiny(), splits()
    cache, _ = run(tmp_path, network=network, parts=parts, notes={"network": "tiny"})
    assert cache.label.tolist() == [*parts["validation"].labels, *parts["test"].labels]
    assert cache.sample.tolist() == [*range(100, 107), *range(13)]
    assert cache.split.tolist() == [0] * 7 + [1] * 13
    assert cache.part("test").sample.tolist() == list(range(13))
    assert cache.conditions == (
        Condition("pristine", "pristine", {"seed": 0}),
        Condition("blur 1.0", "blur", {"sigma": 1.0, "seed": 0}),
        Condition("noise 20", "noise", {"sigma": 20, "seed": 3}),
    )
    assert cache.exits == ("exit 1", "exit 2")
    assert cache.classes == CLASSES
    assert cache.notes == {"network": "tiny"}
    assert cache.hashes == {
        "model": model_hash(network),
        "validation": parts["validation"].hash,
        "test": parts["test"].hash,
    }
    assert cache.profile == profile_of(network)
    cache.save(tmp_path / "cache.safetensors")
    assert np.array_equal(ConfidenceCache.load(tmp_path / "cache.safetensors").confidence, cache.confidence)


def test_progress_counts_images(tmp_path):
    _, seen = run(tmp_path)
    assert [(name, done, total) for name, done, total, _ in seen] == [
        (d.name, done, 20) for d in DISTORTIONS for done in (8, 16, 20)
    ]
    assert all(rate > 0.0 for *_, rate in seen)


def test_extraction_goes_on_where_it_stopped(tmp_path):
    first, seen = run(tmp_path)
    assert computed(seen) == ["blur 1.0", "noise 20", "pristine"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "blur_1.0.safetensors",
        "noise_20.safetensors",
        "pristine.safetensors",
    ]
    again, seen = run(tmp_path)
    assert computed(seen) == []
    assert [(name, done, total) for name, done, total, _ in seen] == [(d.name, 20, 20) for d in DISTORTIONS]
    (tmp_path / "blur_1.0.safetensors").unlink()
    third, seen = run(tmp_path)
    assert computed(seen) == ["blur 1.0"]
    for other in (again, third):
        assert np.array_equal(other.confidence, first.confidence)
        assert np.array_equal(other.prediction, first.prediction)


def test_stopped_in_the_middle_of_a_condition_only_that_one_is_begun_again(tmp_path):
    def stop(name, done, total, rate):
        if (name, done) == ("blur 1.0", 16):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tiny(), splits(), DISTORTIONS, tmp_path, stop, chunk=8)
    assert [p.name for p in tmp_path.iterdir()] == ["pristine.safetensors"]
    cache, seen = run(tmp_path)
    assert computed(seen) == ["blur 1.0", "noise 20"]
    assert np.array_equal(cache.confidence, run(tmp_path / "other")[0].confidence)


def test_one_more_condition_costs_one_more_pass(tmp_path):
    run(tmp_path, distortions=DISTORTIONS[:2])
    cache, seen = run(tmp_path)
    assert computed(seen) == ["noise 20"]
    assert [c.name for c in cache.conditions] == [d.name for d in DISTORTIONS]


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"network": tiny(seed=1)},
        lambda: {"parts": splits(seed=1)},
        lambda: {"distortions": [Distortion(name="pristine", family="blur", parameters={"sigma": 0.5})]},
        lambda: {"distortions": [replace(DISTORTIONS[2], seed=4)]},
    ],
    ids=["weights", "images", "parameters", "seed"],
)
def test_parts_of_another_run_are_refused(tmp_path, change):
    run(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(WeightsError, match="belongs to other weights, images or parameters; move it away") as caught:
        run(tmp_path, **change())
    assert str(tmp_path) in str(caught.value)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_parts_of_other_labels_are_refused(tmp_path):
    run(tmp_path)
    other = splits()
    other["test"].labels[0] = (other["test"].labels[0] + 1) % CLASSES
    with pytest.raises(WeightsError, match="belongs to other"):
        run(tmp_path, parts=other)


def test_damaged_part_is_refused(tmp_path):
    run(tmp_path)
    path = tmp_path / "blur_1.0.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WeightsError, match="not a readable file") as caught:
        run(tmp_path)
    assert str(path) in str(caught.value)


def test_training_images_are_not_extracted(tmp_path):
    parts = splits()
    without = {name: parts[name] for name in ("validation", "test")}
    one, other = run(tmp_path / "a", parts=parts)[0], run(tmp_path / "b", parts=without)[0]
    assert np.array_equal(one.confidence, other.confidence)


@torch.no_grad()
def test_exits_do_not_depend_on_the_batch():
    network, images = tiny().train(), splits()["test"].images
    whole = exits_of(network, images)
    assert not network.training
    small = exits_of(network, images, batch=4)
    assert torch.allclose(whole[0], small[0], rtol=0.0, atol=1e-6)
    assert torch.equal(whole[1], small[1])
    assert (whole[0].dtype, whole[1].dtype) == (torch.float32, torch.int16)
    assert whole[0].shape == whole[1].shape == (13, 2)


def test_model_hash_is_that_of_the_rounded_weights():
    one, other = tiny(), tiny()
    assert model_hash(one) == model_hash(other)
    assert len(model_hash(one)) == len(hashlib.sha256().hexdigest())
    with torch.no_grad():
        other.heads[1][-1].bias[0] += 1e-9  # lost in rounding
        assert model_hash(one) == model_hash(other)
        other.heads[0][0].running_mean[0] += 0.1  # batch norm's memory decides as well
    assert model_hash(one) != model_hash(other)


def test_profile_equals_a_count_by_hand():
    """Segment 1: 3 -> 4 channels, 3 x 3, to 16 x 16; segment 2: 4 -> 8 in 4 groups, 3 x 3, to 8 x 8; linear heads."""
    assert profile_of(tiny()) == Profile(
        segment_macs=[16 * 16 * 4 * (3 * 3 * 3), 8 * 8 * 8 * (1 * 3 * 3)],
        head_macs=[4 * CLASSES, 8 * CLASSES],
        payload_bytes=[3 * 32 * 32, 4 * (4 * 16 * 16), 0],
        layers=[3, 5],
    )


def test_profile_leaves_no_hook_behind():
    network = tiny()
    profile_of(network)
    assert not any(module._forward_hooks for module in network.modules())


def test_profile_of_mobilenet():
    profile = profile_of(mobilenet_v2_exits(classes=10, input_size=32))
    assert profile.layers == (3, 6, 9, 12, 15, 18, 19)
    sides, channels = [16, 8, 4, 4, 2, 2], [24, 32, 64, 96, 160, 320]
    assert profile.payload_bytes == (3072, *(4 * c * s * s for c, s in zip(channels, sides, strict=True)), 0)
    assert profile.head_macs == (*(c * 10 for c in channels), 1280 * 10)
    assert profile.segment_macs[-1] == 320 * 1280 * 2 * 2


def test_profile_of_mobilenet_at_224_pixels_has_the_published_work():
    """300 million multiply-accumulates (Sandler et al., table 4), with 1000 classes."""
    profile = profile_of(mobilenet_v2_exits(classes=1000, input_size=224))
    assert sum(profile.segment_macs) + profile.head_macs[-1] == pytest.approx(300e6, rel=0.01)
    assert profile.payload_bytes[0] == 3 * 224 * 224
