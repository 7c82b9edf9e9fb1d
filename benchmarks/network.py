"""The rows about the network: all exits against the plain backbone, and experts against the network's own exits."""

import time
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


def experts(quick: bool) -> Iterator[Row]:
    """Router and the chosen expert's exits against the network's own exits, 32 x 32 pixels, one thread."""
    import torch

    from offramp.models.data import normalise
    from offramp.models.experts import Experts
    from offramp.models.network import mobilenet_v2_exits
    from offramp.models.router import load_router
    from offramp.models.weights import HERE, load_weights

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = mobilenet_v2_exits().eval().to(memory_format=torch.channels_last)
        load_weights(network, HERE / "mobilenet_v2_cifar10.safetensors")
        bank = Experts.load(network, HERE / "mobilenet_v2_cifar10.experts.safetensors")
        router, heads = load_router(), bank["blur"]
        pixels = torch.randint(0, 256, (BATCH, 32, 32, 3), dtype=torch.uint8)
        images, one = normalise(pixels), normalise(pixels[:1])
        with torch.inference_mode():
            jobs = [
                lambda: network(images),  # so that each of the two that are compared follows a pass of a whole batch
                lambda: (router(pixels), network(images, heads)),
                lambda: network(images),
                lambda: router(pixels),
                lambda: (router(pixels[:1]), network(one, heads)),
                lambda: network(one),
            ]
            taken = in_turns(jobs, 5 if quick else 2 * REPEATS, time.thread_time)
    finally:
        torch.set_num_threads(before)
    name = "router + expert's exits / own exits"
    yield of(f"{name}, batch of {BATCH}", taken[:, 1] / taken[:, 2], "x", target=1.05)
    yield of("· router alone", taken[:, 3] / BATCH * 1e6, "µs an image")
    yield of(f"{name}, one image", taken[:, 4] / taken[:, 5], "x")
