"""What a training run leaves on disk: checkpoints to go on from, the best model, the result, TensorBoard logs."""

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

from weightspace._files import write_atomic
from weightspace.models import Model
from weightspace.training._config import TrainConfig
from weightspace.training._objectives import Objective
from weightspace.training._run import Run
from weightspace.transforms import Transform
from weightspace.zoo import Zoo

SHOWN = 200


class Keeper:
    """Writes ``last.pt`` and the logs after every epoch, ``best.safetensors`` and ``result.json`` at the end."""

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        zoo: Zoo,
        transform: Transform | None,
        model: Model,
        objective: Objective,
    ) -> None:
        self.path, self.last = path, path / "last.pt"
        self.key = {
            "config": asdict(config),
            "transform": repr(transform),
            "objective": repr(objective),
            "model": type(model).__name__ + (" to embeddings" if model.unit else ""),
            "options": _options(model),
            "parameters": model.num_parameters,
            "layers": hashlib.sha256(repr(model).encode()).hexdigest(),  # widths, dropout: all that torch prints
            "spec": zoo.spec.to_json(),
            "zoo": hashlib.sha256(",".join(str(shard.sha256) for shard in zoo.shards).encode()).hexdigest(),
        }
        self._logs: Any = None

    def load(self, run: Run) -> None:
        """Go on where an earlier run of the same configuration stopped.

        Raises:
            ValueError: if the folder holds another run, or a checkpoint that cannot be read.
        """
        if not self.last.exists():
            return
        try:
            state = torch.load(self.last, weights_only=True, map_location="cpu")
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(
                f"{self.last}: expected a checkpoint of this library, got another file or a part of one; remove it"
            ) from error
        before = state.get("key", {}) if isinstance(state, dict) else {}
        if "config" in before:  # runs of before these were kept go on
            before = {**before, "config": TrainConfig.filled(before["config"])}
            before.setdefault("options", self.key["options"])
        if different := [name for name, value in self.key.items() if before.get(name) != value]:
            was, now = _differing(before.get(different[0]), self.key[different[0]])
            raise ValueError(
                f"{self.path} holds another run: expected {different[0]} {now}, got {was}; "
                "use another folder or remove it"
            )
        run.restore(state)

    def save(self, run: Run, line: Mapping[str, float]) -> None:
        buffer = io.BytesIO()
        torch.save({"key": self.key, **run.state()}, buffer)
        write_atomic(self.last, buffer.getvalue())
        if self._logs is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._logs = SummaryWriter(str(self.path / "logs"), purge_step=int(line["epoch"]))
        for name in ("loss", "lr", "train", "val"):
            self._logs.add_scalar(name, line[name], int(line["epoch"]))

    def close(self) -> None:
        if self._logs is not None:
            self._logs.close()

    def finish(self, result: Mapping[str, Any], model: Model) -> None:
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        write_atomic(self.path / "best.safetensors", save(state))
        write_atomic(self.path / "result.json", json.dumps({**self.key, **result}, indent=1).encode())


def _options(model: Model) -> dict[str, Any]:
    """What a model was made with, by text; of a model in it the same."""
    return {name: _option(value) for name, value in model.options.items()}


def _option(value: Any) -> Any:
    if isinstance(value, Model):
        return _options(value)
    if isinstance(value, list | tuple):
        return [_option(item) for item in value]
    return str(value)


def _differing(was: Any, now: Any) -> tuple[str, str]:
    """What differs, in few characters: of two mappings their differing entries alone."""
    if isinstance(was, dict) and isinstance(now, dict):
        names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
        was, now = ({name: own.get(name) for name in names} for own in (was, now))
    return str(was)[:SHOWN], str(now)[:SHOWN]
