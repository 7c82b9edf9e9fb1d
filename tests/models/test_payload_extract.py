"""Payloads are those of real feature maps, answers those of the network behind the decoder, once per condition."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from offramp.environments import ConfidenceCache
from offramp.environments.payloads import PayloadTable
from offramp.models.codecs import CodecError, Float16, Float32, Jpeg, Png, Raw, Uint8, Uint8Zlib
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion
from offramp.models.extract import FIELDS_APART, profile_of
from offramp.models.network import ExitHead, MultiExitNetwork
from offramp.models.payload_extract import coded_answers, coding_times, extract_payloads, places, variants_of
from offramp.models.weights import WeightsError, model_hash

torch.set_num_threads(1)

CLASSES = 5
CODECS = (Raw(), Png(), Jpeg(quality=20), Float32(), Uint8Zlib(), Uint8(), Float16())
DISTORTIONS = (
    Distortion(name="pristine", corruption="pristine"),
    Distortion(name="noise 20", corruption="gaussian_noise", parameters={"sigma": 20}, seed=3),
)


def tiny(seed=0):
    torch.manual_seed(seed)
    segments = [
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)),
        nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU()),
    ]
    made = MultiExitNetwork(segments, [ExitHead(c, CLASSES) for c in (4, 8, 8)], (3, 32, 32))
    with torch.no_grad():
        for head in made.heads:
            head[-1].weight.mul_(20.0)  # else all classes would be nearly as likely, and nothing would be compared
        made.train()(torch.randn(8, 3, 32, 32))
    return made.eval()


def splits(seed=0, validation=7, size=32):
    rng = np.random.default_rng(seed)

    def part(n, first):
        colour, pattern = rng.integers(0, 190, (n, 1, 1, 3)), rng.integers(0, 66, (n, size // 4, size // 4, 3))
        return Split(
            images=(colour + pattern).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2),
            labels=rng.integers(0, CLASSES, n),
            index=np.arange(n) + first,
        )

    return {"train": part(4, 0), "validation": part(validation, 100), "test": part(13, 0)}


def run(folder, *, network=None, codecs=CODECS, parts=None, distortions=DISTORTIONS):
    seen = []

    def progress(*done):
        seen.append(done)

    found = extract_payloads(network or tiny(), codecs, parts or splits(), distortions, folder, progress, chunk=8)
    return found, sorted({name for name, _, _, rate in seen if not math.isnan(rate)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Enough validation samples for temperatures."""
    return run(tmp_path_factory.mktemp("whole"), parts=splits(validation=205))[0]


def test_variants_and_places():
    variants = variants_of(tiny(), CODECS)
    assert [(split, codec.name) for split, codec in variants] == [
        *((0, name) for name in ("raw", "png", "jpeg_20")),
        *((split, name) for split in (1, 2) for name in ("float32", "uint8_zlib", "uint8", "float16")),
    ]
    assert places(variants) == [0, 0, 1, 0, 2, 2, 3, 0, 4, 4, 5]
    with pytest.raises(CodecError, match=r"codecs are \['png', 'png'\]"):
        variants_of(tiny(), [Png(), Png(level=1)])


@torch.no_grad()
def test_each_variant_is_a_direct_pass_behind_its_decoder(tmp_path):
    network, parts = tiny(), splits()
    found, _ = run(tmp_path, network=network, parts=parts)
    images = np.concatenate([parts["validation"].images, parts["test"].images])
    index = np.concatenate([parts["validation"].index, parts["test"].index])
    place, lost = places(found.variants), 0.0
    for s, distortion in enumerate(DISTORTIONS):
        assert found.extraction.logits[s].shape == (20, 1, 3, CLASSES)
        assert found.changed[s].shape == (20, 5, CLASSES)
        for n in range(20):
            own = index[n : n + 1] + (FIELDS_APART if n < len(parts["validation"].labels) else 0)
            image = distortion(images[n : n + 1], own)
            logits = network(normalise(image))[0]
            logits -= logits.amax(-1, keepdim=True)
            assert np.allclose(found.extraction.logits[s][n, 0], logits.numpy(), rtol=2e-3, atol=2e-3)
            maps = [image, *(x.numpy() for x in network.maps(normalise(image)))]
            for v, (split, codec) in enumerate(found.variants):
                payload = codec.encode(maps[split][0])
                # A value of a feature map may differ in its last bit from that of a batch, and so deflate otherwise.
                assert abs(found.bytes[s][n, v] - len(payload)) <= (3 if codec.name == "uint8_zlib" else 0)
                got = codec.decode(payload)[None]
                behind = network.backbone(torch.from_numpy(got) if split else normalise(got), split)[0]
                behind -= behind.amax()
                if place[v]:
                    assert np.allclose(found.changed[s][n, place[v] - 1], behind.numpy(), rtol=0.02, atol=0.02)
                    lost = max(lost, float((behind - logits[-1]).abs().max()))
                else:
                    assert np.allclose(logits[-1], behind, rtol=1e-4, atol=1e-4)
    assert lost > 0.1, "a codec that changes nothing was compared"


