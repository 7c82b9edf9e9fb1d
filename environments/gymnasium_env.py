"""The world as a Gymnasium environment, registered as `offramp/SplitExit-v0`; import this file to register it."""

import copy
import operator
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from offramp.bandits.arms import Arms
from offramp.bandits.costs import MacsAndBytes
from offramp.bandits.rows import FloatArray
from offramp.environments.cache import ConfidenceCache
from offramp.environments.rounds import Rounds
from offramp.environments.stream import Abrupt, Stream
from offramp.environments.world import World

NAME = "offramp/SplitExit-v0"
HORIZON = 10_000
CHANGES = (("pristine", 1.0), ("blur 1.0", 1.0), ("noise 20", 0.25), ("pristine", 4.0))


@cache
def default_world() -> World:
    """The test images of the embedded cache, every cut with every threshold, work and bytes as prices."""
    cache = ConfidenceCache.embedded("mobilenet_v2_cifar10").part("test")
    return World(cache=cache, prices=MacsAndBytes(), arms=Arms.grid(exits=len(cache.exits)))


def made(world: World | None, stream: Stream | None, horizon: int, count: int) -> Rounds:
    """The rounds behind an environment; None stands for the defaults."""
    return Rounds(
        default_world() if world is None else world,
        Abrupt(segments=CHANGES) if stream is None else stream,
        horizon=horizon,
        count=count,
    )


def observations(rounds: Rounds) -> Space[FloatArray]:
    """The space of one observation."""
    low, high = rounds.bounds
    space: Space[Any] = Box(low=low, high=high, dtype=np.float64)
    return space


class OfframpEnv(gymnasium.Env[FloatArray, np.int64]):
    """Where to cut a network with early exits, and how sure an exit must be to answer.

    ## Description
    One step is one image.  The edge computes up to the cut of the chosen arm, answers where an exit is sure enough,
    and otherwise sends what it has to the cloud.  Images, distortions and prices come from a stream that no action
    influences: this is a bandit, with context where samples are routed to experts.

    ## Action Space
    `Discrete(A)`: an arm of the world's table, `env.unwrapped.arms[action]`: a cut with a threshold, or a cascade.

    ## Observation Space
    `Box`, float64, (2 L + 3 + d,) for L exits and d features: what is known before the decision.

    | Numbers | Meaning | Range |
    |---|---|---|
    | 0 | mu, confidence lost per unit of cost | >= 0 |
    | 1 .. L + 1 | edge cost of cuts 0 .. L, cost units | >= 0 |
    | L + 2 .. 2 L + 2 | offload cost of cuts 0 .. L, cost units; -1 = not offered (a quote says +inf) | -1, or >= 0 |
    | the last d | context: the expert and the router's probabilities, where the world routes | finite |

    `offramp.environments.rounds.quote_of` turns them back into a quote, as `Engine.decide` takes it.

    ## Rewards
    Confidence of the answer minus mu times edge and offload cost: the reward of `offramp.environments.rollout`, whose
    sums of a fixed arm at the same seed are those of this environment, to the bit.

    ## Information
    `confidence` (L,) and `prediction` (L,) of each exit, -1 = not revealed; `answered_at`, the exit that answered,
    1..L; `offloaded`; `edge_cost` and `offload_cost` as paid.  `offramp.environments.rounds.observation_of` turns it
    into what `Engine.update` takes.  With `score=True` also `correct`: was the answer right?  It is made from the
    label, which a deployed system does not have: score with it, but let no learner read it.

    ## Starting State
    `reset(seed=n)` starts the stream that `rollout(..., seed=n)` plays; `reset()` starts another one, drawn from the
    environment's own generator.

    ## Episode Termination
    Never; an episode is truncated after `horizon` steps.  Its last observation repeats the quote of the last step.

    ## Arguments
    `world` (default: the embedded MobileNetV2 on CIFAR-10, a grid of cuts and thresholds), `stream` (four stretches of
    distortion and link), `horizon` (10,000 steps), `score` (False).

    ## Version History
    * v0: first version.

    Examples
    --------
    >>> import gymnasium
    >>> import offramp.environments.gymnasium_env
    >>> env = gymnasium.make("offramp/SplitExit-v0", horizon=100)
    >>> observation, info = env.reset(seed=0)
    >>> observation.shape, env.unwrapped.arms[0]
    ((17,), Arm(cut=1, threshold=-inf))
    >>> observation, reward, terminated, truncated, info = env.step(0)
    >>> info["answered_at"], info["offloaded"]
    (1, False)

    """

    metadata = {"render_modes": []}  # noqa: RUF012  (as the base class declares it)

    def __init__(
        self,
        world: World | None = None,
        stream: Stream | None = None,
        horizon: int = HORIZON,
        score: bool = False,
        render_mode: None = None,
    ) -> None:
        self._rounds = made(world, stream, horizon, 1)
        self._score = score
        self._arm = np.zeros(1, dtype=np.int64)
        self.arms = self._rounds.arms
        self.features = self._rounds.features
        self.render_mode = render_mode
        self.action_space = Discrete(len(self.arms))
        self.observation_space = observations(self._rounds)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OfframpEnv":
        """A copy that goes on from here by itself; it shares the world and the rounds laid out, which never change."""
        copied = object.__new__(type(self))
        apart = ("_rounds", "_arm", "_np_random", "action_space")
        copied.__dict__.update(
            {k: copy.deepcopy(v, memo) if k in apart else v for k, v in self.__dict__.items()},
        )
        return copied

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start a stream; `info` says from which seed."""
        super().reset(seed=seed)
        used = int(self.np_random.integers(2**32)) if seed is None else int(seed)
        self._rounds.begin([used])
        return self._rounds.look()[0], {"seed": used}

    def step(self, action: np.int64) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Play an arm on the next image.

        Raises
        ------
        ValueError
            There is no such arm.
        gymnasium.error.ResetNeeded
            No episode is running.

        """
        rounds = self._rounds
        arm = operator.index(action)
        if not 0 <= arm < len(self.arms):
            raise ValueError(f"action is {action}, allowed is 0..{len(self.arms) - 1}")
        if not rounds.running:
            raise gymnasium.error.ResetNeeded("no episode is running: call reset before step")
        self._arm[0] = arm
        rounds.play(self._arm)
        reward, answered, sent, edge, offload, correct = rounds.facts[0].tolist()
        info = {
            "confidence": rounds.shown[0].copy(),
            "prediction": rounds.classes[0].copy(),
            "answered_at": int(answered),
            "offloaded": sent == 1.0,
            "edge_cost": edge,
            "offload_cost": offload,
        }
        if self._score:
            info["correct"] = correct == 1.0
        return rounds.look()[0], reward, False, not rounds.running, info


def register() -> None:
    """Make the environment known to Gymnasium, once."""
    if NAME not in gymnasium.registry:
        gymnasium.register(
            id=NAME,
            entry_point="offramp.environments.gymnasium_env:OfframpEnv",
            vector_entry_point="offramp.environments.gymnasium_vector:OfframpVectorEnv",
        )


register()
