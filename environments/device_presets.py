"""Devices from the literature: one published time, scaled by multiply-accumulates to the network at hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from offramp.bandits.costs import Profile
from offramp.environments.cache import ConfidenceCache
from offramp.environments.devices import DeviceProfile


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A published time of one network on one device.

    Parameters
    ----------
    ms
        Milliseconds for one image.
    macs
        Multiply-accumulates of the network for that image.
    network
        Which network, on which images, run by what.
    power_w
        Power in watts of the whole board while computing; None = no figure.
    source
        Where time and power stand, and which of them is from memory.

    """

    ms: float
    macs: float
    network: str
    power_w: float | None
    source: str


PRESETS: Mapping[str, Figure] = {
    "raspberry_pi_4": Figure(
        ms=26.4,
        macs=300.8e6,
        network="MobileNetV2 at 224 x 224, int8 (qnnpack), fused, TorchScript, four threads",
        power_w=6.4,
        source=(
            "time: PyTorch tutorial 'Real Time Inference on Raspberry Pi 4', table of model times; "
            "power: pidramble.com, whole board with four busy cores (2.7 W idle), quoted second-hand; "
            "other reports give 3 to 6 W"
        ),
    ),
    "jetson_nano": Figure(
        ms=15.6,
        macs=564.4e6,
        network="MobileNetV2 at 300 x 300, 16-bit floats, TensorRT on the GPU",
        power_w=10.0,
        source=(
            "time: vendor's launch benchmark, 64 frames a second, quoted second-hand, number format from memory; "
            "power: limit of the board's 10 W mode, from memory"
        ),
    ),
}


def preset(name: str, profile: Profile) -> DeviceProfile:
    """A device from the literature for the network at hand: a first guess, until somebody measures.

    Parameters
    ----------
    name
        One of PRESETS: "raspberry_pi_4", "jetson_nano".
    profile
        What the network asks for, as `cache.profile`.

    Raises
    ------
    ValueError
        The name is unknown.

    Notes
    -----
    Every part gets the published time times its share of multiply-accumulates.  That is wrong in known directions.
    Depthwise layers are bound by memory and take more than their share.  Each layer has a fixed cost, which small
    images and small networks do not earn back: on the Raspberry Pi 4 the same table reports 18.2 ms for
    ShuffleNetV2 x0.5 (41 million multiply-accumulates), where this scale says 3.6, and 100.3 ms for ResNet-18 (1.81
    billion), where it says 159.  Use `DeviceProfile.scaled` to see whether a conclusion depends on it.

    A preset has no fixed costs, a measured profile has them all: on images of 32 pixels the two differ severalfold.
    Take edge and cloud from one method, as `measured.scaled(8.0)` beside `measured`; mixed, the slower device may
    look like the faster one.

    There is no preset for the cloud: no source gives a server's time and multiply-accumulates for one image of a
    network like these.  A profile that was measured on a server, by `offramp profile`, serves as the cloud.

    Examples
    --------
    >>> from offramp.bandits import Profile
    >>> from offramp.environments.device_presets import preset
    >>> profile = Profile(
    ...     segment_macs=(200_000_000, 100_000_000),
    ...     head_macs=(100_000, 800_000),
    ...     payload_bytes=(150_528, 100_352, 0),
    ...     layers=(6, 18),
    ... )
    >>> preset("raspberry_pi_4", profile).edge_ms("own").round(2)
    array([ 0.  , 17.56, 26.4 ])

    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}, allowed are {sorted(PRESETS)}")
    figure = PRESETS[name]
    per_mac = figure.ms / figure.macs
    return DeviceProfile(
        name=name,
        segment_ms=tuple(per_mac * macs for macs in profile.segment_macs),
        head_ms=tuple(per_mac * macs for macs in profile.head_macs),
        router_ms=per_mac * profile.router_macs,
        power_w=figure.power_w,
        work=profile,
        source=figure.source,
        scaled_from=(
            f"{figure.ms:g} ms for {figure.network} ({figure.macs / 1e6:.1f} million multiply-accumulates), "
            f"in proportion to multiply-accumulates: a first guess, since depthwise layers are bound by memory "
            f"and every layer has a fixed cost"
        ),
    )


def device_for(
    cache: ConfidenceCache,
    *,
    name: str | None = None,
    file: str | Path | None = None,
    slower: float = 1.0,
    power_w: float | None = None,
) -> DeviceProfile:
    """The device that a configuration names, for the network of a cache.

    Parameters
    ----------
    cache
        Whose network runs on it.
    name, file
        One of PRESETS, or a profile that was saved; one of the two.
    slower
        Factor on all times, > 0.
    power_w
        Power in watts, in place of the profile's own; None = its own.

    Raises
    ------
    ValueError
        None or both are given, the cache does not say what its network asks for, or the profile is of another network.

    """
    if (name is None) == (file is None):
        raise ValueError(f"name is {name!r} and file {file!r}, allowed is one of the two: a preset or a profile's file")
    if file is not None:
        found = DeviceProfile.load(file)
        found.check(cache)
    elif cache.profile is None:
        raise ValueError(f"profile of the cache is None, allowed is a Profile: the preset {name!r} is scaled by it")
    else:
        found = preset(str(name), cache.profile)
    if power_w is not None:
        found = replace(found, power_w=power_w)
    return found.scaled(slower)
