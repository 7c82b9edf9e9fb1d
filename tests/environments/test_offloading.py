"""Offloading measures agree with loops over samples and batches, on the embedded network's own exits."""

import math

import numpy as np
import pytest

from offramp.environments.offloading import LINKS, Link, answers, latency, shares
from offramp.environments.operating_points import operating_points
from offramp.environments.outage import inference_outage, missed_deadline

TIMES = {"edge_ms": (4.0, 3.0), "cloud_ms": 2.0, "payload_bytes": 8192, "link": LINKS["fremont"]}
GRID = np.arange(0.0, 200.0, 4.0)


@pytest.fixture(scope="module")
def exits(embedded):
    part = embedded.part("test")
    return part.confidence[0, 0, :1100], part.prediction[0, 0, :1100] == part.label[:1100, None]


def slow_answer(c, right, target, k, fallback):
    """Where one sample leaves the edge, and whether the answer was right."""
    for i in range(k):
        if c[i] >= target:
            return i, right[i]
    if fallback == "most_confident" and c[-1] < target:
        candidates = [*range(k), len(c) - 1]
        best = max(candidates, key=lambda i: (c[i], i))
        return k, right[best]
    return k, right[-1]


def slow_rounds(n, batch, rounds, seed):
    order = np.random.default_rng(seed).permuted(np.broadcast_to(np.arange(n), (rounds, n)), axis=1)
    for row in order:
        yield [row[a : a + batch] for a in range(0, n, batch)]


@pytest.mark.parametrize("fallback", ["last", "most_confident"])
@pytest.mark.parametrize(("target", "k"), [(0.5, 2), (0.8, 1), (0.9, 6), (0.999, 3)])
def test_cascade_sample_by_sample(exits, target, k, fallback):
    c, right = exits
    found = answers(c, right, target, edge_exits=k, fallback=fallback)
    slow = [slow_answer(c[i], right[i], target, k, fallback) for i in range(len(c))]
    assert found.stopped.tolist() == [s for s, _ in slow]
    assert found.correct.tolist() == [bool(r) for _, r in slow]


def test_a_confidence_equal_to_the_target_answers():
    assert answers([[0.8, 0.9], [0.7999, 0.9]], [[1, 0], [1, 0]], 0.8).edge.tolist() == [True, False]


@pytest.mark.parametrize("fallback", ["last", "most_confident"])
def test_shares_are_those_of_the_published_table(embedded, fallback):
    part = embedded.part("test")
    for target in (0.6, 0.9):
        (row,) = operating_points(part, [target], edge_exits=3, fallback=fallback)
        right = part.prediction[0, 0] == part.label[:, None]
        found = shares(answers(part.confidence[0, 0], right, target, edge_exits=3, fallback=fallback))
        assert (found.edge_probability, found.edge_accuracy, found.accuracy) == pytest.approx(
            (row.edge_share, row.edge_accuracy, row.accuracy), abs=1e-12
        )
        assert sum(found.by_exit) == pytest.approx(1.0)
        assert found.by_exit[-1] == pytest.approx(1.0 - row.edge_share)


def test_edge_without_an_answer_has_no_accuracy():
    found = answers([[0.1, 0.9]] * 3, [[1, 1]] * 3, 0.8)
    assert math.isnan(shares(found).edge_accuracy)
    assert math.isnan(inference_outage(found, 0.8, batch=2).mean)
    assert inference_outage(found, 0.8, batch=2).empty == 1.0
    assert inference_outage(found, 0.8, batch=2, empty="success").mean == 0.0


@pytest.mark.parametrize("empty", ["exclude", "success"])
@pytest.mark.parametrize(("target", "batch"), [(0.8, 9), (0.95, 7), (0.95, 256)])
def test_outage_batch_by_batch(exits, target, batch, empty):
    c, right = exits
    found = answers(c, right, target, edge_exits=1)
    of_rounds, missing, batches = [], 0, 0
    for parts in slow_rounds(len(c), batch, 20, 5):
        failed = []
        for part in parts:
            edge = [found.correct[i] for i in part if found.stopped[i] == 0]
            batches += 1
            if not edge:
                missing += 1
                if empty == "success":
                    failed.append(0.0)
            else:
                failed.append(float(sum(edge) / len(edge) < target))
        of_rounds.append(np.mean(failed))
    got = inference_outage(found, target, batch=batch, rounds=20, empty=empty, seed=5)
    half = 1.96 * np.std(of_rounds, ddof=1) / math.sqrt(20)
    assert got.mean == pytest.approx(np.mean(of_rounds), abs=1e-12)
    assert got.low == pytest.approx(max(np.mean(of_rounds) - half, 0.0), abs=1e-12)
    assert got.high == pytest.approx(min(np.mean(of_rounds) + half, 1.0), abs=1e-12)
    assert got.empty == pytest.approx(missing / batches, abs=1e-12)
    assert missing > 0 or batch > 7 or target < 0.9


