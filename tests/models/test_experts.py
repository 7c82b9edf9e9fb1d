"""Experts share one backbone that their training leaves alone, and are better than it at what they are for."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from offramp.models.data import Split, normalise
from offramp.models.experts import (
    Experts,
    ExpertSpec,
    PooledHead,
    evaluate_experts,
    fit,
    pooled,
    render_card,
    train_experts,
)
from offramp.models.families import FAMILIES, distort_mix
from offramp.models.network import ExitHead, MultiExitNetwork
from offramp.models.weights import WeightsError, read_tensors, write_tensors

torch.set_num_threads(1)

CLASSES = 4
SPEC = ExpertSpec(copies=2, epochs=8, batch=32, learning_rate=1e-2)


def textures(n, seed):
    """Waves, as steep as their class says to either side and of any phase, on any colour: a mirror changes no class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    rows, columns = np.mgrid[:32, :32]
    angle = rng.choice([-1.0, 1.0], n) * labels * np.pi / 6
    along = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
    wave = np.sin(along * rng.uniform(0.7, 1.1, (n, 1, 1)) + rng.uniform(0.0, 6.3, (n, 1, 1)))
    grey = 60.0 * wave[..., None] + rng.normal(0.0, 8.0, (n, 32, 32, 1))
    images = np.clip(grey + rng.uniform(70.0, 180.0, (n, 1, 1, 3)), 0.0, 255.0).astype(np.uint8)
    return Split(images=images, labels=labels, index=np.arange(n) + 1_000 * seed)


