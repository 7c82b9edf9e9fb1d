"""A backbone with side exits that runs whole, up to a cut, or from a cut, with the same result."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from offramp.models import torchvision_ops

torchvision_ops.ensure()
from torchvision.models import mobilenet_v2  # noqa: E402  (its operators must be declared first)

EXIT_BLOCKS = (2, 5, 8, 11, 14, 17)


class ExitHead(nn.Sequential):
    """A side exit: batch norm, global average pooling, linear.

    Parameters
    ----------
    channels
        Channels of the feature map it reads.
    classes
        Classes it tells apart.

    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(nn.BatchNorm2d(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class MultiExitNetwork(nn.Module):
    """A chain of segments with one exit head after each.

    A *cut* i in 0..L says that the first i segments run on the edge: 0 sends the input, L keeps everything on the edge.

    Parameters
    ----------
    segments
        L modules, each reading the feature map of the one before it.
    heads
        L modules, each turning the feature map of its segment into logits (batch, classes).
    input_shape
        Shape of one input, (channels, height, width).

    """

    def __init__(
        self, segments: Sequence[nn.Module], heads: Sequence[nn.Module], input_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        if len(segments) != len(heads):
            raise ValueError(f"{len(segments)} segments but {len(heads)} heads: every segment ends in one exit")
        self.segments = nn.ModuleList(segments)
        self.heads = nn.ModuleList(heads)
        self.input_shape = input_shape

    @property
    def n_exits(self) -> int:
        """Number of exits L, the network's own classifier included."""
        return len(self.segments)

    def forward(self, x: Tensor, heads: Sequence[nn.Module] | None = None) -> Tensor:
        """Logits of every exit in one pass, shape (batch, L, classes)."""
        return self.tail(x, 0, heads)

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """The feature map after each segment, one after the other, (batch, channels, height, width) each."""
        for segment in self.segments:
            x = segment(x)
            yield x

    def head(self, x: Tensor, cut: int, heads: Sequence[nn.Module] | None = None) -> tuple[Tensor, Tensor | None]:
        """Run the edge's part: the feature map at the cut, and the logits of exits 1..cut (batch, cut, classes).

        The logits are None at cut 0, where the input itself is the feature map.  `heads` stands in for the network's
        own L exits, as an expert's do.
        """
        self._check(cut)
        logits = []
        for segment, head in zip(self.segments[:cut], self._exits(heads)[:cut], strict=True):
            x = segment(x)
            logits.append(head(x))
        return x, torch.stack(logits, 1) if logits else None

    def tail(self, features: Tensor, cut: int, heads: Sequence[nn.Module] | None = None) -> Tensor:
        """Run the cloud's part from the feature map at the cut: logits of exits cut+1..L (batch, L - cut, classes)."""
        self._check(cut)
        if cut == self.n_exits:
            raise ValueError(f"cut {cut} leaves nothing to the cloud: the tail needs a cut below {self.n_exits}")
        logits = []
        for segment, head in zip(self.segments[cut:], self._exits(heads)[cut:], strict=True):
            features = segment(features)
            logits.append(head(features))
        return torch.stack(logits, 1)

    def backbone(self, x: Tensor, cut: int = 0) -> Tensor:
        """Logits of the last exit alone (batch, classes), from the feature map at the cut or from the input."""
        for segment in self.segments[cut:]:
            x = segment(x)
        out: Tensor = self.heads[-1](x)
        return out

    def _exits(self, heads: Sequence[nn.Module] | None) -> list[nn.Module]:
        chosen = list(self.heads if heads is None else heads)
        if len(chosen) != self.n_exits:
            raise ValueError(f"{len(chosen)} heads were given, allowed are {self.n_exits}: one for every segment")
        return chosen

    def _check(self, cut: int) -> None:
        if not 0 <= cut <= self.n_exits:
            raise ValueError(f"cut {cut} is not in 0..{self.n_exits}")


def mobilenet_v2_exits(*, classes: int = 10, input_size: int = 32, dropout: float = 0.2) -> MultiExitNetwork:
    """MobileNetV2 with exits after feature blocks 2, 5, 8, 11, 14, 17 and its own classifier, as in I-SplitEE.

    Parameters
    ----------
    classes
        Classes to tell apart.
    input_size
        Height and width of the images in pixels, at least 32.  Below 64 the stem keeps its resolution (stride 1 in
        place of 2), since the original strides would leave one pixel of a 32-pixel image at the last block.
    dropout
        Dropout before the last classifier, in [0, 1).

    Notes
    -----
    Source: Bajpai, Jaiswal, Hanawal, I-SplitEE (arXiv 2401.10541); Sandler et al., MobileNetV2 (arXiv 1801.04381).
    I-SplitEE starts from ImageNet weights at 224 pixels; this network starts from random weights.

    """
    if input_size < 32:
        raise ValueError(f"input_size {input_size} is too small: at least 32 pixels are needed")
    base = mobilenet_v2(weights=None, num_classes=classes, dropout=dropout)
    if input_size < 64:
        base.features[0][0].stride = (1, 1)
    bounds = [0, *(block + 1 for block in EXIT_BLOCKS), len(base.features)]
    segments = [base.features[low:high] for low, high in itertools.pairwise(bounds)]
    heads: list[nn.Module] = [ExitHead(base.features[block].out_channels, classes) for block in EXIT_BLOCKS]
    heads.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), base.classifier))
    return MultiExitNetwork(segments, heads, (3, input_size, input_size))
