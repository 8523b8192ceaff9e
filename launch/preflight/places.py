"""Where the run writes: the work folder, its region, its disk, and the hosts' memory for a save."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from launch.preflight.rows import FAIL, PASS, SKIP, WARN, Row, one_line
from launch.preflight.topology import CHIPS_PER_HOST, Topology
from training import storage
from training.config import CheckpointConfig
from training.errors import PodvisionError
from training.record.left_as_found import left_as_found
from training.record.run_folder import open_run_folder
from training.storage import PathLike

GIB = 2**30
# Of a host's share of the state: copied to the host, serialized, and written (MaxText #1322).
SAVE_FACTOR = 3.5
MOST_OF_HOST = 0.8


def workdir_row(workdir: PathLike, hosts: int) -> Row:
    """Whether files can be written there, and by every host. Leaves the place as it was."""
    try:
        with left_as_found(workdir):
            open_run_folder(workdir)
    except (PodvisionError, OSError) as error:
        return Row("work folder", FAIL, one_line(error))
    if hosts > 1 and not storage.is_bucket(workdir):
        sentence = (
            f"{workdir} can be written here, but {hosts} hosts must share it: unless it is a "
            "shared disk there, name a bucket (gs://BUCKET/FOLDER)"
        )
        return Row("work folder", WARN, sentence)
    return Row("work folder", PASS, f"{workdir} can be written")


def region_row(workdir: PathLike, topology: Topology, zone: str | None) -> Row | None:
    """Whether a bucket lies where the chips are; None for a folder on a disk."""
    if not storage.is_bucket(workdir):
        return None
    region = zone.rsplit("-", 1)[0] if zone else topology.generation.region
    if region is None:
        sentence = "where the slice will be is not known; name its zone by --zone"
        return Row("region", SKIP, sentence)
    try:
        place = bucket_location(workdir)
    except (PodvisionError, OSError, *storage.failures()) as error:
        return Row("region", WARN, f"the region of {workdir} could not be asked: {one_line(error)}")
    facts = {"bucket": place, "slice": region}
    # A multi-region such as "us" holds every region that begins so.
    if region == place or region.split("-")[0] == place:
        return Row("region", PASS, f"the bucket is in {place}, the slice in {region}", facts)
    sentence = (
        f"the bucket of {workdir} is in {place}, the slice in {region}: every byte between them is "
        "slow and paid for; use a bucket in the region of the slice"
    )
    return Row("region", FAIL, sentence, facts)


def bucket_location(path: PathLike) -> str:
    """Region or multi-region of a bucket, in lower case."""
    storage.as_path(path)  # chooses the client, or says that it is not installed
    import fsspec

    bucket = str(path).removeprefix(storage.BUCKET).split("/")[0]
    client: Any = fsspec.filesystem("gcs")
    return str(client.call("GET", "b/{}", bucket, json_out=True)["location"]).lower()


def host_share(arrays: Sequence[Mapping[str, Any]], topology: Topology) -> int:
    """Bytes of the state that one host holds, each array or part of it counted once."""
    devices = CHIPS_PER_HOST * topology.generation.devices_per_chip
    return sum(min(row["bytes"], row["bytes_per_device"] * devices) for row in arrays)


def host_memory_row(arrays: Sequence[Mapping[str, Any]], topology: Topology) -> Row:
    """Whether a save fits into the memory of a host."""
    needed = SAVE_FACTOR * host_share(arrays, topology) / GIB
    has = topology.generation.host_gib
    sentence = (
        f"a save needs about {needed:.2f} GiB of a host ({SAVE_FACTOR} times its share of the "
        f"state), which has {has}"
    )
    facts = {"needed_gib": needed, "host_gib": has}
    if needed > MOST_OF_HOST * has:
        sentence += "; shard the state over more hosts (mesh.fsdp) or take a larger slice"
        return Row("host memory", FAIL, sentence, facts)
    return Row("host memory", PASS, sentence, facts)


def disk_row(
    arrays: Sequence[Mapping[str, Any]], total: int, config: CheckpointConfig, workdir: PathLike
) -> Row:
    """Whether the checkpoints that are kept fit on the disk of the work folder."""
    one = sum(row["bytes"] for row in arrays)
    kept = config.keep_latest + (config.best_metric is not None)
    if config.keep_every is not None:
        kept += total // config.keep_every
    # One more is being written before an old one is removed.
    needed = (kept + 1) * one
    sentence = f"{kept} checkpoints of {one / GIB:.2f} GiB are kept, {needed / GIB:.2f} GiB at most"
    facts: dict[str, Any] = {"checkpoint_bytes": one, "kept": kept, "needed_bytes": needed}
    if storage.is_bucket(workdir):
        return Row("disk", PASS, f"{sentence}, in a bucket", facts)
    folder = storage.absolute(workdir)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    facts["free_bytes"] = free
    sentence += f"; {free / GIB:.1f} GiB are free here"
    if free < needed:
        sentence += "; free space, keep fewer (checkpoint.keep_every), or name a bucket"
        return Row("disk", FAIL, sentence, facts)
    return Row("disk", PASS, sentence, facts)
