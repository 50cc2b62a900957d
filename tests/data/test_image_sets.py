"""CIFAR, MNIST and Fashion-MNIST in the form their authors give them out, and from the hub."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
import torch

from truerisk.config.compose import compose
from truerisk.core.errors import ConfigError
from truerisk.data import cifar10, cifar100, fashion_mnist, mnist
from truerisk.data.image_sets import CIFAR10_NAMES, FASHION_NAMES

DRAW = np.random.default_rng(0)
CIFAR10 = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def pixels(*shape):
    return DRAW.integers(0, 256, shape, dtype=np.uint8)


def cifar10_files(n=4):
    """Records as the page of CIFAR-10 describes them: a label, then red, green and blue rows."""
    files, images = {}, []
    for name in CIFAR10:
        x, y = pixels(n, 3, 32, 32), np.arange(n, dtype=np.uint8) % 10
        files[name] = b"".join(bytes([k]) + image.tobytes() for k, image in zip(y, x, strict=True))
        images.append(x)
    files["batches.meta.txt"] = ("\n".join(CIFAR10_NAMES) + "\n\n").encode()
    return files, images


def cifar100_files(n=40):
    files = {}
    for name in ("train.bin", "test.bin"):
        records = [bytes([k % 20, k % 100]) + pixels(3072).tobytes() for k in range(n)]
        files[name] = b"".join(records)
    for kind, count in (("fine", 100), ("coarse", 20)):
        files[f"{kind}_label_names.txt"] = "\n".join(f"{kind} {k}" for k in range(count)).encode()
    return files


def idx(array):
    """Lecun's form: two zeros, 8 for bytes, the number of sides, the sides, high bytes first."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_files(n=30):
    x, y = pixels(n, 28, 28), np.arange(n) % 10
    tx, ty = pixels(10, 28, 28), np.arange(10)
    return {
        "train-images-idx3-ubyte": idx(x),
        "train-labels-idx1-ubyte": idx(y),
        "t10k-images-idx3-ubyte": idx(tx),
        "t10k-labels-idx1-ubyte": idx(ty),
    }, x


def write(folder, files, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def pack(path, files, folder="cifar-10-batches-bin"):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_an_archive_whose_bytes_have_changed_is_refused(tmp_path):
    path = pack(tmp_path / "a.tar.gz", cifar10_files()[0])
    packed = bytearray(path.read_bytes())
    packed[-8] ^= 1  # of the checksum of what is packed, which stands for a pixel of it
    path.write_bytes(packed)
    with pytest.raises(ConfigError, match=r"data_batch_1.bin in .* is damaged.*CRC check failed"):
        cifar10(str(path))


@pytest.mark.parametrize("form", ["folder", "folder in a folder", "packed files", "archive"])
def test_cifar10(tmp_path, form):
    files, images = cifar10_files()
    path = tmp_path
    match form:
        case "folder in a folder":
            write(tmp_path / "cifar-10-batches-bin", files)
        case "archive":
            path = pack(tmp_path / "cifar-10-binary.tar.gz", files)
        case _:
            write(tmp_path, files, packed=form == "packed files")
    samples = cifar10(str(path))
    expected = torch.from_numpy(np.concatenate(images[:5])).float() / 255
    assert samples.x.dtype == torch.float32 and torch.equal(samples.x, expected)
    assert torch.equal(samples.test[0], torch.from_numpy(images[5]).float() / 255)
    assert samples.y.tolist() == [0, 1, 2, 3] * 5 and samples.class_names == list(CIFAR10_NAMES)
    assert samples.notes == [
        "20 training and 4 test images; published are 50,000 and 10,000",
    ]


@pytest.mark.parametrize(("labels", "count"), [("fine", 100), ("coarse", 20)])
def test_cifar100(tmp_path, labels, count):
    samples = cifar100(str(write(tmp_path, cifar100_files())), labels=labels)
    assert samples.x.shape == (40, 3, 32, 32) and samples.num_outputs == count
    assert samples.y.tolist() == [k % count for k in range(40)]
    assert samples.class_names[3] == f"{labels} 3"
    (tmp_path / f"{labels}_label_names.txt").unlink()
    assert cifar100(str(tmp_path), labels=labels).class_names[3] == "3"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("source", "names"), [(mnist, list("0123456789")), (fashion_mnist, list(FASHION_NAMES))]
)
def test_idx_files(tmp_path, source, names, packed):
    files, x = idx_files()
    samples = source(str(write(tmp_path, files, packed)))
    assert torch.equal(samples.x, torch.from_numpy(x[:, None]).float() / 255)
    assert samples.y.tolist() == [k % 10 for k in range(30)]
    assert samples.test[0].shape == (10, 1, 28, 28) and samples.class_names == names


def cut(name, length):
    return lambda files: files | {name: files[name][:length]}


