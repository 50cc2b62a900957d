"""Crops, flips, cutout and colours of images, against loops by hand, shares and Pillow."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy.stats import binomtest, chisquare
from torch.nn import functional

from truerisk.core.batch import Batch
from truerisk.core.errors import ConfigError
from truerisk.data import Standardizer
from truerisk.regularizer import Augment
from truerisk.regularizer.image_operations import (
    OPERATIONS,
    POLICIES,
    apply_operations,
    blend_colours,
    equalize_levels,
    operate,
    posterize,
    smooth_images,
    solarize,
    stretch_contrast,
)

OFF = {"crop": 0, "flip": 0.0}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def images(n=24, channels=3, height=8, width=10, dtype=torch.float32):
    return torch.rand(n, channels, height, width, dtype=dtype)


def view(augment, x):
    return augment.edit_batch(Batch(x, torch.zeros(len(x)))).x


def bytes_of(*shape):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_crops_and_flips_are_those_of_a_loop_by_hand(channels):
    x, most = images(channels=channels), 3
    state = torch.get_rng_state()
    got = view(Augment(crop=most), x)
    torch.set_rng_state(state)
    draws = torch.rand(8, len(x), dtype=torch.float64)
    padded = functional.pad(x, (most,) * 4)
    for i, image in enumerate(padded):
        down, aside = (int(u * (2 * most + 1)) for u in draws[:2, i])
        window = image[:, down : down + 8, aside : aside + 10]
        if draws[2, i] < 0.5:
            window = window.flip(2)
        assert torch.equal(got[i], window)
    assert len({tuple(v) for v in (draws[:2] * 7).long().T.tolist()}) > 15


def test_offsets_are_uniform_and_flips_have_their_share():
    """A bright pixel tells where its image has gone, and another beside it which way round."""
    n = 20_000
    x = torch.zeros(n, 1, 11, 11)
    x[:, 0, 5, 5], x[:, 0, 5, 6] = 1.0, 2.0
    got = view(Augment(crop=2, flip=0.3), x)[:, 0]
    row, column = np.divmod(got.eq(1).flatten(1).int().argmax(1).numpy(), 11)
    mirrored = got[torch.arange(n), torch.from_numpy(row), torch.from_numpy(column) - 1] == 2
    assert binomtest(int(mirrored.sum()), n, 0.3).pvalue > 1e-4
    places = np.bincount((row - 3) * 5 + column - 3, minlength=25)
    assert len(places) == 25 and chisquare(places).pvalue > 1e-4


@pytest.mark.parametrize(("side", "size"), [(4, (8, 10)), (3, (8, 8)), (14, (8, 8))])
def test_cutout_blanks_the_squares_of_its_law(side, size):
    n = 20_000
    got = view(Augment(**OFF, cutout=side), torch.ones(n, 2, *size))
    assert torch.equal(got[:, 0], got[:, 1])
    blanked = got[:, 0] == 0
    rows, columns = blanked.any(2), blanked.any(1)
    assert torch.equal(blanked, rows[:, :, None] & columns[:, None, :])
    mean = 1.0
    for length, spans in zip(size, (rows, columns), strict=True):
        starts = [centre - side // 2 for centre in range(length)]
        sides = [min(s + side, length) - max(s, 0) for s in starts]
        counts = np.bincount(spans.sum(1).numpy(), minlength=length + 1)
        expected = np.bincount(sides, minlength=length + 1) * n / length
        assert (counts[expected == 0] == 0).all()
        if (expected > 0).sum() > 1:
            assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-4
        mean *= np.mean(sides)
    assert float(blanked.float().mean()) * size[0] * size[1] == pytest.approx(mean, rel=0.02)


def test_each_sample_has_its_own_draw_and_the_generator_drives():
    x = images(1).expand(60, -1, -1, -1)
    everything = Augment(cutout=3, brightness=0.5, policy="randaugment")
    torch.manual_seed(3)
    first = view(everything, x)
    torch.manual_seed(3)
    again, third = view(everything, x), view(everything, x)
    assert torch.equal(first, again) and not torch.equal(first, third)
    assert len({image.numpy().tobytes() for image in first}) > 55
    # another sample in the batch changes nothing of the others
    other = torch.cat([x[:59], images(1)])
    torch.manual_seed(3)
    assert torch.equal(view(everything, other)[:59], first[:59])


def test_targets_and_their_shares_stay_with_their_images():
    plain = Batch(images(6), torch.arange(6), torch.arange(6).flip(0), torch.tensor(0.3))
    got = Augment().edit_batch(plain)
    # one by one, and as they are: Python 3.13 compares fields that are the same object, too
    kept = [field.name for field in fields(plain) if field.name != "x"]
    assert all(getattr(got, name) is getattr(plain, name) for name in kept)
    assert got.x.shape == plain.x.shape and got.x.dtype == plain.x.dtype


@pytest.mark.parametrize("kind", ["none", "global", "channel", "feature"])
@pytest.mark.parametrize("more", [{}, {"brightness": 0.5, "policy": "trivial"}])
def test_images_are_changed_in_their_own_units(kind, more):
    """However the inputs were standardized: what is seen is the same image."""
    raw = images(dtype=torch.float64)
    fitted = Standardizer.fit(kind, [raw])
    torch.manual_seed(1)
    got = fitted.raw(view(Augment(standardizer=fitted, cutout=3, **more), fitted(raw)))
    torch.manual_seed(1)
    # what comes in from outside is black where nothing is known of the images
    expected = view(Augment(cutout=3, **more), raw)
    known = (expected != 0) | (kind == "none")
    if not more:
        torch.testing.assert_close(got[known], expected[known])
        colour = raw.mean((0, 2, 3)) if kind != "global" else raw.mean().expand(3)
        colour = colour[:, None, None].expand_as(got)
        if kind != "none":
            torch.testing.assert_close(got[~known], colour[~known])
    elif kind == "none":
        torch.testing.assert_close(got, expected)
    assert float(got.min()) >= -1e-9 and float(got.max()) <= 1 + 1e-9


def test_colours_have_factors_of_their_law():
    n = 4000
    x = torch.full((n, 1, 2, 2), 0.4)
    factors = view(Augment(**OFF, brightness=0.5), x)[:, 0, 0, 0] / 0.4
    assert 0.5 <= float(factors.min()) < 0.51 and 1.49 < float(factors.max()) <= 1.5
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)
    assert float(factors.var()) == pytest.approx(1 / 12, rel=0.06)


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


def pillow(pixels, function):
    """Apply a function of Pillow images to bytes [n, c, h, w]."""
    out = []
    for image in pixels.permute(0, 2, 3, 1).numpy():
        shape = image.shape if image.shape[2] == 3 else image.shape[:2]
        edited = np.asarray(function(Image.fromarray(image.reshape(shape))))
        out.append(torch.from_numpy(edited.copy()).reshape(image.shape))
    return torch.stack(out).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("factor", [0.1, 0.7, 1.3, 1.9])
def test_colours_are_those_of_pillow(name, factor, channels):
    """To the two levels that Pillow rounds greys and sums by."""
    pixels = bytes_of(5, channels, 9, 7)
    if (name, channels) == ("saturation", 1):
        expected = pixels.float()
    else:
        expected = pillow(pixels, lambda image: ENHANCERS[name](image).enhance(factor))
    got = blend_colours(pixels.float(), name, torch.full((5,), factor), 255)
    torch.testing.assert_close(got, expected, atol=2, rtol=0)


def test_smoothing_is_pillows():
    pixels = bytes_of(4, 3, 9, 7)
    expected = pillow(pixels, lambda image: image.filter(ImageFilter.SMOOTH))
    torch.testing.assert_close(smooth_images(pixels.float()), expected, atol=1, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_levels_are_those_of_pillow(channels):
    # few levels and many, a constant image, and one with all weight on the highest value
    pixels = torch.cat([bytes_of(4, channels, 40, 30), bytes_of(2, channels, 40, 30) // 16])
    pixels[4, :] = 7
    x = pixels.float()
    for bits in (4, 7):
        expected = pillow(pixels, lambda image, bits=bits: ImageOps.posterize(image, bits))
        assert torch.equal(posterize(x, torch.full((6,), float(bits))), expected)
    expected = pillow(pixels, lambda image: ImageOps.solarize(image, 100))
    assert torch.equal(solarize(x, torch.full((6,), 100.0)), expected)
    assert torch.equal(equalize_levels(x), pillow(pixels, ImageOps.equalize))
    stretched = pillow(pixels, ImageOps.autocontrast)
    torch.testing.assert_close(stretch_contrast(x), stretched, atol=1, rtol=0)


def moved(name, x, strength, sign=1.0, policy="randaugment"):
    amounts = torch.full((2, len(x)), 1.0, dtype=torch.float64)
    blank = torch.zeros(())
    return operate(x, name, POLICIES[policy], sign * amounts[0], strength * amounts[1], blank)


def test_moves_are_those_of_pillow():
    pixels = bytes_of(3, 3, 21, 21)
    x = pixels.float()
    third = pillow(pixels, lambda image: image.rotate(10, resample=Image.Resampling.NEAREST))
    # a pixel half-way between two may go to either
    assert float((moved("rotate", x, 1 / 3) != third).float().mean()) < 0.01
    turned = POLICIES["trivial"]._replace(angle=90)
    ones = torch.ones(3, dtype=torch.float64)
    got = operate(x, "rotate", turned, ones, ones, torch.zeros(()))
    assert torch.equal(got, torch.rot90(x, 1, (2, 3)))
    shift = moved("shift columns", x, 0.2)  # 0.2 · 150/331 · 21 = 1.9 pixels
    assert torch.equal(shift[..., :-2], x[..., 2:]) and not shift[..., -2:].any()
    back = moved("shift rows", x, 3 / 32, -1.0, "trivial")
    assert torch.equal(back[:, :, 3:], x[:, :, :-3]) and not back[:, :, :3].any()
    for name, matrix in (
        ("shear columns", (1, 0.29, -3.045, 0, 1, 0)),
        ("shear rows", (1, 0, 0, 0.29, 1, -3.045)),
    ):
        expected = pillow(
            pixels,
            lambda image, matrix=matrix: image.transform((21, 21), Image.Transform.AFFINE, matrix),
        )
        assert float((moved(name, x, 29 / 30) != expected).float().mean()) < 0.01


def test_operations_are_drawn_alike_often():
    """Each of the fourteen by itself is told from the others by what it does to one image."""
    image = bytes_of(1, 3, 16, 16).float() / 255 * 0.8
    single = {}
    for number, name in enumerate(OPERATIONS):
        draws = torch.tensor([[(number + 0.5) / 14], [0.9], [0.5]], dtype=torch.float64)
        edited = apply_operations(image, "randaugment", draws, 0.5, 1.0, torch.zeros(()))
        single[edited.numpy().tobytes()] = name
    assert len(single) == 14
    n = 7000
    draws = torch.rand(3, n, dtype=torch.float64)
    draws[1] = 0.9
    many = apply_operations(
        image.expand(n, -1, -1, -1), "randaugment", draws, 0.5, 1.0, torch.zeros(())
    )
    counts = dict.fromkeys(OPERATIONS, 0)
    for edited in many:
        counts[single[edited.numpy().tobytes()]] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_policies_keep_shape_type_and_range(policy, channels):
    x = images(200, channels, dtype=torch.float64)
    got = view(Augment(policy=policy, white=1.0), x)
    assert got.shape == x.shape and got.dtype == x.dtype
    assert float(got.min()) >= 0 and float(got.max()) <= 1
    assert not torch.equal(got, x)


@pytest.mark.parametrize(
    ("given", "shape", "why"),
    [
        ({}, (40,), r"moves the pixels of images .* shape \(40,\)"),
        ({}, (1, 40), "give grey images as"),
        ({"crop": 6}, (3, 6, 8), r"crop=6 moves images of 6 x 8 out of the frame: use at most 5"),
        ({"cutout": 16}, (3, 6, 8), r"cutout=16 blanks all of images of 6 x 8, .*use at most 8"),
        ({"policy": "trivial"}, (2, 8, 8), "grey or RGB images, and these have 2 channels"),
        ({"policy": "randaug"}, (3, 8, 8), "did you mean 'randaugment'"),
        ({"magnitude": 31}, (3, 8, 8), "magnitude must be at most 30"),
        ({"flip": 1.5}, (3, 8, 8), r"augment\.flip must be"),
        ({"white": 0}, (3, 8, 8), r"augment\.white must be"),
    ],
)
def test_what_does_not_fit_is_refused(given, shape, why):
    with pytest.raises(ConfigError, match=why):
        Augment(**given, input_shape=shape)


def test_pixels_outside_of_black_and_white_are_refused_once_seen():
    with pytest.raises(ConfigError, match=r"white=1, but pixels lie between 0 and 200: set it"):
        view(Augment(brightness=0.1), 200 * torch.eye(8).expand(4, 1, 8, 8))


@pytest.mark.parametrize("given", [{"policy": "trivial"}, {"contrast": 0.1}])
def test_pixels_that_are_all_next_to_black_are_refused_once_seen(given):
    shares = images(4)
    with pytest.raises(ConfigError, match=r"white=255, but pixels .* and 0\.9\d*: set"):
        view(Augment(white=255, **given), shares)
    # a night's, of which one pixel is brighter than a hundredth
    view(Augment(white=255, **given), 3 * shares)
    # places alone have no units
    view(Augment(white=255), shares)


def test_images_that_are_black_all_over_tell_of_no_units():
    augment = Augment(brightness=0.1, white=255)
    view(augment, torch.zeros(4, 1, 8, 8))
    with pytest.raises(ConfigError, match="white=255"):
        view(augment, images(4, 1))


DIGITS = [
    *("data=digits", "data.num_train=60", "data.val=30", "data.test=30", "model=cnn"),
    *("model.width=3", "data.batch_size=20", "trainer.max_epochs=3", "regularizer=[augment]"),
    *("regularizer.augment.crop=1", "regularizer.augment.white=16", "model.depth=1"),
    *("regularizer.augment.brightness=0.3", "regularizer.augment.policy=randaugment"),
]


def test_measuring_draws_nothing(tiny, tmp_path):
    often = tiny(tmp_path / "often", [*DIGITS, "risk.every=1"])
    once = tiny(tmp_path / "once", [*DIGITS, "risk.every=3"])
    mine, theirs = (run.history for run in (often, once))
    last = [frame[frame.step == 9].set_index("name").value for frame in (mine, theirs)]
    for name in ("risk/val", "risk/train", "objective"):
        assert last[0][name] == last[1][name]


def test_a_step_sees_other_images_than_those_measured(tiny, tmp_path):
    """With a rate of nothing the loss seen while training is that of other views."""
    still = [*DIGITS, "optimizer=sgd", "optimizer.lr=0", "trainer.max_epochs=2"]
    history = tiny(tmp_path / "run", still).history
    seen = history[history.name == "risk/batches"].value.to_list()
    measured = history[history.name == "risk/train"].value.to_list()
    assert measured[0] == measured[-1]
    assert len(set(seen)) == len(seen) and measured[-1] not in seen


def test_data_without_images_are_refused_before_training(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"augment moves the pixels of images .* \(4,\)"):
        tiny(tmp_path / "run", ["regularizer=[augment]"])
    assert not (tmp_path / "run").exists()
