"""Distortions do what their numbers say, image by image, in whatever company an image comes."""

import math

import numpy as np
import pytest
import torch

from offramp.models.distort import (
    FAMILIES,
    Distortion,
    brightness,
    contrast,
    gaussian_blur,
    gaussian_noise,
    jpeg,
)

torch.set_num_threads(1)

ALL = (
    Distortion(name="pristine", family="pristine"),
    Distortion(name="blur 1", family="blur", parameters={"sigma": 1.0}),
    Distortion(name="noise 20", family="noise", parameters={"sigma": 20.0}, seed=4),
    Distortion(name="wrapped sum", family="noise", parameters={"sigma": 20.0, "overflow": "wrap_sum"}, seed=4),
    Distortion(name="wrapped noise", family="noise", parameters={"sigma": 1.0, "overflow": "wrap_noise"}, seed=4),
    Distortion(name="contrast", family="contrast", parameters={"factor": 0.4}),
    Distortion(name="brightness", family="brightness", parameters={"factor": 0.4}),
    Distortion(name="jpeg", family="jpeg", parameters={"quality": 15}),
)
EACH = pytest.mark.parametrize("distortion", ALL, ids=lambda d: d.name)


def scenes(n=6, height=32, width=32):
    """Smooth coloured images with an edge: something that a JPEG compresses and a blur changes."""
    y, x = np.mgrid[0:height, 0:width] / 32.0
    made = []
    for i in range(n):
        planes = [np.sin(3.0 * x + i) * np.cos((2.0 + c) * y - i) * 90.0 + 128.0 + 30.0 * (x > 0.5) for c in range(3)]
        made.append(np.stack(planes, axis=-1))
    return np.clip(np.stack(made), 0, 255).astype(np.uint8)


def flat(value, n=20):
    return np.full((n, 32, 32, 3), value, dtype=np.uint8)


def psnr(a, b):
    return 10.0 * math.log10(255.0**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@EACH
def test_any_subset_gives_the_same_images(distortion):
    images, index = scenes(), np.array([3, 10, 11, 500, 7, 0])
    whole = distortion(images, index)
    for chosen in ([0], [5, 2], [4, 3, 2, 1, 0], [1, 1]):
        assert np.array_equal(distortion(images[chosen], index[chosen]), whole[chosen])
    assert np.array_equal(distortion(images, index), whole)


@EACH
def test_output_is_8_bit_of_the_same_shape_and_the_input_stays(distortion):
    images = scenes(3, 40, 36)
    before = images.copy()
    made = distortion(images, np.arange(3))
    assert made.dtype == np.uint8
    assert made.shape == images.shape
    assert np.array_equal(images, before)
    assert not np.shares_memory(made, images)
    assert np.array_equal(made, before) == (distortion.family == "pristine")


def test_every_family_is_tried_here():
    assert {d.family for d in ALL} == set(FAMILIES)


# Blur


def kernel(sigma):
    """The Gaussian that reaches three sigma, summing to 1."""
    half = math.ceil(3.0 * sigma)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-half, half + 1)]
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0, 1.5, 2.0, 3.3])
def test_impulse_is_spread_by_sigma_pixels(sigma):
    images = np.zeros((1, 33, 33, 3), dtype=np.uint8)
    images[0, 16, 16] = (255, 200, 100)
    weights = kernel(sigma)
    half = len(weights) // 2
    expected = np.zeros((33, 33, 3))
    spread = np.outer(weights, weights)[:, :, None] * np.array([255.0, 200.0, 100.0])
    expected[16 - half : 17 + half, 16 - half : 17 + half] = spread
    assert np.abs(gaussian_blur(images, sigma=sigma)[0] - expected).max() <= 0.51  # rounded to whole numbers


