"""Distortions keep their contract: 8 bits in and out, the same in whatever company; the presets; what is refused."""

import json
import math
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from offramp.models.corruption import CORRUPTIONS, FAMILIES
from offramp.models.distort import PRESETS, Distortion, cifar_c, preset

torch.set_num_threads(1)
SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"


def of(corruption, seed=4, **parameters):
    return Distortion(name=corruption, corruption=corruption, parameters=parameters, seed=seed)


ALL = (
    of("pristine"),
    of("gaussian_noise", sigma=20),
    replace(of("gaussian_noise", sigma=20.0, overflow="wrap_sum"), name="wrapped sum"),
    replace(of("gaussian_noise", sigma=1.0, overflow="wrap_noise"), name="wrapped noise"),
    of("shot_noise", rate=60),
    of("impulse_noise", fraction=0.1),
    of("speckle_noise", sigma=0.2),
    of("gaussian_blur", sigma=1.0),
    of("defocus_blur", radius=1.5, alias=0.4),
    of("motion_blur", radius=6, sigma=2.0),
    replace(of("brightness", factor=0.4), name="darker"),
    of("brightness", shift=0.3),
    of("contrast", factor=0.4),
    replace(of("contrast", factor=0.4, mean="channels"), name="contrast of channels"),
    of("saturation", scale=0.3, shift=0.1),
    of("fog", amount=0.75, decay=2.5),
    of("pixelation", scale=0.6),
    of("jpeg", quality=15),
)
EACH = pytest.mark.parametrize("distortion", ALL, ids=lambda d: d.name)


@pytest.fixture(scope="module")
def photos():
    """The first 40 test images of CIFAR-10."""
    sheet = np.asarray(Image.open(SHEET))[:64]
    return np.ascontiguousarray(sheet.reshape(2, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(40, 32, 32, 3))


# Contract


def test_every_corruption_is_tried_here():
    assert {d.corruption for d in ALL} == set(CORRUPTIONS)
    assert len(CORRUPTIONS) == 14


@EACH
def test_any_subset_gives_the_same_images(distortion, photos):
    images, index = photos[:6], np.array([3, 10, 11, 500, 7, 0])
    whole = distortion(images, index)
    for chosen in ([0], [5, 2], [4, 3, 2, 1, 0], [1, 1], []):
        chosen = np.array(chosen, dtype=int)
        assert np.array_equal(distortion(images[chosen], index[chosen]), whole[chosen])
    assert np.array_equal(distortion(images, index), whole)


@EACH
@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 36), (9, 31)])
def test_output_is_8_bit_of_the_same_shape_and_the_input_stays(distortion, height, width):
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    before = images.copy()
    made = distortion(images, np.arange(3))
    assert made.dtype == np.uint8
    assert made.shape == images.shape
    assert np.array_equal(images, before)
    assert not np.shares_memory(made, images)
    assert np.array_equal(made, before) == (distortion.corruption == "pristine")


@EACH
def test_read_only_and_reversed_views_are_images_too(distortion, photos):
    images = photos[:4]
    locked = images.copy()
    locked.flags.writeable = False
    expected = distortion(images, np.arange(4))
    assert np.array_equal(distortion(locked, np.arange(4)), expected)
    reverse = distortion(images[::-1, :, ::-1][:, :, ::-1], np.arange(4)[::-1])
    assert np.array_equal(reverse[::-1], expected)


BAD_IMAGES = [
    (np.zeros((2, 32, 32, 3), dtype=np.float32), r"images have dtype float32, allowed is uint8 \(0\.\.255\)"),
    (np.zeros((2, 32, 32, 3), dtype=np.int8), "images have dtype int8, allowed is uint8"),
    (np.zeros((32, 32, 3), dtype=np.uint8), r"images have shape \(32, 32, 3\), allowed is \(n, height, width, 3\)"),
    (np.zeros((2, 32, 32, 1), dtype=np.uint8), r"images have shape \(2, 32, 32, 1\), allowed is"),
    (np.zeros((2, 3, 32, 32), dtype=np.uint8), r"images have shape \(2, 3, 32, 32\), allowed is"),
    (np.zeros((2, 7, 32, 3), dtype=np.uint8), "images are 7 x 32 pixels, allowed is 8 or more a side"),
    (np.zeros((2, 32, 0, 3), dtype=np.uint8), "images are 32 x 0 pixels"),
    (torch.zeros((2, 32, 32, 3), dtype=torch.uint8), "images are a Tensor, allowed is a NumPy array"),
    ([[0]], "images are a list, allowed is a NumPy array"),
]


