"""The folder of a training run: a checkpoint to go on from, the best model, the result, and TensorBoard logs."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from weightspace._files import read_json, remove_leftovers, write_atomic
from weightspace._version import __version__
from weightspace.models import save_model
from weightspace.training._config import TrainConfig
from weightspace.training._objective import Objective
from weightspace.training._run import Run
from weightspace.transforms import Transform
from weightspace.zoo import Zoo

RUN_FORMAT = 2
HEADER = b"weightspace run, format 2, sha256 "
"""How a checkpoint begins; the digest of what follows and a line break come next."""
CHECKPOINT, RUN, RESULT, WEIGHTS = "last.ckpt", "run.json", "result.json", "model.safetensors"
MOST_CHARACTERS = 200


class RunFolder:
    """A folder that holds one run.

    ``run.json`` names the run from its start. ``last.ckpt`` and the logs follow after every epoch. At the end come
    ``model.json`` and ``model.safetensors``, which :func:`weightspace.models.load_model` reads, and ``result.json``.
    TensorBoard logs are written where the package ``tensorboard`` is installed. A finished run that is asked for more
    epochs goes on; ``run.json`` keeps the numbers of epochs that it had before under ``"extended"``.

    Args:
        path: the folder, made where it is missing.
        config: the hyper-parameters.
        zoo: the networks.
        transform: the augmentation.
        model: the model.
        objective: the objective.

    Raises:
        ValueError: if the folder holds another run, or one of another version.
        OSError: if the folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        zoo: Zoo,
        transform: Transform | None,
        model: nn.Module,
        objective: Objective,
    ) -> None:
        self.path, self.checkpoint = path, path / CHECKPOINT
        self.key = {
            "config": asdict(config),
            "transform": repr(transform),
            "objective": repr(objective),
            "model": type(model).__name__,
            "options": _plain(getattr(model, "config", {})),
            "parameters": sum(p.numel() for p in model.parameters()),
            "layers": hashlib.sha256(repr(model).encode()).hexdigest(),  # widths, dropout: all that torch prints
            "spec": zoo.spec.to_json(),
            "zoo": hashlib.sha256(",".join(str(shard.sha256) for shard in zoo.shards).encode()).hexdigest(),
        }
        self._logs: Any = None
        self._begin_or_resume()

    def _begin_or_resume(self) -> None:
        """Describe a new run in the folder, or refuse a folder that describes another."""
        file = self.path / RUN
        if not file.exists():
            if (self.path / "last.pt").exists():
                raise ValueError(
                    f"{self.path}: expected a run of format {RUN_FORMAT}, got one of version 0.1.0; finish it with "
                    "that version, or use another folder"
                )
            body = {"format": RUN_FORMAT, "weightspace": __version__, **self.key}
            write_atomic(file, json.dumps(body, indent=1).encode())
            return
        remove_leftovers(self.path)
        before = read_json(file, "a run's description", remedy="remove it")
        if not isinstance(before, dict) or before.get("format") != RUN_FORMAT:
            found = before.get("format") if isinstance(before, dict) else type(before).__name__
            raise ValueError(
                f"{file}: expected a run of format {RUN_FORMAT}, got {found!r}; use another folder or remove it"
            )
        if isinstance(before.get("config"), dict):
            before["config"] = TrainConfig.filled(before["config"])
        key = json.loads(json.dumps(self.key))
        if self._extended(before, key):
            body = {**before, "config": key["config"], "extended": [*before.get("extended", []), self._epochs(before)]}
            write_atomic(file, json.dumps(body, indent=1).encode())
            before = body
        if different := [name for name, value in key.items() if before.get(name) != value]:
            was, now = _differing(before.get(different[0]), key[different[0]])
            raise ValueError(
                f"{self.path} holds another run: expected {different[0]} {now}, got {was}; "
                "use another folder or remove it"
            )

    @staticmethod
    def _epochs(body: Any) -> Any:
        config = body.get("config") if isinstance(body, dict) else None
        return config.get("epochs") if isinstance(config, dict) else None

    def _extended(self, before: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
        """Return whether this is a finished run that is asked for more epochs, and else the same."""
        old, new, result = self._epochs(before), self._epochs(key), self.path / RESULT
        if not isinstance(old, int) or not old < new or not result.is_file():
            return False
        same = {**before.get("config", {}), "epochs": new} == key["config"]
        return same and self._epochs(read_json(result, "the result of a run", remedy="remove it")) == old

    def load(self, run: Run) -> None:
        """Go on where an earlier run of the same configuration stopped.

        Raises:
            ValueError: for a checkpoint that is damaged or of another form.
        """
        if not self.checkpoint.exists():
            return
        remedy = "remove it to begin the run again"
        content = self.checkpoint.read_bytes()
        head, _, body = content.partition(b"\n")
        if not head.startswith(HEADER) or head[len(HEADER) :].decode("ascii", "replace") != _sha256(body):
            raise ValueError(
                f"{self.checkpoint}: expected a whole checkpoint of this library, got a damaged one; {remedy}"
            )
        try:
            run.restore(torch.load(io.BytesIO(body), weights_only=True, map_location="cpu"))
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.checkpoint}: expected a checkpoint of this run ({error}); {remedy}") from error

    def save(self, run: Run, line: Mapping[str, float]) -> None:
        """Write the checkpoint, and the epoch's line to the logs."""
        buffer = io.BytesIO()
        torch.save(run.state(), buffer)
        body = buffer.getvalue()
        write_atomic(self.checkpoint, HEADER + _sha256(body).encode() + b"\n" + body)
        if self._logs is None:
            self._logs = _logs(self.path / "logs", int(line["epoch"]))
        if self._logs:
            for name in ("loss", "lr", "train", "val"):
                self._logs.add_scalar(name, line[name], int(line["epoch"]))

    def close(self) -> None:
        """Close the logs."""
        if self._logs:
            self._logs.close()

    def finish(self, result: Mapping[str, Any], model: nn.Module) -> None:
        """Write the trained model and the result."""
        try:
            save_model(model, self.path)  # pyright: ignore[reportArgumentType]
        except TypeError:  # a model that cannot be found again by a name: its weights alone
            state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
            write_atomic(self.path / WEIGHTS, save(state))
        write_atomic(self.path / RESULT, json.dumps({**self.key, **result}, indent=1).encode())


def _logs(folder: Path, epoch: int) -> Any:
    """Open TensorBoard logs, or return ``False`` where the package is not installed."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        return False
    return SummaryWriter(str(folder), purge_step=epoch)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(value: Any) -> Any:
    """Return the arguments that a model was made with as text; of a model in it its own arguments."""
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, nn.Module):
        return {"model": type(value).__name__, **_plain(getattr(value, "config", {}))}
    return str(value)


def _differing(was: Any, now: Any) -> tuple[str, str]:
    """Return the two values, shortened; of two mappings the differing entries alone."""
    if isinstance(was, dict) and isinstance(now, dict):
        names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
        was, now = ({name: own.get(name) for name in names} for own in (was, now))
    return str(was)[:MOST_CHARACTERS], str(now)[:MOST_CHARACTERS]
