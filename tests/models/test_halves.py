"""Both halves of a network together are the network: every split, every codec, experts and router, real photographs."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.environments import ConfidenceCache
from offramp.models.codec import CodecError, framed
from offramp.models.codecs import Float16, Float32, Jpeg, Raw, Uint8Zlib, standard_codecs
from offramp.models.data import normalise
from offramp.models.experts import Experts
from offramp.models.families import FAMILIES
from offramp.models.halves import CloudNetwork, EdgeNetwork
from offramp.models.network import mobilenet_v2_exits
from offramp.models.payload_extract import variants_of
from offramp.models.router import load_router
from offramp.models.weights import HERE, load_weights, model_hash

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "data" / "imagenette_val_40").glob("*.webp"))[::8]
EXACT = ("raw", "png", "float32")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    made = mobilenet_v2_exits(classes=10, input_size=128)
    load_weights(made, HERE / "mobilenet_v2_imagenette.safetensors")
    return made


@pytest.fixture(scope="module")
def images():
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in FILES])


def test_every_split_and_codec_gives_what_the_whole_network_gives(network, images):
    codecs = standard_codecs()
    edge, cloud = EdgeNetwork(network, codecs), CloudNetwork(network, codecs)
    with torch.inference_mode():
        whole = network.eval()(normalise(images)).numpy()
    apart = {}
    for n, image in enumerate(images):
        run = edge.start(image)
        for split in range(network.n_exits):
            if split:
                run.segment()
                confidence, guess = run.speak()
                assert np.abs(run.logits() - whole[n, split - 1]).max() < 1e-4
                assert guess == whole[n, split - 1].argmax()
                z = whole[n, split - 1].astype(np.float64)
                assert confidence == pytest.approx(1.0 / np.exp(z - z.max()).sum(), abs=1e-5)
            for at, codec in variants_of(network, codecs):
                if at != split:
                    continue
                sure, guesses, logits = cloud.tail(split, run.payload(codec.name), every=True)
                assert logits.shape == (network.n_exits - split, 10)
                assert guesses.tolist() == logits.argmax(1).tolist()
                gap = float(np.abs(logits - whole[n, split:]).max())
                apart[codec.name] = max(apart.get(codec.name, 0.0), gap)
                last, alone, of_last = cloud.tail(split, run.payload(codec.name))
                assert (last[0], alone[0]) == (sure[-1], guesses[-1])
                assert (of_last[0] == logits[-1]).all()
    assert all(apart[name] < 1e-4 for name in EXACT), apart
    assert apart["float16"] < 0.1, apart
    assert all(0.0 < gap < 20.0 for name, gap in apart.items() if name not in EXACT), apart
    assert apart["uint8"] == pytest.approx(apart["uint8_zlib"], abs=1e-4), "the same values, deflated or not"


def test_temperatures_and_hashes(network, images):
    temperatures = np.linspace(0.5, 2.0, network.n_exits)
    edge = EdgeNetwork(network, [Raw(), Float32()], temperatures=temperatures)
    cloud = CloudNetwork(network, [Raw(), Float32()], temperatures=temperatures)
    plain = EdgeNetwork(network, [Raw(), Float32()])
    assert edge.network == cloud.network == model_hash(network)
    assert (edge.exits, edge.classes, cloud.classes) == (7, 10, 10)
    cool, warm = edge.start(images[0]), plain.start(images[0])
    for t in temperatures:
        cool.segment()
        warm.segment()
        z = warm.logits().astype(np.float64) / t
        assert cool.speak()[0] == pytest.approx(1.0 / np.exp(z - z.max()).sum(), abs=1e-9)
        assert cool.speak()[1] == warm.speak()[1]
    assert cloud.tail(0, edge.start(images[0]).payload("raw"))[0][0] == pytest.approx(cool.speak()[0], abs=1e-5)
    for wrong in ([1.0], np.zeros(7), np.full(7, np.inf), np.ones((1, 1, 7))):
        with pytest.raises(ValueError, match="temperatures"):
            EdgeNetwork(network, [Raw()], temperatures=wrong)


def test_experts_answer_for_the_family_that_the_router_sees():
    network = mobilenet_v2_exits(classes=10)
    load_weights(network, HERE / "mobilenet_v2_cifar10.safetensors")
    experts = Experts.load(network, HERE / "mobilenet_v2_cifar10.experts.safetensors")
    router = load_router()
    pixels = Image.open(ROOT / "tests" / "data" / "cifar10_test_first_200.png").convert("RGB")
    image = np.asarray(pixels)[:32, :32].copy()
    noisy = np.clip(image + np.random.default_rng(0).normal(0.0, 40.0, image.shape), 0, 255).astype(np.uint8)
    temperatures = np.ones((len(FAMILIES), 7)) * np.array([[1.0], [2.0], [3.0], [4.0]])
    edge = EdgeNetwork(network, standard_codecs(), temperatures=temperatures, experts=experts, router=router)
    cloud = CloudNetwork(network, standard_codecs(), temperatures=temperatures, experts=experts)
    chosen = set()
    for one in (image, noisy):
        run = edge.start(one)
        context = run.context()
        assert context[1:] == pytest.approx(router(one[None])[0].numpy())
        assert context[0] == run.expert == context[1:].argmax()
        chosen.add(run.expert)
        with torch.inference_mode():
            whole = network.tail(normalise(one[None]), 0, experts[FAMILIES[run.expert]])[0].numpy()
        for _ in range(3):
            run.segment()
        confidence, guess, logits = cloud.tail(3, run.payload("float32"), expert=run.expert)
        assert np.abs(run.logits() - whole[2]).max() < 1e-4
        assert np.abs(logits[0] - whole[-1]).max() < 1e-4
        z = logits[0].astype(np.float64) / temperatures[run.expert, -1]
        assert confidence[0] == pytest.approx(1.0 / np.exp(z - z.max()).sum(), abs=1e-9)
        assert guess[0] == logits[0].argmax()
    assert FAMILIES.index("noise") in chosen
    assert edge.identity == cloud.identity
    assert {**cloud.hashes, "router": model_hash(router)} == edge.hashes
    others = [CloudNetwork(network, standard_codecs(), **more) for more in ({}, {"experts": experts})]
    assert len({half.identity for half in (*others, cloud)}) == 3
    assert {half.network for half in (*others, cloud)} == {others[0].identity}
    with pytest.raises(ValueError, match="both or neither"):
        EdgeNetwork(network, standard_codecs(), experts=experts)
    with pytest.raises(ValueError, match="expert 4"):
        cloud.tail(0, run.payload("float32"), expert=4)


def test_what_does_not_belong_is_refused_before_it_is_decoded(network, images):
    codecs = [Raw(), Jpeg(quality=50), Float32(), Float16(), Uint8Zlib()]
    edge, cloud = EdgeNetwork(network, codecs), CloudNetwork(network, codecs)
    run = edge.start(images[0])
    raw = run.payload("raw")
    with pytest.raises(CodecError, match="codec is 'float32'"):
        run.payload("float32")  # nothing has run yet
    with pytest.raises(ValueError, match="no segment"):
        run.speak()
    run.segment()
    features = run.payload("float32")
    with pytest.raises(CodecError, match="allowed for features"):
        run.payload("raw")
    assert framed(features) == (1, (24, 32, 32))
    for split, payload, why in (
        (0, features, "codec 1"),
        (1, raw, "codec 4"),
        (2, features, "shape"),
        (1, features[:-1], "CRC"),
        (1, features[:4], "bytes long"),
        (1, b"", "bytes long"),
        (0, Raw().encode(images[0][:64]), "shape"),
    ):
        with pytest.raises(CodecError, match=why):
            cloud.tail(split, payload)
    bomb = struct.pack("<BBHHH", 7, 1, 65_535, 65_535, 65_535)
    body = zlib.compress(bytes(10**6), 9)
    bomb += struct.pack("<I", zlib.crc32(body, zlib.crc32(bomb + bytes(4)))) + body
    with pytest.raises(CodecError, match="shape"):
        cloud.tail(1, bomb)
    holes = np.zeros((24, 32, 32), dtype="<f4")
    holes[0, 0, 0] = np.nan
    broken = struct.pack("<BBHHH", 1, 1, *holes.shape)
    broken += struct.pack("<I", zlib.crc32(holes.tobytes(), zlib.crc32(broken + bytes(4)))) + holes.tobytes()
    with pytest.raises(CodecError, match="finite"):
        cloud.tail(1, broken)
    for split in (-1, 7):
        with pytest.raises(ValueError, match="split"):
            cloud.tail(split, raw)
    for wrong in (images[0][:64], images[0].astype(np.float32), images):
        with pytest.raises(ValueError, match="uint8 of shape"):
            edge.start(wrong)
    for _ in range(6):
        run.segment()
    with pytest.raises(ValueError, match="segment 8"):
        run.segment()
    assert len(features) <= cloud.largest
    assert len(raw) <= cloud.largest


def test_live_confidences_are_those_of_the_embedded_cache(network, images):
    cache = ConfidenceCache.embedded("mobilenet_v2_imagenette").part("test")
    edge = EdgeNetwork(network, standard_codecs())
    at = cache.condition("pristine")
    for path, image in zip(FILES, images, strict=True):
        run, sample = edge.start(image), int(np.flatnonzero(cache.sample == int(path.stem))[0])
        for exit in range(7):
            run.segment()
            confidence, guess = run.speak()
            assert confidence == pytest.approx(cache.confidence[at, 0, sample, exit], abs=5e-3)
            assert guess == cache.prediction[at, 0, sample, exit]
