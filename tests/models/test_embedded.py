"""What ships: caches are rebuilt from weights and 200 of their images, and hold what was asked of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.environments import ConfidenceCache
from offramp.environments.logits import STEP, LogitTable
from offramp.models.alexnet import alexnet_exits
from offramp.models.distort import Distortion
from offramp.models.experts import Experts
from offramp.models.extract import answers, profile_of
from offramp.models.network import mobilenet_v2_exits
from offramp.models.router import load_router
from offramp.models.weights import HERE, load_weights, model_hash

SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"
NETWORKS = {"mobilenet_v2_cifar10": mobilenet_v2_exits, "alexnet_cifar10": alexnet_exits}
FAMILIES = ["pristine"] + ["blur"] * 5 + ["noise"] * 6 + ["light"] * 4 + ["compression"]


class Shipped:
    """One network with its experts, the router, and the caches made of them."""

    def __init__(self, name):
        torch.set_num_threads(1)
        self.network = NETWORKS[name]().to(memory_format=torch.channels_last)
        self.card = load_weights(self.network, HERE / f"{name}.safetensors")
        self.experts = Experts.load(self.network, HERE / f"{name}.experts.safetensors")
        self.router = load_router()
        self.cache = ConfidenceCache.embedded(name)
        self.logits = LogitTable.embedded(name)


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def shipped(request):
    return Shipped(request.param)


@pytest.fixture(scope="module")
def images():
    """The first 200 test images of CIFAR-10, cut from the sheet: 10 rows of 20."""
    sheet = np.asarray(Image.open(SHEET))
    return np.ascontiguousarray(sheet.reshape(10, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(200, 32, 32, 3))


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.long)])
def test_images_rebuilt_under_every_condition(shipped, images, count):
    cache = shipped.cache.part("test").select(np.arange(count))
    assert cache.sample.tolist() == list(range(count))
    for c, condition in enumerate(cache.conditions):
        given = dict(condition.parameters)
        corruption, seed = str(given.pop("corruption")), int(given.pop("seed"))
        distorted = Distortion(name=condition.name, corruption=corruption, parameters=given, seed=seed)
        assert distorted.family == condition.family
        found = answers(shipped.experts, shipped.router, distorted(images[:count], cache.sample))
        logits = found["logits"].double().numpy().transpose(1, 0, 2, 3)
        confidence = 1.0 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)
        apart = np.abs(confidence - cache.confidence[c])
        assert apart.max() < 5e-3, f"{condition.name}: a confidence is {apart.max():.2g} off"
        assert apart.mean() < 3e-4
        same = logits.argmax(-1) == cache.prediction[c]
        assert same.mean() > 0.999, f"{condition.name}: {(~same).sum()} predictions differ"
        assert np.abs(found["router"].numpy() - cache.router[c]).max() < 5e-3
        rows = np.flatnonzero(shipped.logits.split == 1)[:count]
        codes = np.minimum(-logits / STEP, 255.0)
        assert np.abs(shipped.logits.codes[c][:, rows] - codes).max() <= 0.75, "coarse logits are off"


def test_cache_and_weights_belong_together(shipped):
    for held in (shipped.cache.hashes, shipped.logits.hashes):
        assert held["model"] == model_hash(shipped.network)
        assert held["experts"] == model_hash(shipped.experts)
        assert held["router"] == model_hash(shipped.router)
        assert held["test"] == shipped.card["data sha256 (test)"]
    assert shipped.cache.profile == profile_of(shipped.network, shipped.experts, shipped.router.macs)
    assert shipped.cache.notes["cards"]["network"] == shipped.card


def test_axes(shipped):
    cache, exits = shipped.cache, shipped.network.n_exits
    assert cache.confidence.shape == (17, 4, 11_000, exits)
    assert [c.family for c in cache.conditions] == FAMILIES
    assert cache.experts == ("pristine", "blur", "noise", "light")
    assert [(cache.split == s).sum() for s in (0, 1)] == [1_000, 10_000]
    assert [(shipped.logits.split == s).sum() for s in (0, 1)] == [1_000, 2_000]
    assert sorted(cache.calibrations) == ["exit", "expert_exit", "global"]


def test_size_in_the_package():
    shipped = list((Path(__file__).parents[2] / "environments").glob("*_cifar10*.safetensors"))
    assert len(shipped) == 4
    assert sum(path.stat().st_size for path in shipped) <= 40e6
    assert (HERE / "alexnet_cifar10.safetensors").stat().st_size <= 6e6


def test_accuracy_on_the_clean_test_set(shipped):
    """MobileNetV2: final exit at least 88 %, first at least 50 %, none below the one before by more than a point."""
    test = shipped.cache.part("test")
    pristine = test.condition("pristine")
    accuracy = (test.prediction[pristine, 0] == test.label[:, None]).mean(axis=0)
    assert accuracy[-1] >= (0.88 if shipped.network.n_exits == 7 else 0.76)
    assert accuracy[0] >= 0.50
    assert np.diff(accuracy).min() >= -0.01
    own = [e["accuracy"] for e in shipped.card["exits"]]  # of the network's own exits, before there were experts
    assert accuracy[-1] == pytest.approx(own[-1], abs=0.02)
    assert (accuracy >= np.array(own) - 0.01).all(), (
        "an expert for pristine images is no worse than the network's own exits"
    )
    written = shipped.cache.notes["cards"]["experts"]["accuracy"]["pristine"]["pristine"]
    assert [a for a, _ in written] == pytest.approx(accuracy.tolist(), abs=0.02)  # 2,000 images there, 10,000 here


def test_router_as_cached(shipped):
    """At least 95 % on what can be seen of blur and noise, at least 90 % on pristine images, on 10,000 of each."""
    test = shipped.cache.part("test")
    chosen = test.router.argmax(axis=2)
    right = {c.name: float((chosen[s] == FAMILIES_AT[c.family]).mean()) for s, c in enumerate(test.conditions[:-1])}
    seen = [right[n] for n in right if n.startswith(("blur", "noise")) and n not in ("blur 0.5", "noise 5")]
    assert len(seen) == 9
    assert np.mean(seen) >= 0.95
    assert right["pristine"] >= 0.90


FAMILIES_AT = {"pristine": 0, "blur": 1, "noise": 2, "light": 3}
