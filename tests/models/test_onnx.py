"""Halves and stages as ONNX files answer in onnxruntime what they answer in PyTorch, for any batch."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from offramp.models import torchvision_ops
from offramp.models.data import normalise
from offramp.models.experts import Experts
from offramp.models.split import with_exits
from offramp.models.weights import model_hash

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from offramp.models.onnx_export import CARD, ExportError, export_onnx, export_stages  # noqa: E402

torchvision_ops.ensure()
from torchvision.models import resnet18  # noqa: E402

torch.set_num_threads(1)
RNG = np.random.default_rng(5)


def session(written):
    return onnxruntime.InferenceSession(str(written.path), providers=["CPUExecutionProvider"])


def answers(written, x):
    """What a file says, by name of its outputs."""
    return dict(zip(written.gives, session(written).run(list(written.gives), {written.reads: x}), strict=True))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5)),
    )
    made = with_exits(model, ["2", "4"], input_shape=(3, 24, 20)).train()
    made(torch.randn(8, 3, 24, 20))
    return made.eval()


@pytest.fixture(scope="module")
def pictures():
    return RNG.integers(0, 256, (4, 24, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def whole(network, pictures):
    with torch.no_grad():
        return network(normalise(pictures)).numpy()


@pytest.mark.long
def test_both_halves_at_every_cut(network, pictures, whole, tmp_path):
    written = {w.path.stem: w for w in export_onnx(network.train(), tmp_path)}
    assert sorted(written) == ["cloud_0", "cloud_1", "cloud_2", "edge_1", "edge_2", "edge_3"]
    assert sorted(p.stem for p in tmp_path.iterdir()) == sorted(written)
    assert not network.training
    for cut in range(4):
        for batch in (1, 4):
            x, said = pictures[:batch], whole[:batch]
            features = x
            if cut:
                edge = answers(written[f"edge_{cut}"], x)
                assert edge["logits"] == pytest.approx(said[:, :cut], abs=1e-4)
                assert ("features" in edge) == (cut < 3)
                features = edge.get("features")
            if cut < 3:
                cloud = answers(written[f"cloud_{cut}"], features)
                assert cloud["logits"] == pytest.approx(said[:, cut:], abs=1e-4)
    kept = {session(w).get_modelmeta().custom_metadata_map[CARD] for w in written.values()}
    assert kept == {model_hash(network)}
    assert max(w.gap for w in written.values()) < 1e-4


@pytest.mark.long
def test_stages_one_after_the_other(network, pictures, whole, tmp_path):
    """With the exits of an expert: any cut and any early stop is some of the files."""
    torch.manual_seed(1)
    experts = Experts(network, families=["pristine"], grid=[1, 1, 1], hidden=4).eval()
    with torch.no_grad():
        theirs = experts(normalise(pictures))[:, 0].numpy()
    for heads, said in ((None, whole), (experts["pristine"], theirs)):
        x, stages = pictures, export_stages(network, tmp_path, heads=heads)
        assert [w.path.name for w in stages] == ["stage_1.onnx", "stage_2.onnx", "stage_3.onnx"]
        for i, stage in enumerate(stages):
            out = answers(stage, x)
            assert out["logits"] == pytest.approx(said[:, i], abs=1e-4)
            x = out.get("next")
        assert x is None


def test_a_residual_network(tmp_path):
    torch.manual_seed(0)
    network = with_exits(resnet18(num_classes=10), ["layer1", "layer2"], input_shape=(3, 32, 32)).eval()
    edge, cloud = export_onnx(network, tmp_path, cuts=[1])
    x = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        said = network(normalise(x)).numpy()
    sent = answers(edge, x)
    assert sent["logits"][:, 0] == pytest.approx(said[:, 0], abs=1e-4)
    assert answers(cloud, sent["features"])["logits"] == pytest.approx(said[:, 1:], abs=1e-4)


class Drawing(nn.Module):
    """Answers otherwise each time."""

    def forward(self, x):
        return x.mean((2, 3))[:, :5] + torch.rand_like(x)[:, :5, 0, 0]


def test_what_answers_otherwise_is_refused(network, tmp_path):
    heads = [*list(network.heads)[:2], Drawing()]
    with pytest.raises(ExportError, match=r"edge_3\.onnx answers otherwise than the network by "):
        export_onnx(network, tmp_path, cuts=[3], heads=heads)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ([1, 4], "cuts hold 4, "),
        ([-1], "cuts hold -1, "),
        ([1.5], r"cuts hold 1\.5, "),
        (["a"], "cuts hold 'a', "),
        ([[1]], r"cuts hold \[1\], "),
        ([True], "cuts hold True, "),
        (2, "cuts is 2, "),
    ],
)
def test_cuts_that_are_none(network, tmp_path, cuts, message):
    with pytest.raises(ExportError, match=rf"^{message}allowed (are|is a list of) whole numbers 0\.\.3$"):
        export_onnx(network, tmp_path / "new", cuts=cuts)
    assert not (tmp_path / "new").exists()


def test_weights_of_another_kind(network, tmp_path):
    """The program that calls it gets one sentence, not the exporter's report, and no folder."""
    half = deepcopy(network).half()
    message = r"weights 'segments.0.* are torch.float16 on cpu, allowed are torch.float32 on cpu$"
    for write in (export_onnx, export_stages):
        with pytest.raises(ExportError, match=message):
            write(half, tmp_path / "new")
        with pytest.raises(ExportError, match=r"float16 on cpu"):
            write(network, tmp_path / "new", heads=list(half.heads))
    assert not (tmp_path / "new").exists()


class Counting(nn.Module):
    """Does as many steps as the values say."""

    def forward(self, x):
        return x.mean((2, 3))[:, :5] if x.sum() > 0.0 else x.amax((2, 3))[:, :5]


def test_what_the_exporter_cannot_follow(network, tmp_path):
    with pytest.raises(ExportError, match=r"^edge_3\.onnx cannot be written by PyTorch's exporter \(.+\); allowed is"):
        export_onnx(network, tmp_path, cuts=[3], heads=[*list(network.heads)[:2], Counting()])
    assert not list(tmp_path.iterdir())
