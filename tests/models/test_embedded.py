"""What ships: the cache is rebuilt from weights and 200 of its images, and holds the accuracy that was asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.models.distort import Distortion
from offramp.models.extract import exits_of, model_hash, profile_of
from offramp.models.network import mobilenet_v2_exits
from offramp.models.weights import HERE, load_weights

SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"


@pytest.fixture(scope="module")
def shipped():
    torch.set_num_threads(1)
    network = mobilenet_v2_exits().to(memory_format=torch.channels_last)
    return network, load_weights(network, HERE / "mobilenet_v2_cifar10.safetensors")


@pytest.fixture(scope="module")
def images():
    """The first 200 test images of CIFAR-10, cut from the sheet: 10 rows of 20."""
    sheet = np.asarray(Image.open(SHEET))
    return np.ascontiguousarray(sheet.reshape(10, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(200, 32, 32, 3))


def test_two_hundred_images_rebuilt_under_every_condition(shipped, images, embedded):
    network, _ = shipped
    cache = embedded.part("test").select(np.arange(200))
    assert cache.sample.tolist() == list(range(200))
    for c, condition in enumerate(cache.conditions):
        parameters = {k: v for k, v in condition.parameters.items() if k != "seed"}
        seed = int(condition.parameters["seed"])
        distorted = Distortion(name=condition.name, family=condition.family, parameters=parameters, seed=seed)(
            images, cache.sample
        )
        confidence, prediction = exits_of(network, distorted)
        apart = np.abs(confidence.numpy() - cache.confidence[c, 0])
        assert apart.max() < 1e-3, f"{condition.name}: a confidence is {apart.max():.2g} off"
        same = prediction.numpy() == cache.prediction[c, 0]
        assert same.mean() > 0.999, f"{condition.name}: {(~same).sum()} predictions differ"


def test_cache_and_weights_belong_together(shipped, embedded):
    network, card = shipped
    assert embedded.hashes["model"] == model_hash(network)
    assert embedded.hashes["test"] == card["data sha256 (test)"]
    assert embedded.profile == profile_of(network)


def test_axes_of_the_embedded_cache(embedded):
    families = [c.family for c in embedded.conditions]
    assert embedded.confidence.shape[1:] == (1, 15_000, 7)
    assert len(families) >= 13
    assert (families.count("pristine"), families.count("blur"), families.count("noise")) == (1, 5, 5)
    assert families.count("contrast") == 2
    assert (embedded.split == 0).sum() == 5_000
    assert (embedded.split == 1).sum() == 10_000


def test_accuracy_on_the_clean_test_set(shipped, embedded):
    """Final exit at least 88 %, first at least 50 %, none below the one before it by more than a point."""
    test = embedded.part("test")
    accuracy = (test.prediction[test.condition("pristine"), 0] == test.label[:, None]).mean(axis=0)
    assert accuracy[-1] >= 0.88
    assert accuracy[0] >= 0.50
    assert np.diff(accuracy).min() >= -0.01
    _, card = shipped
    assert [e["accuracy"] for e in card["exits"]] == pytest.approx(accuracy.tolist(), abs=5e-4)
    sure = test.confidence[test.condition("pristine"), 0].mean(axis=0)
    assert [e["mean confidence"] for e in card["exits"]] == pytest.approx(sure.tolist(), abs=1e-4)
