"""The row about the network: all exits in one pass against the plain backbone."""

from collections.abc import Iterator

from row import Row, in_turns, of

BATCH, REPEATS = 100, 15


def exits(quick: bool) -> Iterator[Row]:
    """All exits in one pass against the backbone alone, 32 x 32 pixels, one thread."""
    import torch

    from offramp.models.network import mobilenet_v2_exits

    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = mobilenet_v2_exits().eval().to(memory_format=torch.channels_last)
        images = torch.rand(BATCH, *network.input_shape).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            jobs = [lambda: network(images), lambda: network.backbone(images)]
            taken = in_turns(jobs, 5 if quick else REPEATS)
    finally:
        torch.set_num_threads(before)
    yield of(f"all exits / plain backbone, batch of {BATCH}", taken[:, 0] / taken[:, 1], "x", target=1.3)
    yield of("· all exits", taken[:, 0] * 1e3, "ms a batch")
    yield of("· plain backbone", taken[:, 1] * 1e3, "ms a batch")
