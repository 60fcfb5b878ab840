"""Fitting on a Ray cluster of several nodes: same bits as on one machine, whatever dies on the way."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace import cli
from weightspace.bench import Entry, Suite, run_suite
from weightspace.bench import _run as _bench_run
from weightspace.bench._record import Result, read_result
from weightspace.fitting import RayExecutor, _executors
from weightspace.fitting._executors import executor_named
from weightspace.zoo import verify

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
    assert verify(ws.Zoo.open(path, verify=True)) == []
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


PATIENCE = 300.0
"""Seconds until a test takes it that something will never happen; nothing is decided by time otherwise."""


def marked(marks: Path, *, dies: int = -1, waits: Sequence[int] = ()) -> Callable[[Any], Any]:
    """Make a task that leaves a mark of its shard, process and node, and stops where a test wants it to.

    Args:
        marks: folder of the marks.
        dies: the shard whose first task ends its own process by SIGKILL.
        waits: shards whose tasks wait until there is a file ``go`` among the marks.
    """
    folder, waits, patience = str(marks), tuple(waits), PATIENCE

    def run(task: Any) -> Any:
        import os
        import pathlib
        import signal
        import time

        import ray

        here, index = pathlib.Path(folder), task.index
        node = ray.get_runtime_context().get_node_id()
        first = not list(here.glob(f"{index}-*"))
        (here / f"{index}-{os.getpid()}-{node}").touch()
        if index == dies and first:
            os.kill(os.getpid(), signal.SIGKILL)
        end = time.monotonic() + patience
        while index in waits and not (here / "go").exists():
            assert time.monotonic() < end, "nobody said go"
            time.sleep(0.01)
        shard, psnr = task.run()
        return shard, psnr.numpy()

    return run


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
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

    def run(task: Any) -> Any:
        import pathlib

        import ray

        pathlib.Path(folder, f"{task.index}-{len(ray.get_gpu_ids())}").touch()
        shard, psnr = task.run()
        return shard, psnr.numpy()

    monkeypatch.setattr(_executors, "_run", run)
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
    assert verify(ws.Zoo.open(tmp_path / "zoo"), ws.datasets.embedded()) == []


def test_few_shards_are_handed_out_at_a_time(cluster: Any, tmp_path: Path) -> None:
    """The signals of what is handed out are all that Ray holds: tasks are made as they are sent."""
    made: list[int] = []

    class Counting(RayExecutor):
        def run(self, tasks: Any, on_progress: Any) -> Any:
            def counted() -> Any:
                for task in tasks:
                    made.append(task.index)
                    yield task

            return super().run(counted(), on_progress)

    def on_progress(done: int, total: int, psnr: Any) -> None:
        ahead.append(len(made) - done // 4)

    ahead: list[int] = []
    fit(tmp_path / "zoo", executor=Counting(in_flight=3), on_progress=on_progress)
    assert len(made) == 12
    assert max(ahead) <= 2  # when one is done, the two others


def test_a_killed_worker_process(
    cluster: Any, tmp_path: Path, marks: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_executors, "_run", marked(marks, dies=5))
    fit(tmp_path / "zoo", executor="ray")
    assert len(list(marks.glob("5-*"))) == 2, "the shard whose process was killed is begun again"
    assert content(tmp_path / "zoo") == expected


def test_a_killed_node(
    cluster: Any, tmp_path: Path, marks: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node dies while a task waits on it, and another node does the task again."""
    monkeypatch.setattr(_executors, "_run", marked(marks, waits=range(4, 12)))
    node = sorted(cluster.worker_nodes, key=lambda node: node.unique_id)[0]
    waiting: list[Path] = []

    def kill(done: int, total: int, psnr: Any) -> None:
        if done == 16:  # all shards that do not wait
            wait_for(lambda: [mark for index in range(4, 12) for mark in marks.glob(f"{index}-*-{node.node_id}")])
            waiting.extend(mark for index in range(4, 12) for mark in marks.glob(f"{index}-*-{node.node_id}"))
            cluster.remove_node(node, allow_graceful=False)
            wait_for(lambda: not runs(int(waiting[0].name.split("-")[1])))  # it outlives its node a little
            (marks / "go").touch()

    fit(tmp_path / "zoo", executor=RayExecutor(in_flight=6), on_progress=kill)
    assert len(waiting) == 1
    assert len(list(marks.glob(f"{waiting[0].name.partition('-')[0]}-*"))) == 2, "the shard is begun again elsewhere"
    assert content(tmp_path / "zoo") == expected


