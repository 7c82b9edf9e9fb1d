"""Many streams through one world as a Gymnasium vector environment, played by one compiled call a step."""

from collections.abc import Sequence
from typing import Any, SupportsInt

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from offramp.bandits.rows import FloatArray, IntArray
from offramp.environments.gymnasium_env import HORIZON, made, observations
from offramp.environments.rounds import ANSWERED, EDGE_PRICE, IS_CORRECT, OFFLOAD_PRICE, REWARD, SENT
from offramp.environments.stream import Stream
from offramp.environments.world import World

Flags = npt.NDArray[np.bool_]


class OfframpVectorEnv(VectorEnv[FloatArray, IntArray, npt.NDArray[Any]]):
    """`offramp.environments.gymnasium_env.OfframpEnv`, n times, each with a stream of its own.

    All episodes are of one length and end together; the step after the last starts the next ones and plays nothing
    (Gymnasium's next-step autoreset).

    Parameters
    ----------
    num_envs
        n >= 1.
    world, stream, horizon, score
        As for the single environment.

    Examples
    --------
    >>> import gymnasium
    >>> import offramp.environments.gymnasium_env
    >>> envs = gymnasium.make_vec("offramp/SplitExit-v0", num_envs=3, horizon=100)
    >>> observations, infos = envs.reset(seed=0)
    >>> infos["seed"].tolist()
    [0, 1, 2]
    >>> observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
    >>> rewards.shape
    (3,)

    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  (as the base class)

    def __init__(
        self,
        num_envs: int = 1,
        world: World | None = None,
        stream: Stream | None = None,
        horizon: int = HORIZON,
        score: bool = False,
    ) -> None:
        self._rounds = made(world, stream, horizon, num_envs)
        self._score = score
        self._begun = False
        self.num_envs = num_envs
        self.arms = self._rounds.arms
        self.single_action_space = Discrete(len(self.arms))
        self.single_observation_space = observations(self._rounds)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start all streams: from seed, seed + 1, ..., from a seed each, or from this environment's own generator."""
        given: list[int | None]
        if seed is None:
            given = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            given = [int(seed) + i for i in range(self.num_envs)]
        else:
            given = list(seed)
        if len(given) != self.num_envs:
            raise ValueError(f"seed holds {len(given)} seeds, allowed are {self.num_envs}, one for each stream")
        super().reset(seed=given[0])
        used = [int(self.np_random.integers(2**32)) if s is None else int(s) for s in given]
        self._rounds.begin(used)
        self._begun = True
        return self._rounds.look(), {"seed": np.array(used), "_seed": np.ones(self.num_envs, dtype=bool)}

    def step(self, actions: IntArray) -> tuple[FloatArray, FloatArray, Flags, Flags, dict[str, Any]]:
        """Play an arm in each stream, (n,)."""
        rounds, n = self._rounds, self.num_envs
        never = np.zeros(n, dtype=bool)
        if not self._begun:
            raise gymnasium.error.ResetNeeded("no episode is running: call reset before step")
        if not rounds.running:
            numbers, info = self.reset()
            return numbers, np.zeros(n), never, never.copy(), info
        arms = self._checked(actions)
        rounds.play(arms)
        facts = rounds.facts
        info = {
            "confidence": rounds.shown.copy(),
            "prediction": rounds.classes.copy(),
            "answered_at": facts[:, ANSWERED].astype(np.int64),
            "offloaded": facts[:, SENT] == 1.0,
            "edge_cost": facts[:, EDGE_PRICE].copy(),
            "offload_cost": facts[:, OFFLOAD_PRICE].copy(),
        }
        if self._score:
            info["correct"] = facts[:, IS_CORRECT] == 1.0
        info |= {f"_{name}": np.ones(n, dtype=bool) for name in info}
        return rounds.look(), facts[:, REWARD].copy(), never, np.full(n, not rounds.running), info

    def _checked(self, actions: npt.ArrayLike | Sequence[SupportsInt]) -> IntArray:
        arms = np.ascontiguousarray(actions)
        if arms.shape != (self.num_envs,) or arms.dtype.kind not in "iu":
            raise ValueError(f"actions are {arms.dtype} {arms.shape}, allowed are {self.num_envs} whole numbers")
        if arms.min() < 0 or arms.max() >= len(self.arms):
            raise ValueError(f"actions are {arms.tolist()}, allowed are 0..{len(self.arms) - 1}")
        return arms.astype(np.int64)
