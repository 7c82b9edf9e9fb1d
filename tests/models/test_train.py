"""Training is a function of spec and images: killed and resumed it ends in the same bits, and refuses the foreign."""

import itertools
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from offramp.models.data import Split, normalise
from offramp.models.network import ExitHead, MultiExitNetwork
from offramp.models.train import CHECKPOINT, TrainSpec, batches, evaluate, train
from offramp.models.weights import WeightsError, read_tensors, write_tensors

torch.set_num_threads(1)

SPEC = TrainSpec(
    epochs=3,
    batch=16,
    seed=5,
    learning_rate=0.05,
    warmup=0.25,
    momentum=0.9,
    weight_decay=5e-3,
    loss_weights=(0.5, 1.0),
    crop=32,
    small_crop=24,
    small_epochs=1,
)


def tiny():
    """Convolutions of 1 and 3 pixels, one of them depthwise, batch norm and dropout: all that has a state or draws."""
    segments = [
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Dropout(0.3)),
    ]
    return MultiExitNetwork(segments, [ExitHead(8, 10), ExitHead(12, 10)], (3, 32, 32))


def split(n=64, seed=0):
    rng = np.random.default_rng(seed)
    return Split(
        images=rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        labels=rng.integers(0, 10, n),
        index=np.arange(n),
    )


def silent(epoch, done, total, loss):
    assert math.isfinite(loss)


def killed_in_the_second_epoch(checkpoint):
    """Run in a process of its own."""

    def progress(epoch, done, total, loss):
        if (epoch, done) == (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)

    train(tiny, split(), SPEC, checkpoint, progress)