def tiny(seed=0, exits=2):
    """A network of random weights whose batch norm has seen images."""
    torch.manual_seed(seed)
    widths = [3, 12, 16, 20][: exits + 1]
    segments = [
        nn.Sequential(nn.Conv2d(a, b, 5, stride=2, padding=2), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in itertools.pairwise(widths)
    ]
    made = MultiExitNetwork(segments, [ExitHead(w, CLASSES) for w in widths[1:]], (3, 32, 32))
    with torch.no_grad():
        made.train()(normalise(textures(64, 9).images))
    return made.eval()


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def split():
    return textures(600, 1)


@pytest.fixture(scope="module")
def trained(split, tmp_path_factory):
    """Experts, the network's state before they were trained, and the folder of their files."""
    network = tiny()
    experts = Experts(network, grid=[2, 1], hidden=16)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    folder = tmp_path_factory.mktemp("experts")
    train_experts(experts, split, SPEC, folder, quiet)
    return experts, before, folder


def state(experts):
    return {k: v.clone() for k, v in experts.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_training_leaves_every_bit_of_the_network_alone(trained):
    experts, before, _ = trained
    assert same(before, experts.network.state_dict())
    assert any("running_var" in k for k in before)
    assert all(p.grad is None for p in experts.network.parameters())
    assert not experts.network.training


def test_networks_weights_are_no_part_of_the_experts(trained):
    experts, _, _ = trained
    assert {tuple(k.split(".")[:2]) for k in experts.state_dict()} == {("sets", family) for family in FAMILIES}


def test_experts_are_better_at_what_they_are_for(trained):
    experts, _, _ = trained
    found = evaluate_experts(experts, textures(500, 2), quiet)
    for family in ("blur", "noise", "light"):
        for i in range(2):
            assert found[family][family][i][0] > found[family]["pristine"][i][0] + 0.05, (family, i)
        assert found[family][family][-1][0] > 0.6
    assert found["pristine"]["pristine"][-1][0] > 0.8


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_gives_what_the_network_gives_with_each_experts_exits(trained, family):
    experts, _, _ = trained
    x = normalise(textures(20, 3).images)
    found = experts(x)
    assert found.shape == (20, 4, 2, CLASSES)
    direct = experts.network(x, heads=experts[family])
    assert torch.allclose(found[:, FAMILIES.index(family)], direct, rtol=0.0, atol=1e-5)
    assert direct.std() > 0.5


@torch.no_grad()
def test_experts_differ(trained):
    experts, _, _ = trained
    found = experts(normalise(textures(20, 3).images))
    for e in range(3):
        assert not torch.allclose(found[:, e], found[:, e + 1], atol=0.1)
    own = experts.network(normalise(textures(20, 3).images))
    assert not torch.allclose(found[:, 0], own, atol=0.1), "the network's own exits are no expert"


def test_one_pass_of_the_backbone_serves_all(trained):
    experts, _, _ = trained
    calls = []
    hooks = [
        s.register_forward_hook(lambda module, _, out: calls.append((module, len(out))))
        for s in experts.network.segments
    ]
    experts(normalise(textures(5, 3).images))
    for hook in hooks:
        hook.remove()
    assert calls == [(s, 5) for s in experts.network.segments]


def test_unknown_expert_is_answered_with_those_there_are(trained):
    experts, _, _ = trained
    with pytest.raises(KeyError, match=r"expert is 'fog', allowed are \('pristine', 'blur', 'noise', 'light'\)"):
        experts["fog"]


def test_finished_experts_are_not_trained_again(trained, split):
    experts, _, folder = trained
    again, seen = Experts(experts.network, grid=[2, 1], hidden=16), []
    train_experts(again, split, SPEC, folder, lambda *done: seen.append(done))
    assert seen == []
    assert same(state(again), state(experts))


def test_killed_in_the_middle_only_the_unfinished_expert_is_begun_again(trained, split, tmp_path):
    experts, _, _ = trained
    few, spec = split.take(150), replace(SPEC, copies=1, epochs=1)
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    whole = train_experts(Experts(experts.network, grid=[2, 1], hidden=16), few, spec, tmp_path / "whole", quiet)

    def killed(what, done, total):
        if what == "noise: training" and done == 1:
            raise KeyboardInterrupt

    folder, stopped = tmp_path / "stopped", Experts(experts.network, grid=[2, 1], hidden=16)
    with pytest.raises(KeyboardInterrupt):
        train_experts(stopped, few, spec, folder, killed)
    assert sorted(p.name for p in folder.iterdir()) == ["blur.safetensors", "pristine.safetensors"]
    seen = []
    resumed = Experts(experts.network, grid=[2, 1], hidden=16)
    train_experts(resumed, few, spec, folder, lambda *done: seen.append(done[0]))
    assert sorted(set(seen)) == ["light: pooling", "light: training", "noise: pooling", "noise: training"]
    assert same(state(resumed), state(whole))


@pytest.mark.parametrize(
    "change",
    [
        lambda split: (split, replace(SPEC, seed=1), {}, None),
        lambda split: (split, replace(SPEC, epochs=9), {}, None),
        lambda split: (split.take(100), SPEC, {}, None),
        lambda split: (split, SPEC, {"hidden": 9}, None),
        lambda split: (split, SPEC, {"grid": [1, 1]}, None),
        lambda split: (split, SPEC, {}, tiny(seed=1)),
    ],
    ids=["seed", "epochs", "images", "hidden", "grid", "network"],
)
def test_files_of_another_run_are_refused(trained, split, change):
    experts, _, folder = trained
    images, spec, form, network = change(split)
    other = Experts(network or experts.network, **{"grid": [2, 1], "hidden": 16, **form})
    before, files = state(other), {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(WeightsError, match=r"pristine\.safetensors belongs to another run .*; move it away"):
        train_experts(other, images, spec, folder, quiet)
    assert same(state(other), before)
    assert {p: p.read_bytes() for p in folder.iterdir()} == files


def test_damaged_file_is_refused(trained, split, tmp_path):
    experts, _, folder = trained
    (tmp_path / "pristine.safetensors").write_bytes((folder / "pristine.safetensors").read_bytes()[:-9])
    with pytest.raises(WeightsError, match="not a readable file"):
        train_experts(Experts(experts.network, grid=[2, 1], hidden=16), split, SPEC, tmp_path, quiet)


@torch.no_grad()
def test_saved_experts_answer_as_before(trained, tmp_path):
    experts, _, _ = trained
    experts.save(tmp_path / "e.safetensors", {"network": "tiny"})
    again = Experts.load(experts.network, tmp_path / "e.safetensors")
    assert (again.families, again.grid, again.hidden) == (FAMILIES, (2, 1), 16)
    assert not again.training
    x = normalise(textures(20, 3).images)
    assert torch.equal(again(x), experts(x))  # training has rounded them to half precision already
    _, header = read_tensors(tmp_path / "e.safetensors", "offramp-experts-1")
    assert header["card"] == {"network": "tiny"}
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_experts_of_another_network_are_refused(trained, tmp_path):
    experts, _, _ = trained
    path = tmp_path / "e.safetensors"
    experts.save(path, {})
    with pytest.raises(WeightsError, match=r"e\.safetensors belongs to a network with other weights"):
        Experts.load(tiny(seed=1), path)
    with pytest.raises(WeightsError, match=r"e\.safetensors belongs to a network with other exits"):
        Experts.load(tiny(exits=3), path)
    with pytest.raises(WeightsError, match="not a readable file"):
        Experts.load(experts.network, tmp_path / "nothing")
    state, header = read_tensors(path, "offramp-experts-1")
    write_tensors(path, {**state, "sets.blur.0.layers.0.bias": torch.zeros(17)}, header, "offramp-experts-1")
    with pytest.raises(WeightsError, match="belongs to"):
        Experts.load(experts.network, path)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"grid": [2]}, r"grid is \(2,\) and hidden 16, allowed are 2 numbers of cells >= 1"),
        ({"grid": [2, 0]}, r"grid is \(2, 0\)"),
        ({"hidden": -1}, "hidden -1, allowed are .* a width >= 0"),
        ({"families": ("blur", "pristine")}, r"families are \('blur', 'pristine'\), .* 'pristine' first"),
        ({"families": ("pristine", "blur", "blur")}, "names that differ"),
        ({"families": ()}, r"families are \(\)"),
    ],
)
def test_form_that_cannot_be_is_refused(form, said):
    with pytest.raises(ValueError, match=said):
        Experts(tiny(), **{"grid": [2, 1], "hidden": 16, **form})


