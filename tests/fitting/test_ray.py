"""Fitting on a Ray cluster of several nodes: same bits as on one machine, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace import cli
from weightspace.fitting import RayExecutor, _ray
from weightspace.fitting._executors import executor_named

ray = pytest.importorskip("ray")
SPEC = ws.siren(2, 6, 1)
CONFIG = ws.FitConfig(steps=4, lr=5e-3, views=2, seed=3)


def data() -> ws.signals.ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 5, 4), dtype=np.uint8)
    return ws.signals.ImageSet(
        images, rng.integers(0, 3, 24), splits={"train": range(16), "test": range(16, 24)}, name="toy"
    )


def fit(path: Path, **options: Any) -> ws.Zoo:
    return ws.fit_zoo(path, data(), SPEC, config=CONFIG, shard_size=2, **options)


def content(path: Path) -> dict[str, bytes]:
    assert not [file.name for file in path.rglob(".*")], "leftovers"
    assert ws.Zoo.open(path, verify=True).verify() == []
    return {file.name: file.read_bytes() for file in (path / "shards").iterdir()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("local") / "zoo"
    fit(folder)
    return content(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that computes nothing, and two nodes with one core each; object stores of the smallest size."""
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    for gpus in (1, 0):  # a GPU in name alone
        nodes.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=80 * 2**20)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def slow(marks: Path, seconds: float) -> Callable[[Any], Any]:
    """What a task does, but it leaves a mark that says where it runs, and takes long enough to be shot at."""
    folder = str(marks)

    def run(job: Any) -> Any:
        import os
        import pathlib

        pathlib.Path(folder, f"{job.index}-{os.getpid()}").touch()
        time.sleep(seconds)
        shard, psnr = job.run()
        return shard, psnr.numpy()

    return run


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def begun(marks: Path) -> list[tuple[int, int]]:
    """Shard and process of every task begun so far, the latest last."""
    found = sorted(marks.iterdir(), key=lambda mark: mark.stat().st_mtime_ns)
    return [(int(mark.name.split("-")[0]), int(mark.name.split("-")[1])) for mark in found]


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setattr(_ray, "_run", slow(folder, 0.2))
    return folder


def test_the_same_bits_as_on_one_machine(cluster: Any, tmp_path: Path, expected: dict[str, bytes]) -> None:
    seen: list[tuple[int, int]] = []
    fit(tmp_path / "zoo", executor="ray", on_progress=lambda done, total, psnr: seen.append((done, total)))
    assert content(tmp_path / "zoo") == expected
    assert [done for done, _ in seen] == list(range(4, 49, 4))
    assert {total for _, total in seen} == {48}


