"""The readers of files as functions of bytes, for fuzzing: whatever the bytes are, the answer is a value or an error.

Every target writes the bytes where its reader looks for them, reads them, and looks at what came out. A
``ValueError``, a ``TypeError`` or an ``OSError`` is an answer; any other exception, more than two seconds and more than
500 MB are findings.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import resource
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

import weightspace as ws
from weightspace import datasets
from weightspace.bench._record import read_result
from weightspace.checkpoints import read_checkpoint
from weightspace.cli._progress import console, print_zoo
from weightspace.datasets._mesh_files import parse_mesh
from weightspace.signals._cifar import from_cifar10
from weightspace.signals._idx import read_idx
from weightspace.zoo._reader import load_state_dict

ANSWERS = (ValueError, TypeError, OSError)
SECONDS, MEGABYTES = 2.0, 500
CORPUS = Path(__file__).parent / "corpus"
SPEC = ws.siren(2, 3, 1)
MESHES = ("off", "obj", "ply", "wrl", "stl")


@functools.cache
def folder(name: str) -> Path:
    """Return a folder in memory where a target keeps its files for as long as the process lives."""
    home = "/dev/shm" if Path("/dev/shm").is_dir() else None
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=home))
    _HELD.append(place)
    return place


_HELD: list[Path] = []


def networks() -> ws.Networks:
    flat = torch.linspace(-1, 1, 3 * SPEC.num_params).reshape(3, -1)
    return ws.Networks(
        ws.Weights(flat, SPEC), label=[0, 1, 0], source=[4, 5, 6], view=[0, 0, 0], psnr=[30.0, 31.0, 32.0]
    )


@functools.cache
def zoo(name: str) -> Path:
    path = folder(name) / "zoo"
    ws.zoo.write_zoo(path, train=networks(), classes=["cat", "dog"], recipe={"steps": 3}, provenance={"data": "toy"})
    return path


def look_at(path: Path) -> None:
    """Do with a zoo what the commands do."""
    opened = ws.Zoo.open(path, verify=False, allow_incomplete=True)
    repr(opened)
    with console.capture():
        print_zoo(opened)
    ws.zoo.verify(opened)
    for split in opened.splits:
        opened[split]
        list(opened.batches(split, 2, shuffle=False))
    _ = opened.num_classes


def manifest(data: bytes) -> None:
    """A zoo's manifest, beside a good shard."""
    (zoo("manifest") / "manifest.json").write_bytes(data)
    look_at(zoo("manifest"))


def shard(data: bytes) -> None:
    """A shard of a zoo whose manifest has its size and its hash."""
    path = zoo("shard")
    body = json.loads((path / "manifest.json").read_text())
    body["shards"][0].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (path / "manifest.json").write_text(json.dumps(body))
    (path / body["shards"][0]["file"]).write_bytes(data)
    look_at(path)


def spec(data: bytes) -> None:
    """A spec as JSON."""
    found = ws.NetSpec.from_json(data.decode(errors="replace"))
    repr(found)
    ws.NetSpec.from_json(found.to_json())
    if found.num_params < 1 << 20:
        ws.Weights(torch.zeros(1, found.num_params), found).state_dict()
        ws.evaluate(ws.Weights(torch.zeros(1, found.num_params), found), torch.zeros(1, found.in_features))


def result(data: bytes) -> None:
    """The result of a suite."""
    path = folder("result") / "result.json"
    path.write_bytes(data)
    read_result(path)
    ws.report.format_table(path)


def listing(data: bytes) -> None:
    """A listing of state dicts, beside some of them."""
    place = folder("listing")
    if not (place / "a.pth").exists():
        for name in "ab":
            torch.save(networks().weights.state_dict(0), place / f"{name}.pth")
    (place / "splits.json").write_bytes(data)
    with removed(place / "zoo"):
        ws.zoo.import_state_dicts(place, place / "zoo", spec=SPEC)


def pth(data: bytes) -> None:
    """A file of ``torch.save``; where the first byte is odd, the pickle in one, beside a storage of 16 bytes."""
    path = folder("pth") / "a.pth"
    if data[:1] and data[0] % 2:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", data[1:])
            file.writestr("archive/byteorder", "little")
            file.writestr("archive/data/0", bytes(16))
            file.writestr("archive/version", "3\n")
    else:
        path.write_bytes(data[1:])
    load_state_dict(path)


def checkpoint(data: bytes) -> None:
    """A checkpoint of safetensors."""
    path = folder("checkpoint") / "a.safetensors"
    path.write_bytes(data)
    read_checkpoint(path)


def model(data: bytes) -> None:
    """The description of a model, beside the weights of one."""
    place = folder("model")
    if not (place / "model.safetensors").exists():
        ws.models.save_model(ws.models.build("mlp", SPEC, 2, hidden=3, seed=0), place)
    (place / "model.json").write_bytes(data)
    ws.models.load_model(place)


