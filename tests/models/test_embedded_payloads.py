"""The cache and the payloads of Imagenette that ship: rebuilt from weights and real images, and what they must hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.environments import ConfidenceCache
from offramp.environments.payloads import PayloadTable
from offramp.models.codecs import standard_codecs
from offramp.models.distort import Distortion
from offramp.models.extract import profile_of, spoken
from offramp.models.network import mobilenet_v2_exits
from offramp.models.payload_extract import coded_answers, places, variants_of
from offramp.models.weights import HERE, load_weights, model_hash

NAME = "mobilenet_v2_imagenette"
ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "data" / "imagenette_val_40").glob("*.webp"))
EXACT = ("raw", "png", "float32")


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    made = mobilenet_v2_exits(classes=10, input_size=128).to(memory_format=torch.channels_last)
    return made, load_weights(made, HERE / f"{NAME}.safetensors")


@pytest.fixture(scope="module")
def shipped():
    return ConfidenceCache.embedded(NAME), PayloadTable.embedded(NAME)


@pytest.fixture(scope="module")
def images():
    """Forty test images, and their numbers: the names of their files."""
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in FILES])
    return pixels, np.array([int(path.stem) for path in FILES])


def test_real_images_rebuilt_under_every_condition(network, shipped, images):
    """All forty as they are, every fourth of them distorted; behind every variant."""
    cache, table = (part.part("test") for part in shipped)
    variants = variants_of(network[0], standard_codecs())
    place = places(variants)
    assert [(split, codec.name) for split, codec in variants] == list(
        zip(table.splits.tolist(), table.codecs, strict=True)
    )
    for c, condition in enumerate(cache.conditions):
        given = dict(condition.parameters)
        corruption, seed = str(given.pop("corruption")), int(given.pop("seed"))
        distortion = Distortion(name=condition.name, corruption=corruption, parameters=given, seed=seed)
        pixels, sample = (a if c == 0 else a[::4] for a in images)
        assert np.array_equal(cache.sample[sample], sample)
        found = coded_answers(network[0], variants, distortion(pixels, sample))
        own, guess, _ = (a[0] for a in spoken([found["logits"].numpy()[:, 0]]))
        assert np.abs(own - cache.confidence[c, 0, sample]).max() < 5e-3, condition.name
        assert (guess == cache.prediction[c, 0, sample]).mean() > 0.99
        z = np.concatenate([found["logits"].numpy()[:, 0, -1:], found["changed"].numpy()], axis=1)
        behind, guess, _ = (a[0][:, place].T for a in spoken([z]))
        apart = np.abs(behind - table.confidence[c][:, sample])
        # A value that falls on another of 255 steps, or a pixel that a JPEG rounds otherwise, moves an answer a little.
        assert apart.max() < 5e-2, f"{condition.name}: a confidence is {apart.max():.2g} off"
        assert apart.mean() < 1e-3
        assert (guess == table.prediction[c][:, sample]).mean() > 0.99
        off = found["bytes"].numpy().T / table.bytes[c][:, sample] - 1.0
        packed = np.array([codec.name.startswith(("png", "jpeg", "uint8_zlib")) for _, codec in variants])
        assert (off[~packed] == 0.0).all()
        assert np.abs(off[packed]).max() < 0.02, f"{condition.name}: a payload is {np.abs(off).max():.1%} off"


def test_cache_table_and_weights_belong_together(network, shipped):
    made, card = network
    cache, table = shipped
    table.check(cache)
    assert cache.hashes["model"] == model_hash(made)
    assert cache.hashes["test"] == card["data sha256 (test)"]
    assert cache.profile == profile_of(made)
    assert cache.notes["cards"]["network"] == card


def test_axes(shipped):
    cache, table = shipped
    assert len(cache.conditions) >= 10
    assert {c.family for c in cache.conditions} == {"pristine", "blur", "noise", "light", "compression"}
    assert (cache.conditions[0].name, cache.experts, len(cache.exits), cache.router) == (
        "pristine",
        ("pristine",),
        7,
        None,
    )
    assert [(cache.split == s).sum() for s in (0, 1)] == [400, 3925]
    assert {"exit", "global"} <= cache.calibrations.keys()
    assert set(table.splits.tolist()) == set(range(7))
    assert (table.encode_ms > 0.0).all()
    assert (table.decode_ms > 0.0).all()


def test_size_in_the_package():
    paths = [ROOT / "environments" / f"{NAME}{kind}.safetensors" for kind in ("", ".payloads")]
    assert sum(path.stat().st_size for path in paths) <= 15e6
    assert len(FILES) == 40
    assert sum(path.stat().st_size for path in FILES) <= 300e3


def test_accuracy_on_the_clean_test_set(network, shipped):
    """At least 80 % at the final exit, and what the card says."""
    test = shipped[0].part("test")
    accuracy = (test.prediction[0, 0] == test.label[:, None]).mean(axis=0)
    assert accuracy[-1] >= 0.80
    assert accuracy == pytest.approx([e["accuracy"] for e in network[1]["exits"]], abs=1e-3)


def test_what_loses_nothing_answers_as_the_cache(shipped):
    cache, table = shipped
    for v, codec in enumerate(table.codecs):
        if codec in EXACT:
            assert np.array_equal(table.confidence[:, v], cache.confidence[:, 0, :, -1])
            assert np.array_equal(table.prediction[:, v], cache.prediction[:, 0, :, -1])
        else:
            assert not np.array_equal(table.confidence[:, v], cache.confidence[:, 0, :, -1])


def test_bytes_of_what_never_varies(shipped):
    """12 bytes of frame, 3 a pixel; 4, 2 or 1 a value, and 4 a channel for the scales of uint8."""
    cache, table = shipped
    whole = np.array(cache.profile.payload_bytes)
    for v, (split, codec) in enumerate(zip(table.splits, table.codecs, strict=True)):
        channels = (3, 24, 32, 64, 96, 160, 320)[split]
        body = {
            "raw": whole[0],
            "float32": whole[split],
            "float16": whole[split] // 2,
            "uint8": whole[split] // 4 + 4 * channels,
        }
        if codec in body:
            assert (table.bytes[:, v] == 12 + body[codec]).all()


def test_no_codec_costs_much_on_pristine_images_but_the_strongest_jpeg(shipped):
    cache, table = (part.part("test") for part in shipped)
    accuracy = (table.prediction[0] == cache.label).mean(axis=1)
    final = (cache.prediction[0, 0, :, -1] == cache.label).mean()
    for v, codec in enumerate(table.codecs):
        allowed = {"jpeg_25": 0.06, "jpeg_50": 0.03, "jpeg_75": 0.02, "uint8": 0.01, "uint8_zlib": 0.01}.get(
            codec, 0.001
        )
        assert accuracy[v] >= final - allowed, codec


def test_a_table_that_belongs_to_another_cache_is_refused(shipped):
    with pytest.raises(ValueError, match="payloads: hash of model is"):
        shipped[1].check(ConfidenceCache.embedded("mobilenet_v2_cifar10"))
