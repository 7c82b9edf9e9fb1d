"""Extraction says what experts and router say of distorted images, once per condition, and goes on where it stopped."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import nn

from offramp.bandits import Profile
from offramp.environments import Condition, ConfidenceCache
from offramp.environments.logits import STEP, LogitTable
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion
from offramp.models.experts import Experts
from offramp.models.extract import FIELDS_APART, answers, extract, profile_of
from offramp.models.families import FAMILIES
from offramp.models.network import ExitHead, MultiExitNetwork, mobilenet_v2_exits
from offramp.models.router import load_router
from offramp.models.weights import HERE, WeightsError, model_hash

torch.set_num_threads(1)

CLASSES = 5
DISTORTIONS = (
    Distortion(name="pristine", corruption="pristine"),
    Distortion(name="blur 1.0", corruption="gaussian_blur", parameters={"sigma": 1.0}),
    Distortion(name="noise 20", corruption="gaussian_noise", parameters={"sigma": 20}, seed=3),
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


def crowd(network=None, seed=0, families=FAMILIES):
    network = network or tiny()
    torch.manual_seed(seed)
    made = Experts(network, families=families, grid=[2, 1], hidden=3)
    with torch.no_grad():
        for part in made.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(3.0)
    return made.eval()


def splits(seed=0, validation=7):
    rng = np.random.default_rng(seed)

    def part(n, first):
        colour, pattern = rng.integers(0, 190, (n, 1, 1, 3)), rng.integers(0, 66, (n, 8, 8, 3))
        return Split(
            images=(colour + pattern).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2),
            labels=rng.integers(0, CLASSES, n),
            index=np.arange(n) + first,
        )

    return {"train": part(4, 0), "validation": part(validation, 100), "test": part(13, 0)}


def run(folder, *, experts=None, router=None, parts=None, distortions=DISTORTIONS, **options):
    """Extract, and return what was found and what was reported on the way."""
    seen = []

    def progress(*done):
        seen.append(done)

    router = router or load_router()
    found = extract(experts or crowd(), router, parts or splits(), distortions, folder, progress, chunk=8, **options)
    return found, seen


def computed(seen):
    """Conditions of which images were passed through the network; one that was there reports no rate."""
    return sorted({name for name, _, _, rate in seen if not math.isnan(rate)})


def same(one, other):
    pairs = [*zip(one.logits, other.logits, strict=True), *zip(one.router, other.router, strict=True)]
    return all(np.array_equal(a, b) for a, b in pairs)


@torch.no_grad()
def test_extraction_holds_a_direct_pass_on_the_distorted_images(tmp_path):
    experts, router, parts = crowd(), load_router(), splits()
    found, _ = run(tmp_path, experts=experts, parts=parts)
    images = np.concatenate([parts["validation"].images, parts["test"].images])
    index = np.concatenate([parts["validation"].index, parts["test"].index])
    for s, distortion in enumerate(DISTORTIONS):
        assert found.logits[s].shape == (20, 4, 2, CLASSES)
        assert found.logits[s].dtype == np.float16
        assert (found.logits[s].max(axis=-1) == 0.0).all()
        for n in range(20):
            own = index[n : n + 1] + (FIELDS_APART if n < len(parts["validation"].labels) else 0)
            distorted = distortion(images[n : n + 1], own)
            for e, family in enumerate(FAMILIES):
                logits = experts.network(normalise(distorted), heads=experts[family])[0]
                logits -= logits.amax(-1, keepdim=True)
                assert np.allclose(found.logits[s][n, e], logits.numpy(), rtol=2e-3, atol=1e-3)
            assert np.allclose(found.router[s][n], router(distorted)[0].numpy(), atol=1e-5)
    for other in (1, 2):
        assert not np.allclose(found.logits[0], found.logits[other], atol=0.1)
    assert not np.allclose(found.logits[0][:, 0], found.logits[0][:, 1], atol=0.1)


def test_extraction_says_where_it_comes_from(tmp_path):
    experts, parts = crowd(), splits()
    found, _ = run(tmp_path, experts=experts, parts=parts)
    assert found.label.tolist() == [*parts["validation"].labels, *parts["test"].labels]
    assert found.sample.tolist() == [*range(100, 107), *range(13)]
    assert found.split.tolist() == [0] * 7 + [1] * 13
    assert found.experts == FAMILIES
    assert found.hashes == {
        "model": model_hash(experts.network),
        "experts": model_hash(experts),
        "router": model_hash(load_router()),
        "validation": parts["validation"].hash,
        "test": parts["test"].hash,
    }
    assert found.profile == profile_of(experts.network, experts, load_router().macs)
    assert found.profile.router_macs == load_router().macs > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Enough validation samples for temperatures."""
    return run(tmp_path_factory.mktemp("whole"), parts=splits(validation=211))[0]


