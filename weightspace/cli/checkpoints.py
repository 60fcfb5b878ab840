"""Commands on trained modules as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import weightspace as ws
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import check_input_shape, numbers, usage
from weightspace.cli._progress import say

if TYPE_CHECKING:
    from torch import Tensor


@PROGRAM.command()
def align(
    a: Annotated[Path, typer.Argument(help="checkpoint to align to: a state dict, .safetensors, .pth or .pt")],
    b: Annotated[Path, typer.Argument(help="checkpoint to move")],
    module: Annotated[str, typer.Option(help="function that makes the network, as package.module:function")],
    group: Annotated[
        Literal["permutation", "signed", "scaled", "full"], typer.Option(help="group to search")
    ] = "permutation",
    restarts: Annotated[
        int, typer.Option(min=0, help="how many more times to start, from random permutations; the best is kept")
    ] = 0,
    seed: Annotated[int, typer.Option(help="seed of the restarts")] = 0,
    shape: Annotated[
        str | None,
        typer.Option(
            "--input", callback=check_input_shape, help="shape of an input, as 3,32,32; usual sizes if not given"
        ),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(help="inputs, one array in an .npy file: pair neurons by their responses to them, not by weights"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="file for the second checkpoint, moved")] = None,
    merge: Annotated[Path | None, typer.Option(help="file for the average of the two, aligned")] = None,
) -> None:
    """Move one checkpoint onto another of the same network; its function stays."""
    import torch

    from weightspace.checkpoints._files import check_target, load_module, read_metadata
    from weightspace.checkpoints._keys import find_keys
    from weightspace.checkpoints._merge import merge_state_dicts

    for path in (out, merge):
        if path is not None:
            usage(check_target, path)
    if out is not None and merge is not None and out.resolve() == merge.resolve():
        raise typer.BadParameter(f"expected two files for --out and --merge, got {out} for both")
    states = [ws.checkpoints.read_checkpoint(path) for path in (a, b)]
    net = usage(load_module, module)
    example = None if shape is None else torch.zeros(1, *numbers(shape))
    batches = None if responses is None else _array(responses).split(256)
    if batches is not None and example is None:
        example = batches[0][:1]
    options: dict[str, Any] = {}
    if restarts:
        options = {"restarts": restarts, "generator": torch.Generator().manual_seed(seed)}
    found = ws.checkpoints.align_state_dicts(
        net, *states, group=group, example_input=example, batches=batches, **options
    )
    say(f"squared distance {found.before:.6g} before, {found.after:.6g} after")
    if out is not None:
        ws.checkpoints.write_checkpoint(found.state_dict, out, metadata=read_metadata(b))
        say(f"wrote {out}")
    if merge is not None:
        ends = [
            find_keys(str(path), state, list(net.state_dict())).named(state)
            for path, state in ((a, states[0]), (b, found.state_dict))
        ]
        average = merge_state_dicts(ends)
        ws.checkpoints.write_checkpoint(average, merge, metadata=read_metadata(a))
        norms = any(param.statistic for param in found.symmetry.spec.params)
        hint = "; measure its batch norms anew: ws.checkpoints.repair_batch_norm" if norms else ""
        say(f"wrote {merge}{hint}")


def _array(path: Path) -> Tensor:
    """Read the inputs of a network, ``[input, ...]`` in float32."""
    import torch

    from weightspace.signals._npz import read_array

    found = read_array(path)
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected an array of numbers in an .npy file, got {found.dtype}")
    return torch.from_numpy(found.astype("float32"))
