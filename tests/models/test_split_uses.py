"""A network made of any module works with all that takes a network with exits: training, caches, halves, timing."""

import numpy as np
import pytest
import torch
from torch import nn

from offramp.models import torchvision_ops
from offramp.models.codecs import standard_codecs
from offramp.models.data import Split, normalise
from offramp.models.distort import Distortion
from offramp.models.experts import Experts
from offramp.models.extract import profile_of
from offramp.models.halves import CloudNetwork, EdgeNetwork
from offramp.models.payload_extract import extract_payloads
from offramp.models.plain_extract import extract_plain
from offramp.models.split import with_exits
from offramp.models.timing import measure
from offramp.models.train import TrainSpec, train
from offramp.models.weights import WeightsError, load_weights, model_hash, save_weights

torchvision_ops.ensure()
from torchvision.models import VisionTransformer, resnet18  # noqa: E402

torch.set_num_threads(1)
SHAPE = (3, 32, 32)


class Chain(nn.Module):
    """Three convolutions and a classifier."""

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.three = nn.Conv2d(3, 6, 3, 2), nn.Conv2d(6, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        return self.fc(self.three(self.two(self.one(x).relu()).relu()).mean((2, 3)))


def splits(n=220):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, n)
    pictures = (60 * label[:, None, None, None] + rng.integers(0, 60, (n, 32, 32, 3))).astype(np.uint8)
    part = Split(images=pictures, labels=label, index=np.arange(n))
    return {"train": part, "validation": part, "test": part}


SPEC = TrainSpec(epochs=2, batch=44, learning_rate=0.05, loss_weights=(1.0, 1.0, 1.0), crop=32)


def silent(*_):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("joint") / "checkpoint.safetensors"
    return train(lambda: with_exits(Chain(), ["one", "two"], input_shape=SHAPE), splits()["train"], SPEC, path, silent)


def test_joint_training_moves_every_weight(trained):
    fresh = dict(with_exits(Chain(), ["one", "two"], input_shape=SHAPE).named_parameters())
    for name, p in trained.named_parameters():
        if not name.startswith("heads.0") and not name.startswith("heads.1"):  # whose start is drawn anew
            assert not torch.equal(p, fresh[name]), name


