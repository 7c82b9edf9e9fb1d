"""Codecs give back what they were given, or within their bound; a damaged payload is refused, never decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from offramp.models.codec import FRAME_BYTES
from offramp.models.codecs import (
    CodecError,
    Float16,
    Float32,
    Jpeg,
    Png,
    Raw,
    Uint8,
    Uint8Zlib,
    check_codecs,
    standard_codecs,
)

SHAPES = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
MAPS = arrays(np.float32, SHAPES, elements=st.floats(-60_000.0, 60_000.0, width=32))
SMALL_MAPS = arrays(np.float32, SHAPES, elements=st.floats(-4.0, 4.0, width=32))
IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
FEATURES = (Float32(), Float16(), Uint8(), Uint8Zlib())
PICTURES = (Raw(), Png(), Jpeg(quality=75))


def same_bits(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def picture(size=24, seed=0):
    """Smooth colours and an edge: what JPEG is made for."""
    x, y = np.meshgrid(np.linspace(0.0, 1.0, size), np.linspace(0.0, 1.0, size))
    planes = [255 * x, 255 * y, np.where(x > y, 200, 20)]
    noise = np.random.default_rng(seed).integers(0, 6, (size, size, 3))
    return np.clip(np.stack(planes, axis=-1) + noise, 0, 255).astype(np.uint8)


def sample(codec, seed=0):
    if codec.reads == "image":
        return picture(seed=seed)
    return np.random.default_rng(seed).normal(0.0, 2.0, (5, 4, 3)).astype(np.float32)


@settings(deadline=None)
@given(MAPS)
def test_float32_is_the_same_bit_for_bit(features):
    payload = Float32().encode(features)
    assert len(payload) == FRAME_BYTES + 4 * features.size
    assert same_bits(Float32().decode(payload), features)


@settings(deadline=None)
@given(IMAGES)
def test_lossless_images_are_the_same_bit_for_bit(image):
    for codec in (Raw(), Png(), Png(level=1)):
        assert same_bits(codec.decode(codec.encode(image)), image)
    assert len(Raw().encode(image)) == FRAME_BYTES + image.size


@settings(deadline=None)
@given(MAPS)
def test_float16_is_rounding_to_half_precision(features):
    payload = Float16().encode(features)
    assert len(payload) == FRAME_BYTES + 2 * features.size
    assert same_bits(Float16().decode(payload), features.astype(np.float16).astype(np.float32))


@settings(deadline=None)
@given(st.one_of(MAPS, SMALL_MAPS))
def test_uint8_comes_back_within_half_a_step_of_its_channel(features):
    """The step: the channel's range over 255, plus what offset and step lose in half precision (2**-10 of each)."""
    payload = Uint8().encode(features)
    assert len(payload) == FRAME_BYTES + 4 * len(features) + features.size
    got = Uint8().decode(payload)
    assert got.shape == features.shape
    for given_channel, channel in zip(features.astype(np.float64), got.astype(np.float64), strict=True):
        reach, most = np.ptp(given_channel), np.abs(given_channel).max()
        step = (reach + 2.0**-10 * most + 2.0**-24) / 255.0 * (1.0 + 2.0**-10) + 2.0**-24
        assert np.abs(channel - given_channel).max() <= 0.5 * step + 2.0**-22 * (most + reach)


@settings(deadline=None)
@given(MAPS)
def test_deflated_has_the_same_values(features):
    assert same_bits(Uint8Zlib().decode(Uint8Zlib().encode(features)), Uint8().decode(Uint8().encode(features)))
    assert Uint8Zlib(level=9).values == Uint8Zlib().values == Uint8().values == "uint8"


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -3.5, 0.1, -65_504.0, 1e-30, 12_345.678])
def test_constant_channels(value):
    """Exact where half precision holds the value, else to its rounding over 255 steps."""
    features = np.full((3, 4, 5), value, dtype=np.float32)
    got = Uint8().decode(Uint8().encode(features))
    held = float(np.float16(value)) == value
    assert np.abs(got - features).max() <= (0.0 if held else max(2.0**-24, abs(value) * 2.0**-10 / 255.0))


