"""The machine before and after a run: parts after a rest, the cloud through its server, steadiness."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from offramp.environments.devices import DeviceProfile
from offramp.environments.live.client import Client
from offramp.environments.live.wire import REQUEST_BYTES, Reply, Request, stamp
from offramp.environments.timed.tables import BYTES, DECODE_MS, ENCODE_MJ, ENCODE_MS, Facts
from offramp.models.distort import Images
from offramp.models.extract import profile_of
from offramp.models.halves import EdgeNetwork
from offramp.models.network import MultiExitNetwork
from offramp.models.timing import Timing, measure

FIXED = 100  # passes of the fixed piece of work


def through_the_half(
    half: EdgeNetwork, network: MultiExitNetwork, images: Images, *, rest_ms: float, repeats: int
) -> Timing:
    """The times of an edge's half after a rest, as the edge calls it, segment by segment; "whole" is their sum.

    Parameters
    ----------
    half, network
        The edge's half, and the network that it was made of.
    images
        What it computes on in turn, (n, height, width, 3).
    rest_ms
        Milliseconds before each image, >= 0.
    repeats
        Images that count, R >= 1.

    """
    taken = np.zeros((repeats, 2, half.exits))
    for turn in range(-3, repeats):
        time.sleep(rest_ms / 1e3)
        image = half.start(images[turn % len(images)])
        for exit in range(half.exits):
            began = time.perf_counter()
            image.segment()
            between = time.perf_counter()
            image.speak()
            taken[max(turn, 0), :, exit] = 1e3 * (between - began), 1e3 * (time.perf_counter() - between)
    return Timing(
        segments=taken[:, 0],
        heads=taken[:, 1],
        router=None,
        whole=taken[:, 0].sum(1) + taken[:, 1, -1],
        batch=1,
        threads=1,
        network=half.network,
        work=profile_of(network),
        pace=rest_ms / 1e3,
    )


def mean_profile(timing: Timing, name: str) -> DeviceProfile:
    """The profile of a timing with means in place of medians: a mean latency is made of means."""
    medians = timing.profile(name=name)
    return replace(
        medians,
        segment_ms=tuple(timing.segments.mean(0).round(6).tolist()),
        head_ms=tuple(timing.heads.mean(0).round(6).tolist()),
        whole_ms=float(timing.whole.mean().round(6)),
        source=medians.source.replace("medians", "means"),
    )


def steadiness(network: MultiExitNetwork) -> dict[str, Any]:
    """A fixed piece of work, again and again: median, mean, 95 % quantile in ms, and how busy the machine is."""
    whole = measure(network, warm_up=5, repeats=FIXED).whole
    return {
        "median_ms": float(np.median(whole)),
        "mean_ms": float(whole.mean()),
        "p95_ms": float(np.quantile(whole, 0.95)),
        "load": os.getloadavg()[0],
        "cores": os.cpu_count() or 1,
    }


def through_the_server(
    half: EdgeNetwork, url: str, variants: Sequence[tuple[int, str]], images: Images, *, rest_ms: float, repeats: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Milliseconds of coding here, and from the question's last byte to the cloud's answer, after a rest, (R, V) each.

    Nothing shapes the link here: what the second holds beyond the cloud's computing is what the programs between take.

    Parameters
    ----------
    half, url
        The edge's half of the network, and the cloud's address.
    variants
        V pairs of split and codec.
    images
        What is asked about in turn, (n, height, width, 3).
    rest_ms
        Milliseconds before each question, >= 0.
    repeats
        Questions of each variant, R >= 1; their order is drawn anew each time.

    """
    client, rng = Client(url), np.random.default_rng(0)
    coding, away = np.zeros((repeats, len(variants))), np.zeros((repeats, len(variants)))
    try:
        for turn in range(repeats):
            for v in rng.permutation(len(variants)):
                split, codec = variants[v]
                time.sleep(rest_ms / 1e3)
                image = half.start(images[rng.integers(len(images))])
                for _ in range(split):
                    image.segment()
                    image.speak()
                began = time.perf_counter()
                payload = image.payload(codec)
                coding[turn, v] = 1e3 * (time.perf_counter() - began)
                asked = Request(number=0, split=split, network=stamp(half.identity), payload=payload, expert=0)
                body = asked.pack()
                data = client.head(len(body)) + body

                def send(write: Callable[[bytes], None], data: bytes = data) -> bool:
                    write(data)
                    return True

                began = time.perf_counter()
                raw = client.ask(send, time.monotonic() + 10.0)
                away[turn, v] = 1e3 * (time.perf_counter() - began)
                Reply.read(raw, asked, exits=half.exits, classes=half.classes)
    finally:
        client.close()
    return coding, away


def calibrated(
    facts: Facts,
    variants: Sequence[tuple[int, str]],
    coding_ms: Sequence[float],
    away_ms: Sequence[float],
    slower: float,
) -> Facts:
    """The facts of a world with times of coding and of the cloud as they were measured through the server.

    Parameters
    ----------
    facts, variants
        Of the world, and (split, codec) of each of its variants.
    coding_ms
        Of each variant on this machine, (V,).
    away_ms
        From the last byte of a question to the answer, decoding included, (V,).
    slower
        How many times slower the edge codes.

    """
    expected, cloud = facts.expected.copy(), facts.cloud.copy()
    power = float(facts.edge[1, -1] / facts.edge[0, -1])
    expected[ENCODE_MS] = slower * np.asarray(coding_ms)
    expected[ENCODE_MJ] = power * expected[ENCODE_MS]
    splits = np.array([split for split, _ in variants])
    computing = np.asarray(away_ms) - expected[DECODE_MS]
    for split in np.unique(splits):
        cloud[split] = max(float(computing[splits == split].mean()), 0.0)
    return facts._replace(expected=expected, cloud=cloud)


def with_heads(facts: Facts, url: str) -> Facts:
    """The facts of a world in which each question bears its head and frame, as on the line."""
    more = REQUEST_BYTES + len(Client(url).head(99_999))
    expected = facts.expected.copy()
    expected[BYTES] += more
    return facts._replace(expected=expected, sent_bytes=facts.sent_bytes + more)