def test_frozen_training_moves_the_exits_alone(tmp_path):
    """The last exit is the model's own: it stays, and batch norms of the backbone forget nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, 2), nn.BatchNorm2d(8))
    model = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    spec = TrainSpec(epochs=2, batch=44, learning_rate=0.05, loss_weights=(1.0, 1.0), crop=32, frozen=True)
    before, first = {}, with_exits(model, ["0.1"], input_shape=SHAPE)
    before |= {name: t.clone() for name, t in first.state_dict().items()}
    done = train(lambda: first, splits()["train"], spec, tmp_path / "a.safetensors", silent)
    moved = {name for name, t in done.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {name for name in before if name.startswith("heads.0.")}
    assert all(p.requires_grad for p in done.parameters())
    again = train(lambda: first, splits()["train"], spec, tmp_path / "a.safetensors", silent)  # from the checkpoint
    assert model_hash(again) == model_hash(done)
    joint = TrainSpec(**{**vars(spec), "frozen": False})
    with pytest.raises(WeightsError, match="its spec is"):
        train(lambda: first, splits()["train"], joint, tmp_path / "a.safetensors", silent)
    pool = nn.Sequential(nn.AdaptiveAvgPool3d((4, 1, 1)), nn.Flatten())
    bare = with_exits(Chain(), ["one"], input_shape=SHAPE, heads=[pool])
    with pytest.raises(ValueError, match="frozen is True, allowed with exits before the last that have weights"):
        train(lambda: bare, splits()["train"], spec, tmp_path / "b.safetensors", silent)


def test_weights_survive_the_disk(trained, tmp_path):
    path = tmp_path / "own.safetensors"
    save_weights(trained, path, {"epochs": 2, "exits": [{"accuracy": 0.5}] * 3})
    other = with_exits(Chain(), ["one", "two"], input_shape=SHAPE)
    load_weights(other, path)
    assert model_hash(other) == model_hash(trained)


def test_a_cache_and_payloads(trained, tmp_path):
    conditions = [Distortion(name="clear", corruption="pristine")]
    plain = extract_plain(trained, splits(), conditions, tmp_path / "plain", silent)
    everything = np.ones(440, dtype=bool)
    cache = plain.cache(everything, notes={})
    with torch.no_grad():
        z = trained(normalise(splits()["test"].images)).double()
    assert np.allclose(cache.confidence[0, 0, 220:], z.softmax(-1).amax(-1), atol=2e-3)
    assert (cache.part("test").prediction[0, 0, :, -1] == z[:, -1].argmax(-1).numpy()).mean() > 0.99
    assert cache.calibrations["exit"].shape == (1, 3)
    assert (cache.profile, cache.hashes["model"]) == (profile_of(trained), model_hash(trained))
    coded = extract_payloads(trained, standard_codecs(), splits(), conditions, tmp_path / "coded", silent)
    assert np.array_equal(coded.extraction.logits[0], plain.logits[0])
    few = {name: part.take(3) for name, part in splits().items()}
    with pytest.raises(WeightsError, match="belongs to other weights"):
        extract_plain(trained, few, conditions, tmp_path / "plain", silent)
    small = Split(images=few["test"].images[:, :16], labels=few["test"].labels, index=few["test"].index)
    with pytest.raises(ValueError, match=r"allowed is \(32, 32, 3\)"):
        extract_plain(trained, {**few, "validation": small, "test": small}, conditions, tmp_path / "small", silent)


@torch.no_grad()
def test_halves_answer_as_the_whole(trained):
    edge, cloud = EdgeNetwork(trained, standard_codecs()), CloudNetwork(trained, standard_codecs())
    picture = splits()["test"].images[0]
    whole = trained(normalise(picture[None]))[0].double()
    for cut in range(3):
        passing = edge.start(picture)
        for _ in range(cut):
            passing.segment()
        confidence, guess, _ = cloud.tail(cut, passing.payload("float32" if cut else "raw"))
        assert confidence[0] == pytest.approx(float(whole[-1].softmax(0).max()), abs=1e-5)
        assert guess[0] == whole[-1].argmax()


def test_timing_and_experts(trained):
    network = with_exits(resnet18(num_classes=10), ["layer1", "layer2", "layer3"], input_shape=SHAPE)
    found = measure(trained, warm_up=0, repeats=2)
    assert found.segments.shape == found.heads.shape == (2, 3)
    assert found.work == profile_of(trained)
    experts = Experts(network, grid=[2, 2, 1, 1], hidden=4)
    assert experts(torch.randn(2, *SHAPE)).shape == (2, 4, 4, 10)


def test_the_work_of_what_no_module_does():
    """Functional convolutions and attention count: 3 -> 6 channels of 3 x 3 to 15 x 15, and 17 tokens of 8."""

    class Bare(Chain):
        def forward(self, x):
            x = nn.functional.conv2d(x, self.one.weight, stride=2)
            return self.fc(self.three(self.two(x)).mean((2, 3)))

    bare = with_exits(Bare(), ["two"], input_shape=SHAPE)
    assert profile_of(bare).segment_macs[0] == 15 * 15 * 6 * 27 + 8 * 8 * 6 * 6 * 9
    tokens = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5)
    made = with_exits(tokens, ["encoder.layers.encoder_layer_0"], input_shape=SHAPE)
    block = 17 * 8 * (24 + 8 + 16 + 16) + 2 * 17 * 17 * 8
    assert profile_of(made).segment_macs == (16 * 8 * 3 * 64 + block, block)
    assert torch.backends.mha.get_fastpath_enabled()


@torch.no_grad()
def test_a_model_wrapped_with_earlyon():
    """Its backbone, the names of its layers and its trained heads are all that is needed."""
    earlyon = pytest.importorskip("earlyon.models", reason="pip install earlyon, to read what it wrapped")
    theirs = earlyon.custom_ee(resnet18(num_classes=10), ["layer1", "layer3"], 10, input_shape=(1, *SHAPE)).eval()
    layers = [point.layer_name for point in theirs.config.exit_points]
    mine = with_exits(theirs.backbone, layers, heads=list(theirs.exit_heads.values()), input_shape=SHAPE)
    x = torch.randn(3, *SHAPE)
    for a, b in zip(mine(x).unbind(1), theirs(x, mode="training"), strict=True):
        assert torch.allclose(a, b, rtol=0.0, atol=1e-5)
