"""Converting COCO panoptic data: images a second, memory, bytes.

    python benchmarks/convert.py --images IMAGES --annotations JSON --masks MASKS

The images are repeated, as links under new names, until there are --count. The
conversion runs in a process of its own, as `cmt data convert` does. It is compared
with DeepLab2's converter, which has one process: 56.9 images/s, and 6.5 times the
bytes of the source files, on one core of a machine whose speed is in `calibration.py`.
That of this machine is measured before each run, and the figure scaled by their median.
Seconds include the start of the program, and "once started" does not: the time of a
conversion of one image is taken off. Where other work runs beside, only CPU time tells
something: "on free cores" is what it comes to with a core for each worker.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from calibration import decoding_rates, decoding_speed

PEER_IMAGES_PER_SECOND = 56.9
PEER_BYTES = 6.5


def repeat(source: argparse.Namespace, folder: Path, count: int) -> dict[str, Path]:
    """A data set of `count` images made of links to those of `source`."""
    content = json.loads(source.annotations.read_text(encoding="utf-8"))
    by_id = {image["id"]: image for image in content["images"]}
    images, annotations = [], []
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(count):
        annotation = content["annotations"][number % len(content["annotations"])]
        image = by_id[annotation["image_id"]]
        links = {}
        for part, name in (
            ("images", image["file_name"]),
            ("masks", annotation["file_name"]),
        ):
            original = getattr(source, part) / name
            links[part] = f"{number:012d}{original.suffix}"
            (folder / part / links[part]).symlink_to(original.resolve())
        images.append({**image, "id": number, "file_name": links["images"]})
        annotations.append(
            {**annotation, "image_id": number, "file_name": links["masks"]}
        )
    content.update(images=images, annotations=annotations)
    (folder / "panoptic.json").write_text(json.dumps(content), encoding="utf-8")
    return {
        "images": folder / "images",
        "annotations": folder / "panoptic.json",
        "masks": folder / "masks",
    }


def run(
    sources: dict[str, Path], output: Path, workers: int, limit: int = 0
) -> dict[str, float]:
    """Converts; returns seconds, CPU seconds, and a process's most memory in MB."""
    options = [part for name, path in sources.items() for part in (f"--{name}", path)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cmt", "data", "convert", *options),
            *("--output", output, "--split", "val", "--workers", str(workers)),
            *("--limit", str(limit)),
        ],
        stdout=subprocess.DEVNULL,
    )
    peaks: dict[int, int] = {}
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    if process.wait():
        raise SystemExit(f"the conversion failed with code {process.returncode}")
    seconds = time.perf_counter() - start
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": used, "megabytes": max(peaks.values()) / 1000}


def _watch(process: subprocess.Popen, peaks: dict[int, int]) -> None:
    """Notes the peak memory in kB of a process and its children while it runs."""
    while process.poll() is None:
        pids = [process.pid]
        for pid in pids:
            status = Path(f"/proc/{pid}/status")
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                lines = status.read_text().splitlines()
            except OSError:
                continue
            pids += [int(child) for child in children.split()]
            peak = [line.split()[1] for line in lines if line.startswith("VmHWM")]
            if peak:
                peaks[pid] = int(peak[0])
        time.sleep(0.02)


def main() -> None:
    """Prints the figures as json."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("images", "annotations", "masks"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--count", type=int, default=280)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    source = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = repeat(source, folder, source.count)
        files = [*sources["images"].iterdir(), *sources["masks"].iterdir()]
        source_bytes = sum(path.stat().st_size for path in files)
        starts = [
            run(sources, folder / f"start{number}", source.workers, limit=1)["seconds"]
            for number in range(source.runs)
        ]
        runs, rates = [], []
        for number in range(source.runs):
            rates.append(decoding_rates())
            output = folder / f"output{number}"
            runs.append(run(sources, output, source.workers))
        written = sum(path.stat().st_size for path in output.glob("*.tfrecord"))
    seconds = statistics.median(one["seconds"] for one in runs)
    cpu = statistics.median(one["cpu"] for one in runs)
    speed = statistics.median(map(decoding_speed, rates))
    peer = PEER_IMAGES_PER_SECOND * speed
    started = source.count / (seconds - statistics.median(starts))
    print(
        json.dumps(
            {
                "images": source.count,
                "workers": source.workers,
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "decoded_per_second": {
                    kind: round(statistics.median(one[kind] for one in rates))
                    for kind in rates[0]
                },
                "decodes_to_the_peer": round(speed, 2),
                "images_per_second": round(source.count / seconds, 1),
                "cpu_ms_per_image": round(1000 * cpu / source.count, 2),
                "peer_images_per_second_scaled": round(peer, 1),
                "times_the_peer": round(source.count / seconds / peer, 2),
                "images_per_second_once_started": round(started, 1),
                "times_the_peer_once_started": round(started / peer, 2),
                "times_the_peer_on_free_cores": round(
                    source.workers * source.count / cpu / peer, 2
                ),
                "peak_megabytes_of_a_process": round(
                    max(one["megabytes"] for one in runs)
                ),
                "bytes_to_source_bytes": round(written / source_bytes, 3),
                "peer_bytes_to_source_bytes": PEER_BYTES,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
