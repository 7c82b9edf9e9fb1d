"""Makes Hydra know our launchers and our sweeper; their configurations lie in conf/hydra, but for joblib's."""

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from offramp.experiments.sweeps.on_processes import JoblibLauncher
from offramp.experiments.sweeps.on_ray import RayLauncher
from offramp.experiments.sweeps.tuning import OptunaSweeper

NAMESPACE = "hydra_plugins.offramp"  # Hydra makes no plugin whose configured name begins otherwise


def register() -> None:
    """Make them known; again does no harm."""
    plugins = Plugins.instance()
    for plugin in (JoblibLauncher, RayLauncher, OptunaSweeper):
        plugins.register(plugin)
        plugins.class_name_to_class[f"{NAMESPACE}.{plugin.__name__}"] = plugin
    # Not a file: Hydra would hold it against what the released plugin stores by this name, as against a schema.
    ours = {"_target_": f"{NAMESPACE}.{JoblibLauncher.__name__}", "n_jobs": -1}
    ConfigStore.instance().store(group="hydra/launcher", name="joblib", node=ours, provider="offramp")
