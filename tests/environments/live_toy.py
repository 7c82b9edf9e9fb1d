"""A network of three exits in NumPy, cut in two, and its cloud as a process: `python live_toy.py PORT [MS [KEY]]`."""

import sys
import time

import numpy as np

from offramp.bandits import Arms, Profile
from offramp.environments import ConfidenceCache, Constant, DeviceProfile, Physical, TimedWorld, Weights, World
from offramp.environments.live import CloudApp

SIDE, WIDTH, CLASSES, EXITS = 8, 12, 4, 3
INPUT = SIDE * SIDE * 3
_rng = np.random.default_rng(5)
SEGMENTS = [_rng.normal(size=(WIDTH, n)) / np.sqrt(n) for n in (INPUT, WIDTH, WIDTH)]
HEADS = [_rng.normal(size=(CLASSES, WIDTH)) for _ in range(EXITS)]
IMAGES = _rng.integers(0, 256, (30, SIDE, SIDE, 3), dtype=np.uint8)
LABELS = _rng.integers(0, CLASSES, 30)


def entered(image):
    return (image.reshape(-1) / 127.5 - 1.0) * 3.0


def deeper(x, k):
    return np.tanh(SEGMENTS[k] @ x).astype(np.float32).astype(np.float64)


def spoken(x, k):
    z = HEADS[k] @ x
    p = np.exp(z - z.max())
    return float(p.max() / p.sum()), int(z.argmax()), z


class ToyPass:
    expert = 0

    def __init__(self, image):
        self.image, self.x, self.depth = image, entered(image), 0

    def context(self):
        return np.zeros(0)

    def segment(self):
        self.x = deeper(self.x, self.depth)
        self.depth += 1

    def speak(self):
        return spoken(self.x, self.depth - 1)[:2]

    def payload(self, codec):
        assert codec == ("float32" if self.depth else "raw")
        return self.x.astype("<f4").tobytes() if self.depth else self.image.tobytes()


class ToyEdge:
    exits, classes, identity = EXITS, CLASSES, "00ff" * 16

    def start(self, image):
        return ToyPass(image)


class ToyCloud:
    exits, classes, largest = EXITS, CLASSES, 4 * INPUT
    network = identity = ToyEdge.identity

    def __init__(self, slow_ms=0.0):
        self.slow_ms = slow_ms

    def tail(self, split, payload, *, expert=0, every=False):
        if not 0 <= split < EXITS or expert != 0:
            raise ValueError(f"split is {split} and expert {expert}")
        kind, n = ("<f4", WIDTH) if split else ("u1", INPUT)
        if len(payload) != np.dtype(kind).itemsize * n:
            raise ValueError(f"payload has {len(payload)} bytes")
        time.sleep(self.slow_ms / 1e3)
        x = np.frombuffer(payload, kind)
        x = x.astype(np.float64) if split else entered(x)
        said = []
        for k in range(split, EXITS):
            x = deeper(x, k)
            if every or k == EXITS - 1:
                said.append(spoken(x, k))
        return (
            np.array([c for c, _, _ in said]),
            np.array([k for _, k, _ in said], dtype=np.int64),
            np.array([z for _, _, z in said], dtype=np.float32),
        )


def toy_cache():
    confidence, prediction = np.zeros((1, 1, 30, EXITS)), np.zeros((1, 1, 30, EXITS), dtype=np.int64)
    for i, image in enumerate(IMAGES):
        x = entered(image)
        for k in range(EXITS):
            x = deeper(x, k)
            confidence[0, 0, i, k], prediction[0, 0, i, k], _ = spoken(x, k)
    profile = Profile(
        segment_macs=(40, 20, 20),
        head_macs=(1, 1, 1),
        payload_bytes=(INPUT, 4 * WIDTH, 4 * WIDTH, 0),
        layers=(1, 2, 3),
    )
    return ConfidenceCache.from_arrays(
        confidence=confidence,
        prediction=prediction,
        label=LABELS,
        conditions=["clear"],
        classes=CLASSES,
        profile=profile,
    )


def toy_world(*, link=None, deadline_ms=float("inf"), thresholds=(0.6, 0.9, float("inf")), **more):
    """The toy in time: an edge of 1 ms a segment, a cloud ten times as fast."""
    device = DeviceProfile(name="toy", segment_ms=(1.0, 1.0, 1.0), head_ms=(0.1, 0.1, 0.1), power_w=2.0)
    prices = Physical(edge=device, cloud=device.scaled(0.1), weights=Weights(second=1.0, deadline_ms=deadline_ms))
    arms = Arms.grid(exits=EXITS, thresholds=thresholds, raw_input_allowed=True)
    world = World(cache=toy_cache(), prices=prices, arms=arms, raw_input_allowed=True)
    return TimedWorld(world=world, link=link or Constant(mbit_s=20.0, round_trip_ms=4.0), **more)


if __name__ == "__main__":
    import uvicorn

    slow_ms = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    app = CloudApp(ToyCloud(slow_ms), key=sys.argv[3] if len(sys.argv) > 3 else None)

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            sys.stdout.write(f"{self.servers[0].sockets[0].getsockname()[1]}\n")
            sys.stdout.flush()

    Server(uvicorn.Config(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)).run()
