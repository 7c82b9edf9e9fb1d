"""Routers find what their cards say, image by image in any company; their features are what their names say."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch import nn

from offramp.models.data import Split
from offramp.models.families import FAMILIES, Level
from offramp.models.router import (
    DEFAULT,
    KINDS,
    LinearRouter,
    SpectrumRouter,
    load_router,
    read_card,
    save_router,
)
from offramp.models.router_training import (
    RouterSpec,
    confusion,
    fit_linear,
    fit_spectrum,
    quarter_each,
)
from offramp.models.spectrum import FEATURES, features, log_magnitude
from offramp.models.weights import HERE, WeightsError

torch.set_num_threads(1)
SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"
SHIPPED = {kind: HERE / f"router_{kind}.safetensors" for kind in KINDS}
EACH = pytest.mark.parametrize("kind", KINDS)
SPEC = {"seed": 5, "penalties": (1e-3,), "epochs": 2, "batch": 32, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def images():
    """The first 200 test images of CIFAR-10, cut from the sheet: 10 rows of 20."""
    sheet = np.asarray(Image.open(SHEET))
    return np.ascontiguousarray(sheet.reshape(10, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(200, 32, 32, 3))


@pytest.fixture(scope="module")
def routers():
    return {kind: load_router(path) for kind, path in SHIPPED.items()}


def textures(n, seed, side=32):
    """Coloured noise whose power falls with frequency, bright and dark somewhere: photographs of nothing."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    falling = 1.0 / (np.hypot(rows, columns) + 0.5 / side) ** 1.2
    grey = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(n, side, side))) * falling, s=(side, side))
    grey -= grey.min(axis=(1, 2), keepdims=True)
    grey *= 255.0 / grey.max(axis=(1, 2), keepdims=True)
    tint = rng.normal(0.0, 6.0, (n, 1, 1, 3))
    return np.clip(grey[..., None] + tint, 0, 255).astype(np.uint8)


def split(n, seed):
    return Split(images=textures(n, seed), labels=np.zeros(n, dtype=np.int64), index=np.arange(n))


# What ships


@EACH
def test_two_hundred_images_are_routed_as_the_card_says(kind, images, routers):
    """Every row of the card, by level and by answer, within what 200 of its 10,000 images can differ."""
    card = read_card(SHIPPED[kind])
    seed = int(card["seeds"].split()[-1])
    sample = Split(images=images, labels=np.zeros(200, dtype=np.int64), index=np.arange(200))
    wanted = card["confusion"]
    found = confusion(routers[kind], sample, [Level(r["corruption"], r["level"]) for r in wanted], seed=seed)
    for mine, row in zip(found, wanted, strict=True):
        for family, share in row["answers"].items():
            band = 3.5 * math.sqrt((share * (1.0 - share) + 0.002) / 200)
            assert abs(mine["answers"][family] - share) <= band, (row["corruption"], row["level"], family)


def test_the_default_meets_its_targets():
    """95 % over detectable blur and noise, 90 % of pristine images, each level of the former above 90 %."""
    assert SHIPPED["linear"] == DEFAULT
    right = {(r["corruption"], r["level"]): r["right"] for r in read_card(DEFAULT)["confusion"]}
    blur = [right["gaussian_blur", sigma] for sigma in (0.6, 0.8, 1.0, 1.5, 2.0)]
    noise = [right["gaussian_noise", sigma] for sigma in (10.0, 20.0, 30.0, 40.0)]
    assert np.mean(blur + noise) >= 0.95
    assert min(blur + noise) >= 0.90
    assert right["pristine", 0.0] >= 0.90
    assert right["contrast", 0.4] >= 0.95
    assert right["brightness", 0.4] >= 0.95


@EACH
def test_shipped_files_are_small_and_have_a_card(kind):
    card, text = read_card(SHIPPED[kind]), SHIPPED[kind].with_suffix(".md").read_text(encoding="utf-8")
    assert SHIPPED[kind].stat().st_size < 100_000
    assert card["kind"] == kind
    assert card["evaluated on"].startswith("10000 ")
    assert f"| right on pristine | {card['right on pristine']} |" in text
    assert text.count("gaussian_noise") == sum(r["corruption"] == "gaussian_noise" for r in card["confusion"]) == 6
    for row in card["confusion"]:
        assert sum(row["answers"].values()) == pytest.approx(1.0)
        assert row["right"] == row["answers"][row["family"]]


