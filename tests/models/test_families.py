"""The mix that experts are trained on: half distorted, every level as often, the same image by image in any company."""

import numpy as np
import pytest

from offramp.models import distort
from offramp.models.families import FAMILIES, FAMILY_OF, FOG_DECAY, LEVELS, Level, distort_mix

DISTORTED = FAMILIES[1:]


def textures(n, side=16, seed=0):
    """Random pixels away from both ends, so that every change of light shows."""
    return np.random.default_rng(seed).integers(60, 200, (n, side, side, 3), dtype=np.uint8)


def test_levels_are_sixteen_for_each_corruption():
    ranges = {
        "gaussian_blur": (0.5, 2.0),
        "gaussian_noise": (5.0, 50.0),
        "contrast": (0.15, 0.6),
        "brightness": (0.25, 0.6),
        "fog": (0.5, 1.25),
    }
    found = [level for family in FAMILIES for level in LEVELS[family]]
    for corruption, (first, last) in ranges.items():
        values = [level.value for level in found if level.corruption == corruption]
        assert values == pytest.approx(np.linspace(first, last, 16), abs=1e-4)
    assert len(found) == 16 * len(ranges)
    assert all(level.family == family == FAMILY_OF[level.corruption] for family in FAMILIES for level in LEVELS[family])
    assert FAMILIES == ("pristine", "blur", "noise", "light")


@pytest.mark.parametrize("family", FAMILIES)
def test_any_subset_gives_the_same(family):
    images, index = textures(40), np.arange(100, 140)
    before = images.copy()
    whole, level = distort_mix(images, index, family, share=0.7, seed=3)
    assert np.array_equal(images, before)
    for chosen in (np.array([5]), np.arange(39, -1, -1), np.array([7, 7, 2]), np.arange(0, 40, 3)):
        made, at = distort_mix(images[chosen], index[chosen], family, share=0.7, seed=3)
        assert np.array_equal(made, whole[chosen])
        assert np.array_equal(at, level[chosen])


@pytest.mark.parametrize("family", DISTORTED)
def test_share_and_levels_are_drawn_evenly(family):
    n, kinds = 4_800, len(LEVELS[family])
    _, level = distort_mix(textures(n, 8), np.arange(n), family, share=0.6, seed=1)
    assert (level >= 0).mean() == pytest.approx(0.6, abs=4.0 * np.sqrt(0.24 / n))
    counts = np.bincount(level[level >= 0], minlength=kinds)
    assert len(counts) == kinds
    expected = 0.6 * n / kinds
    assert ((counts - expected) ** 2 / expected).sum() < kinds + 4.0 * np.sqrt(2.0 * kinds)
    assert np.abs(np.corrcoef(level[:-1], level[1:])[0, 1]) < 0.06


@pytest.mark.parametrize("family", DISTORTED)
def test_images_are_what_the_corruption_makes_at_their_level(family):
    images, index, seed = textures(90), np.arange(90), 5
    made, level = distort_mix(images, index, family, seed=seed)
    assert 0.3 < (level < 0).mean() < 0.7
    assert np.array_equal(made[level < 0], images[level < 0])
    for i in np.flatnonzero(level >= 0):
        one, number, (corruption, value) = (
            images[i : i + 1],
            index[i : i + 1],
            (LEVELS[family][level[i]].corruption, LEVELS[family][level[i]].value),
        )
        expected = {
            "gaussian_blur": lambda x, _, v: distort.gaussian_blur(x, sigma=v),
            "gaussian_noise": lambda x, k, v: distort.gaussian_noise(x, k, sigma=v, seed=seed),
            "contrast": lambda x, _, v: distort.contrast(x, factor=v),
            "brightness": lambda x, _, v: distort.brightness(x, factor=v),
            "fog": lambda x, k, v: distort.fog(x, k, amount=v, decay=FOG_DECAY, seed=seed),
        }[corruption](one, number, value)
        assert np.array_equal(made[i], expected[0])
        assert not np.array_equal(made[i], images[i])


def test_none_or_all_are_distorted():
    images, index = textures(30), np.arange(30)
    for family in FAMILIES:
        made, level = distort_mix(images, index, family, share=0.0, seed=0)
        assert np.array_equal(made, images)
        assert (level == -1).all()
        assert not np.shares_memory(made, images)
        _, level = distort_mix(images, index, family, share=1.0, seed=0)
        assert (level >= 0).all() != (family == "pristine")
    made, level = distort_mix(images[:0], index[:0], "light", seed=0)
    assert made.shape == (0, 16, 16, 3)
    assert level.shape == (0,)


def test_seed_and_family_draw_on_their_own():
    images, index = textures(400, 8), np.arange(400)
    drawn = {(f, s): distort_mix(images, index, f, seed=s)[1] >= 0 for f in DISTORTED for s in (0, 1)}
    for a in drawn:
        for b in drawn:
            assert (drawn[a] == drawn[b]).mean() == pytest.approx(0.5, abs=0.12) or a == b


def test_bad_arguments_are_named_with_what_is_allowed():
    images, index = textures(3), np.arange(3)
    with pytest.raises(ValueError, match=r"family is 'rain', allowed are \('pristine', 'blur', 'noise', 'light'\)"):
        distort_mix(images, index, "rain", seed=0)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"share is {share}, allowed is a probability in 0\.\.1"):
            distort_mix(images, index, "blur", share=share, seed=0)
    with pytest.raises(ValueError, match=r"index has shape \(2,\), allowed is \(3,\)"):
        distort_mix(images, index[:2], "pristine", seed=0)
    with pytest.raises(ValueError, match=r"corruption is 'rain', allowed are \['brightness', 'contrast', 'fog'"):
        Level("rain", 1.0)