def test_a_worker_that_always_dies(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_executors, "_run", lambda task: __import__("os")._exit(1))
    with pytest.raises(RuntimeError, match=r"shard \d+ could not be fitted, its retries are spent"):
        fit(tmp_path / "zoo", executor=RayExecutor(retries=0))


def test_what_a_task_raises_arrives(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(task: Any) -> Any:
        import dataclasses

        target = dataclasses.replace(task.target, folder="/not/there")
        return dataclasses.replace(task, target=target).run()

    monkeypatch.setattr(_executors, "_run", elsewhere)
    match = "/not/there: expected the zoo's folder, got none .* every machine that fits must see the folder"
    with pytest.raises(FileNotFoundError, match=match):
        fit(tmp_path / "zoo", executor=RayExecutor(retries=1))
    monkeypatch.setattr(_executors, "_run", lambda task: task.run())
    monkeypatch.setattr(_executors, "versions", lambda: {"weightspace": "0.0"})
    with pytest.raises(RuntimeError, match=r"expected \{'weightspace': '0.0'\} on every machine.*install the same"):
        fit(tmp_path / "zoo", executor="ray")


def test_a_killed_driver(cluster: Any, tmp_path: Path, marks: Path, expected: dict[str, bytes]) -> None:
    """The driver is killed when five shards are done and the others wait."""
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_ray as t
        t._executors._run = t.marked(t.Path({str(marks)!r}), waits=range(5, 12))
        if __name__ == "__main__":
            import ray.cloudpickle
            ray.cloudpickle.register_pickle_by_value(t)
            t.fit(t.Path({str(tmp_path)!r}) / "zoo", executor=t.RayExecutor(address={cluster.address!r}))
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    shards = tmp_path / "zoo" / "shards"
    try:
        wait_for(lambda: len(list(shards.glob("*.done.json"))) >= 5 or driver.poll() is not None)
        driver.kill()
    finally:
        driver.wait()
    waiting = {int(mark.name.split("-")[1]) for index in range(5, 12) for mark in marks.glob(f"{index}-*")}
    wait_for(lambda: not any(map(runs, waiting)))  # Ray ends them a little later; they wait until then
    done = {file: file.stat().st_mtime_ns for file in shards.glob("*.safetensors")}
    assert len(done) == 5
    with pytest.raises(ValueError, match="0 of 12 shards are done; run the fit again"):
        ws.Zoo.open(tmp_path / "zoo")
    found = ws.Zoo.open(tmp_path / "zoo", allow_incomplete=True)
    assert sum(shard.done for shard in found.shards) == 5
    kept = {shard.file for shard in found.shards if shard.done}
    fit(tmp_path / "zoo", executor="ray")
    assert content(tmp_path / "zoo") == expected
    assert all((tmp_path / "zoo" / file).stat().st_mtime_ns == done[tmp_path / "zoo" / file] for file in kept)


# --- suites


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[ws.Zoo, Suite, Result]:
    """A zoo, a suite of two models and two seeds on it, and its result on this machine."""
    folder = tmp_path_factory.mktemp("suite")
    zoo = fit(folder / "zoo")
    entries = {"mlp": Entry("mlp", {"hidden": 4}), "statistics": Entry("statistics", {"hidden": 4}, ensemble=True)}
    suite = Suite("both", entries, ("none", "noise"), ws.TrainConfig(epochs=3, batch_size=4), seeds=(0, 1))
    return zoo, suite, read_result(run_suite(suite, zoo.path, folder / "out", workers=1))


def scores(result: Result) -> list[Any]:
    of_runs = [[(run.seed, run.best_epoch, run.val, run.test) for run in row.runs] for row in result.rows]
    return [(row.model, row.augmentation, row.ensemble, own) for row, own in zip(result.rows, of_runs, strict=True)]


def test_a_suite_on_a_cluster_has_the_same_scores(
    cluster: Any, tmp_path: Path, measured: tuple[ws.Zoo, Suite, Result]
) -> None:
    zoo, suite, expected = measured
    seen: list[str] = []
    options = {"executor": "ray", "on_cell": lambda cell, *_: seen.append(cell.key)}
    result = read_result(run_suite(suite, zoo.path, tmp_path / "out", **options))
    assert scores(result) == scores(expected)
    assert sorted(seen) == sorted(f"{m}-{a}-{s}" for m in suite.entries for a in ("none", "noise") for s in (0, 1))
    again = read_result(run_suite(suite, zoo.path, tmp_path / "out", workers=1))  # all is there already
    assert scores(again) == scores(expected)


def test_a_cell_whose_process_is_killed_goes_on_from_its_last_epoch(
    cluster: Any, tmp_path: Path, marks: Path, measured: tuple[ws.Zoo, Suite, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, suite, expected = measured
    folder = str(marks)

    def run(job: Any) -> Any:
        import os
        import pathlib
        import signal

        from weightspace.bench._cell import run_cell
        from weightspace.training import _run

        first = not list(pathlib.Path(folder).glob(f"{job.cell.key}-*"))
        epochs, own = [], _run.Run.one_epoch

        def one_epoch(run: Any) -> Any:
            if first and run.epoch == 2 and job.cell.key == "mlp-noise-1":
                os.kill(os.getpid(), signal.SIGKILL)
            epochs.append(run.epoch)
            (pathlib.Path(folder) / f"{job.cell.key}-{os.getpid()}-{run.epoch}").touch()
            return own(run)

        _run.Run.one_epoch = one_epoch
        try:
            return run_cell(job)
        finally:
            _run.Run.one_epoch = own

    monkeypatch.setattr(_bench_run, "run_cell", run)
    result = read_result(run_suite(suite, zoo.path, tmp_path / "out", executor=RayExecutor(in_flight=2)))
    assert scores(result) == scores(expected)
    found = [mark.name.removeprefix("mlp-noise-1-").split("-") for mark in marks.glob("mlp-noise-1-*")]
    assert sorted(epoch for _, epoch in found) == ["0", "1", "2"]  # each epoch ran once
    assert len({process for process, _ in found}) == 2


def test_executors_of_suites_are_checked(tmp_path: Path, measured: tuple[ws.Zoo, Suite, Result]) -> None:
    zoo, suite, _ = measured
    with pytest.raises(ValueError, match="executor: expected 'local', 'ray' or an Executor, got 'slurm'"):
        run_suite(suite, zoo.path, tmp_path / "out", executor="slurm")

    with pytest.raises(TypeError, match="executor: expected 'local', 'ray' or a RayExecutor, got Other"):
        run_suite(suite, zoo.path, tmp_path / "out", executor=Other())  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "out").exists()


class Other(ws.fitting.Executor):
    """An executor of shards alone."""

    def run(self, tasks: Any, on_progress: Any) -> Any:
        raise NotImplementedError


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_a_cluster_of_our_own_listens_to_this_machine_alone() -> None:
    script = """
        import os, ray
        from pathlib import Path
        from weightspace.fitting._executors import _connected

        def listening():  # addresses in hexadecimal, of sockets that wait for connections, by number of the file
            found = {}
            for table in ("tcp", "tcp6"):
                for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                    words = line.split()
                    if words[3] == "0A":
                        found[f"socket:[{words[9]}]"] = words[1].split(":")[0]
            return found

        def links(pid):
            try:
                return [os.readlink(file) for file in Path("/proc", pid, "fd").iterdir()]
            except OSError:
                return []

        def family(pid):
            found = [pid]
            for stat in Path("/proc").glob("[0-9]*/stat"):
                try:
                    parent = stat.read_text().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                found += family(stat.parent.name) if parent == pid else []
            return found

        with _connected(ray, None):
            ray.get(ray.remote(lambda: 0).remote())
            sockets, mine = listening(), family(str(os.getpid()))
            print(sorted({sockets[link] for pid in mine for link in links(pid) if link in sockets}))
        print([name for name in os.environ if "OSX" in name])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    addresses, left = done.stdout.splitlines()
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert eval(addresses)
    assert set(eval(addresses)) <= loopback
    assert left == "[]"


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