@EACH
def test_other_images_are_refused(distortion):
    for images, message in BAD_IMAGES:
        with pytest.raises(ValueError, match=message):
            distortion(images, np.arange(2))


@pytest.mark.parametrize("distortion", [d for d in ALL if CORRUPTIONS[d.corruption].seeded], ids=lambda d: d.name)
def test_seeded_corruptions_need_one_whole_number_for_each_image(distortion, photos):
    images = photos[:3]
    for index in (np.arange(1), np.arange(2), np.zeros((3, 1), dtype=int)):
        with pytest.raises(ValueError, match=r"index has shape \(.*\), allowed is \(3,\): one number for each image"):
            distortion(images, index)
    for index in (np.array([0.0, 1.0, 2.0]), np.array([0, -1, 2])):
        with pytest.raises(ValueError, match=r"index holds (int|float)64 from -?\d.*, allowed are whole numbers >= 0"):
            distortion(images, index)
    assert not np.array_equal(distortion(images, np.arange(3)), replace(distortion, seed=9)(images, np.arange(3)))


SIDE = st.integers(8, 40)
PARAMETERS = {
    "gaussian_noise": {"sigma": st.floats(1e-9, 1e6)},
    "shot_noise": {"rate": st.floats(1e-300, 1e9)},
    "impulse_noise": {"fraction": st.floats(1e-300, 1)},
    "speckle_noise": {"sigma": st.floats(1e-300, 1e6)},
    "gaussian_blur": {"sigma": st.floats(1e-300, 2)},
    "defocus_blur": {"radius": st.floats(1e-300, 6), "alias": st.floats(1e-300, 1e300)},
    "motion_blur": {"radius": st.floats(1e-300, 50), "sigma": st.floats(1e-300, 1e300)},
    "brightness": {"shift": st.floats(-1, 1)},
    "contrast": {"factor": st.floats(0, 1000), "mean": st.sampled_from(["grey", "channels"])},
    "saturation": {"scale": st.floats(0, 1000), "shift": st.floats(-1, 1)},
    "fog": {"amount": st.floats(1e-300, 1e300), "decay": st.floats(1, 100)},
    "pixelation": {"scale": st.floats(0.125, 1)},
    "jpeg": {"quality": st.integers(1, 95)},
}


@pytest.mark.parametrize("corruption", PARAMETERS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_allowed_parameter_gives_images_alone_as_in_company(corruption, data):
    parameters = {name: data.draw(values) for name, values in PARAMETERS[corruption].items()}
    distortion = of(corruption, seed=data.draw(st.integers(0, 2**40)), **parameters)
    shape = (3, data.draw(SIDE), data.draw(SIDE), 3)
    images = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, shape, dtype=np.uint8)
    index = np.array(data.draw(st.lists(st.integers(0, 2**40), min_size=3, max_size=3)))
    made = distortion(images, index)
    assert made.shape == images.shape
    assert made.dtype == np.uint8
    for i in range(3):
        assert np.array_equal(distortion(images[i : i + 1], index[i : i + 1])[0], made[i])


# Spec


def test_families():
    found = {name: of(name, **dict(parameters[2])).family for name, parameters in PRESETS.items()}
    assert found == {
        **dict.fromkeys(["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"], "noise"),
        **dict.fromkeys(["gaussian_blur", "defocus_blur", "motion_blur"], "blur"),
        **dict.fromkeys(["brightness", "contrast", "saturation", "fog"], "light"),
        **dict.fromkeys(["pixelation", "jpeg"], "compression"),
    }
    assert of("pristine").family == "pristine"
    assert {c.family for c in CORRUPTIONS.values()} == set(FAMILIES)


BAD_NUMBERS = [0, 0.0, -1.0, math.nan, math.inf, -math.inf, "5", None, True, [1.0]]