def test_gpus_are_asked_for(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task has a GPU of its node; more of them than a node has are never there, and nothing waits for that."""
    seen = tmp_path / "seen"
    seen.mkdir()
    folder = str(seen)

    def run(job: Any) -> Any:
        import pathlib

        import ray

        pathlib.Path(folder, f"{job.index}-{len(ray.get_gpu_ids())}").touch()
        shard, psnr = job.run()
        return shard, psnr.numpy()

    monkeypatch.setattr(_ray, "_run", run)
    ws.fit_zoo(tmp_path / "zoo", data(), SPEC, config=CONFIG, executor=RayExecutor(gpus=1))
    assert {mark.name.split("-")[1] for mark in seen.iterdir()} == {"1"}
    with pytest.raises(ValueError, match=r"expected a machine with 1 CPUs and 3 GPUs in the cluster, got none"):
        fit(tmp_path / "other", executor=RayExecutor(gpus=3))
    assert executor_named("ray", device=torch.device("cuda"), workers=3) == RayExecutor(cpus=3, gpus=1)
    assert executor_named("ray", device=torch.device("cpu"), workers=None) == RayExecutor()


def test_on_the_command_line(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["fit", "embedded", str(tmp_path / "zoo"), "--train", "4", "--widths", "4", "--steps", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*common, "--executor", "ray", "--address", cluster.address])
    assert ended.value.code == 0, capsys.readouterr().err
    assert len(content(tmp_path / "zoo")) == 1
    assert ws.Zoo.open(tmp_path / "zoo").verify(ws.datasets.embedded()) == []


def test_few_shards_are_handed_out_at_a_time(cluster: Any, tmp_path: Path, marks: Path) -> None:
    """The signals of what is handed out are all that Ray holds: jobs are made as they are sent."""
    made: list[int] = []

    class Counting(RayExecutor):
        def run(self, jobs: Any, on_done: Any) -> Any:
            def counted() -> Any:
                for job in jobs:
                    made.append(job.index)
                    yield job

            return super().run(counted(), on_done)

    def told(done: int, total: int, psnr: Any) -> None:
        ahead.append(len(made) - done // 4)

    ahead: list[int] = []
    fit(tmp_path / "zoo", executor=Counting(in_flight=3), on_progress=told)
    assert len(made) == 12
    assert max(ahead) <= 2  # when one is done, the two others


def test_a_killed_worker_process(cluster: Any, tmp_path: Path, marks: Path, expected: dict[str, bytes]) -> None:
    shot: list[tuple[int, int]] = []

    def kill(done: int, total: int, psnr: Any) -> None:
        if done >= 8 and not shot:
            shot.append(begun(marks)[-1])
            os.kill(shot[0][1], signal.SIGKILL)

    fit(tmp_path / "zoo", executor="ray", on_progress=kill)
    tries = [process for index, process in begun(marks) if index == shot[0][0]]
    assert len(tries) == 2, "the shard that was shot at was begun again"
    assert content(tmp_path / "zoo") == expected


def test_a_killed_node(cluster: Any, tmp_path: Path, marks: Path, expected: dict[str, bytes]) -> None:
    node = sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0]
    alive: list[int] = []

    def kill(done: int, total: int, psnr: Any) -> None:
        if done >= 8 and not alive:
            cluster.remove_node(node, allow_graceful=False)
            alive.append(done)

    fit(tmp_path / "zoo", executor=RayExecutor(in_flight=6), on_progress=kill)
    assert alive
    assert content(tmp_path / "zoo") == expected


def test_a_worker_that_always_dies(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ray, "_run", lambda job: __import__("os")._exit(1))
    with pytest.raises(RuntimeError, match=r"shard \d+ could not be fitted, its retries are spent"):
        fit(tmp_path / "zoo", executor=RayExecutor(retries=0))


def test_what_a_task_raises_arrives(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(job: Any) -> Any:
        import dataclasses

        order = dataclasses.replace(job.order, folder="/not/there")
        return dataclasses.replace(job, order=order).run()

    monkeypatch.setattr(_ray, "_run", elsewhere)
    match = "/not/there: expected the zoo's folder, got none .* every machine that fits must see the folder"
    with pytest.raises(FileNotFoundError, match=match):
        fit(tmp_path / "zoo", executor=RayExecutor(retries=1))
    monkeypatch.setattr(_ray, "_run", lambda job: job.run())
    monkeypatch.setattr(_ray, "versions", lambda: {"weightspace": "0.0"})
    with pytest.raises(RuntimeError, match=r"expected \{'weightspace': '0.0'\} on every machine.*install the same"):
        fit(tmp_path / "zoo", executor="ray")


def test_a_killed_driver(cluster: Any, tmp_path: Path, marks: Path, expected: dict[str, bytes]) -> None:
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_ray as t
        t._ray._run = t.slow(t.Path({str(marks)!r}), 0.2)
        if __name__ == "__main__":
            import ray.cloudpickle
            ray.cloudpickle.register_pickle_by_value(t)
            t.fit(t.Path({str(tmp_path)!r}) / "zoo", executor=t.RayExecutor(address={cluster.address!r}))
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    shards = tmp_path / "zoo" / "shards"
    try:
        wait_for(lambda: len(list(shards.glob("*.done.json"))) >= 3 or driver.poll() is not None)
        driver.kill()
    finally:
        driver.wait()
    done = {file: file.stat().st_mtime_ns for file in shards.glob("*.safetensors")}
    assert 3 <= len(done) < len(expected)
    with pytest.raises(ValueError, match="0 of 12 shards are done; run the fit again"):
        ws.Zoo.open(tmp_path / "zoo")
    found = ws.Zoo.open(tmp_path / "zoo", allow_incomplete=True)
    assert sum(shard.done for shard in found.shards) >= 3
    kept = {shard.file for shard in found.shards if shard.done}
    fit(tmp_path / "zoo", executor="ray")
    assert content(tmp_path / "zoo") == expected
    assert all((tmp_path / "zoo" / file).stat().st_mtime_ns == done[tmp_path / "zoo" / file] for file in kept)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"cpus": 0}, ValueError, "cpus: expected a positive number, got 0"),
        ({"gpus": -1}, ValueError, "gpus: expected a number >= 0, got -1"),
        ({"in_flight": 0}, ValueError, "in_flight: expected at least 1, got 0"),
        ({"retries": True}, TypeError, "retries: expected a whole number, got True"),
    ],
)
def test_options_refused(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        RayExecutor(**options)
