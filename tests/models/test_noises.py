"""Noises have the distribution that they say, image by image, clipped at both ends."""

import math

import numpy as np
import pytest

from offramp.models.noises import gaussian_noise, impulse_noise, shot_noise, speckle_noise


def flat(value, n=20):
    return np.full((n, 32, 32, 3), value, dtype=np.uint8)


def psnr(a, b):
    return 10.0 * math.log10(255.0**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


# Gaussian


@pytest.mark.parametrize("sigma", [5.0, 20.0, 30.0])
def test_noise_has_the_standard_deviation_it_says(sigma):
    noise = gaussian_noise(flat(128), np.arange(20), sigma=sigma, seed=0).astype(float) - 128.0
    assert noise.std() == pytest.approx(math.hypot(sigma, 1 / math.sqrt(12)), rel=0.02)
    assert abs(noise.mean()) < 4.0 * sigma / math.sqrt(noise.size)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[:10].ravel(), noise[10:].ravel())[0, 1]) < 0.03


def test_noise_is_clipped_at_both_ends():
    sigma = 20.0
    for value, end in ((255, 255), (0, 0)):
        noisy = gaussian_noise(flat(value), np.arange(20), sigma=sigma, seed=1).astype(float)
        inside = np.abs(noisy - value)
        assert (noisy == end).mean() == pytest.approx(0.5, abs=0.03)
        assert inside.mean() == pytest.approx(sigma / math.sqrt(2.0 * math.pi), rel=0.03)  # half of a folded normal
        assert inside.max() < 6.0 * sigma


def test_noise_depends_on_seed_and_image_number():
    images = flat(128, 3)
    one = gaussian_noise(images, np.array([0, 1, 0]), sigma=10.0, seed=0)
    assert np.array_equal(one[0], one[2])
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one, gaussian_noise(images, np.array([0, 1, 0]), sigma=10.0, seed=1))


@pytest.mark.parametrize(("sigma", "share"), [(1.0, 0.1587), (0.5, 0.0228), (2.0, 0.3085)])
def test_replica_that_casts_the_noise_first_whitens_channels(sigma, share):
    """A draw of -1 or less becomes 254 or 255, whose saturated sum is white: P(z <= -1 / sigma)."""
    noisy = gaussian_noise(flat(128, 60), np.arange(60), sigma=sigma, seed=2, overflow="wrap_noise")
    assert (noisy == 255).mean() == pytest.approx(share, abs=0.004)
    assert noisy.min() == 128  # nothing ever grows darker
    clipped = gaussian_noise(flat(128, 60), np.arange(60), sigma=sigma, seed=2)
    assert not (clipped == 255).any()


def test_replica_that_casts_the_sum_starts_over_at_256():
    """260 becomes 4 and -3 becomes 253: what clipping leaves white or black turns into its opposite."""
    index = np.arange(20)
    for value in (250, 5):
        images = flat(value)
        draws = np.stack([np.random.default_rng((3, int(i))).normal(0.0, 20.0, (32, 32, 3)) for i in index])
        total = np.trunc(images + draws).astype(int)
        wrapped = gaussian_noise(images, index, sigma=20.0, seed=3, overflow="wrap_sum")
        assert np.array_equal(wrapped, total % 256)
        over, under = total >= 256, total < 0
        assert over.any() or under.any()
        assert (wrapped[over] == total[over] - 256).all()
        assert (wrapped[under] == total[under] + 256).all()


def test_clip_and_wrap_differ_on_bright_images():
    images, index = flat(250), np.arange(20)
    clip, wrap = (gaussian_noise(images, index, sigma=10.0, seed=5, overflow=o) for o in ("clip", "wrap_sum"))
    share_above = 0.5 * math.erfc(0.6 / math.sqrt(2.0))  # P(250 + 10 z >= 256)
    assert (wrap < 128).mean() == pytest.approx(share_above, abs=0.01)
    assert (clip < 128).mean() == 0.0
    assert psnr(images, clip) > psnr(images, wrap) + 10.0
    middle = flat(128)
    inner = [gaussian_noise(middle, index, sigma=10.0, seed=5, overflow=o).astype(int) for o in ("clip", "wrap_sum")]
    assert np.abs(inner[0] - inner[1]).max() <= 1  # far from the ends only the rounding differs