def test_latency_sample_by_sample(exits):
    c, right = exits
    for fallback in ("last", "most_confident"):  # what was sent has been paid for, whoever answers in the end
        found = answers(c, right, 0.8, edge_exits=2, fallback=fallback)
        sent = 7.0 + 90.0 + 8 * 8192 / 73.3e6 * 1e3 + 2.0 + 90.0
        slow = [{0: 4.0, 1: 7.0, 2: sent}[int(s)] for s in found.stopped]
        assert np.allclose(latency(found, **TIMES), slow, rtol=0, atol=1e-9)


def test_deadline_batch_by_batch(exits):
    c, right = exits
    found = answers(c, right, 0.85, edge_exits=2)
    times = latency(found, **TIMES)
    of_rounds = [
        [np.mean([times[part].mean() > t or found.correct[part].mean() < 0.85 for part in parts]) for t in GRID]
        for parts in slow_rounds(len(c), 64, 6, 3)
    ]
    got = missed_deadline(found, times, GRID, 0.85, batch=64, rounds=6, seed=3)
    assert np.allclose(got.mean, np.mean(of_rounds, axis=0), atol=1e-12)
    half = 1.96 * np.std(of_rounds, axis=0, ddof=1) / math.sqrt(6)
    assert np.allclose(got.high, np.minimum(got.mean + half, 1.0), atol=1e-12)


def test_a_looser_deadline_is_missed_less_and_the_rest_is_accuracy(exits):
    c, right = exits
    found = answers(c, right, 0.9, edge_exits=2)
    times = latency(found, **TIMES)
    got = missed_deadline(found, times, GRID, 0.9)
    assert (np.diff(got.mean) <= 1e-12).all()
    assert got.mean[0] == 1.0
    everything = missed_deadline(found, times, [1e9], 0.9).mean[0]
    assert 0.0 < everything < 1.0
    assert got.mean[-1] == pytest.approx(everything, abs=1e-12)


def test_shuffled_apart_loses_what_joins_time_and_truth():
    """Batches of one sample, where who is slow is always right: no sample misses for both reasons, or many do."""
    found = answers([[0.9, 0.9]] * 500 + [[0.1, 0.9]] * 500, [[0, 1]] * 1000, 0.8)
    times = latency(found, edge_ms=[1.0], cloud_ms=1.0, payload_bytes=0, link=LINKS["paris"])
    deadline = [10.0]  # the edge is in time and wrong, the cloud is late and right
    assert missed_deadline(found, times, deadline, 0.8, batch=1, rounds=4).mean[0] == 1.0
    apart = missed_deadline(found, times, deadline, 0.8, batch=1, rounds=4, joint=False).mean[0]
    assert apart == pytest.approx(0.75, abs=0.03)


def test_links_are_the_published_ones():
    assert {(x.mbit_per_s, x.rtt_ms) for x in LINKS.values()} == {(93.6, 10.0), (73.3, 180.0), (60.0, 216.0)}
    assert LINKS["sao_paulo"].ms(93.6e6 / 8) == pytest.approx(1010.0)


def test_what_is_wrong_is_named(exits):
    c, right = exits
    found = answers(c, right, 0.8, edge_exits=2)
    times = latency(found, **TIMES)
    for call, message in (
        (lambda: answers(c, right, -0.1), r"target is -0\.1, allowed is a number >= 0"),
        (lambda: answers(c, right, math.nan), "target is nan"),
        (lambda: answers(c, right, 0.8, edge_exits=7), r"edge_exits is 7, allowed is 1\.\.6"),
        (lambda: answers(c, right, 0.8, fallback="best"), "fallback is 'best', allowed are"),
        (lambda: answers(c[:, 0], right[:, 0], 0.8), r"confidence has shape \(1100,\)"),
        (lambda: answers(c, right[:5], 0.8), r"correct has shape \(5, 7\)"),
        (lambda: answers(c + 1.0, right, 0.8), "confidence holds"),
        (lambda: latency(found, **{**TIMES, "edge_ms": (1.0,)}), r"edge_ms is \(1\.0,\), allowed are 2 finite"),
        (lambda: latency(found, **{**TIMES, "cloud_ms": -1.0}), r"cloud_ms is -1\.0"),
        (lambda: latency(found, **{**TIMES, "payload_bytes": math.inf}), "payload_bytes is inf"),
        (lambda: inference_outage(found, 0.0), r"target is 0\.0"),
        (lambda: inference_outage(found, 0.8, empty="fail"), "empty is 'fail', allowed are"),
        (lambda: inference_outage(found, 0.8, batch=0), "batch is 0"),
        (lambda: inference_outage(found, 0.8, rounds=1), "rounds is 1"),
        (lambda: missed_deadline(found, times[:4], GRID, 0.8), r"times_ms has shape \(4,\)"),
        (lambda: missed_deadline(found, times, [math.nan], 0.8), "deadlines_ms"),
        (lambda: missed_deadline(found, times, 5.0, 0.8), "deadlines_ms"),
        (lambda: Link(name="x", mbit_per_s=0.0, rtt_ms=1.0), r"mbit_per_s is 0\.0"),
        (lambda: Link(name="x", mbit_per_s=1.0, rtt_ms=-1.0), r"rtt_ms is -1\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
