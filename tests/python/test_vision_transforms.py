"""gluon.data.vision.transforms against plain NumPy arithmetic."""

import colorsys

import numpy as np
import pytest

import mxrs as mx
from mxrs import nd
from mxrs.gluon.data import DataLoader, SimpleDataset
from mxrs.gluon.data.vision import transforms as T

PICTURE = np.random.RandomState(1).randint(0, 256, (5, 8, 3)).astype(np.uint8)


def picture(dtype="uint8"):
    return nd.array(PICTURE, dtype="uint8").astype(dtype)


def with_factor(transform, factor):
    """A random colour transform whose next factor is known."""
    transform._bounds = (factor, factor)
    return transform


def test_to_tensor():
    expected = PICTURE.transpose(2, 0, 1).astype(np.float32) / 255
    for x in (picture(), picture("float32"), picture("float64")):
        result = T.ToTensor()(x)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result.asnumpy(), expected, rtol=1e-6)
    batch = T.ToTensor()(nd.stack(picture(), nd.array(PICTURE // 2, dtype="uint8")))
    np.testing.assert_allclose(
        batch[1].asnumpy(), (PICTURE // 2).transpose(2, 0, 1) / np.float32(255), rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"\(5, 8\)"):
        T.ToTensor()(picture()[:, :, 0])


@pytest.mark.parametrize("mean, std", [(0.5, 0.25), ((0.1, 0.2, 0.3), (1, 2, 4)), ((0.1, 0.2, 0.3), 2)])
@pytest.mark.parametrize("batch", [False, True])
def test_normalize(mean, std, batch):
    x = np.random.rand(*((2,) * batch), 3, 4, 5).astype(np.float32)
    expected = (x - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
    np.testing.assert_allclose(T.Normalize(mean, std)(nd.array(x)).asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_normalize_refuses():
    with pytest.raises(ValueError, match="mean must have 1 or 3"):
        T.Normalize((1, 2))(nd.ones((3, 2, 2)))
    with pytest.raises(ValueError, match="std must have 1 or 1"):
        T.Normalize(0, (1, 2, 3))(nd.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="1 or 3 channels"):
        T.Normalize()(nd.ones((4, 2, 2)))


def test_cast_and_compose():
    chain = T.Compose([T.ToTensor(), T.Normalize(0.5, 0.5), lambda x: x * 2, T.Cast("float64")])
    result = chain(picture())
    assert [type(child).__name__ for child in chain._children.values()][0] == "HybridSequential"
    assert result.dtype == np.float64
    np.testing.assert_allclose(result.asnumpy(), (PICTURE.transpose(2, 0, 1) / 255 - 0.5) * 4, atol=1e-5)
    with pytest.raises(ValueError, match="HybridBlock"):
        T.HybridCompose([T.CenterCrop(2)])


@pytest.mark.parametrize("size, box", [(2, (3, 1, 2, 2)), ((3, 4), (2, 0, 3, 4)), ((8, 5), (0, 0, 8, 5))])
def test_center_crop(size, box):
    left, top, width, height = box
    result = T.CenterCrop(size)(picture()).asnumpy()
    np.testing.assert_array_equal(result, PICTURE[top : top + height, left : left + width])


def test_crop_resize():
    np.testing.assert_array_equal(T.CropResize(1, 2, 4, 3)(picture()).asnumpy(), PICTURE[2:5, 1:5])
    assert T.CropResize(1, 2, 4, 3, (7, 6))(picture()).shape == (6, 7, 3)
    for wrong in ((5, 0, 4, 2), (0, 4, 2, 2)):
        with pytest.raises(ValueError, match="inside the picture"):
            T.CropResize(*wrong)(picture())
    with pytest.raises(ValueError, match="at least 0"):
        T.CropResize(-1, 0, 2, 2)


def test_resize_shapes_and_constant_pictures():
    flat = nd.full((4, 6, 3), 77, dtype="uint8")
    for size, shape in ((3, (3, 3, 3)), ((3, 5), (5, 3, 3)), (12, (12, 12, 3))):
        for interpolation in (0, 1):
            result = T.Resize(size, interpolation=interpolation)(flat)
            assert result.shape == shape and result.dtype == np.uint8 and (result.asnumpy() == 77).all()
    assert T.Resize(3, keep_ratio=True)(flat).shape == (3, 4, 3)
    assert T.Resize(3)(nd.stack(flat, flat)).shape == (2, 3, 3, 3)
    with pytest.raises(NotImplementedError, match="interpolation 2"):
        T.Resize(3, interpolation=2)
    with pytest.raises(ValueError, match="size"):
        T.Resize(0)


def test_bilinear_resize_of_a_ramp():
    ramp = nd.arange(8).reshape((1, 8, 1))
    np.testing.assert_allclose(T.Resize((4, 1))(ramp).asnumpy().ravel(), [0.5, 2.5, 4.5, 6.5])
    np.testing.assert_allclose(T.Resize((16, 1))(ramp).asnumpy().ravel()[:4], [0, 0.25, 0.75, 1.25])


@pytest.mark.parametrize("kind, axis", [(T.RandomFlipLeftRight, 1), (T.RandomFlipTopBottom, 0)])
def test_flips_happen_half_of_the_time(kind, axis):
    mx.random.seed(0)
    flipped = 0
    for _ in range(200):
        result = kind()(picture()).asnumpy()
        flipped += np.array_equal(result, np.flip(PICTURE, axis))
        assert np.array_equal(result, PICTURE) or np.array_equal(result, np.flip(PICTURE, axis))
    assert 60 < flipped < 140
    assert np.array_equal(kind(1.0)(picture()).asnumpy(), np.flip(PICTURE, axis))
    with pytest.raises(ValueError, match="p must be between 0 and 1"):
        kind(2)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.6])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_colours(factor, dtype):
    x = PICTURE.astype(np.float64)
    grey = (x * [0.299, 0.587, 0.114]).sum(axis=2, keepdims=True)
    cases = {
        T.RandomBrightness: x * factor,
        T.RandomContrast: x * factor + grey.mean() * (1 - factor),
        T.RandomSaturation: x * factor + grey * (1 - factor),
    }
    for kind, expected in cases.items():
        result = with_factor(kind(0.5), factor)(picture(dtype))
        assert result.dtype == np.dtype(dtype)
        if dtype == "uint8":
            assert np.abs(result.asnumpy() - np.floor(np.clip(expected, 0, 255))).max() <= 1
        else:
            np.testing.assert_allclose(result.asnumpy(), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("turns", [0.0, 0.2, 0.5, 0.9, 1.0, 1.3])
def test_hue_turns_the_colour_circle(turns):
    def turned(pixel):
        hue, light, saturation = colorsys.rgb_to_hls(*(pixel / 255))
        return colorsys.hls_to_rgb((hue + turns) % 1, light, saturation)

    expected = np.array([[turned(pixel) for pixel in row] for row in PICTURE]) * 255
    result = with_factor(T.RandomHue(0.5), turns)(picture("float32"))
    np.testing.assert_allclose(result.asnumpy(), expected, atol=1e-2)


def test_lighting_moves_all_pixels_by_one_colour():
    moved = T.RandomLighting(0.5)(picture("float32")).asnumpy() - PICTURE
    assert np.ptp(moved, axis=(0, 1)).max() < 1e-3 < np.abs(moved).max()
    assert np.array_equal(T.RandomLighting(0)(picture()).asnumpy(), PICTURE)


def test_grey_and_jitter():
    grey = T.RandomGray(1.0)(picture("float32")).asnumpy()
    np.testing.assert_allclose(grey[..., 0], PICTURE @ [0.299, 0.587, 0.114], rtol=1e-4)
    assert np.array_equal(grey[..., 0], grey[..., 2])
    jitter = T.RandomColorJitter(0.5, 0.5, 0.5, 0.5)
    assert len(jitter._children) == 4 and jitter(picture()).dtype == np.uint8
    assert np.array_equal(T.RandomColorJitter()(picture()).asnumpy(), PICTURE)
    with pytest.raises(ValueError, match="brightness must not be negative"):
        T.RandomBrightness(-1)


def test_random_crops_show_parts_of_the_picture():
    windows = {PICTURE[t : t + 3, s : s + 4].tobytes() for t in range(3) for s in range(5)}
    seen = {T.RandomCrop((4, 3))(picture()).asnumpy().tobytes() for _ in range(80)}
    assert seen <= windows and len(seen) > 8
    assert T.RandomCrop(8, pad=2)(picture()).shape == (8, 8, 3)
    for size, shape in ((3, (3, 3, 3)), ((6, 2), (2, 6, 3))):
        assert T.RandomResizedCrop(size)(picture()).shape == shape
    flat = nd.full((40, 30, 3), 9, dtype="uint8")
    assert (T.RandomResizedCrop(8)(flat).asnumpy() == 9).all()
    with pytest.raises(ValueError, match="scale"):
        T.RandomResizedCrop(3, scale=(0, 1))


def test_random_apply():
    kinds = {T.RandomApply([T.Cast("float64")], p=0.5)(picture()).dtype for _ in range(60)}
    assert kinds == {np.uint8, np.float64}


@pytest.mark.skipif(
    not hasattr(nd, "BilinearSampler"), reason="the operator BilinearSampler is not there yet"
)
def test_rotate_by_right_angles():
    x = nd.arange(25).reshape((1, 5, 5))
    for quarter in range(4):
        expected = np.rot90(x.asnumpy(), quarter, axes=(1, 2))
        np.testing.assert_allclose(T.Rotate(90 * quarter)(x).asnumpy(), expected, atol=1e-3)


def test_rotate_refuses():
    with pytest.raises(TypeError, match="float32"):
        T.Rotate(30)(picture())
    with pytest.raises(ValueError, match="both"):
        T.Rotate(30, True, True)(nd.ones((1, 3, 3)))
    with pytest.raises(ValueError, match="ordered"):
        T.RandomRotation((10, -10))


def test_transforms_in_workers():
    data = SimpleDataset([(picture(), 3)] * 6).transform_first(
        T.Compose([T.RandomFlipLeftRight(), T.ToTensor()])
    )
    for how in (dict(), dict(num_workers=2), dict(num_workers=2, thread_pool=True)):
        images, labels = next(iter(DataLoader(data, 6, **how)))
        assert images.shape == (6, 3, 5, 8) and images.dtype == np.float32
        assert labels.asnumpy().tolist() == [3] * 6