def softmax(z):
    p = np.exp(z.astype(np.float64) - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def test_cache_and_table_say_what_was_extracted(whole, tmp_path):
    keep = (whole.split == 1) | (whole.sample < 150)
    cache, table = whole.cache(keep, notes={"network": "tiny"}), whole.table(keep)
    assert cache.confidence.shape == (3, 4, 63, 2)
    for s in range(3):
        probability = softmax(whole.logits[s][keep])
        for e in range(4):
            assert np.allclose(cache.confidence[s, e], probability[:, e].max(axis=-1), atol=1e-6)
            assert np.array_equal(cache.prediction[s, e], probability[:, e].argmax(axis=-1))
        assert np.allclose(cache.router[s], whole.router[s][keep], atol=1e-6)
        z, labels = table.of(DISTORTIONS[s].name, "noise", "test")
        exact = np.maximum(whole.logits[s][whole.split == 1, 2].astype(np.float64), -255 * STEP)
        assert np.abs(z - exact).max() <= STEP / 2 + 1e-6
        assert labels.tolist() == whole.label[whole.split == 1].tolist()
    for name in ("label", "sample", "split"):
        assert np.array_equal(getattr(cache, name), getattr(whole, name)[keep])
        assert np.array_equal(getattr(table, name), getattr(whole, name)[keep])
    assert cache.conditions == (
        Condition("pristine", "pristine", {"corruption": "pristine", "seed": 0}),
        Condition("blur 1.0", "blur", {"corruption": "gaussian_blur", "sigma": 1.0, "seed": 0}),
        Condition("noise 20", "noise", {"corruption": "gaussian_noise", "sigma": 20, "seed": 3}),
    )
    assert (cache.experts, cache.exits, cache.classes) == (FAMILIES, ("exit 1", "exit 2"), CLASSES)
    assert (cache.notes, cache.hashes, cache.profile) == ({"network": "tiny"}, whole.hashes, whole.profile)
    assert (table.conditions, table.experts, table.hashes) == (
        tuple(d.name for d in DISTORTIONS),
        FAMILIES,
        whole.hashes,
    )
    cache.save(tmp_path / "c")
    table.save(tmp_path / "t")
    assert np.array_equal(ConfidenceCache.load(tmp_path / "c").confidence, cache.confidence)
    assert np.array_equal(LogitTable.load(tmp_path / "t").codes, table.codes)


def test_calibrations_come_from_all_validation_samples_whichever_are_kept(whole):
    few = whole.cache(whole.split == 1, notes={})
    for name, table in whole.temperatures().items():
        assert table.shape == (4, 2)
        assert np.array_equal(few.calibrations[name], table)
    assert sorted(few.calibrations) == ["exit", "expert_exit", "global"]
    assert len(np.unique(few.calibrations["global"])) == 1
    assert (few.calibrations["exit"] == few.calibrations["exit"][0]).all()
    assert len(np.unique(few.calibrations["expert_exit"])) > 4


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
    assert same(again, first)
    assert same(third, first)


def test_stopped_in_the_middle_of_a_condition_only_that_one_is_begun_again(tmp_path):
    def stop(name, done, total, rate):
        if (name, done) == ("blur 1.0", 16):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(crowd(), load_router(), splits(), DISTORTIONS, tmp_path, stop, chunk=8)
    assert [p.name for p in tmp_path.iterdir()] == ["pristine.safetensors"]
    found, seen = run(tmp_path)
    assert computed(seen) == ["blur 1.0", "noise 20"]
    assert same(found, run(tmp_path / "other")[0])


def test_one_more_condition_costs_one_more_pass(tmp_path):
    run(tmp_path, distortions=DISTORTIONS[:2])
    found, seen = run(tmp_path)
    assert computed(seen) == ["noise 20"]
    assert found.distortions == DISTORTIONS
    assert len(found.logits) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"experts": crowd(tiny(seed=1))},
        lambda: {"experts": crowd(seed=1)},
        lambda: {"router": load_router(HERE / "router_spectrum.safetensors")},
        lambda: {"parts": splits(seed=1)},
        lambda: {"distortions": [DISTORTIONS[0], replace(DISTORTIONS[1], parameters={"sigma": 0.5})]},
        lambda: {"distortions": [DISTORTIONS[0], replace(DISTORTIONS[2], seed=4)]},
    ],
    ids=["weights", "experts", "router", "images", "parameters", "seed"],
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
    assert same(run(tmp_path / "a", parts=parts)[0], run(tmp_path / "b", parts=without)[0])