# Shot, impulse, speckle


@pytest.mark.parametrize("rate", [500, 60, 5])
@pytest.mark.parametrize("value", [20, 60, 128])
def test_shot_noise_is_a_poisson_count(rate, value):
    """Counts are whole, their mean is the value and their variance the value over the rate."""
    noisy = shot_noise(flat(value), np.arange(20), rate=rate, seed=1).astype(float) / 255.0
    mean = value / 255.0
    counts = noisy * rate
    assert np.abs(counts - np.rint(counts)).max() <= rate * 0.51 / 255.0
    zeros = math.exp(-mean * rate)
    assert (noisy == 0).mean() == pytest.approx(zeros, abs=4 * math.sqrt(zeros / noisy.size) + 1e-4)
    if noisy.max() < 1.0:  # nothing was clipped
        assert noisy.mean() == pytest.approx(mean, abs=5.0 * math.sqrt(mean / rate / noisy.size) + 0.15 / 255)
        assert noisy.var() == pytest.approx(mean / rate, rel=0.03, abs=1.0 / 255**2 / 12)


def test_shot_noise_is_clipped_and_leaves_black():
    white = shot_noise(flat(255), np.arange(20), rate=60, seed=0)
    assert (white == 255).mean() == pytest.approx(0.517, abs=0.02)  # P(Poisson(60) >= 60)
    assert white.min() > 80
    assert np.array_equal(shot_noise(flat(0), np.arange(20), rate=3, seed=0), flat(0))


@pytest.mark.parametrize("fraction", [0.01, 0.27, 1.0])
def test_impulse_noise_sets_its_share_of_values_half_black_half_white(fraction):
    noisy = impulse_noise(flat(100, 40), np.arange(40), fraction=fraction, seed=2)
    error = 4.0 * math.sqrt(fraction / noisy.size)
    assert set(np.unique(noisy).tolist()) == ({0, 100, 255} if fraction < 1.0 else {0, 255})
    assert (noisy == 0).mean() == pytest.approx(fraction / 2, abs=error)
    assert (noisy == 255).mean() == pytest.approx(fraction / 2, abs=error)
    changed = noisy != 100
    both = (changed[..., 0] & changed[..., 1]).mean()  # channels are hit on their own
    assert both == pytest.approx(fraction**2, abs=error)


@pytest.mark.parametrize("sigma", [0.06, 0.2])
def test_speckle_grows_with_the_value(sigma):
    for value in (40, 120):
        noise = speckle_noise(flat(value), np.arange(20), sigma=sigma, seed=3).astype(float) - value
        assert noise.std() == pytest.approx(math.hypot(value * sigma, 1 / math.sqrt(12)), rel=0.02)
        assert abs(noise.mean()) < 0.1
    assert np.array_equal(speckle_noise(flat(0), np.arange(20), sigma=sigma, seed=3), flat(0))
    white = speckle_noise(flat(255), np.arange(20), sigma=sigma, seed=3)
    assert (white == 255).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "noise",
    [
        lambda i, k, s: shot_noise(i, k, rate=60, seed=s),
        lambda i, k, s: impulse_noise(i, k, fraction=0.1, seed=s),
        lambda i, k, s: speckle_noise(i, k, sigma=0.2, seed=s),
    ],
    ids=["shot", "impulse", "speckle"],
)
def test_other_noises_depend_on_seed_and_image_number(noise):
    images = flat(128, 3)
    one = noise(images, np.array([0, 1, 0]), 0)
    assert np.array_equal(one[0], one[2])
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one[0], noise(images, np.array([0, 1, 0]), 1)[0])
