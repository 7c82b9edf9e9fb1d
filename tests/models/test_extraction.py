"""What an extraction holds is calibrated under each expert's own distortions, so that confidence becomes accuracy."""

import numpy as np

from offramp.bandits import Profile
from offramp.environments.reliability import ece
from offramp.models.distort import Distortion
from offramp.models.extract import Extraction


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


LEVELS = (
    Distortion(name="pristine", corruption="pristine"),
    Distortion(name="blur 0.5", corruption="gaussian_blur", parameters={"sigma": 0.5}),
    Distortion(name="jpeg 10", corruption="jpeg", parameters={"quality": 10}),
    Distortion(name="blur 1.0", corruption="gaussian_blur", parameters={"sigma": 1.0}),
    Distortion(name="blur 2.0", corruption="gaussian_blur", parameters={"sigma": 2.0}),
)


def extraction(logits, labels, distortions=LEVELS, experts=("pristine", "blur", "noise"), split=None):
    n = len(labels)
    return Extraction(
        logits=[z.astype(np.float16) for z in logits],
        router=[np.full((n, len(experts)), 1.0 / len(experts), dtype=np.float32)] * len(logits),
        label=labels,
        sample=np.arange(n),
        split=np.zeros(n, dtype=np.int8) if split is None else split,
        distortions=distortions,
        experts=experts,
        profile=Profile(segment_macs=[1, 1], head_macs=[1, 1], payload_bytes=[1, 1, 0], layers=[1, 2]),
        hashes={},
    )


def test_matched_is_half_pristine_and_half_at_the_familys_levels_in_turn():
    """Each logit says its condition, expert and sample."""
    n, split = 11, np.array([0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0], dtype=np.int8)
    s, e, i = np.arange(5)[:, None, None], np.arange(3), np.arange(n)[:, None]
    told = np.broadcast_to((100.0 * s + 20.0 * e + i)[..., None, None], (5, n, 3, 2, 4))
    found = extraction(list(told), np.arange(n) % 4, split=split)
    here = [0, 1, 3, 4, 6, 7, 9, 10]
    turns = [1, 3, 4, 1, 3, 4, 1, 3]  # the three blurs
    for expert, levels in ((0, []), (1, turns), (2, [])):
        logits, labels = found.matched(expert)
        expected = [20.0 * expert + i for i in here]
        expected += [100.0 * s + 20.0 * expert + i for s, i in zip(levels, here, strict=bool(levels))]
        assert logits.shape == (len(expected), 2, 4)
        assert logits.dtype == np.float64
        assert (logits == np.array(expected)[:, None, None]).all()
        assert labels.tolist() == [i % 4 for i in here] * (2 if levels else 1)


def test_temperatures_bring_confidence_to_accuracy_for_an_overconfident_network():
    """Labels are drawn from softmax(z); the network says z times a factor of its own for each expert and exit."""
    rng = np.random.default_rng(0)
    n, factor = 3_000, np.array([[3.0, 2.0], [1.0, 4.0], [2.5, 1.5]])
    honest = rng.normal(0.0, 1.5, (5, n, 3, 2, 4))
    labels = rng.integers(0, 4, n)
    honest = np.take_along_axis(honest, honest.argsort(axis=-1), axis=-1)
    p = softmax(honest)
    drawn = (p.cumsum(axis=-1) < rng.random((5, n, 3, 2, 1))).sum(axis=-1).clip(0, 3)
    # The classes of each answer are renamed so that the one that was drawn bears the sample's label.
    swapped = (np.arange(4) + drawn[..., None] - labels[:, None, None, None]) % 4
    said = np.take_along_axis(honest, swapped, axis=-1) * factor[:, :, None]
    found = extraction(list(said), labels, split=(np.arange(n) % 2).astype(np.int8))
    temperature = found.temperatures()
    assert {name: t.shape for name, t in temperature.items()} == dict.fromkeys(temperature, (3, 2))
    assert np.allclose(temperature["expert_exit"], factor, rtol=0.15)
    assert temperature["exit"][0, 0] == temperature["exit"][2, 0] != temperature["exit"][0, 1]
    cache = found.cache(found.split == 1, notes={})
    calibrated = cache.calibrated("expert_exit")
    for e in range(3):
        for i in range(2):
            s = 1 if e == 1 else 0  # where it is calibrated
            right = cache.prediction[s, e, :, i] == cache.label
            apart = [abs(c.confidence[s, e, :, i].mean() - right.mean()) for c in (cache, calibrated)]
            errors = [ece(c.confidence[s, e, :, i], right) for c in (cache, calibrated)]
            assert apart[1] < 0.05
            assert errors[1] < 0.07
            if factor[e, i] > 1.4:
                assert apart[1] < 0.5 * apart[0]
                assert errors[1] < 0.5 * errors[0]