@pytest.mark.parametrize(
    "field", [{"copies": 0}, {"epochs": 0}, {"batch": -1}, {"share": 0.0}, {"share": 1.5}, {"share": float("nan")}]
)
def test_spec_that_cannot_be_is_refused(field):
    name, value = next(iter(field.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}, allowed is"):
        ExpertSpec(**field)


@torch.no_grad()
def test_head_reads_means_of_cells_and_deviations_of_channels():
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4).sin()
    found = PooledHead(3, CLASSES, 2, 0).pool(x)
    assert found.shape == (2, 15)
    for n in range(2):
        cells = [x[n, c, i : i + 2, j : j + 2].mean() for c in range(3) for i in (0, 2) for j in (0, 2)]
        deviations = [(x[n, c] - x[n, c].mean()).square().mean().sqrt() for c in range(3)]
        assert torch.allclose(found[n], torch.stack(cells + deviations), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(("hidden", "layers"), [(0, 1), (8, 3)])
def test_head_classifies_what_it_pools_standardised(hidden, layers):
    head = PooledHead(3, CLASSES, 2, hidden).eval()
    assert len(head.layers) == layers
    head.norm.running_mean.uniform_(-1.0, 1.0)
    head.norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(5, 3, 8, 8)
    standard = (head.pool(x) - head.norm.running_mean) / (head.norm.running_var + head.norm.eps).sqrt()
    assert torch.allclose(head(x), head.layers(standard), atol=1e-5)
    assert torch.equal(head(x), head.classify(head.pool(x)))


def test_one_family_can_be_trained_alone(trained, split, tmp_path):
    experts, _, _ = trained
    alone = Experts(experts.network, grid=[2, 1], hidden=16)
    train_experts(alone, split, SPEC, tmp_path, quiet, ["noise"])
    assert [p.name for p in tmp_path.iterdir()] == ["noise.safetensors"]
    assert same(alone.sets["noise"].state_dict(), experts.sets["noise"].state_dict())
    assert not same(alone.sets["blur"].state_dict(), experts.sets["blur"].state_dict())


@torch.no_grad()
def test_pooled_is_what_the_exits_read_of_distorted_images_every_second_copy_mirrored(trained):
    experts, _, _ = trained
    few, spec = textures(30, 4), replace(SPEC, copies=2, seed=5)
    found = pooled(experts, few, "noise", spec, quiet, chunk=7)
    for copy in range(2):
        images, level = distort_mix(few.images, few.index, "noise", share=spec.share, seed=5_000 + copy)
        assert 0 < (level >= 0).sum() < 30
        x = normalise(images if copy == 0 else images[:, :, ::-1].copy())
        for rows, head, features in zip(found, experts["noise"], experts.network.maps(x), strict=True):
            assert rows.shape == (60, head.norm.num_features)
            here = rows[30 * copy : 30 * (copy + 1)].float()
            assert torch.allclose(here, head.pool(features), rtol=2e-3, atol=2e-3)


def test_fit_standardises_by_its_inputs_and_repeats_itself():
    torch.manual_seed(0)
    labels = torch.arange(200) % CLASSES
    inputs = (torch.randn(200, 15) * 3.0 + 5.0 + 2.0 * labels[:, None]).half()
    heads = [PooledHead(3, CLASSES, 2, 4) for _ in range(2)]
    for head in heads:
        fit(head, inputs, labels, SPEC)
    assert torch.allclose(heads[0].norm.running_mean, inputs.float().mean(0))
    assert torch.allclose(heads[0].norm.running_var.sqrt(), inputs.float().std(0), rtol=0.01)
    assert same(heads[0].state_dict(), heads[1].state_dict())
    assert functional.cross_entropy(heads[0].classify(inputs.float()), labels) < np.log(CLASSES) - 0.2


def test_evaluation_and_card(trained):
    experts, _, _ = trained
    few, seen = textures(60, 5), []
    found = evaluate_experts(experts, few, lambda *done: seen.append(done))
    assert list(found) == list(FAMILIES)
    assert all(list(v) == list(FAMILIES) for v in found.values())
    logits = experts(normalise(few.images))
    best, guess = logits.softmax(-1).max(-1)
    for e, expert in enumerate(FAMILIES):
        for i, (accuracy, confidence) in enumerate(found["pristine"][expert]):
            right = (guess[:, e, i].numpy() == few.labels).mean()
            assert accuracy == pytest.approx(right, abs=1e-4)
            assert confidence == pytest.approx(float(best[:, e, i].mean()), abs=1e-4)
    assert seen[-1][1:] == (4, 4)
    text = render_card("tiny.experts", {"network": "tiny", "seed": 3}, found)
    assert "# Card: tiny.experts" in text
    assert "| seed | 3 |" in text
    accuracy, confidence = found["noise"]["blur"][0]
    assert f"| noise | blur | {accuracy:.3f} / {confidence:.2f} |" in text
    assert text.count("\n|") == 2 + 2 + 2 + 16