def test_what_cannot_be_extracted_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"conditions are \['blur 1.0', 'noise 20'\], allowed is .* a pristine one"):
        run(tmp_path / "a", distortions=DISTORTIONS[1:])
    with pytest.raises(ValueError, match=r"experts are \('pristine', 'noise'\), allowed with a router are"):
        run(tmp_path / "a", experts=crowd(families=("pristine", "noise")))
    assert not (tmp_path / "a").exists()


def test_answers_do_not_depend_on_the_batch():
    experts, router, images = crowd(), load_router(), splits()["test"].images
    experts.network.train()
    one, other = answers(experts, router, images), answers(experts, router, images, batch=4)
    assert not experts.network.training
    for name, shape, kind in (("logits", (13, 4, 2, CLASSES), torch.float16), ("router", (13, 4), torch.float32)):
        assert torch.allclose(one[name].float(), other[name].float(), rtol=0.0, atol=2e-3)
        assert one[name].shape == shape
        assert one[name].dtype == kind


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


def test_profile_with_experts_counts_their_heads_and_the_router():
    """4 channels pooled to 2 x 2 cells and deviations, 8 to one cell and deviations; 3 units in between."""
    alone, found = profile_of(tiny()), profile_of(tiny(), crowd(), router_macs=77)
    heads = (4 * 5 * 3 + 3 * CLASSES, 8 * 2 * 3 + 3 * CLASSES)
    assert found == replace(alone, head_macs=heads, router_macs=77)
    assert found.head_macs != alone.head_macs


def test_profile_leaves_no_hook_behind():
    experts = crowd()
    profile_of(experts.network, experts)
    assert not any(m._forward_hooks for part in (experts, experts.network) for m in part.modules())


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


def test_noise_of_validation_of_test_and_of_training_images_is_not_shared():
    """Numbers start at 0 in each split, and noise is drawn from (seed, number)."""
    with initialize_config_module("offramp.conf", version_base="1.3"):
        conditions = instantiate(compose("extract").conditions, _convert_="all")
        trained = {compose("experts").spec.seed * 1_000 + copy for copy in range(compose("experts").spec.copies)}
    drawn = [d for d in conditions if d.family == "noise" or d.corruption == "fog"]
    assert len(drawn) == 7
    assert all(d.seed not in trained for d in drawn)
    grey = np.full((1, 32, 32, 3), 128, dtype=np.uint8)
    one, other = (drawn[3](grey, np.array([n])) for n in (5, 5 + FIELDS_APART))
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1