def same_weights(one, other):
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run: its network and its last checkpoint."""
    checkpoint = tmp_path_factory.mktemp("run") / "checkpoint.safetensors"
    return train(tiny, split(), SPEC, checkpoint, silent), checkpoint


def test_killed_run_resumes_to_the_same_bits(finished, tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    ended = subprocess.run([sys.executable, __file__, str(checkpoint)], capture_output=True, timeout=600, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert read_tensors(checkpoint, CHECKPOINT)[1]["epoch"] == 1
    seen = []
    resumed = train(tiny, split(), SPEC, checkpoint, lambda epoch, *_: seen.append(epoch))
    assert seen == [1] * 4 + [2] * 4
    assert same_weights(resumed, finished[0])
    assert resumed.state_dict().keys() == finished[0].state_dict().keys()
    one, other = (read_tensors(path, CHECKPOINT) for path in (checkpoint, finished[1]))
    assert one[1] == other[1]
    assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())  # the momenta too


def test_equal_runs_end_in_the_same_bits_whatever_was_drawn_before(finished, tmp_path):
    torch.manual_seed(999)
    torch.rand(17)
    assert same_weights(train(tiny, split(), SPEC, tmp_path / "c", silent), finished[0])


def test_another_seed_gives_other_weights(finished, tmp_path):
    assert not same_weights(train(tiny, split(), replace(SPEC, seed=6), tmp_path / "c", silent), finished[0])


def test_finished_run_does_nothing_more(finished):
    seen = []
    again = train(tiny, split(), SPEC, finished[1], lambda *done: seen.append(done))
    assert seen == []
    assert not again.training
    assert same_weights(again, finished[0])


def test_progress_counts_epochs_and_batches(tmp_path):
    seen = []
    train(tiny, split(40), replace(SPEC, epochs=2), tmp_path / "c", lambda *done: seen.append(done[:3]))
    assert seen == [(0, 1, 3), (0, 2, 3), (0, 3, 3), (1, 1, 3), (1, 2, 3), (1, 3, 3)]


def test_training_learns_what_can_be_learnt(tmp_path):
    """Images whose class is their brightness: the loss falls far below that of guessing."""
    labels = np.arange(64) % 2
    noise = np.random.default_rng(0).integers(0, 60, (64, 32, 32, 3))
    images = (noise + labels[:, None, None, None] * 150).astype(np.uint8)
    spec = replace(SPEC, epochs=8, small_epochs=0)
    losses = []
    network = train(
        tiny, Split(images=images, labels=labels, index=labels), spec, tmp_path / "c", lambda *d: losses.append(d[3])
    )
    assert losses[0] > 1.2
    assert losses[-1] < 0.4
    assert evaluate(network, Split(images=images, labels=labels, index=labels))[-1]["accuracy"] > 0.95


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"spec": replace(SPEC, learning_rate=0.06)}, "spec"),
        ({"spec": replace(SPEC, epochs=4)}, "spec"),
        ({"spec": replace(SPEC, loss_weights=(1.0, 1.0))}, "spec"),
        ({"split": split(seed=1)}, "data"),
        ({"split": split(63)}, "data"),
    ],
)
def test_checkpoint_of_another_run_is_refused(finished, changed, field):
    before = finished[1].read_bytes()
    run = {"build": tiny, "split": split(), "spec": SPEC, "checkpoint": finished[1], "progress": silent, **changed}
    with pytest.raises(WeightsError, match=rf"its {field} is .*, this run's is .*; move it away") as caught:
        train(**run)
    assert str(finished[1]) in str(caught.value)
    assert finished[1].read_bytes() == before


def test_labels_count_as_data(finished):
    other = split()
    other.labels[0] = (other.labels[0] + 1) % 10
    with pytest.raises(WeightsError, match="its data is"):
        train(tiny, other, SPEC, finished[1], silent)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_damaged_checkpoint_is_refused(finished, tmp_path, share):
    raw = finished[1].read_bytes()
    (tmp_path / "c").write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(WeightsError, match="not a readable file"):
        train(tiny, split(), SPEC, tmp_path / "c", silent)


def test_checkpoint_of_another_network_is_refused(finished):
    def wider():
        heads = [ExitHead(8, 10), ExitHead(13, 10)]
        return MultiExitNetwork([tiny().segments[0], nn.Conv2d(8, 13, 3)], heads, (3, 32, 32))

    with pytest.raises(WeightsError, match="another network"):
        train(wider, split(), SPEC, finished[1], silent)


def test_weights_file_is_no_checkpoint(tmp_path):
    write_tensors(tmp_path / "c", tiny().state_dict(), {}, "offramp-weights-1")
    with pytest.raises(WeightsError, match="schema is 'offramp-weights-1', allowed is 'offramp-checkpoint-1'"):
        train(tiny, split(), SPEC, tmp_path / "c", silent)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_one_loss_weight_for_each_exit(tmp_path, weights):
    with pytest.raises(ValueError, match=f"{len(weights)} loss_weights, but the network has 2 exits"):
        train(tiny, split(), replace(SPEC, loss_weights=weights), tmp_path / "c", silent)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 0}, r"epochs is 0, allowed is 1 or more"),
        ({"batch": -1}, r"batch is -1, allowed is 1 or more"),
        ({"warmup": 0.0}, r"warmup is 0\.0, allowed is a share between 0 and 1"),
        ({"warmup": 1.0}, r"warmup is 1\.0, allowed is a share between 0 and 1"),
        ({"warmup": math.nan}, r"warmup is nan, allowed is a share between 0 and 1"),
        ({"loss_weights": (0.0, 0.0)}, r"loss_weights are \(0\.0, 0\.0\), allowed are weights >= 0"),
        ({"loss_weights": (1.0, -1.0)}, r"loss_weights are \(1\.0, -1\.0\), allowed are weights >= 0"),
        ({"loss_weights": ()}, r"loss_weights are \(\), allowed are weights >= 0"),
        ({"loss_weights": (math.nan, 1.0)}, r"loss_weights are \(nan, 1\.0\), allowed are weights >= 0"),
    ],
)
def test_bad_spec_is_named_with_value_and_what_is_allowed(changed, said):
    with pytest.raises(ValueError, match=said):
        replace(SPEC, **changed)


def test_spec_keeps_loss_weights_as_numbers():
    assert replace(SPEC, loss_weights=[1, 2]).loss_weights == (1.0, 2.0)
    assert replace(SPEC, loss_weights=[1, 2]) == replace(SPEC, loss_weights=(1.0, 2.0))


# Batches


def numbered(n=50):
    """Images that are told apart by their label."""
    return Split(images=split(n).images, labels=np.arange(n), index=np.arange(n))


@pytest.mark.parametrize("n", [50, 48, 5])
def test_every_image_comes_exactly_once_in_an_epoch(n):
    made = list(batches(numbered(n), SPEC, 2))
    assert [len(y) for _, y in made] == [16] * (n // 16) + [n % 16] * (n % 16 > 0)
    assert sorted(torch.cat([y for _, y in made]).tolist()) == list(range(n))


def test_batches_are_a_function_of_seed_and_epoch_alone():
    first = list(batches(numbered(), SPEC, 1))
    np.random.default_rng(0).random(10)
    torch.manual_seed(77)
    other_spec = replace(SPEC, learning_rate=1.0, epochs=9, weight_decay=0.0, loss_weights=(1.0,))
    for (x, y), (u, v) in zip(first, batches(numbered(), other_spec, 1), strict=True):
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    for changed in (batches(numbered(), replace(SPEC, seed=6), 1), batches(numbered(), SPEC, 2)):
        assert not torch.equal(first[0][1], next(changed)[1])


def test_batches_are_crops_of_the_padded_images_some_mirrored():
    source = numbered()
    padded = np.pad(source.images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    found = []
    for x, y in batches(source, SPEC, 1):
        assert x.shape[1:] == (3, 32, 32)
        for image, label in zip(x, y.tolist(), strict=True):
            places = [
                (top, left, flip)
                for top in range(9)
                for left in range(9)
                for flip in (1, -1)
                if torch.equal(
                    image,
                    normalise(padded[label : label + 1, top : top + 32, left : left + 32][:, :, ::flip].copy())[0],
                )
            ]
            assert len(places) == 1
            found += places
    tops, lefts, flips = (set(column) for column in zip(*found, strict=True))
    assert len(tops) > 5
    assert len(lefts) > 5
    assert flips == {1, -1}


def test_first_epochs_use_small_crops():
    assert [next(batches(numbered(), SPEC, epoch))[0].shape[2:] for epoch in range(3)] == [(24, 24), (32, 32), (32, 32)]


@pytest.mark.parametrize(("warmup", "steps"), [(0.2, 10_560), (0.25, 12), (0.3, 7), (0.5, 3), (0.01, 20), (0.9, 11)])
def test_rate_rises_then_falls_to_nothing(warmup, steps):
    spec = replace(SPEC, warmup=warmup)
    rates = [spec.rate(step, steps) for step in range(steps)]
    top = int(np.argmax(rates))
    assert all(a < b for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in itertools.pairwise(rates[top:]))
    assert all(0.0 < rate <= spec.learning_rate for rate in rates)
    assert abs(top - warmup * steps) <= 1.0
    if steps > 1000:
        assert rates[0] < 1e-3 * spec.learning_rate
        assert max(rates) == pytest.approx(spec.learning_rate)
        assert rates[-1] < 1e-6 * spec.learning_rate
        middle = (top + steps) // 2
        assert rates[middle] == pytest.approx(spec.learning_rate / 2, rel=1e-3)


def test_weight_decay_spares_biases_and_batch_norm(tmp_path):
    spec = replace(SPEC, epochs=1, momentum=0.5)
    plain, decayed = (
        train(tiny, split(), replace(spec, weight_decay=w), tmp_path / str(w), silent).state_dict() for w in (0.0, 0.5)
    )
    shrunk = {k: 1.0 - float(decayed[k].norm() / plain[k].norm()) for k in plain if k.endswith(("weight", "bias"))}
    for name in ("segments.0.0.weight", "segments.1.0.weight", "segments.1.1.weight", "heads.0.3.weight"):
        assert shrunk[name] > 0.02
    for name in ("segments.0.1.weight", "heads.0.0.weight", "segments.1.1.bias"):
        assert abs(shrunk[name]) < 0.005


@torch.no_grad()
def test_evaluate_equals_a_direct_computation(finished):
    network, images = finished[0], split(37, seed=3)
    found = evaluate(network, images, batch=10)
    probability = torch.stack([network(normalise(images.images[i : i + 1]))[0].softmax(-1) for i in range(37)])
    assert len(found) == 2
    for j, row in enumerate(found):
        right = sum(int(probability[i, j].argmax()) == int(images.labels[i]) for i in range(37))
        assert row.keys() == {"accuracy", "mean confidence"}
        assert row["accuracy"] == pytest.approx(right / 37, abs=1e-7)
        assert row["mean confidence"] == pytest.approx(float(probability[:, j].amax(-1).mean()), abs=1e-5)
    assert not network.training


if __name__ == "__main__":
    killed_in_the_second_epoch(Path(sys.argv[1]))