def idx(data: bytes) -> None:
    """An IDX file, packed where the first byte is odd."""
    path = folder("idx") / ("a.gz" if data[:1] and data[0] % 2 else "a")
    path.write_bytes(data[1:])
    read_idx(path)


def cifar(data: bytes) -> None:
    """A batch of CIFAR-10, binary where the first byte is odd."""
    place = folder("cifar")
    for name in ("data_batch_1", "data_batch_1.bin"):
        (place / name).unlink(missing_ok=True)
    (place / ("data_batch_1.bin" if data[:1] and data[0] % 2 else "data_batch_1")).write_bytes(data[1:])
    from_cifar10(place)


def npz(data: bytes) -> None:
    """Signals in an archive; by the first byte the archive itself, or the arrays in it."""
    path, kind = folder("npz") / "a.npz", data[0] % 3 if data else 0
    if kind == 0:
        path.write_bytes(data[1:])
    else:
        names = ("images", "labels") if kind == 1 else ("coords", "targets")
        with zipfile.ZipFile(path, "w") as file:
            for name, content in zip(names, data[1:].split(b"|next|"), strict=False):
                file.writestr(f"{name}.npy", content)
    datasets.load(path)


def picture(data: bytes) -> None:
    """A picture in a class folder."""
    place = folder("picture") / "c"
    place.mkdir(exist_ok=True)
    (place / "0.png").write_bytes(data)
    datasets.load(place.parent)


def mesh(data: bytes, suffix: str) -> None:
    parse_mesh(data, f".{suffix}", "a")


@contextlib.contextmanager
def removed(path: Path) -> Iterator[None]:
    import shutil

    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)


def adapter(data: bytes) -> None:
    """The configuration of a low-rank adapter beside its tensors; where the first byte is odd, the tensors."""
    place, odd = folder("adapter"), bool(data[:1] and data[0] & 1)
    config, tensors = _adapter()
    (place / "adapter_config.json").write_bytes(config if odd else data[1:])
    (place / "adapter_model.safetensors").write_bytes(data[1:] if odd else tensors)
    w = ws.adapters.read(place)
    if w.spec.num_params < 1 << 16:
        ws.adapters.balance(w)
        ws.adapters.singular_values(w)


@functools.cache
def _adapter() -> tuple[bytes, bytes]:
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "base_model_name_or_path": "base",
        "alpha_pattern": {"q": 8},
    }
    key = "base_model.model.layers.0.q.lora_"
    return json.dumps(config).encode(), save({f"{key}A.weight": torch.ones(2, 3), f"{key}B.weight": torch.ones(4, 2)})


def cnn_zoo(data: bytes) -> None:
    """The layout of a published zoo of CNNs beside its weights; where the first byte is odd, the measurements."""
    place, odd = folder("cnn_zoo"), bool(data[:1] and data[0] & 1)
    layout, metrics = _cnn_zoo()
    (place / "layout.csv").write_bytes(layout if odd else data[1:])
    (place / "metrics.csv").write_bytes(data[1:] if odd else metrics)
    if not (place / "weights.npy").exists():
        np.save(place / "weights.npy", np.ones((2, 29), np.float32))
    with removed(place / "zoo"):
        ws.zoo.import_cnn_zoo(place, place / "zoo")


def _cnn_zoo() -> tuple[bytes, bytes]:
    rows = [("a/bias:0", 0, "(2,)"), ("a/kernel:0", 2, "(3, 3, 1, 2)"), ("b/bias:0", 20, "(3,)")]
    rows += [("b/kernel:0", 23, "(2, 3)")]
    layout = "varname,start_idx,shape\n" + "".join(f'{name},{start},"{shape}"\n' for name, start, shape in rows)
    metrics = "modeldir,step,test_accuracy,config.activation\na,86,0.5,relu\nb,86,0.25,tanh\n"
    return layout.encode(), metrics.encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (
        *(manifest, shard, spec, result, listing, pth, checkpoint, model, idx, cifar, npz, picture, adapter, cnn_zoo),
    )
} | {suffix: functools.partial(mesh, suffix=suffix) for suffix in MESHES}


def tried(name: str, data: bytes) -> None:
    """Give bytes to a target; raise for anything but an answer in time and within bounds."""
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with warnings.catch_warnings(), contextlib.suppress(*ANSWERS):
        warnings.simplefilter("ignore")
        TARGETS[name](data)
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    if seconds > SECONDS or grown > MEGABYTES:
        raise RuntimeError(
            f"{name}: expected an answer within {SECONDS} s and {MEGABYTES} MB, got {seconds:.1f}, {grown:.0f}"
        )


