"""One image at a time, on real networks, the pipeline answers as the cache of the same images says it does."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from offramp.bandits import Arm
from offramp.bandits.reveal import FALLBACK, fall_back, reveal
from offramp.bandits.rows import (
    ANSWERED_AT,
    CONFIDENCE,
    CUT,
    EXITS,
    OFFLOADED,
    context_at,
    prediction_at,
    thresholds_at,
)
from offramp.environments.regret import served
from offramp.models.data import Split
from offramp.models.distort import Distortion
from offramp.models.experts import Experts
from offramp.models.extract import extract
from offramp.models.families import FAMILIES
from offramp.models.network import ExitHead, MultiExitNetwork
from offramp.models.pipeline import Answer, Handover, Pipeline
from offramp.models.router import load_router

torch.set_num_threads(1)

SHEET = Path(__file__).parents[1] / "data" / "cifar10_test_first_200.png"
CLASSES, L = 5, 3
DISTORTIONS = (
    Distortion(name="pristine", corruption="pristine"),
    Distortion(name="blur 1.5", corruption="gaussian_blur", parameters={"sigma": 1.5}),
    Distortion(name="noise 40", corruption="gaussian_noise", parameters={"sigma": 40}, seed=3),
    Distortion(name="contrast 0.2", corruption="contrast", parameters={"factor": 0.2}),
)
TEMPERATURES = {
    "raw": {},
    "calibrated": {
        "pristine": [1.5, 2.0, 1.0],
        "blur": [1.2, 1.0, 1.8],
        "noise": [0.7, 1.1, 1.4],
        "light": [2.0, 1.0, 1.3],
    },
}
NEAR = 2e-3  # confidences nearer than this to a threshold, or to each other, may fall either way


@pytest.fixture(scope="module")
def images():
    """The first 200 test images of CIFAR-10, cut from the sheet: 10 rows of 20."""
    sheet = np.asarray(Image.open(SHEET))
    return np.ascontiguousarray(sheet.reshape(10, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(200, 32, 32, 3))


@pytest.fixture(scope="module")
def experts():
    """Of random weights, and unsure enough that every exit answers now and then."""
    torch.manual_seed(0)
    widths = (3, 6, 8, 10)
    segments = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in itertools.pairwise(widths)
    ]
    network = MultiExitNetwork(segments, [ExitHead(w, CLASSES) for w in widths[1:]], (3, 32, 32))
    made = Experts(network, grid=[2, 2, 1], hidden=4)
    with torch.no_grad():
        for part in made.modules():
            if isinstance(part, nn.Linear):
                part.weight.mul_(2.5)
    return made.eval()


@pytest.fixture(scope="module")
def extraction(experts, images, tmp_path_factory):
    rng = np.random.default_rng(0)
    parts = {
        "validation": Split(images=images, labels=rng.integers(0, CLASSES, 200), index=np.arange(200)),
        "test": Split(images=images[:40], labels=rng.integers(0, CLASSES, 40), index=np.arange(40)),
    }
    folder = tmp_path_factory.mktemp("extract")
    return extract(experts, load_router(), parts, DISTORTIONS, folder, lambda *_: None)


@pytest.fixture(scope="module")
def cache(extraction):
    """At temperatures that are not fitted: the labels are drawn, and nothing is to be learnt from them."""
    found = extraction.cache(extraction.split == 1, notes={})
    table = np.array([TEMPERATURES["calibrated"][family] for family in FAMILIES])
    return replace(found, calibrations={"expert_exit": table})


@pytest.fixture(scope="module")
def distorted(images):
    return [d(images[:40], np.arange(40)) for d in DISTORTIONS]


def truths(extraction, temperatures):
    """Confidences (S, E, N, L) at temperatures by family, straight from the logits."""
    temperature = np.array([temperatures.get(family, [1.0] * L) for family in FAMILIES])[:, :, None]
    z = np.stack([part[extraction.split == 1] for part in extraction.logits]).astype(np.float64) / temperature
    return (1.0 / np.exp(z).sum(axis=-1)).transpose(0, 2, 1, 3)  # the largest logit is 0


def decided(cut, thresholds):
    row = np.zeros(context_at(L))
    row[EXITS], row[CUT] = L, cut
    row[thresholds_at(L) : thresholds_at(L) + L] = thresholds
    return row


def rules(rng):
    """A cut and thresholds as a policy may give them: none beyond the cut, and the last exit always answers."""
    cut = int(rng.integers(0, L + 1))
    thresholds = [math.inf] * L
    for i in range(cut):
        thresholds[i] = float(rng.choice([rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0), math.inf, -math.inf]))
    if cut == L:
        thresholds[-1] = -math.inf
    return cut, thresholds


def undecided(truth, thresholds):
    gaps = (
        np.abs(truth - np.array(thresholds)),
        np.abs(np.diff(np.sort(truth))),
        np.abs(truth[-1] - np.array(thresholds)),
    )
    return min(float(g.min()) for g in gaps) < NEAR


@pytest.mark.parametrize("fallback", ["none", "most_confident"])
@pytest.mark.parametrize("calibration", TEMPERATURES)
def test_answers_are_those_of_the_cache(experts, extraction, cache, distorted, calibration, fallback):
    truth = truths(extraction, TEMPERATURES[calibration])
    if calibration == "raw":
        assert np.abs(truth - cache.confidence).max() < 1e-6
    pipeline = Pipeline(experts, load_router(), temperatures=TEMPERATURES[calibration], fallback=fallback)
    options, rng = np.array([1, 0, 0, fallback == "most_confident"]), np.random.default_rng(1)
    asked, ways = set(), set()
    for _ in range(250):
        s, n, (cut, thresholds) = int(rng.integers(4)), int(rng.integers(40)), rules(rng)
        e = int(cache.router[s, n].argmax())
        if undecided(truth[s, e, n], thresholds) or np.diff(np.sort(cache.router[s, n]))[-1] < 0.02:
            continue
        seen = np.zeros(5 + 2 * L)
        row = decided(cut, thresholds)
        reveal(truth[s, e, n], cache.prediction[s, e, n], row, options, seen)
        if options[FALLBACK] == 1:
            fall_back(truth[s, e, n], row, options, seen)
        found = pipeline.answer(distorted[s][n], cut, thresholds)
        assert found.expert == FAMILIES[e]
        assert (found.exit, found.offloaded) == (seen[ANSWERED_AT], bool(seen[OFFLOADED]))
        assert found.confidence == pytest.approx(truth[s, e, n, found.exit - 1], abs=1e-3)
        assert found.prediction == cache.prediction[s, e, n, found.exit - 1]
        shown = ~np.isnan(seen[CONFIDENCE : CONFIDENCE + L])
        assert found.confidences == pytest.approx(seen[CONFIDENCE : CONFIDENCE + L][shown].tolist(), abs=1e-3)
        assert list(found.predictions) == seen[prediction_at(L) :][shown].astype(int).tolist()
        if cut > 0 and all(t == math.inf for t in thresholds[: cut - 1]):
            answer, sent = served(truth[s, e, n], Arm(cut, thresholds[cut - 1]), options)
            assert (found.confidence, found.offloaded) == (pytest.approx(float(answer), abs=1e-3), bool(sent))
        asked.add(e)
        ways.add((cut, found.exit, found.offloaded))
    assert asked == set(range(4))
    assert ways >= {
        (1, 1, False),
        (2, 2, False),
        (3, 1, False),
        (3, 3, False),
        (0, 3, True),
        (1, 3, True),
        (2, 3, True),
    }
    assert ({(2, 1, True), (2, 2, True)} <= ways) == (fallback == "most_confident")


def test_calibrated_cache_is_near_the_pipeline(experts, extraction, cache, distorted):
    """The cache tells temperatures from two numbers an answer, the pipeline from all logits."""
    exact = truths(extraction, TEMPERATURES["calibrated"])
    apart = np.abs(cache.calibrated("expert_exit").confidence - exact)
    assert apart.mean() < 0.004
    assert apart.max() < 0.10
    pipeline = Pipeline(experts, load_router(), temperatures=TEMPERATURES["calibrated"])
    answer = pipeline.answer(distorted[0][0], L, [math.inf, math.inf, -math.inf], "noise")
    assert answer.confidences == pytest.approx(exact[0, 2, 0].tolist(), abs=1e-3)


def test_an_expert_can_be_named_and_the_router_left_out(experts, cache, distorted):
    everywhere = [-math.inf, math.inf, math.inf]
    for pipeline, name, e in (
        (Pipeline(experts, load_router()), "light", 3),
        (Pipeline(experts), None, 0),
        (Pipeline(experts), "blur", 1),
    ):
        found = pipeline.answer(distorted[2][5], 1, everywhere, name)
        assert found.expert == FAMILIES[e]
        assert found.confidence == pytest.approx(cache.confidence[2, e, 5, 0], abs=1e-3)


def test_detection_is_the_routers(experts, cache, distorted):
    pipeline = Pipeline(experts, load_router())
    for s in range(4):
        name, probability = pipeline.detect(distorted[s][7])
        assert np.allclose(probability, cache.router[s, 7], atol=1e-4)
        assert name == FAMILIES[int(cache.router[s, 7].argmax())]
    name, probability = Pipeline(experts).detect(distorted[2][7])
    assert (name, probability.tolist()) == ("pristine", [1.0, 0.0, 0.0, 0.0])


def test_a_temperature_that_is_left_out_is_1(experts, cache, distorted):
    pipeline = Pipeline(experts, temperatures={"blur": [2.0, 2.0, 2.0]})
    rule = [math.inf, math.inf, -math.inf]
    raw, cooled = (pipeline.answer(distorted[0][0], L, rule, name) for name in ("noise", "blur"))
    assert raw.confidences == pytest.approx(cache.confidence[0, 2, 0].tolist(), abs=1e-3)
    assert all(c < r for c, r in zip(cooled.confidences, cache.confidence[0, 1, 0], strict=True))


@torch.no_grad()
def test_edge_hands_over_what_the_cloud_needs_and_computes_nothing_beyond_the_cut(experts, distorted):
    pipeline, network, image = Pipeline(experts), experts.network, distorted[0][3]
    calls = []
    hooks = [s.register_forward_hook(lambda module, *_: calls.append(module)) for s in network.segments]
    for cut in range(L):
        calls.clear()
        rule = [math.inf] * L
        if cut:
            rule[cut - 1] = 2.0
        sent = pipeline.edge(image, cut, rule, "noise")
        assert isinstance(sent, Handover)
        assert calls == list(network.segments[:cut])
        assert (sent.cut, sent.expert, sent.target) == (cut, "noise", 2.0 if cut else math.inf)
        assert len(sent.confidences) == len(sent.predictions) == cut
        answer = pipeline.cloud(sent)
        assert calls == list(network.segments)
        assert (answer.exit, answer.offloaded, answer.expert) == (L, True, "noise")
        assert len(answer.confidences) == cut + 1
    calls.clear()
    answer = pipeline.edge(image, L, [-math.inf, math.inf, -math.inf], "noise")
    assert isinstance(answer, Answer)
    assert calls == [network.segments[0]]
    for hook in hooks:
        hook.remove()


BAD_IMAGES = {
    "float": (np.zeros((32, 32, 3), np.float32), "float32", "(32, 32, 3)"),
    "batch": (np.zeros((1, 32, 32, 3), np.uint8), "uint8", "(1, 32, 32, 3)"),
    "channels first": (np.zeros((3, 32, 32), np.uint8), "uint8", "(3, 32, 32)"),
    "too large": (np.zeros((64, 64, 3), np.uint8), "uint8", "(64, 64, 3)"),
    "grey": (np.zeros((32, 32), np.uint8), "uint8", "(32, 32)"),
    "tensor": (torch.zeros((32, 32, 3), dtype=torch.uint8), "torch.uint8", "[32, 32, 3]"),
    "list": ([[[0, 0, 0]]], "list", "None"),
    "nothing": (None, "NoneType", "None"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
@pytest.mark.parametrize("expert", [None, "blur"])
def test_bad_image_is_named(experts, kind, expert):
    image, *said = BAD_IMAGES[kind]
    with pytest.raises(ValueError, match=r"image is .*, allowed is uint8 of shape \(32, 32, 3\)") as caught:
        Pipeline(experts, load_router()).answer(image, 1, [0.5] * L, expert)
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("cut", "thresholds", "said"),
    [
        (-1, [0.5] * L, r"cut is -1, allowed is 0\.\.3"),
        (4, [0.5] * L, r"cut is 4, allowed is 0\.\.3"),
        (1, [0.5] * 2, r"thresholds are \[0.5, 0.5\], allowed are 3 numbers"),
        (1, [0.5, math.nan, 0.5], r"thresholds are \[0.5, nan, 0.5\], allowed are 3 numbers"),
    ],
)
def test_bad_decision_is_named(experts, distorted, cut, thresholds, said):
    with pytest.raises(ValueError, match=said):
        Pipeline(experts).edge(distorted[0][0], cut, thresholds)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fallback": "surest"}, "fallback is 'surest', allowed are 'none' and 'most_confident'"),
        ({"temperatures": {"fog": [1.0] * L}}, r"temperatures\['fog'\] are .* for each of \('pristine', 'blur'"),
        ({"temperatures": {"blur": [1.0] * 2}}, r"temperatures\['blur'\] are \[1.0, 1.0\], allowed are 3 finite"),
        ({"temperatures": {"blur": [1.0, 0.0, 1.0]}}, r"temperatures\['blur'\]"),
        ({"temperatures": {"blur": [1.0, -2.0, 1.0]}}, r"temperatures\['blur'\]"),
        ({"temperatures": {"blur": [1.0, math.inf, 1.0]}}, r"temperatures\['blur'\]"),
        ({"temperatures": {"blur": [1.0, math.nan, 1.0]}}, r"temperatures\['blur'\]"),
    ],
)
def test_bad_options_are_named(experts, options, said):
    with pytest.raises(ValueError, match=said):
        Pipeline(experts, **options)


def test_experts_that_the_router_does_not_speak_of_are_refused(experts):
    other = Experts(experts.network, families=("pristine", "noise", "blur", "light"), grid=[1] * L, hidden=0)
    with pytest.raises(ValueError, match=r"experts are .*, allowed with a router are .*, in this order"):
        Pipeline(other, load_router())
    assert Pipeline(other).detect(np.zeros((32, 32, 3), np.uint8))[0] == "pristine"
    with pytest.raises(KeyError, match="expert is 'fog', allowed are"):
        Pipeline(other).answer(np.zeros((32, 32, 3), np.uint8), 1, [0.5] * L, "fog")