def test_width_of_a_blurred_line_is_sigma_pixels_whatever_the_image_size():
    for width in (48, 96):
        images = np.zeros((1, 48, width, 3), dtype=np.uint8)
        images[:, :, width // 2] = 255
        profile = gaussian_blur(images, sigma=2.0)[0, 24, :, 0].astype(float)
        offset = np.arange(width) - width // 2
        assert math.sqrt((profile * offset**2).sum() / profile.sum()) == pytest.approx(2.0, abs=0.06)


def test_blur_mirrors_the_border_and_keeps_flat_images():
    assert np.array_equal(gaussian_blur(flat(77, 2), sigma=2.0), flat(77, 2))
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    images[:, :, :2] = 200
    weights = kernel(1.0)  # columns 3 2 1 [0 1 2 3]: those of value 200 are 0, 1 and the mirrored 1
    assert gaussian_blur(images, sigma=1.0)[0, 16, 0, 0] == pytest.approx(200 * weights[2:5].sum(), abs=0.51)


def test_more_blur_leaves_less_detail():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    spread = [gaussian_blur(images, sigma=s).std() for s in (0.3, 0.5, 1.0, 2.0, 4.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 3.0 * spread[-1]


# Noise


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


# Contrast, brightness, JPEG


@pytest.mark.parametrize("family", ["contrast", "brightness"])
def test_factor_1_changes_nothing(family):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(FAMILIES[family](images, factor=1.0), images)


def test_contrast_scales_the_distance_from_the_mean_grey():
    images = scenes()
    grey = (images @ np.array([0.2989, 0.587, 0.114])).mean(axis=(1, 2))
    for factor in (0.2, 0.5):
        expected = grey[:, None, None, None] + factor * (images - grey[:, None, None, None])
        assert np.abs(contrast(images, factor=factor) - expected).max() <= 1.0
    assert all(np.ptp(image) == 0 for image in contrast(images, factor=0.0))
    assert contrast(images, factor=2.0).std() > images.std()


def test_brightness_multiplies_and_clips():
    images = scenes()
    for factor in (0.0, 0.4, 1.7):
        expected = np.clip(np.rint(images * factor), 0, 255)
        assert np.array_equal(brightness(images, factor=factor), expected)
    assert brightness(images, factor=1.7).max() == 255


def test_better_jpeg_quality_is_nearer_to_the_image():
    images = scenes()
    near = [psnr(images, jpeg(images, quality=q)) for q in (5, 15, 40, 75, 95)]
    assert near == sorted(near)
    assert near[0] < 32.0 < 36.0 < near[-1]


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_sigma_must_be_positive(bad):
    for distort in (
        lambda: gaussian_blur(scenes(1), sigma=bad),
        lambda: gaussian_noise(scenes(1), np.arange(1), sigma=bad, seed=0),
    ):
        with pytest.raises(ValueError, match=f"sigma is {bad}, allowed is a finite number > 0"):
            distort()


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
@pytest.mark.parametrize("family", ["contrast", "brightness"])
def test_factor_must_not_be_negative(family, bad):
    with pytest.raises(ValueError, match=f"factor is {bad}, allowed is a finite number >= 0"):
        FAMILIES[family](scenes(1), factor=bad)


@pytest.mark.parametrize("bad", [0, 96, -3, 10.5, math.nan])
def test_quality_must_be_one_of_jpegs_own(bad):
    with pytest.raises(ValueError, match=rf"quality is {bad}, allowed is a whole number in 1\.\.95"):
        jpeg(scenes(1), quality=bad)


def test_other_bad_parameters_are_named_with_value_and_what_is_allowed():
    with pytest.raises(ValueError, match=r"overflow is 'saturate', allowed are \('clip', 'wrap_sum', 'wrap_noise'\)"):
        gaussian_noise(scenes(1), np.arange(1), sigma=1.0, seed=0, overflow="saturate")
    with pytest.raises(ValueError, match=r"family is 'fog', allowed are \['blur', 'brightness'"):
        Distortion(name="fog", family="fog")


def test_blur_must_fit_into_the_image():
    assert gaussian_blur(scenes(1), sigma=10.3).shape == (1, 32, 32, 3)
    with pytest.raises(ValueError, match=r"sigma is 10\.4, allowed is below 10\.3"):
        gaussian_blur(scenes(1), sigma=10.4)
    with pytest.raises(ValueError, match="sigma"):
        gaussian_blur(scenes(1, 32, 8), sigma=3.0)


def test_noise_needs_one_number_for_each_image():
    for index in (np.arange(1), np.arange(2)):
        with pytest.raises(ValueError, match=rf"index has shape \({len(index)},\), allowed is \(3,\)"):
            gaussian_noise(scenes(3), index, sigma=1.0, seed=0)