# Answers


@EACH
def test_answers_are_probabilities_and_belong_to_their_images(kind, images, routers):
    router = routers[kind]
    whole = router(images)
    assert whole.shape == (200, len(FAMILIES))
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    assert torch.allclose(whole.sum(1), torch.ones(200), atol=1e-5)
    assert whole.min() >= 0.0
    order = np.random.default_rng(0).permutation(200)
    assert torch.allclose(router(images[order]), whole[torch.from_numpy(order)], atol=2e-4)
    for i in (0, 63, 64, 199):
        assert torch.allclose(router(images[i : i + 1])[0], whole[i], atol=2e-4)
    assert torch.equal(router(torch.from_numpy(images)), whole)
    assert torch.allclose(router(np.asfortranarray(images)), whole, atol=2e-4)
    assert router(images[:0]).shape == (0, len(FAMILIES))


@settings(max_examples=40, deadline=None)
@given(pixels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(32), st.just(32), st.just(3))))
def test_any_image_gets_an_answer(routers, pixels):
    for router in routers.values():
        answer = router(pixels)
        assert torch.isfinite(answer).all()
        assert torch.allclose(answer.sum(1), torch.ones(len(pixels)), atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 49), st.integers(1, 3), st.sampled_from(sorted(KINDS)))
def test_other_sizes_have_routers_of_their_own(side, n, kind):
    router = KINDS[kind](side)
    answer = router(textures(n, 0, side))
    assert answer.shape == (n, len(FAMILIES))
    assert torch.isfinite(answer).all()
    assert router.macs > KINDS[kind](20).macs or side == 20
    with pytest.raises(ValueError, match=rf"allowed is \(n, {side}, {side}, 3\): this router is trained for {side}"):
        router(textures(n, 0, side + 1))


@EACH
def test_images_of_another_kind_are_refused(kind, images, routers):
    router = routers[kind]
    for bad, name in ((images.astype(np.float32), "float32"), (images.astype(np.int64), "int64")):
        with pytest.raises(ValueError, match=rf"images are {name}, allowed is uint8 in 0\.\.255"):
            router(bad)
    for bad in (images[0], images[:, :28], images[..., :1], images.transpose(0, 3, 1, 2), images[None]):
        with pytest.raises(ValueError, match=r"images have shape \(.*\), allowed is \(n, 32, 32, 3\)"):
            router(bad)
    with pytest.raises(ValueError, match="side is 19, allowed is 20 pixels or more"):
        KINDS[kind](19)


# Features


def test_features_are_what_their_names_say():
    images = textures(5, 3)
    found = dict(zip(FEATURES, features(torch.from_numpy(images)).numpy().T, strict=True))
    grey = images @ np.array([0.299, 0.587, 0.114])
    mask = np.outer([1, -2, 1], [1, -2, 1])
    cross = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])

    def answer(plane, weights):
        windows = np.lib.stride_tricks.sliding_window_view(plane, (3, 3), axis=(1, 2))
        return np.abs((windows * weights).sum((-1, -2)))

    chroma = images[..., 0].astype(float) - images[..., 2]
    steps = answer(grey, cross)
    dark, bright = images.min(axis=3).astype(float), images.max(axis=3).astype(float)
    wanted = {
        "log mean square of the Laplacian": np.log((steps**2).mean((1, 2)) + 0.1),
        "log mean of the Laplacian's magnitude": np.log(steps.mean((1, 2)) + 0.1),
        "log largest magnitude of the Laplacian": np.log(steps.max((1, 2)) + 0.1),
        "log noise of grey": np.log(answer(grey, mask).mean((1, 2)) + 0.1),
        "log noise of red minus blue": np.log(answer(chroma, mask).mean((1, 2)) + 0.1),
        "log variance": np.log(grey.var((1, 2)) + 0.1),
        "log range": np.log(bright.max((1, 2)) - dark.min((1, 2)) + 0.1),
        "mean": grey.mean((1, 2)) / 255,
        "darkest": dark.min((1, 2)) / 255,
        "brightest": bright.max((1, 2)) / 255,
        "mean dark channel": dark.mean((1, 2)) / 255,
        "mean bright channel": bright.mean((1, 2)) / 255,
    }
    rows, columns = np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32), indexing="ij")
    radius = np.hypot(rows, columns)
    power = np.log(np.abs(np.fft.fft2(grey)) ** 2 / 1024 + 0.1)  # the whole plane, where features see half of it
    for ring in range(10):
        inside = (radius > 0) & ((radius * 18).astype(int).clip(max=9) == ring)
        wanted[f"log power of ring {ring}"] = power[:, inside].mean(axis=1)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, abs=2e-3), name


