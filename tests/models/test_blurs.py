"""Blurs spread an image as their numbers say: how far, in which direction, and what happens at the border."""

import math

import numpy as np
import pytest
import torch

from offramp.models.blurs import defocus_blur, gaussian_blur, motion_blur

torch.set_num_threads(1)


def flat(value, n=2):
    return np.full((n, 32, 32, 3), value, dtype=np.uint8)


def dot(side=33, value=(255, 200, 100)):
    images = np.zeros((1, side, side, 3), dtype=np.uint8)
    images[0, side // 2, side // 2] = value
    return images


def texture(n=2, height=20, width=16):
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


# Gaussian


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
    assert np.array_equal(gaussian_blur(flat(77), sigma=2.0), flat(77))
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    images[:, :, :2] = 200
    weights = kernel(1.0)  # columns 3 2 1 [0 1 2 3]: those of value 200 are 0, 1 and the mirrored 1
    assert gaussian_blur(images, sigma=1.0)[0, 16, 0, 0] == pytest.approx(200 * weights[2:5].sum(), abs=0.51)


def test_more_blur_leaves_less_detail():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    spread = [gaussian_blur(images, sigma=s).std() for s in (0.3, 0.5, 1.0, 2.0, 4.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > 3.0 * spread[-1]


def test_a_very_narrow_gaussian_leaves_the_image():
    for sigma in (1e-300, 1e-6, 0.1):
        assert np.array_equal(gaussian_blur(texture(), sigma=sigma), texture())


def test_gaussian_must_fit_into_the_image():
    assert gaussian_blur(flat(9), sigma=10.3).shape == (2, 32, 32, 3)
    with pytest.raises(ValueError, match=r"sigma is 10\.4, allowed is below 10\.3"):
        gaussian_blur(flat(9), sigma=10.4)
    with pytest.raises(ValueError, match="sigma"):
        gaussian_blur(texture(1, 32, 8), sigma=3.0)


# Out of focus


def brute_force(images, weights):
    """Correlation with a kernel, the border mirrored without repeating its own pixel; one output pixel at a time."""
    reach = len(weights) // 2
    height, width = images.shape[1:3]

    def mirrored(i, side):
        return -i if i < 0 else 2 * (side - 1) - i if i >= side else i

    out = np.zeros(images.shape)
    for y in range(height):
        for x in range(width):
            for v in range(-reach, reach + 1):
                for u in range(-reach, reach + 1):
                    pixel = images[:, mirrored(y + v, height), mirrored(x + u, width)]
                    out[:, y, x] += weights[v + reach][u + reach] * pixel
    return out


def test_disk_of_one_and_a_half_pixels_is_the_mean_of_nine():
    expected = brute_force(texture(), np.full((3, 3), 1 / 9))
    assert np.abs(defocus_blur(texture(), radius=1.5, alias=0.1) - expected).max() <= 0.51


def test_disk_of_one_pixel_is_the_mean_of_a_cross():
    expected = brute_force(texture(), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5)
    assert np.abs(defocus_blur(texture(), radius=1.0, alias=0.1) - expected).max() <= 0.51


def test_below_one_pixel_the_softening_gaussian_is_all():
    weights = np.exp(-0.5 * (np.array([-1, 0, 1]) / 0.6) ** 2)
    weights /= weights.sum()
    expected = brute_force(texture(), np.outer(weights, weights))
    assert np.abs(defocus_blur(texture(), radius=0.5, alias=0.6) - expected).max() <= 0.51


def test_soft_disk():
    """Radius 2.5 covers 21 pixels; a Gaussian of 0.5 pixels that reaches one softens the edge."""
    y, x = np.mgrid[-4:5, -4:5]
    disk = (x**2 + y**2 <= 6.25) / 21
    assert disk.sum() == pytest.approx(1.0)
    side = np.exp(-0.5 * (np.array([-1, 0, 1]) / 0.5) ** 2) / (1 + 2 * math.exp(-2.0))
    soft = np.zeros((9, 9))
    for v in range(1, 8):
        for u in range(1, 8):
            soft[v, u] = (disk[v - 1 : v + 2, u - 1 : u + 2] * np.outer(side, side)).sum()
    expected = brute_force(texture(1), soft)
    assert np.abs(defocus_blur(texture(1), radius=2.5, alias=0.5) - expected).max() <= 0.51


def test_large_disk_keeps_flat_images_and_reaches_its_radius():
    assert np.array_equal(defocus_blur(flat(200), radius=10, alias=0.5), flat(200))
    side = 41
    spread = defocus_blur(dot(side, 255), radius=9, alias=0.1)[0, side // 2, :, 0]
    assert np.flatnonzero(spread).tolist() == list(range(side // 2 - 9, side // 2 + 10))


def test_disk_must_fit_into_the_image():
    for size, radius in ((20, 17.9), (8, 6.9), (9, 7.9), (11, 8.9)):
        assert defocus_blur(texture(1, size, size), radius=radius, alias=0.1).shape == (1, size, size, 3)
    for size, radius, limit in ((20, 18.0, 18), (8, 7.5, 7), (9, 8.5, 8), (11, 9.0, 9)):
        with pytest.raises(ValueError, match=rf"radius is {radius}, allowed is below {limit} for this image size"):
            defocus_blur(texture(1, size, size), radius=radius, alias=0.1)


# Motion


def angle(seed, number):
    return math.radians(np.random.default_rng((seed, number)).uniform(-45.0, 45.0))


def test_dot_becomes_a_one_sided_line_at_the_image_s_own_angle():
    images, index = dot().repeat(6, axis=0), np.array([0, 1, 2, 9, 40, 7])
    made = motion_blur(images, index, radius=4, sigma=3.0, seed=5)
    weights = np.array([math.exp(-0.5 * (k / 3.0) ** 2) for k in range(9)])
    weights /= weights.sum()
    slopes = set()
    for image, number in zip(made, index, strict=True):
        way = angle(5, number)
        expected = np.zeros((33, 33, 3))
        for k, weight in enumerate(weights):
            # an output pixel reads k steps ahead, so the dot is found k steps back, at the nearest pixel
            expected[16 - round(k * math.sin(way)), 16 - round(k * math.cos(way))] += weight * np.array([255, 200, 100])
        assert np.abs(image - expected).max() <= 0.51
        slopes.add(np.sign(way))
    assert slopes == {-1, 1}


def test_angles_are_uniform_within_45_degrees():
    found = []
    for image in motion_blur(dot(65, 255).repeat(400, axis=0), np.arange(400), radius=12, sigma=50.0, seed=0)[..., 0]:
        rows, columns = np.nonzero(image)
        far = columns.argmin()
        found.append(math.degrees(math.atan2(32 - rows[far], 32 - columns[far])))
    assert min(found) == pytest.approx(-45, abs=2.5)
    assert max(found) == pytest.approx(45, abs=2.5)
    assert np.mean(found) == pytest.approx(0.0, abs=4.0)
    assert np.std(found) == pytest.approx(90 / math.sqrt(12), abs=2.5)


def test_motion_repeats_the_border():
    assert np.array_equal(motion_blur(flat(77), np.arange(2), radius=9, sigma=2.5, seed=0), flat(77))
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    images[:, :, -1] = 200
    last = motion_blur(images, np.arange(1), radius=6, sigma=2.0, seed=0)[0, 16, -1, 0]
    assert last == 200  # every step ahead of the last column reads that column


def test_a_radius_beyond_the_weights_changes_nothing():
    """Three sigma on either side of what CIFAR-C says: severities 3 and 4 are one."""
    images, index = texture(4), np.arange(4)
    near, far, cut = (motion_blur(images, index, radius=r, sigma=2.0, seed=1) for r in (6, 8, 1))
    assert np.array_equal(near, far)
    assert not np.array_equal(near, cut)


def test_motion_is_defined_for_lines_longer_than_the_image():
    assert motion_blur(texture(1, 8, 8), np.arange(1), radius=40, sigma=30.0, seed=0).shape == (1, 8, 8, 3)
