"""The study of missed deadlines: its measures by hand, one cell recomputed without its code, its command end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp import environments
from offramp.bandits import Arms, FinalExit
from offramp.environments import Abrupt, CacheError, ConfidenceCache, Stationary
from offramp.environments.devices import DeviceProfile
from offramp.environments.link_traces import LinkTrace
from offramp.environments.links import preset
from offramp.environments.payloads import PayloadTable
from offramp.environments.physical import Physical, Weights
from offramp.environments.timed import Journal, Paced, TimedWorld, rollout_timed
from offramp.environments.timed.tables import CORRECT, DROPPED, FIELDS, LATENCY
from offramp.environments.world import World
from offramp.experiments import deadline as study
from offramp.experiments.deadline import measures, places, players, tables
from offramp.experiments.deadline.runs import over
from offramp.experiments.deadline.study import course

HERE = Path(study.__file__).parent
CIFAR = "mobilenet_v2_cifar10"
NETTE = "mobilenet_v2_imagenette.payloads.safetensors"
SMALL = [
    f"cache={CIFAR}",
    "payloads=null",
    "times=null",
    "mixed=[pristine,blur 1.0]",
    "~links.lte",
    "~links.cell_3g",
    "calibrations=[raw,exit]",
    "quick=true",
]


def config(*overrides):
    with initialize_config_module("offramp.conf", version_base="1.3"):
        return compose("deadline", overrides=list(overrides))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The command on a stand-in: two links, two calibrations, two seeds; its folder and what it recorded."""
    folder = tmp_path_factory.mktemp("study")
    study.run(config(*SMALL), folder)
    return folder, json.loads((folder / "result.json").read_text(encoding="utf-8"))[CIFAR]


def journal(latency, correct, dropped):
    pages = np.zeros((len(latency), len(FIELDS)))
    pages[:, LATENCY], pages[:, CORRECT], pages[:, DROPPED] = latency, correct, dropped
    return Journal(pages, 0, 0.0)


# The measures.


def test_batches_by_hand():
    """A dropped request is no answer: it counts as wrong, and not in the mean time."""
    found = journal([10.0, 30.0, 0.0, 50.0, 0.0, 0.0], [1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 1, 1])
    mean_ms, right = measures.batches(found, 2)
    assert mean_ms.tolist() == [20.0, 50.0, np.inf]
    assert right.tolist() == [0.5, 0.5, 0.0]
    assert measures.missed_batches(mean_ms, right, [19.0, 20.0, 60.0], 0.5).tolist() == [1.0, 2 / 3, 1 / 3]
    assert measures.plateau(right, 0.5) == 1 / 3
    assert measures.drop_ms(mean_ms, right, 0.5) == 35.0
    assert np.isnan(measures.drop_ms(mean_ms, right, 0.6))
    assert measures.missed_requests(found, [30.0, 50.0]).tolist() == [4 / 6, 3 / 6]
    assert measures.right_in_time(found, [9.0, 10.0, 50.0]).tolist() == [0.0, 1 / 6, 2 / 6]
    with pytest.raises(ValueError, match="batch is 4 with 6 requests, allowed is a whole number >= 1 that divides"):
        measures.batches(found, 4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 1e4), st.booleans(), st.booleans()), min_size=4, max_size=40), st.data())