FAULTS = {
    "cut off": (cut("data_batch_3.bin", -1), "data_batch_3.bin .*12291 bytes, .* records of 3073"),
    "empty": (cut("test_batch.bin", 0), "test_batch.bin .*0 bytes"),
    "missing": (
        lambda files: {k: v for k, v in files.items() if k != "data_batch_2.bin"},
        "has no file data_batch_2.bin, as the binary version of CIFAR-10 has; fetch it again",
    ),
    "another set": (
        lambda files: files | {"data_batch_1.bin": bytes([77]) + files["data_batch_1.bin"][1:]},
        "data_batch_1.bin .*label 77 of image 1 is none of 10 classes",
    ),
    "names": (
        lambda files: files | {"batches.meta.txt": b"cat\ndog\n"},
        "batches.meta.txt .*2 names for 10 classes",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("archive", [False, True])
def test_damaged_batches_are_named(tmp_path, fault, archive):
    change, why = FAULTS[fault]
    files = change(cifar10_files()[0])
    path = pack(tmp_path / "a.tar.gz", files) if archive else write(tmp_path, files)
    with pytest.raises(ConfigError, match=why) as error:
        cifar10(str(path))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def swap(name, other):
    return lambda files: files | {name: files[other]}


IMAGES, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_FAULTS = {
    "cut off": (cut(IMAGES, -5), f"{IMAGES} .*tells of 30 x 28 x 28 bytes and has 23515"),
    "header alone": (cut(IMAGES, 9), f"{IMAGES} .*does not begin as an idx file"),
    "empty": (cut(LABELS, 0), f"{LABELS} .*does not begin as an idx file"),
    "labels for images": (swap(IMAGES, "train-labels-idx1-ubyte"), f"{IMAGES} .*with 3 sides"),
    "labels of the others": (
        swap("train-labels-idx1-ubyte", LABELS),
        "train-labels-idx1-ubyte .*10 labels for 30 images",
    ),
    "a label too high": (
        lambda files: files | {LABELS: files[LABELS][:-1] + b"\x0b"},
        f"{LABELS} .*label 11 of image 10 is none of 10",
    ),
    "no images": (lambda files: files | {IMAGES: idx(pixels(0, 28, 28))}, f"{IMAGES} .*0 x 28"),
}


@pytest.mark.parametrize("fault", IDX_FAULTS)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx_files_are_named(tmp_path, fault, packed):
    change, why = IDX_FAULTS[fault]
    with pytest.raises(ConfigError, match=why):
        mnist(str(write(tmp_path, change(idx_files()[0]), packed)))


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"no gzip", lambda b: b""])
def test_packed_files_that_are_cut_off_are_named(tmp_path, spoil):
    files, _ = idx_files()
    write(tmp_path, files, packed=True)
    file = tmp_path / f"{IMAGES}.gz"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ConfigError, match=f"{IMAGES} in .* is damaged, cut off or another file"):
        fashion_mnist(str(tmp_path))
    archive = pack(tmp_path / "cifar.tar.gz", cifar10_files()[0])
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(ConfigError, match=r"data_batch_1.bin in .*cifar.tar.gz is damaged"):
        cifar10(str(archive))


def test_no_such_place_and_no_such_labels(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.source\.path: there is no file nowhere"):
        mnist(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"data\.source\.labels is 'fin'; did you mean 'fine'"):
        cifar100(str(tmp_path), labels="fin")


HUB = {
    "cifar10": ("uoft-cs/cifar10", "img", {"label": 10}, 3, 32),
    "cifar100": ("uoft-cs/cifar100", "img", {"fine_label": 100, "coarse_label": 20}, 3, 32),
    "mnist": ("ylecun/mnist", "image", {"label": 10}, 1, 28),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", "image", {"label": 10}, 1, 28),
}


@pytest.mark.parametrize("option", HUB)
def test_the_hub_by_the_public_name(option, tmp_path, monkeypatch):
    """A folder of the set's name and columns, which the library takes before it asks the hub."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    monkeypatch.chdir(tmp_path)
    name, column, labels, channels, side = HUB[option]
    x = pixels(6, side, side, channels)
    features = {column: datasets.Image()}
    features |= {
        k: datasets.ClassLabel(names=[f"c{i}" for i in range(n)]) for k, n in labels.items()
    }
    from PIL import Image

    rows = {column: [Image.fromarray(p.squeeze()) for p in x]}
    rows |= {k: [i % n for i in range(6)] for k, n in labels.items()}
    (tmp_path / name).mkdir(parents=True)
    for split in ("train", "test"):
        data = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        data.to_parquet(tmp_path / name / f"{split}.parquet")
    from truerisk.assemble import build_data

    data = build_data(
        compose([f"data={option}", "data.standardize=none", "data.val=2", "data.stratify=false"])
    )
    assert data.info.input_shape == (channels, side, side)
    assert data.info.num_outputs == next(iter(labels.values()))
    assert (len(data.train), len(data.val), len(data.test)) == (4, 2, 6)
    expected = torch.from_numpy(x).movedim(3, 1).float() / 255
    torch.testing.assert_close(data.test.x, expected, rtol=0, atol=1e-7)


def test_where_there_is_neither_network_nor_folder_both_ways_are_told(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"uoft-cs/cifar10.*or set data\.source\.path to a folder"
    ):
        cifar10(cache=str(tmp_path))


def test_a_run_on_files(tiny, tmp_path):
    write(tmp_path / "set", cifar10_files(20)[0])
    given = ["data=cifar10", f"data.source.path={tmp_path / 'set'}", "model=cnn", "model.width=2"]
    result = tiny(tmp_path / "run", [*given, "trainer.max_epochs=1", "data.batch_size=20"])
    assert result.status == "finished" and result.summary["risk/test"].value > 0
