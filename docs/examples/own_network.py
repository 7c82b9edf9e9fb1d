"""Your own network: exits trained, a cache extracted, policies compared: `python own_network.py FOLDER`."""

import sys
from pathlib import Path

from own_resnet import ResNet  # your own, trained or not

from offramp.bandits import UCB1, Arms, FinalExit, MacsAndBytes, SplitEES
from offramp.environments import Abrupt, World, rollout
from offramp.models.distort import Distortion
from offramp.models.image_folder import image_folder
from offramp.models.plain_extract import extract_plain
from offramp.models.split import with_exits
from offramp.models.train import TrainSpec, train

out, clear = Path("own_network"), Distortion(name="clear", corruption="pristine")
blurred = Distortion(name="blurred", corruption="gaussian_blur", parameters={"sigma": 1.0})
splits = image_folder(sys.argv[1], size=32, held_out=200)  # FOLDER/train/CLASS and FOLDER/val/CLASS
model = ResNet(classes=int(splits["train"].labels.max()) + 1)
network = with_exits(model, ["blocks.2", "blocks.5"], input_shape=(3, 32, 32))  # exits behind these, and its own
spec = TrainSpec(epochs=20, loss_weights=(0.5, 0.5, 1.0), crop=32)
train(lambda: network, splits["train"], spec, out / "checkpoint.safetensors", print)
found = extract_plain(network, splits, [clear, blurred], out / "parts", print)
cache = found.cache(found.split >= 0, notes={})
cache.save(out / "cache.safetensors")  # for `offramp compare cache=FILE`
world = World(cache=cache.part("test").calibrated("exit"), prices=MacsAndBytes(), arms=Arms.grid(exits=3))
stream = Abrupt(segments=(("clear", 1.0), ("blurred", 1.0)))
for policy in (FinalExit(), SplitEES(threshold=0.8), UCB1()):
    trace, _ = rollout(policy, world, stream, horizon=20_000, seed=0)
    print(policy, f"cost {trace.cost[-1] / 20_000:.3f}, right {trace.mean('correct'):.3f}", sep="\n  ")