@pytest.mark.parametrize(
    ("corruption", "name", "allowed", "bad"),
    [
        ("gaussian_noise", "sigma", "a finite number > 0", BAD_NUMBERS),
        ("gaussian_noise", "overflow", r"are \('clip', 'wrap_sum', 'wrap_noise'\)", ["saturate", 1, None]),
        ("shot_noise", "rate", "a finite number > 0", BAD_NUMBERS),
        ("impulse_noise", "fraction", "a finite number > 0 and <= 1", [*BAD_NUMBERS, 1.001]),
        ("speckle_noise", "sigma", "a finite number > 0", BAD_NUMBERS),
        ("gaussian_blur", "sigma", "a finite number > 0", BAD_NUMBERS),
        ("defocus_blur", "radius", "a finite number > 0 and <= 1000", [*BAD_NUMBERS, 1001]),
        ("defocus_blur", "alias", "a finite number > 0", BAD_NUMBERS),
        ("motion_blur", "radius", "a finite number > 0 and <= 1000", BAD_NUMBERS),
        ("motion_blur", "sigma", "a finite number > 0", BAD_NUMBERS),
        ("brightness", "shift", "a finite number >= -1 and <= 1", [-1.1, 1.1, math.nan, "0"]),
        ("contrast", "factor", "a finite number >= 0", [*BAD_NUMBERS[2:], 1001]),
        ("contrast", "mean", r"are \('grey', 'channels'\)", ["median", 0]),
        ("saturation", "scale", "a finite number >= 0", BAD_NUMBERS[2:]),
        ("saturation", "shift", "a finite number >= -1 and <= 1", [-1.1, 1.1, math.inf]),
        ("fog", "amount", "a finite number > 0", BAD_NUMBERS),
        ("fog", "decay", "a finite number >= 1 and <= 100", [0.99, 101, math.nan]),
        ("pixelation", "scale", "a finite number > 0 and <= 1", [*BAD_NUMBERS, 1.1]),
        ("jpeg", "quality", r"a whole number in 1\.\.95", [0, 96, -3, 10.5, math.nan, math.inf, "50", True]),
    ],
)
def test_bad_parameters_are_refused_when_the_distortion_is_made_and_when_the_function_is_called(
    corruption, name, allowed, bad, photos
):
    good = dict(PRESETS[corruption][2])
    entry = CORRUPTIONS[corruption]
    drawn = {"index": np.arange(1), "seed": 0} if entry.seeded else {}
    entry.apply(photos[:1], **drawn, **good)
    for value in bad:
        message = rf"^{name} is .*, allowed {allowed if 'are' in allowed else 'is ' + allowed}"
        with pytest.raises(ValueError, match=message):
            of(corruption, **{**good, name: value})
        with pytest.raises(ValueError, match=message):
            entry.apply(photos[:1], **drawn, **{**good, name: value})


def test_brightness_factor_has_bounds_too():
    for bad in (-0.5, math.nan, 1001.0):
        with pytest.raises(ValueError, match=f"factor is {bad}, allowed is a finite number >= 0 and <= 1000"):
            of("brightness", factor=bad)


def test_unknown_and_missing_names_are_refused():
    with pytest.raises(ValueError, match=r"corruption is 'frost', allowed are \['brightness', 'contrast'"):
        of("frost")
    with pytest.raises(ValueError, match=r"gaussian_blur has no parameter 'sgima', allowed are \['sigma'\]"):
        of("gaussian_blur", sgima=1.0)
    with pytest.raises(ValueError, match=r"pristine has no parameter 'sigma', allowed are \[\]"):
        of("pristine", sigma=1.0)
    with pytest.raises(ValueError, match=r"fog needs \['decay'\], found \['amount'\]"):
        of("fog", amount=1.0)
    for parameters in ({}, {"factor": 0.5, "shift": 0.1}):
        with pytest.raises(ValueError, match=r"brightness needs exactly one of \['factor', 'shift'\]"):
            of("brightness", **parameters)
    for seed in (-1, 0.5, "0", None):
        with pytest.raises(ValueError, match=rf"seed is {seed!r}, allowed is a whole number >= 0"):
            of("pristine", seed=seed)


def test_a_distortion_is_immutable_comparable_and_plain():
    given_ = {"sigma": np.float32(0.5)}
    one = of("gaussian_blur", **given_)
    assert one == of("gaussian_blur", sigma=0.5)
    assert json.loads(json.dumps(asdict(one))) == asdict(one)
    assert of("jpeg", quality=10) == Distortion(name="jpeg", corruption="jpeg", parameters={"quality": 10}, seed=4)
    with pytest.raises(FrozenInstanceError):
        one.corruption = "jpeg"
    parameters = {"sigma": 0.5}
    kept = Distortion(name="soft", corruption="gaussian_blur", parameters=parameters)
    parameters["sigma"] = 3.0
    assert kept.parameters == {"sigma": 0.5}


