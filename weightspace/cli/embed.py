"""Commands that look at networks through a trained model: embeddings, maps and nearest neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

import weightspace as ws
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import Device, Workers
from weightspace.cli._progress import console, say
from weightspace.cli.predict import Imports, Run

MOST_QUERIES = 20


@PROGRAM.command()
def embed(
    run: Run,
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    out: Annotated[Path | None, typer.Option(help=".npz file of features, labels, sources and splits to write")] = None,
    map_file: Annotated[Path | None, typer.Option("--map", help="PNG file of a map in two dimensions to draw")] = None,
    method: Annotated[Literal["pca", "umap"], typer.Option(help="how the map is made; umap needs umap-learn")] = "pca",
    clusters: Annotated[int | None, typer.Option(min=2, help="clusters of k-means to find in the features")] = None,
    k: Annotated[int, typer.Option(min=1, help="neighbours that the k-NN reader asks")] = 5,
    imports: Imports = False,
    device: Device = "cpu",
) -> None:
    """Embed the networks of a zoo, measure what a linear reader and k-NN read off the features, and draw a map."""
    import numpy as np
    import torch

    model, opened = ws.models.load_model(run, imports=imports), ws.Zoo.open(zoo)
    features = {split: ws.training.embed(model, opened[split], device=device) for split in opened.splits}
    width = next(iter(features.values())).shape[1]
    say(f"{sum(map(len, features.values()))} networks, {width} features each")
    _print_probes(opened, features, k)
    whole = torch.cat(list(features.values()))
    labels = np.concatenate([opened.labels(split).numpy() for split in features])
    columns: dict[str, Any] = {
        "features": whole.numpy(),
        "label": labels,
        "source": np.concatenate([opened.sources(split).numpy() for split in features]),
        "view": np.concatenate([opened.views(split).numpy() for split in features]),
        "split": np.repeat(list(features), [len(own) for own in features.values()]),
    }
    if clusters is not None:
        columns["cluster"] = _clustered(columns["features"], clusters, labels)
    if out is not None:
        _write_arrays(out, columns)
        say(f"wrote {out}")
    if map_file is not None:
        from weightspace.report._map import draw_map, flat_map

        say(f"wrote {draw_map(flat_map(columns['features'], method), labels, opened.classes, map_file)}")


def _print_probes(zoo: ws.Zoo, features: dict[str, Any], k: int) -> None:
    """Print what readers of the training split's features know of another split's labels."""
    test = next((name for name in ("test", "val") if name in features), None)
    if test is None or "train" not in features:
        return
    given, wanted = zoo.labels("train"), zoo.labels(test)
    if not given.is_floating_point() and (int(given.min()) < 0 or int(wanted.min()) < 0 or len(given.unique()) < 2):
        return
    for kind, text in (("linear", "linear probe"), ("knn", f"{min(k, len(given))}-NN")):
        found = ws.training.probe(features["train"], given, features[test], wanted, kind=kind, k=min(k, len(given)))  # pyright: ignore[reportArgumentType]
        say(f"{text}: R2 {found:.4f}" if given.is_floating_point() else f"{text}: {100 * found:.2f} % of {test}")


def _clustered(features: Any, count: int, labels: Any) -> Any:
    """Return the cluster of each row, and print how well clusters and classes agree."""
    from weightspace._extras import optional

    cluster = optional("sklearn.cluster", "scikit-learn", "digits", "clustering")
    if count > len(features):
        raise typer.BadParameter(f"expected at most {len(features)} clusters, one a network, got {count}")
    found = cluster.KMeans(count, n_init=4, random_state=0).fit_predict(features)
    if labels.dtype.kind == "i" and labels.min() >= 0:
        metrics = optional("sklearn.metrics", "scikit-learn", "digits", "clustering")
        say(f"{count} clusters, adjusted Rand index with the classes {metrics.adjusted_rand_score(labels, found):.4f}")
    return found


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    import io

    import numpy as np

    from weightspace._files import write_atomic

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


@PROGRAM.command()
def neighbours(
    run: Run,
    zoo: Annotated[Path, typer.Argument(help="the zoo to search")],
    data: Annotated[
        Path, typer.Argument(help="a zoo, files of weights or signals, or a folder of them, as for predict")
    ],
    k: Annotated[int, typer.Option(min=1, help="neighbours of each")] = 5,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="file to write all neighbours to")] = None,
    imports: Imports = False,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Find the networks of a zoo that a trained model takes for the most similar to others, or to new signals."""
    from weightspace.cli.predict import as_csv, names_of_zoo, read_networks

    model, opened = ws.models.load_model(run, imports=imports), ws.Zoo.open(zoo)
    found = read_networks(model, data, None, device, workers)
    names = names_of_zoo(opened)
    among = ws.Weights.cat([opened.weights(split) for split in opened.splits])
    index, similarity = ws.training.neighbours(
        ws.training.embed(model, found.data, device=device), ws.training.embed(model, among, device=device), k=k
    )
    header = [*found.columns, "rank", "similarity", *names.columns]
    rows = [
        [*own, rank + 1, round(near, 4), *names.rows[row]]
        for own, places, nears in zip(found.rows, index.tolist(), similarity.tolist(), strict=True)
        for rank, (row, near) in enumerate(zip(places, nears, strict=True))
    ]
    if csv_file is not None:
        from weightspace._files import write_atomic

        write_atomic(csv_file, as_csv(header, rows).encode())
        say(f"wrote {csv_file}")
        return
    table = Table(*header)
    for row in rows[: MOST_QUERIES * k]:
        table.add_row(*map(str, row))
    console.print(table)
    if len(found.rows) > MOST_QUERIES:
        say(f"and {len(found.rows) - MOST_QUERIES} more; --csv FILE writes all")