@pytest.mark.parametrize("sigma", [3.0, 10.0])
def test_noise_is_measured_in_its_own_unit(sigma):
    """The mask's mean absolute answer to white noise is 6 sqrt(2 / pi) standard deviations."""
    noise = np.random.default_rng(0).normal(128.0, sigma, (40, 32, 32, 3))
    found = features(torch.from_numpy(np.rint(noise).astype(np.uint8)))[
        :, FEATURES.index("log noise of red minus blue")
    ]
    estimate = (found.double().exp().mean().item() - 0.1) * math.sqrt(math.pi / 2.0) / 6.0
    assert estimate == pytest.approx(math.sqrt(2.0) * math.hypot(sigma, 1 / math.sqrt(12)), rel=0.03)


def test_spectrum_has_a_wave_where_its_frequency_is():
    x = np.arange(32)
    wave = np.rint(128.0 + 100.0 * np.cos(2.0 * np.pi * (5 * x[None] + 3 * x[:, None]) / 32.0)).astype(np.uint8)
    spectrum = log_magnitude(torch.from_numpy(np.repeat(wave[None, :, :, None], 3, axis=3)))[0]
    assert spectrum.shape == (32, 17)
    two = spectrum.flatten().topk(2).indices
    assert {(int(i) // 17 - 16, int(i) % 17) for i in two} == {(0, 0), (3, 5)}
    assert spectrum[16, 0] == pytest.approx(math.log1p(128.0 * 1024), abs=1e-3)
    assert spectrum[19, 5] == pytest.approx(math.log1p(50.0 * 1024), abs=1e-2)


@EACH
def test_multiplications_are_counted(kind, routers):
    """Layers counted from what passes through them; the transform and the rest are what remains."""
    router, seen = routers[kind], []

    def count(layer, given, made):
        seen.append(layer.weight[0].numel() * made[0].numel())

    hooks = [m.register_forward_hook(count) for m in router.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    router(textures(1, 0))
    for hook in hooks:
        hook.remove()
    rest = router.macs - sum(seen)
    assert 0 < 12_800 < rest < 60_000  # 1.25 N log2 N = 12,800 for the transform alone
    assert router.macs < 800_000


# Files


@EACH
def test_saved_is_loaded(kind, images, tmp_path):
    torch.manual_seed(0)
    router = KINDS[kind]()
    router.mean.normal_()
    nn.init.normal_(router.head[-1].weight if kind == "spectrum" else router.head.weight, std=0.01)
    path = tmp_path / "mine.safetensors"
    save_router(router, path, {"note": [1, 2]})
    assert torch.equal(load_router(path)(images), router(images))
    assert read_card(path) == {"note": [1, 2]}
    assert not list(tmp_path.glob("*.partial"))


def test_a_file_of_something_else_is_refused(tmp_path, monkeypatch):
    from offramp.models import router as module

    path = tmp_path / "mine.safetensors"
    with pytest.raises(WeightsError, match="not a readable file"):
        load_router(path)
    with pytest.raises(WeightsError, match="schema is 'offramp-weights-1', allowed is 'offramp-router-1'"):
        load_router(HERE / "mobilenet_v2_cifar10.safetensors")
    path.write_bytes(DEFAULT.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable file"):
        load_router(path)
    odd = LinearRouter()
    odd.kind = "cubic"
    save_router(odd, path, {})
    with pytest.raises(WeightsError, match=r"kind is 'cubic', allowed are \['linear', 'spectrum'\]"):
        load_router(path)
    odd.kind = "spectrum"
    save_router(odd, path, {})
    with pytest.raises(WeightsError, match="its tensors do not belong to a spectrum router of 32 pixels"):
        load_router(path)
    save_router(LinearRouter(), path, {})
    monkeypatch.setattr(module, "FAMILIES", ("pristine", "rain"))
    with pytest.raises(WeightsError, match=r"families are \['pristine', 'blur', 'noise', 'light'\], allowed are"):
        load_router(path)


# Training


def test_a_quarter_of_the_images_belongs_to_each_family():
    given_ = split(202, 0)
    made, family = quarter_each(given_, seed=1)
    assert sorted(np.bincount(family)) == [50, 50, 51, 51]
    same = (made == given_.images).all(axis=(1, 2, 3))
    assert same[family == 0].all()
    assert not same[family != 0].any()
    again, as_before = quarter_each(given_, seed=1)
    assert np.array_equal(made, again)
    assert np.array_equal(family, as_before)
    assert not np.array_equal(family, quarter_each(given_, seed=2)[1])


def test_both_learn_and_a_killed_training_goes_on_where_it_was(tmp_path):
    training, validation = (quarter_each(split(n, s), seed=s) for n, s in ((800, 10), (200, 11)))
    heard = []
    spec = RouterSpec(**{**SPEC, "epochs": 6})
    linear = fit_linear(training, validation, spec, lambda *told: heard.append(told))
    assert heard[-1][:3] == ("linear, penalty 0.001", 1, 1)
    assert heard[-1][3] >= 0.85
    right = linear(validation[0]).argmax(1).numpy() == validation[1]
    assert right.mean() == pytest.approx(heard[-1][3])

    class KilledError(RuntimeError):
        pass

    def kill(name, done, total, accuracy):
        if done == 3:
            raise KilledError

    whole = fit_spectrum(training, validation, spec, tmp_path / "whole", lambda *told: heard.append(told))
    with pytest.raises(KilledError):
        fit_spectrum(training, validation, spec, tmp_path / "half", kill)
    resumed = []
    half = fit_spectrum(training, validation, spec, tmp_path / "half", lambda *told: resumed.append(told))
    assert [told[1] for told in resumed] == [4, 5, 6]
    assert all(tensor.equal(half.state_dict()[name]) for name, tensor in whole.state_dict().items())
    best = max(told[3] for told in heard if told[0] == "spectrum")
    assert (whole(validation[0]).argmax(1).numpy() == validation[1]).mean() == pytest.approx(best)
    assert best >= 0.5
    other = RouterSpec(**{**SPEC, "epochs": 7})
    with pytest.raises(WeightsError, match="move it away"):
        fit_spectrum(training, validation, other, tmp_path / "half", kill)
    assert isinstance(half, SpectrumRouter)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("penalties", (), "at least one number >= 0"),
        ("penalties", (-1.0,), "at least one number >= 0"),
        ("epochs", 0, "1 or more"),
        ("batch", 0, "1 or more"),
        ("learning_rate", 0.0, "a finite number > 0"),
    ],
)
def test_a_bad_spec_is_named(field, value, allowed):
    with pytest.raises(
        ValueError, match=f"{field} .* {value!r}, allowed is {allowed}".replace("(", r"\(").replace(")", r"\)")
    ):
        RouterSpec(**{**SPEC, field: value})


def test_the_program_writes_routers_cards_and_figure(images, tmp_path, monkeypatch):
    from hydra import compose, initialize_config_module

    from offramp.experiments import router as program
    from offramp.models import data

    parts = {
        name: Split(images=images[a:b], labels=np.zeros(b - a, dtype=np.int64), index=np.arange(a, b))
        for name, a, b in (("train", 0, 120), ("validation", 120, 160), ("test", 160, 200))
    }
    monkeypatch.setattr(data, "cifar10", lambda root, download: parts)
    few = ["spec.epochs=1", "threads=1", "timing.repeats=1", f"folder={tmp_path}"]
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("router", overrides=few)
        bad = compose("router", overrides=[*few, "detectable.gaussian_blur=[0.7]"])
    assert program.run(cfg) == tmp_path
    assert (tmp_path / "router_confusion.png").stat().st_size > 10_000
    for kind in KINDS:
        path = tmp_path / f"router_{kind}.safetensors"
        card = read_card(path)
        assert path.with_suffix(".md").read_text(encoding="utf-8") == program.render(path.stem, card)
        assert load_router(path).kind == card["kind"] == kind
        assert len(card["confusion"]) == 30
        assert card["right on pristine"] == card["confusion"][0]["right"]
    with pytest.raises(ValueError, match=r"detectable names Level\(corruption='gaussian_blur', value=0.7\)"):
        program.run(bad)