# Presets


def test_presets_are_those_of_cifar_c():
    """Two severities of each, from the definitions' own scale of 0..1."""
    assert [preset("gaussian_noise", s).parameters["sigma"] for s in range(1, 6)] == pytest.approx(
        [255 * sd for sd in (0.04, 0.06, 0.08, 0.09, 0.10)]
    )
    expected = {
        "shot_noise": ({"rate": 500}, {"rate": 50}),
        "impulse_noise": ({"fraction": 0.01}, {"fraction": 0.07}),
        "speckle_noise": ({"sigma": 0.06}, {"sigma": 0.2}),
        "gaussian_blur": ({"sigma": 0.4}, {"sigma": 1.0}),
        "defocus_blur": ({"radius": 0.3, "alias": 0.4}, {"radius": 1.5, "alias": 0.1}),
        "motion_blur": ({"radius": 6, "sigma": 1.0}, {"radius": 9, "sigma": 2.5}),
        "fog": ({"amount": 0.2, "decay": 3.0}, {"amount": 1.5, "decay": 1.75}),
        "brightness": ({"shift": 0.05}, {"shift": 0.3}),
        "contrast": ({"factor": 0.75, "mean": "channels"}, {"factor": 0.15, "mean": "channels"}),
        "saturation": ({"scale": 0.3, "shift": 0.0}, {"scale": 2.5, "shift": 0.2}),
        "pixelation": ({"scale": 0.95}, {"scale": 0.65}),
        "jpeg": ({"quality": 80}, {"quality": 40}),
    }
    assert expected.keys() | {"gaussian_noise"} == PRESETS.keys()
    for corruption, ends in expected.items():
        assert tuple(preset(corruption, s).parameters for s in (1, 5)) == ends


@pytest.mark.parametrize("corruption", PRESETS)
def test_every_severity_changes_real_images_more_than_the_one_before(corruption, photos):
    index = np.arange(len(photos))
    change = [np.abs(preset(corruption, s)(photos, index).astype(int) - photos).mean() for s in range(1, 6)]
    if corruption == "saturation":  # away from colour, then towards more of it
        assert change[0] < change[1] > change[2] < change[3] < change[4]
    elif corruption == "motion_blur":  # severities 3 and 4 differ in pixels that have no weight
        assert change[0] < change[1] < change[2] == change[3] < change[4]
    else:
        assert (np.diff(change) > 0).all(), change
    assert change[0] > 0.5


def test_preset_names_and_what_is_refused():
    assert preset("fog", 3) == Distortion(name="fog 3", corruption="fog", parameters={"amount": 0.75, "decay": 2.5})
    assert preset("gaussian_noise", 5, seed=7).name == "gaussian noise 5"
    assert preset("gaussian_noise", 5, seed=7).seed == 7
    for severity in (0, 6, 1.5, True, "3", None):
        with pytest.raises(ValueError, match=rf"severity is {severity!r}, allowed is a whole number in 1\.\.5"):
            preset("fog", severity)
    for corruption in ("pristine", "snow"):
        with pytest.raises(ValueError, match=f"corruption is '{corruption}', allowed are "):
            preset(corruption, 1)


# Configurations


def conditions(name):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("extract", overrides=[f"conditions={name}"])
    return list(instantiate(cfg.conditions, _convert_="all"))


def test_standard_conditions():
    made = conditions("standard")
    assert [d.name for d in made] == [
        "pristine",
        *(f"blur {s}" for s in ("0.5", "0.8", "1.0", "1.5", "2.0")),
        *(f"noise {s}" for s in ("5", "10", "12.75", "20", "25.5", "40")),
        *("contrast 0.5", "contrast 0.2", "brightness 0.4", "fog 3", "jpeg 10"),
    ]
    assert [d.family for d in made] == ["pristine", *["blur"] * 5, *["noise"] * 6, *["light"] * 4, "compression"]
    for distortion in made[1:12]:
        assert distortion.parameters == {"sigma": float(distortion.name.split()[1])}
    assert made[14].parameters == {"factor": 0.4}
    assert made[15] == preset("fog", 3, seed=9001)


def test_conditions_of_cifar_c():
    made = conditions("cifar_c")
    assert made == cifar_c()
    assert len({d.name for d in made}) == len(made) == 66
    assert made[0].corruption == "pristine"
