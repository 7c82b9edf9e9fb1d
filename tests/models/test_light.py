"""Changes of light against the plain formulas, Python's own HSV, and a fractal grown point by point."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from offramp.models.light import brightness, contrast, fog, saturation

torch.set_num_threads(1)
SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"


@pytest.fixture(scope="module")
def photos():
    """The first ten test images of CIFAR-10."""
    return np.stack(np.split(np.asarray(Image.open(SHEET))[:32, :320], 10, axis=1))


@pytest.fixture(scope="module")
def colours():
    """Ten by ten pixels: black, white, greys, pure colours, and random ones."""
    plain = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (1, 1, 1), (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 8)]
    other = np.random.default_rng(0).integers(0, 256, (92, 3)).tolist()
    return np.array([*plain, *other], dtype=np.uint8).reshape(1, 10, 10, 3)


def in_hsv(images, change):
    """What `change(h, s, v)` makes of every pixel, on 0..255."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(p / 255.0)))) for p in images.reshape(-1, 3)]
    return np.array(pixels).reshape(images.shape) * 255.0


def clip(value):
    return min(max(value, 0.0), 1.0)


def test_factor_1_and_shift_0_change_nothing(photos):
    for made in (
        contrast(photos, factor=1.0),
        contrast(photos, factor=1.0, mean="channels"),
        brightness(photos, factor=1.0),
        brightness(photos, shift=0.0),
        saturation(photos, scale=1.0),
        fog(photos, np.arange(10), amount=1e-9, decay=2.0, seed=0),
    ):
        assert np.array_equal(made, photos)


def test_contrast_scales_the_distance_from_the_mean_grey(photos):
    grey = (photos @ np.array([0.2989, 0.587, 0.114])).mean(axis=(1, 2))
    for factor in (0.2, 0.5):
        expected = grey[:, None, None, None] + factor * (photos - grey[:, None, None, None])
        assert np.abs(contrast(photos, factor=factor) - expected).max() <= 1.0
    assert all(np.ptp(image) == 0 for image in contrast(photos, factor=0.0))
    assert contrast(photos, factor=2.0).std() > photos.std()


def test_contrast_scales_the_distance_from_each_channel_s_mean(photos):
    for factor in (0.0, 0.4, 1.5):
        for image, made in zip(photos, contrast(photos, factor=factor, mean="channels"), strict=True):
            mean = np.array([image[..., c].mean() for c in range(3)])
            expected = np.clip((image - mean) * factor + mean, 0, 255)
            assert np.abs(made - expected).max() <= 0.51


def test_brightness_multiplies_and_clips(photos):
    for factor in (0.0, 0.4, 1.7):
        assert np.array_equal(brightness(photos, factor=factor), np.clip(np.rint(photos * factor), 0, 255))
    assert brightness(photos, factor=1.7).max() == 255


@pytest.mark.parametrize("shift", [0.05, 0.3, 1.0, -0.2, -1.0])
def test_brightness_adds_to_the_value_of_hsv(colours, photos, shift):
    for images in (colours, photos[:1]):
        expected = in_hsv(images, lambda h, s, v: (h, s, clip(v + shift)))
        assert np.abs(brightness(images, shift=shift) - expected).max() <= 0.51


@pytest.mark.parametrize(("scale", "shift"), [(0.3, 0.0), (0.0, 0.0), (2.0, 0.1), (20.0, 0.2), (1.0, -0.3), (0.5, 0.5)])
def test_saturation_scales_and_shifts_that_of_hsv(colours, photos, scale, shift):
    for images in (colours, photos[:1]):
        expected = in_hsv(images, lambda h, s, v: (h, clip(s * scale + shift), v))
        assert np.abs(saturation(images, scale=scale, shift=shift) - expected).max() <= 0.51


@pytest.mark.parametrize("parameters", [{}, {"factor": 1.0, "shift": 0.0}])
def test_brightness_takes_one_of_both(photos, parameters):
    with pytest.raises(ValueError, match=r"brightness needs exactly one of \['factor', 'shift'\], found \["):
        brightness(photos, **parameters)


# Fog


def grown(side, decay, uniform):
    """A fractal on a torus, point by point: first the middle of every square, then the middles of its sides."""
    points, spread, step = {(0, 0): 0.0}, 1.0, side
    draw = iter(uniform)
    while step > 1:
        half, corners = step // 2, range(0, side, step)
        means = {}
        for name, down, right in (("middle", half, half), ("top", 0, half), ("left", half, 0)):
            for y in corners:
                for x in corners:
                    at = (y + down, x + right)
                    if name == "middle":
                        near = [(y, x), (y + step, x), (y, x + step), (y + step, x + step)]
                    else:
                        near = [
                            (at[0] - half, at[1]),
                            (at[0] + half, at[1]),
                            (at[0], at[1] - half),
                            (at[0], at[1] + half),
                        ]
                    means[at] = sum(points[v % side, u % side] for v, u in near) / 4 + spread * next(draw)
                    points[at] = means[at]
        spread, step = spread / decay**2, half
    field = np.array([[points[y, x] for x in range(side)] for y in range(side)])
    return (field - field.min()) / np.ptp(field)


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 8), (32, 32, 32), (9, 14, 16)])
def test_fog_is_the_formula_with_a_fractal_grown_point_by_point(height, width, side):
    images = np.random.default_rng(1).integers(0, 200, (2, height, width, 3), dtype=np.uint8)
    made = fog(images, np.array([3, 8]), amount=0.75, decay=2.5, seed=6)
    for image, number, foggy in zip(images / 255.0, (3, 8), made, strict=True):
        uniform = np.random.default_rng((6, number)).uniform(-1.0, 1.0, side * side - 1)
        field = grown(side, 2.5, uniform)[:height, :width, None]
        expected = (image + 0.75 * field) * image.max() / (image.max() + 0.75)
        assert np.abs(foggy - 255.0 * expected).max() <= 0.51


def test_fog_spans_from_none_to_all_of_its_amount():
    made = fog(np.full((5, 32, 32, 3), 102, dtype=np.uint8), np.arange(5), amount=0.6, decay=2.0, seed=0)
    assert made.max(axis=(1, 2, 3)).tolist() == [102] * 5
    assert made.min(axis=(1, 2, 3)).tolist() == [round(102 * 0.4)] * 5  # 0.4 / (0.4 + 0.6) of the value is left
    assert (np.ptp(made, axis=3) == 0).all()  # grey


def test_more_decay_is_smoother_fog():
    images = np.full((20, 32, 32, 3), 200, dtype=np.uint8)
    steps = [
        np.abs(np.diff(fog(images, np.arange(20), amount=2.0, decay=d, seed=0).astype(float), axis=1)).mean()
        for d in (1.0, 1.5, 2.0, 3.0)
    ]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 3.0 * steps[-1]


def test_black_images_stay_black_in_fog():
    black = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(fog(black, np.arange(2), amount=1.0, decay=2.0, seed=0), black)


def test_fog_depends_on_seed_and_image_number(photos):
    images = photos[[0, 0, 0]]
    one = fog(images, np.array([0, 1, 0]), amount=1.0, decay=2.0, seed=0)
    assert np.array_equal(one[0], one[2])
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one[0], fog(images, np.array([0, 1, 0]), amount=1.0, decay=2.0, seed=1)[0])
