"""B-AlexNet, BranchyNet's AlexNet for 32 pixels: two side exits with convolutions of their own."""

from torch import nn

from offramp.models.network import MultiExitNetwork


def _conv(inputs: int, outputs: int, side: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, side, padding=side // 2), nn.ReLU()]


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1)


def _norm() -> nn.Module:
    return nn.LocalResponseNorm(3, alpha=5e-5, beta=0.75)


def alexnet_exits(*, classes: int = 10, input_size: int = 32, dropout: float = 0.5) -> MultiExitNetwork:
    """B-AlexNet: exits after the second and the third convolution, and its own classifier.

    Parameters
    ----------
    classes
        Classes to tell apart.
    input_size
        Height and width of the images in pixels: a multiple of 16, at least 32.
    dropout
        Dropout before the fully connected layers of the last classifier, in [0, 1).

    Notes
    -----
    Source: Teerapittayanon, McDanel, Kung, BranchyNet (ICPR 2016, arXiv 1709.01686).  The paper's text puts the first
    branch after the first convolution, its code after the second: here it is after the second.  Max-pooling is padded
    by one pixel, so that sides halve exactly.

    """
    if input_size < 32 or input_size % 16:
        raise ValueError(f"input_size is {input_size}, allowed is a multiple of 16 pixels from 32 on")
    segments = [
        nn.Sequential(*_conv(3, 32, 5), _pool(), _norm(), *_conv(32, 64, 5)),
        nn.Sequential(_pool(), _norm(), *_conv(64, 96, 3)),
        nn.Sequential(*_conv(96, 96, 3), *_conv(96, 64, 3), _pool()),
    ]
    cells = (input_size // 8) ** 2  # of the last feature map
    heads = [
        nn.Sequential(
            *(_pool(), _norm(), *_conv(64, 32, 3), *_conv(32, 32, 3), _pool()),
            *(nn.Flatten(), nn.Linear(32 * cells, classes)),
        ),
        nn.Sequential(_pool(), _norm(), *_conv(96, 32, 3), _pool(), nn.Flatten(), nn.Linear(8 * cells, classes)),
        nn.Sequential(
            nn.Flatten(),
            *(nn.Dropout(dropout), nn.Linear(64 * cells, 256), nn.ReLU()),
            *(nn.Dropout(dropout), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, classes)),
        ),
    ]
    return MultiExitNetwork(segments, heads, (3, input_size, input_size))