def test_channels_have_scales_of_their_own():
    features = np.stack([np.linspace(0.0, 1e-3, 12), np.linspace(-5e4, 5e4, 12)]).reshape(2, 3, 4).astype(np.float32)
    got = Uint8().decode(Uint8().encode(features))
    assert np.abs(got[0] - features[0]).max() < 1e-5
    assert np.abs(got[1] - features[1]).max() < 250.0


def test_constants_deflate_and_noise_does_not():
    flat, noise = np.ones((8, 16, 16), np.float32), np.random.default_rng(0).random((8, 16, 16), np.float32)
    assert len(Uint8Zlib().encode(flat)) < 0.05 * len(Uint8().encode(flat))
    assert len(Uint8Zlib().encode(noise)) < 1.02 * len(Uint8().encode(noise))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30))
def test_jpeg_keeps_size_and_is_what_pillow_reads(height, width):
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    payload = Jpeg(quality=50).encode(image)
    got = Jpeg(quality=50).decode(payload)
    assert (got.shape, got.dtype) == (image.shape, np.uint8)
    assert np.array_equal(got, np.asarray(Image.open(io.BytesIO(payload[FRAME_BYTES:]))))


def test_jpeg_quality_trades_bytes_for_error():
    image = picture(64)
    codecs = [Jpeg(quality=q) for q in (10, 25, 50, 75, 95)]
    sizes = [len(codec.encode(image)) for codec in codecs]
    errors = [np.abs(codec.decode(codec.encode(image)).astype(int) - image).mean() for codec in codecs]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 3.0
    assert [codec.name for codec in codecs] == ["jpeg_10", "jpeg_25", "jpeg_50", "jpeg_75", "jpeg_95"]


@pytest.mark.parametrize("codec", FEATURES + PICTURES, ids=lambda c: c.name)
class TestDamage:
    """A payload of every codec, damaged in every way."""

    @settings(deadline=None)
    @given(data=st.data())
    def test_one_byte_is_another(self, codec, data):
        payload = bytearray(codec.encode(sample(codec)))
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] ^= data.draw(st.integers(1, 255))
        with pytest.raises(CodecError, match=f"{codec.name}: payload has"):
            codec.decode(bytes(payload))

    @settings(deadline=None)
    @given(data=st.data())
    def test_cut_short(self, codec, data):
        payload = codec.encode(sample(codec))
        with pytest.raises(CodecError, match="payload"):
            codec.decode(payload[: data.draw(st.integers(0, len(payload) - 1))])

    def test_something_follows(self, codec):
        with pytest.raises(CodecError, match="CRC-32"):
            codec.decode(codec.encode(sample(codec)) + b"\x00")

    def test_another_codec(self, codec):
        for other in FEATURES + PICTURES:
            if other != codec:
                with pytest.raises(CodecError, match=f"payload has codec {other.tag}, .* allowed are {codec.tag}"):
                    codec.decode(other.encode(sample(other)))

    def test_frame_that_lies_about_the_shape(self, codec):
        body = codec.encode(sample(codec))[FRAME_BYTES:]
        with pytest.raises(CodecError, match=r"body is \d+ bytes long|image is RGB of 24 x 24"):
            codec.decode(framed(codec, (7, 7, 3), body))

    def test_body_that_is_nothing(self, codec):
        with pytest.raises(CodecError, match="body"):
            codec.decode(framed(codec, (5, 4, 3), b"nothing of the kind"))


def framed(codec, shape, body):
    """A frame whose CRC is right, as only somebody who means it would make one."""
    head = struct.pack("<BBHHH", codec.tag, 1, *shape)
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head + bytes(4)))) + body