def seeds(name: str) -> list[bytes]:
    """Make good files for a target, from which fuzzing starts."""
    small = np.arange(24, dtype=np.uint8)
    if name in ("manifest", "shard"):
        path = zoo(f"seed-{name}")
        return [next(path.glob("manifest.json" if name == "manifest" else "shards/*.safetensors")).read_bytes()]
    if name == "spec":
        return [made.to_json().encode() for made in (SPEC, ws.mlp(3, 4, 2, activation="relu"))]
    if name == "result":
        row = {"model": "mlp", "augmentation": "none", "seeds": [0], "test_mean": 0.5, "val_mean": 0.4}
        run = {"seed": 0, "test": 0.5, "val": 0.4, "best_epoch": 1, "history": [{"epoch": 1, "val": 0.4}]}
        body = {"kind": "bench", "suite": "s", "rows": [{**row, "runs": [run]}], "train": {"epochs": 1}}
        return [json.dumps({**body, "schema": schema}).encode() for schema in (1, 2)]
    if name == "listing":
        columns = {"path": ["a.pth", "b.pth"], "label": [0, 1], "source": [3, 4], "view": [0, 0], "psnr": [30.0, None]}
        return [json.dumps(body).encode() for body in ({"train": columns}, {"train": ["a.pth"], "test": ["/x/b.pth"]})]
    if name == "pth":
        buffer = io.BytesIO()
        torch.save({"0.weight": torch.ones(2, 2), "label": 3}, buffer)
        with zipfile.ZipFile(buffer) as file:
            pickled = next(file.read(entry) for entry in file.namelist() if entry.endswith("data.pkl"))
        return [b"\0" + buffer.getvalue(), b"\1" + pickled]
    if name == "checkpoint":
        return [save({"w": torch.ones(2, 2), "b": torch.ones(2)}, {"format": "pt"})]
    if name == "adapter":
        return [b"\0" + _adapter()[0], b"\1" + _adapter()[1]]
    if name == "cnn_zoo":
        return [b"\0" + _cnn_zoo()[0], b"\1" + _cnn_zoo()[1]]
    if name == "model":
        ws.models.save_model(ws.models.build("mlp", SPEC, 2, hidden=3, seed=0), folder("seed-model"))
        return [(folder("seed-model") / "model.json").read_bytes()]
    return _signals(name, small)


def _signals(name: str, small: np.ndarray) -> list[bytes]:
    """Make good files of signals and meshes."""
    import gzip
    import pickle

    if name == "idx":
        whole = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + small.tobytes()
        return [b"\0" + whole, b"\1" + gzip.compress(whole, mtime=0)]
    if name == "cifar":
        whole = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [3]}, 4)
        return [b"\0" + whole, b"\1" + bytes(3073)]
    if name == "npz":

        def array(values: np.ndarray) -> bytes:
            buffer = io.BytesIO()
            np.save(buffer, values)
            return buffer.getvalue()

        archive = io.BytesIO()
        np.savez_compressed(archive, images=small.reshape(2, 3, 4), labels=np.array([0, 1]))
        pictures = array(small.reshape(2, 3, 4)) + b"|next|" + array(np.array([0, 1]))
        points = array(np.zeros((4, 2), np.float32)) + b"|next|" + array(np.zeros((3, 4, 1), np.float16))
        return [b"\0" + archive.getvalue(), b"\1" + pictures, b"\2" + points]
    if name == "picture":
        from PIL import Image

        out = []
        for form in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
            buffer = io.BytesIO()
            Image.fromarray(small.reshape(4, 6)).save(buffer, format=form)
            out.append(buffer.getvalue())
        return out
    corners, head = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n", "format ascii 1.0\nelement vertex 4\nproperty float x\n"
    point = "point [0 0 0, 1 0 0, 0 1 0]"
    return {
        "off": [f"OFF\n4 2 0\n{corners}3 0 1 2\n4 0 1 2 3\n".encode()],
        "obj": [b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1 2 3\nf 1//1 2//1 3//1\n"],
        "ply": [
            f"ply\n{head}property float y\nproperty float z\nelement face 1\n"
            f"property list uchar int vertex_indices\nend_header\n{corners}3 0 1 2\n".encode()
        ],
        "wrl": [
            b"#VRML V2.0 utf8\nDEF A Transform { translation 1 0 0 rotation 0 0 1 1.5 children [ Shape { geometry "
            b"IndexedFaceSet { coord Coordinate { " + point.encode() + b" } coordIndex [0 1 2 -1] ccw FALSE } } ] }\n"
            b"Switch { whichChoice 0 choice [ USE A ] } # end\n"
        ],
        "stl": [
            b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
            b"endsolid a\n"
        ],
    }[name]


def corpus(name: str) -> list[Path]:
    """List the files of a target that are kept: good ones, and those that once were findings."""
    return sorted((CORPUS / name).iterdir())
