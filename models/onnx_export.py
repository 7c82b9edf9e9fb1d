"""Writes the halves or the stages of a network as ONNX files, and runs each of them to see that it answers the same."""

import numbers
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from offramp.models.data import normalise
from offramp.models.network import MultiExitNetwork
from offramp.models.probing import foreign
from offramp.models.weights import model_hash

CLOSE = 1e-4  # of the largest value
CARD = "offramp.network"  # under which a file keeps the SHA-256 of the network's weights
EXAMPLE, TRIED = 2, 3  # images: a file is tried with another number than it was written with


class ExportError(ValueError):
    """A part cannot be exported, or answers differently; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """One ONNX file.

    Parameters
    ----------
    path
        The file.
    reads, gives
        Names of its input and its outputs.
    gap
        By how much onnxruntime's answer and PyTorch's differed at most, over the largest value.

    """

    path: Path
    reads: str
    gives: tuple[str, ...]
    gap: float


class _Edge(nn.Module):
    """From 8-bit images to the feature map at the cut, and to what the exits up to it say."""

    def __init__(self, network: MultiExitNetwork, cut: int, heads: Sequence[nn.Module] | None) -> None:
        super().__init__()
        self.network, self.cut = network, cut
        self.heads = None if heads is None else nn.ModuleList(heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features, logits = self.network.head(normalise(x), self.cut, self.heads)  # type: ignore[arg-type]
        assert logits is not None
        return (logits,) if self.cut == self.network.n_exits else (features, logits)


class _Cloud(nn.Module):
    """From the feature map at the cut, or 8-bit images, to what all deeper exits say."""

    def __init__(self, network: MultiExitNetwork, cut: int, heads: Sequence[nn.Module] | None) -> None:
        super().__init__()
        self.network, self.cut = network, cut
        self.heads = None if heads is None else nn.ModuleList(heads)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.network.tail(x if self.cut else normalise(x), self.cut, self.heads),)  # type: ignore[arg-type]


class _Stage(nn.Module):
    """One segment and its exit."""

    def __init__(self, segment: nn.Module, head: nn.Module, first: bool, last: bool) -> None:
        super().__init__()
        self.segment, self.head, self.first, self.last = segment, head, first, last

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.segment(normalise(x) if self.first else x)
        logits = self.head(features)
        return (logits,) if self.last else (features, logits)


def export_onnx(
    network: MultiExitNetwork,
    folder: Path,
    *,
    cuts: Iterable[int] | None = None,
    heads: Sequence[nn.Module] | None = None,
) -> list[Written]:
    """Write the edge's and the cloud's half at each cut, try them in onnxruntime, and say what was written.

    `edge_3.onnx` reads "image" (batch, height, width, 3) uint8 and gives "features" (batch, channels, height, width)
    and "logits" (batch, 3, classes) of exits 1 to 3; `cloud_3.onnx` reads "features" and gives "logits" of exits 4 to
    L.  At cut 0 there is no edge half, and the cloud's reads "image"; at cut L there is neither cloud half nor
    "features".  Each file is whole, takes any batch, and has the SHA-256 of the network's weights in its metadata as
    "offramp.network".

    Parameters
    ----------
    network
        With its weights; it is put into evaluation mode.
    folder
        Where the files go; files of these names are replaced.
    cuts
        Which, 0..L; None = all.
    heads
        L exits in place of the network's own, as an expert's.

    Raises
    ------
    ExportError
        There is no such cut, weights are not float32 on the CPU, PyTorch cannot write a part, or a file answers
        differently than the network.

    Notes
    -----
    A half computes all of its exits, and all halves together hold the weights about L times.  Where the cut changes
    from image to image, or a device stops at the first sure exit, stages are what to run: `export_stages`.

    """
    asked = _asked(network, cuts)
    _check_weights(network, heads)
    folder.mkdir(parents=True, exist_ok=True)
    network.eval()
    for head in heads or ():
        head.eval()
    made = model_hash(network)
    return [half for cut in asked for half in _halves(network, cut, heads, folder, made)]


def _asked(network: MultiExitNetwork, cuts: Iterable[int] | None) -> list[int]:
    every = range(network.n_exits + 1)
    if cuts is None:
        return list(every)
    if not isinstance(cuts, Iterable):
        raise ExportError(f"cuts is {cuts!r}, allowed is a list of whole numbers 0..{network.n_exits}")
    given = list(cuts)
    for cut in given:
        if isinstance(cut, bool) or not isinstance(cut, numbers.Integral) or cut not in every:
            raise ExportError(f"cuts hold {cut!r}, allowed are whole numbers 0..{network.n_exits}")
    return sorted({int(cut) for cut in given})


def _check_weights(network: MultiExitNetwork, heads: Sequence[nn.Module] | None) -> None:
    for module in (network, *(heads or ())):
        if strange := foreign(module):
            raise ExportError(f"{strange}, allowed are torch.float32 on cpu")


@torch.no_grad()
def export_stages(
    network: MultiExitNetwork, folder: Path, *, heads: Sequence[nn.Module] | None = None
) -> list[Written]:
    """Write each segment with its exit, try them in onnxruntime, and say what was written.

    `stage_1.onnx` reads "image", all others "features"; each gives the "logits" (batch, classes) of its exit, and all
    but the last also "next", which is the features of the stage behind it.  Stages 1 to c are the edge's half at cut c,
    the rest is the cloud's; no weights are written twice.  Else as `export_onnx`.

    Raises
    ------
    ExportError
        Weights are not float32 on the CPU, PyTorch cannot write a stage, or a file answers differently than the
        network.

    """
    _check_weights(network, heads)
    folder.mkdir(parents=True, exist_ok=True)
    exits = list(network.heads if heads is None else heads)
    network.eval()
    made, x, written = model_hash(network), _images(network), []
    for i, (segment, head) in enumerate(zip(network.segments, exits, strict=True), 1):
        last = i == network.n_exits
        module = _Stage(segment, head, i == 1, last)
        gives, reads = ("logits",) if last else ("next", "logits"), "image" if i == 1 else "features"
        written.append(_written(module, x, folder / f"stage_{i}.onnx", reads, gives, made))
        x = segment(normalise(x) if i == 1 else x).contiguous()
    return written


def _images(network: MultiExitNetwork) -> Tensor:
    channels, height, width = network.input_shape
    drawn = np.random.default_rng(0).integers(0, 256, (EXAMPLE + TRIED, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(drawn)


@torch.no_grad()
def _halves(
    network: MultiExitNetwork, cut: int, heads: Sequence[nn.Module] | None, folder: Path, made: str
) -> Iterator[Written]:
    images = _images(network)
    if cut:
        gives = ("logits",) if cut == network.n_exits else ("features", "logits")
        yield _written(_Edge(network, cut, heads), images, folder / f"edge_{cut}.onnx", "image", gives, made)
    if cut < network.n_exits:
        x = network.head(normalise(images), cut, heads)[0].contiguous() if cut else images
        reads = "features" if cut else "image"
        yield _written(_Cloud(network, cut, heads), x, folder / f"cloud_{cut}.onnx", reads, ("logits",), made)


def _written(module: nn.Module, inputs: Tensor, path: Path, reads: str, gives: tuple[str, ...], made: str) -> Written:
    with warnings.catch_warnings():
        # The exporter's own use of what PyTorch gives up; nothing in a network can cause it or mend it.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        try:
            program = torch.onnx.export(
                module.eval(),
                (inputs[:EXAMPLE],),
                input_names=[reads],
                output_names=list(gives),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = str(error.__cause__ or error).split("\n", 1)[0]
            raise ExportError(
                f"{path.name} cannot be written by PyTorch's exporter ({cause}); allowed is a network whose forward it "
                "follows for any batch"
            ) from error
    assert program is not None
    program.model.metadata_props[CARD] = made
    partial = path.with_name(path.name + ".partial")
    program.save(partial, external_data=False)
    session = onnxruntime.InferenceSession(partial.read_bytes(), providers=["CPUExecutionProvider"])
    tried = inputs[EXAMPLE:]
    gap = 0.0
    for mine, theirs in zip(module(tried), session.run(list(gives), {reads: tried.numpy()}), strict=True):
        gap = max(gap, float((mine - torch.from_numpy(theirs)).abs().max()) / max(1.0, float(mine.abs().max())))
    if not gap <= CLOSE:
        partial.unlink()
        raise ExportError(f"{path.name} answers otherwise than the network by {gap:.3g}, allowed are {CLOSE:.3g}")
    partial.replace(path)
    return Written(path=path, reads=reads, gives=gives, gap=gap)