def test_a_deflated_bomb_is_not_inflated():
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(CodecError, match="body is 81 bytes long, allowed is 80 for its shape"):
        Uint8Zlib().decode(framed(Uint8Zlib(), (5, 4, 3), bomb))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", FEATURES, ids=lambda c: c.name)
def test_nan_and_infinity_are_refused(codec, value):
    features = sample(codec)
    features[2, 1, 0] = value
    with pytest.raises(CodecError, match=rf"{codec.name}: features\[2, 1, 0\] is .*, allowed is a finite float32"):
        codec.encode(features)


@pytest.mark.parametrize("codec", FEATURES[1:], ids=lambda c: c.name)
@pytest.mark.parametrize("value", [70_000.0, -70_000.0])
def test_what_half_precision_cannot_hold_is_refused(codec, value):
    features = sample(codec)
    features[0, 0, 0] = value
    if codec.name != "float16" and value > 0.0:  # only the offset and the step are in half precision
        assert abs(codec.decode(codec.encode(features))[0, 0, 0] - value) < 200.0
        return
    with pytest.raises(CodecError, match=f"{codec.name}: .*{value:.1f}, allowed are magnitudes up to 65504"):
        codec.encode(features)


@pytest.mark.parametrize("codec", FEATURES + PICTURES, ids=lambda c: c.name)
@pytest.mark.parametrize(
    "given_", [np.zeros((4, 4), np.float32), np.zeros((1, 3, 4, 4), np.float32), np.zeros((0, 4, 3), np.uint8), 3.0]
)
def test_other_shapes_are_refused(codec, given_):
    with pytest.raises(CodecError, match=r"shape is \(.*\), allowed are three sides of 1..65535"):
        codec.encode(given_)


def test_other_types_are_refused():
    with pytest.raises(CodecError, match="features are int64, allowed are floating-point"):
        Float32().encode(np.zeros((1, 2, 3), np.int64))
    with pytest.raises(CodecError, match="features are complex128"):
        Uint8().encode(np.zeros((1, 2, 3), complex))
    with pytest.raises(CodecError, match=r"image is float32 of shape \(4, 4, 3\), allowed is uint8"):
        Raw().encode(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(CodecError, match=r"image is uint8 of shape \(3, 4, 4\)"):
        Jpeg().encode(np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(CodecError, match="is 1e\\+39, allowed is a finite float32"):
        Float32().encode(np.full((1, 1, 1), 1e39))


def test_tensors_in_whatever_layout():
    x = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)[0]
    assert np.array_equal(Float32().decode(Float32().encode(x)), x.numpy())
    assert Uint8().encode(x) == Uint8().encode(x.contiguous())


def test_what_is_decoded_can_be_written_to():
    for codec in FEATURES + PICTURES:
        codec.decode(codec.encode(sample(codec)))[:] = 0


@pytest.mark.parametrize("quality", [0, 96, 75.5, True, "75", None])
def test_quality_and_level_are_checked(quality):
    with pytest.raises(CodecError, match=r"quality is .*, allowed is a whole number in 1..95"):
        Jpeg(quality=quality)
    level = 10 if quality == 96 else quality
    for made in (Png, Uint8Zlib):
        with pytest.raises(CodecError, match=r"level is .*, allowed is a whole number in 1..9"):
            made(level=level)


def test_names_and_tags_are_apart():
    codecs = standard_codecs()
    check_codecs(codecs)
    assert [c.name for c in codecs][:2] == ["raw", "png"]
    assert len({c.tag for c in FEATURES + PICTURES}) == 7
    assert [c.name for c in codecs if c.lossless] == ["raw", "png", "float32"]
    assert all((c.values == "exact") == c.lossless for c in codecs)
    with pytest.raises(CodecError, match=r"codecs are \['png', 'png'\], allowed are one or more whose names differ"):
        check_codecs([Png(), Png(level=1)])
    with pytest.raises(CodecError, match=r"codecs are \[\]"):
        check_codecs([])
