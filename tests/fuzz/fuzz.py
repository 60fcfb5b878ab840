"""Fuzz the readers of files by coverage: ``python tests/fuzz/fuzz.py [TARGET ...] --seconds 600``.

Needs atheris (``pip install atheris``), which is for this script alone. Each target runs in a process of its own, from
the corpus that lies beside this script, for so many seconds; what it found goes into ``record.json``. Files that are
findings are kept as ``corpus/TARGET/found-*``, and ``test_corpus.py`` reads them from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE / "record.json"
NAMES = (
    *("manifest", "shard", "spec", "result", "listing", "pth", "checkpoint", "model", "idx", "cifar", "npz", "picture"),
    *("adapter", "cnn_zoo"),
    *("off", "obj", "ply", "wrl", "stl"),
)
LIMITS = ["-rss_limit_mb=2048", "-timeout=20", "-max_len=8192", "-print_final_stats=1", "-close_fd_mask=1"]


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], help="targets to run; all if none is given")
    parser.add_argument("--seconds", type=int, default=600, help="time for each target")
    given = parser.parse_args()
    for name in given.targets or NAMES:
        record(name, given.seconds)


def run(name: str, arguments: list[str]) -> None:
    """Run libFuzzer on one target in this process, which it ends."""
    import atheris  # pyright: ignore[reportMissingImports]

    sys.path.insert(0, str(HERE))
    with atheris.instrument_imports(include=["weightspace"]):
        import _targets
    atheris.Setup([sys.argv[0], *arguments], lambda data: _targets.tried(name, data))
    atheris.Fuzz()


def record(name: str, seconds: int) -> None:
    """Run one target in a process of its own, keep what it found, and note the figures."""
    kept = HERE / "corpus" / name
    with tempfile.TemporaryDirectory() as found, tempfile.TemporaryDirectory() as grown:
        words = Path(found, "words.txt")
        words.write_text(_words(kept))
        dictionary = [f"-dict={words}"] if words.stat().st_size else []  # libFuzzer refuses one without words
        command = [
            *(sys.executable, __file__, "--run", name, grown, str(kept), *dictionary),
            *(f"-artifact_prefix={found}/", f"-max_total_time={seconds}", *LIMITS),
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        findings = [path for path in Path(found).iterdir() if path != words]
        for path in findings:
            data = path.read_bytes()
            (kept / f"found-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
    note = {**_figures(done.stderr), "findings": len(findings), "date": datetime.now(UTC).date().isoformat()}
    note["python"], note["seconds_asked"] = platform.python_version(), seconds
    if done.returncode and not findings:
        raise RuntimeError(f"{name}: expected a run of atheris, got:\n{done.stderr[-2000:]}")
    before: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    RECORD.write_text(json.dumps({**before, name: note}, indent=1, sort_keys=True) + "\n")
    print(name, note, flush=True)
    if findings:
        print(done.stdout[-3000:] + done.stderr[-3000:], flush=True)


def _words(kept: Path) -> str:
    """Return the words of the good files as a dictionary for libFuzzer."""
    found = {word for path in kept.iterdir() for word in re.findall(rb'"?[A-Za-z_#][\w.:]{2,30}"?', path.read_bytes())}
    plain = {c: chr(c) for c in range(33, 127) if chr(c) not in '"\\'}
    escaped = ("".join(plain.get(c, f"\\x{c:02x}") for c in word) for word in found)
    return "".join(f'"{word}"\n' for word in sorted(escaped)[:300])


def _figures(text: str) -> dict[str, int]:
    """Read the figures that libFuzzer prints at its end."""
    names = {"runs": r"number_of_executed_units:\s+(\d+)", "peak_mb": r"peak_rss_mb:\s+(\d+)"}
    out = {name: int(found[1]) for name, pattern in names.items() if (found := re.search(pattern, text))}
    if found := re.findall(r"cov: (\d+)", text):
        out["edges"] = int(found[-1])
    if found := re.search(r"Done \d+ runs in (\d+) second", text):
        out["seconds"] = int(found[1])
    return out


if __name__ == "__main__":
    main()