def test_less_is_missed_the_longer_one_waits(rows, data):
    rows = rows[: len(rows) // 4 * 4]
    found = journal(*np.array([(ms * (not out), right and not out, out) for ms, right, out in rows]).T)
    deadlines = sorted(data.draw(st.lists(st.floats(0.0, 2e4), min_size=2, max_size=6)))
    target = data.draw(st.floats(0.01, 0.99))
    mean_ms, right = measures.batches(found, 4)
    by_request, by_batch = (
        measures.missed_requests(found, deadlines),
        measures.missed_batches(mean_ms, right, deadlines, target),
    )
    assert (np.diff(by_request) <= 0.0).all()
    assert (np.diff(by_batch) <= 0.0).all()
    assert (by_batch >= measures.plateau(right, target)).all()
    assert (by_request + measures.right_in_time(found, deadlines) <= 1.0 + 1e-12).all()
    drop = measures.drop_ms(mean_ms, right, target)
    if np.isfinite(drop):
        half = 0.5 * (1.0 + measures.plateau(right, target))
        after, before = measures.missed_batches(mean_ms, right, [drop + 1e-6, drop - 1e-6], target)
        assert after <= half + 1e-12 <= before + 2e-12


def test_intervals_leave_out_what_is_unknown():
    assert over([1.0, float("nan"), 3.0]) == over([1.0, 3.0])
    assert np.isnan(over([1.0, float("nan")])).all()
    assert tables.sign(2.0, 1.0) == 1
    assert tables.sign(-2.0, 1.0) == -1
    assert tables.sign(0.5, 1.0) == tables.sign(0.0, 0.0) == tables.sign(None, None) == 0


# One cell of each kind, from the cache and the price list alone.


def test_a_cascade_by_hand(written):
    _, found = written
    cfg, seeds = found["config"], range(2)
    k, target = 2, 0.8
    cache = ConfidenceCache.embedded(CIFAR)
    part = cache.calibrated("exit").part("test")
    device = places.device_of(None, CIFAR, cache)
    at = part.condition("pristine")
    sure, right = part.confidence[at, 0], part.prediction[at, 0] == part.label[:, None]
    edge_ms, link = cfg["slow"] * device.edge_ms("prefix"), preset("wifi")
    sent_ms = edge_ms[k] + part.profile.payload_bytes[k] / (125.0 * link.mbit_s) + link.round_trip_ms
    sent_ms += device.cloud_ms[k]
    drops, levels, shares = [], [], []
    for seed in seeds:
        world = TimedWorld(
            world=World(
                cache=part, prices=Physical(edge=device.scaled(cfg["slow"]), cloud=device), arms=Arms.grid(exits=7)
            ),
            link=link,
        )
        sample = world.rounds(Stationary(condition="pristine"), horizon=512, seed=seed).sample
        stops = sure[sample, :k] >= target
        stopped = np.where(stops.any(axis=1), stops.argmax(axis=1), k)
        ms = np.where(stopped < k, edge_ms[np.minimum(stopped + 1, k)], sent_ms).reshape(-1, 256).mean(axis=1)
        answer = np.where(stopped < k, stopped, 6)
        accuracy = right[sample, answer].reshape(-1, 256).mean(axis=1)
        enough = accuracy >= target
        levels.append(1.0 - enough.mean())
        drops.append(float(np.median(ms[enough])) if enough.any() else np.nan)
        shares.append((stopped == k).mean())
    row = next(r for r in found["cascades"]["pristine, wifi"] if r["calibration"] == "exit")
    assert (row["exits"], row["target"]) == (k, target)
    assert row["offloaded"][0] == pytest.approx(np.mean(shares), abs=1e-5)
    assert row["plateau"][0] == pytest.approx(np.mean(levels), abs=1e-5)
    assert row["drop_ms"][0] == pytest.approx(np.mean(drops), abs=1e-4)


def test_a_player_by_hand(written):
    """The final exit with a queue: the price cannot change what it does, and its misses are those of its world."""
    _, found = written
    cfg = found["config"]
    cache = ConfidenceCache.embedded(CIFAR)
    device = places.device_of(None, CIFAR, cache)
    part = cache.calibrated("exit").part("test")
    made = places.Place(cache=part, payloads=None, edge=device.scaled(20.0), cloud=device, slow=20.0)
    arrivals, buffer = places.arrivals_of(made, calm_ms=1e3, load=0.9, buffer=4)["busy"]
    assert arrivals.per_second == pytest.approx(0.9e3 / (20.0 * device.edge_ms()[-1]))
    prices = Physical(edge=made.edge, cloud=device, weights=Weights(missed=1.0, deadline_ms=500.0))
    shares = []
    for seed in range(2):
        world = World(cache=part, prices=prices, arms=Arms.grid(exits=7))
        timed = TimedWorld(world=world, link=preset("wifi"), arrivals=arrivals, buffer=buffer)
        run, _ = rollout_timed(FinalExit(), timed, Stationary(condition="pristine"), horizon=512, seed=seed)
        shares.append(run.missed)
    rows = [r for r in found["players"]["wifi, busy"] if r["player"] == "final_exit" and r["calibration"] == "exit"]
    plain, priced = rows
    assert (plain["priced"], priced["priced"]) == (False, True)
    assert priced["missed"]["mean"][cfg["priced"].index(500)] == pytest.approx(np.mean(shares), abs=1e-5)
    assert plain["missed"]["mean"][cfg["deadlines"].index(500)] == pytest.approx(np.mean(shares), abs=1e-5)
    assert priced["missed_change"]["mean"] == [0.0] * len(cfg["priced"])
    assert not any(priced["right_change"]["half"])


# The parts.


def test_the_cascade_answers_at_the_first_sure_exit():
    player = players.cascade(7, 3, 0.8)
    assert player.arms.table[0].early == (0.8, 0.8)
    assert player.policy.plays(player.arms) == list(player.arms.table)
    for cut, target, message in ((7, 0.8, r"cut is 7, allowed is a whole number in 1\.\.6"), (2, 1.0, "target is 1")):
        with pytest.raises(ValueError, match=message):
            players.cascade(7, cut, target)


def test_everybody_plays_what_was_tuned_elsewhere():
    tuned = {"adaee": {"chosen": {"cut": 3, "beta": 0.25}}}
    made = players.players(7, tuned, cut=3, target=0.8)
    assert made["adaee_published"].policy.beta == 0.25
    assert not made["adaee_published"].policy.known_costs
    assert made["adaee"].policy.known_costs
    assert {key for key, player in made.items() if player.sends_input} == {"send_input", "joint_input"}


def test_a_cache_of_ones_own_is_played_with_the_payloads_and_times_beside_it(tmp_path):
    shipped, own = Path(environments.__file__).parent, tmp_path / "mine.safetensors"
    for ending in (".safetensors", ".payloads.safetensors", ".device.json"):
        own.with_suffix(ending).symlink_to(shipped / f"mobilenet_v2_imagenette{ending}")
    with initialize_config_module("offramp.conf", version_base="1.3"):
        cfg = compose("deadline", overrides=[f"cache={own}", "payloads=beside", "times=beside"])
    made = course(cfg).places["raw"]
    assert made.payloads is not None
    assert made.payloads.hashes == PayloadTable.load(shipped / NETTE).hashes
    assert made.cloud == DeviceProfile.embedded("mobilenet_v2_imagenette")


def test_a_place_is_calibrated_with_its_payloads():
    """The last exit's temperature holds for what comes back from the cloud, whatever was sent."""
    cache = ConfidenceCache.embedded(CIFAR)
    final = cache.confidence[:, :1, :, -1].transpose(0, 1, 2)
    table = PayloadTable.from_arrays(
        codecs=["float32"],
        splits=[1],
        bytes=np.full(final.shape, 7),
        confidence=final,
        prediction=cache.prediction[:, :1, :, -1],
        conditions=[c.name for c in cache.conditions],
        classes=cache.classes,
        sample=cache.sample,
        split_of_data=cache.split,
        hashes=cache.hashes,
        spread=cache.spread[:, :1, :, -1],
    )
    device = places.device_of(None, CIFAR, cache)
    made = places.places(cache, table, device, 20.0, ["raw", "exit"])
    expected = cache.calibrated("exit").confidence[:, 0, :, -1]
    assert np.allclose(made["exit"].payloads.confidence[:, 0], expected)
    assert made["raw"].payloads is table
    assert made["exit"].edge.total_ms == pytest.approx(200.0)
    with pytest.raises(CacheError, match="calibration is 'nowhere', allowed in this cache are"):
        places.places(cache, table, device, 20.0, ["nowhere"])


def test_a_stream_is_shown_at_the_target_nearest_to_its_network():
    cache = ConfidenceCache.embedded(CIFAR)
    part = cache.part("validation")
    at = part.condition("blur 1.0")
    right = (part.prediction[at, 0, :, -1] == part.label).mean()
    near = min((0.5, 0.6, 0.7), key=lambda t: abs(t - right))
    assert places.balanced(cache, Stationary(condition="blur 1.0"), (0.5, 0.6, 0.7)) == near


def test_streams_and_links():
    made = places.streams(["pristine", "fog 3"])
    assert made["mixed"] == Abrupt(segments=(("pristine", 1.0), ("fog 3", 1.0)), length=1)
    trace = LinkTrace.embedded("4g/train_0001", scale=0.2)
    assert places.begun(trace, 0.25).start_ms == pytest.approx(0.25 * trace.length_ms)
    assert places.begun(preset("wifi"), 0.25) == preset("wifi")
    told = places.speeds({"a": preset("lte"), "b": trace})
    assert told == {"a": "5.85 Mbit/s, 33 ms", "b": f"{trace.mean_mbit_s:.2f} Mbit/s, 20 ms"}


def test_other_weights_leave_the_facts_as_they_are():
    cache = ConfidenceCache.embedded(CIFAR).part("test")
    device = DeviceProfile(name="bench", segment_ms=(1.0,) * 7, head_ms=(0.1,) * 7)
    place = places.Place(cache=cache, payloads=None, edge=device, cloud=device, slow=1.0)
    dear = Weights(second=3.0, missed=0.5, deadline_ms=70.0)
    plain, wanted = (
        place.world(w, preset("wifi"), Paced(), None, sends_input=True).facts(("pristine",)) for w in (Weights(), dear)
    )
    found = places.repriced(plain, dear, preset("wifi"))
    for name, mine, its in zip(found._fields, found, wanted, strict=True):
        if name != "blank":  # a row whose prices are written anew for each request
            assert np.array_equal(mine, its, equal_nan=True), name
    assert found.blank[1] == wanted.blank[1]


# The command.


def test_the_command_writes_tables_and_figures(written):
    folder, found = written
    assert set(found["cascades"]) == {f"{s}, {x}" for s in ("pristine", "mixed") for x in ("wifi", "4g_train")}
    assert set(found["players"]) == {f"{x}, {a}" for x in ("wifi", "4g_train") for a in ("calm", "busy")}
    assert len(found["players"]["wifi, calm"]) == len(found["titles"]) * 3
    page = (folder / "README.md").read_text(encoding="utf-8")
    for section in tables.SECTIONS:
        assert f"<!-- {CIFAR} {section} -->\n\n" in page
    assert "nan" not in page
    for figure in ("cascades_pristine", "cascades_mixed", "policies", "right", "price"):
        text = (folder / f"{figure}_{CIFAR}.svg").read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "n = 2" in text
    assert not list(folder.glob("*.partial"))


def test_a_run_goes_on_where_another_ended(written, tmp_path):
    """What is there is kept, what is missing is played: the same as before, whatever was played around it."""
    folder, found = written
    kept = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lost = kept[CIFAR]["cascades"].pop("mixed, wifi")
    kept[CIFAR]["players"]["wifi, calm"][0]["missed"]["mean"][0] = 0.123  # what is there is not played again
    (tmp_path / "result.json").write_text(json.dumps(kept), encoding="utf-8")
    study.run(config(*SMALL), tmp_path)
    again = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))[CIFAR]
    assert again["cascades"]["mixed, wifi"] == lost
    assert again["players"]["wifi, calm"][0]["missed"]["mean"][0] == 0.123
    assert again["players"]["4g_train, busy"] == found["players"]["4g_train, busy"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("horizon=300", "horizon is 300, allowed is a whole number of batches of 256"),
        ("seeds=1", "seeds is 1, allowed is a whole number, 2 or more"),
        ("slow=0", "slow is 0, allowed is a number > 0"),
        ("target=0.77", r"target 0\.77 among them"),
        ("cascade=2", r"cascade is 2, allowed is one of exits, \[1, 3, 5\]"),
        ("priced=[70]", r"priced are \[70\], allowed are some of deadlines"),
        ("tables=[120]", r"tables are \[120\], allowed are some of priced"),
        ("mixed=[]", r"mixed is \[\], allowed is one or more"),
    ],
)
def test_what_no_run_can_mean_is_refused(override, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        study.run(config(override), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_page_is_made_of_the_data():
    """README.md between its markers is what result.json says."""
    path = HERE / "result.json"
    if not path.exists():
        pytest.skip("the study has not been run")
    kept = json.loads(path.read_text(encoding="utf-8"))
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert tables.fill(page, kept) == page
    for name in kept:
        for section in tables.SECTIONS:
            assert f"<!-- {name} {section} -->" in page
