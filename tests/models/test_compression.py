"""JPEG and pixelation lose what they say that they lose."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offramp.models.compression import jpeg, pixelation

SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"


@pytest.fixture(scope="module")
def photos():
    """The first ten test images of CIFAR-10."""
    return np.stack(np.split(np.asarray(Image.open(SHEET))[:32, :320], 10, axis=1))


def psnr(a, b):
    return 10.0 * math.log10(255.0**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def test_better_jpeg_quality_is_nearer_to_the_image(photos):
    near = [psnr(photos, jpeg(photos, quality=q)) for q in (5, 15, 40, 75, 95)]
    assert near == sorted(near)
    assert near[0] < 21.0 < 28.0 < near[-1]


def test_jpeg_keeps_flat_greys():
    flat = np.full((2, 24, 40, 3), 128, dtype=np.uint8)
    assert np.array_equal(jpeg(flat, quality=10), flat)


def test_half_the_pixels_are_means_of_two_by_two(photos):
    blocks = photos.reshape(10, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    expected = blocks.repeat(2, axis=1).repeat(2, axis=2)
    made = pixelation(photos, scale=0.5)
    assert np.abs(made - expected).max() <= 1.0  # rows and columns are averaged, and rounded, one after the other
    assert np.array_equal(made, made[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, 0.65), (30, 17, 0.95), (8, 8, 0.125)])
def test_sides_are_rounded_down(height, width, scale):
    images = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    small = Image.fromarray(images[0]).resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
    expected = np.asarray(small.resize((width, height), Image.Resampling.BOX))
    assert np.array_equal(pixelation(images, scale=scale)[0], expected)


def test_scale_1_changes_nothing_and_one_pixel_must_be_left(photos):
    assert np.array_equal(pixelation(photos, scale=1.0), photos)
    one = pixelation(photos, scale=1 / 32)
    assert (np.ptp(one, axis=(1, 2)) == 0).all()
    with pytest.raises(ValueError, match=r"scale is 0\.03, allowed is 0\.0312 or more for this image size"):
        pixelation(photos, scale=0.03)