def test_cache_and_table_belong_together(whole, tmp_path):
    keep = (whole.extraction.split == 1) | (whole.extraction.sample < 250)
    cache, table = whole.cache(keep, notes={"network": "tiny"}), whole.table(keep, notes={"a": 1})
    table.check(cache)
    assert cache.confidence.shape == (2, 1, 163, 3)
    assert (cache.experts, cache.router, cache.notes, table.notes) == (
        ("pristine",),
        None,
        {"network": "tiny"},
        {"a": 1},
    )
    assert sorted(cache.calibrations) == ["exit", "expert_exit", "global"]
    assert cache.profile == profile_of(tiny())
    assert sorted(cache.hashes) == ["model", "test", "validation"]
    assert cache.hashes["model"] == model_hash(tiny())
    assert table.codecs == tuple(codec.name for _, codec in whole.variants)
    assert table.splits.tolist() == [split for split, _ in whole.variants]
    for v, place in enumerate(places(whole.variants)):
        assert np.array_equal(table.bytes[:, v], [b[keep, v] for b in whole.bytes])
        if place == 0:
            assert np.array_equal(table.confidence[:, v], cache.confidence[:, 0, :, -1])
            assert np.array_equal(table.prediction[:, v], cache.prediction[:, 0, :, -1])
            assert np.array_equal(table.spread[:, v], cache.spread[:, 0, :, -1])
        else:
            z = np.stack([changed[keep, place - 1] for changed in whole.changed]).astype(np.float64)
            p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
            assert np.allclose(table.confidence[:, v], p.max(axis=-1), atol=1e-6)
            assert np.array_equal(table.prediction[:, v], p.argmax(axis=-1))
    cache.save(tmp_path / "c", small=True)
    table.save(tmp_path / "t", small=True)
    small, packed = ConfidenceCache.load(tmp_path / "c"), PayloadTable.load(tmp_path / "t")
    packed.check(small)
    raw = packed.variant(0, "raw")
    assert np.array_equal(packed.confidence[:, raw], small.confidence[:, 0, :, -1])
    assert np.array_equal(packed.prediction[:, raw], small.prediction[:, 0, :, -1])


def test_bytes_are_plausible(whole):
    table = whole.table(whole.extraction.split == 1, notes={})
    size = {(s, c): table.mean_bytes[:, v] for v, (s, c) in enumerate(zip(table.splits, table.codecs, strict=True))}
    assert (size[0, "raw"] == 12 + 3 * 32 * 32).all()
    assert (size[1, "float32"] == 12 + 4 * 4 * 16 * 16).all()
    assert (size[1, "float16"] == 12 + 2 * 4 * 16 * 16).all()
    assert (size[2, "uint8"] == 12 + 4 * 8 + 8 * 8 * 8).all()
    assert size[0, "jpeg_20"][1] < 0.5 * size[0, "png"][1]
    assert size[0, "png"][0] < size[0, "png"][1] < 1.1 * size[0, "raw"][1], "noise does not deflate"


def test_times_are_measured(whole):
    for took in (whole.encode_ms, whole.decode_ms):
        assert took.shape == (11,)
        assert (took > 0.0).all()
        assert np.isfinite(took).all()
    encode, _ = coding_times(tiny(), variants_of(tiny(), [Raw()]), splits()["test"].images[:1])
    assert encode.shape == (1,)


def test_answers_do_not_depend_on_the_batch():
    network, images = tiny(), splits()["test"].images
    variants = variants_of(network, CODECS)
    network.train()
    one, other = (coded_answers(network, variants, images, batch) for batch in (50, 4))
    assert not network.training
    for name, shape in (("logits", (13, 1, 3, CLASSES)), ("changed", (13, 5, CLASSES)), ("bytes", (13, 11))):
        assert one[name].shape == shape
    assert torch.allclose(one["logits"].float(), other["logits"].float(), rtol=0.0, atol=5e-3)
    assert torch.allclose(one["changed"].float(), other["changed"].float(), rtol=0.0, atol=2e-2)


def test_codecs_that_lose_nothing_leave_nothing_to_keep():
    found = coded_answers(tiny(), variants_of(tiny(), [Raw(), Float32()]), splits()["test"].images)
    assert found["changed"].shape == (13, 0, CLASSES)
    assert found["bytes"].shape == (13, 3)


def test_extraction_goes_on_where_it_stopped(tmp_path):
    first, computed = run(tmp_path)
    assert computed == ["noise 20", "pristine"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noise_20.safetensors", "pristine.safetensors"]
    (tmp_path / "noise_20.safetensors").unlink()
    again, computed = run(tmp_path)
    assert computed == ["noise 20"]
    for one, other in ((first.bytes, again.bytes), (first.changed, again.changed)):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"network": tiny(seed=1)},
        lambda: {"parts": splits(seed=1)},
        lambda: {"codecs": (*CODECS[:2], Jpeg(quality=21), *CODECS[3:])},
        lambda: {"codecs": (Raw(), Png(level=1), *CODECS[2:])},
        lambda: {"codecs": CODECS[:-1]},
        lambda: {"distortions": [DISTORTIONS[0], replace(DISTORTIONS[1], parameters={"sigma": 21})]},
    ],
    ids=["weights", "images", "quality", "level", "fewer codecs", "parameters"],
)  # fmt: skip
def test_parts_of_another_run_are_refused(tmp_path, change):
    run(tmp_path)
    with pytest.raises(WeightsError, match="belongs to other weights, images or parameters; move it away"):
        run(tmp_path, **change())


def test_what_cannot_be_extracted_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"images have shape \(40, 40, 3\), allowed is \(32, 32, 3\) as the network's"):
        run(tmp_path / "a", parts=splits(size=40))
    with pytest.raises(ValueError, match=r"conditions are \['noise 20'\], allowed is .* a pristine one"):
        run(tmp_path / "a", distortions=DISTORTIONS[1:])
    with pytest.raises(CodecError, match=r"codecs are \[\]"):
        run(tmp_path / "a", codecs=[])
    assert not (tmp_path / "a").exists()
