"""Distribution strategies: which devices train together, and in which processes.

Under MULTI_WORKER_MIRRORED each host runs a process of its own: all of them make the
same calls in the same order, and one, the chief, writes the run directory. Everywhere
else one process commands all devices.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from cmt.errors import InputError, tensorflow_reason

_TF_CONFIG = "TF_CONFIG"  # TensorFlow's name of the variable with all workers.

_logger = logging.getLogger(__name__)


def build_strategy(
    kind: str,
    *,
    tpu: str = "local",
    logical_cpus: int = 1,
    intra_op_threads: int = 0,
    deterministic_ops: bool = False,
) -> tf.distribute.Strategy:
    """Finds the devices and makes them train together.

    Args:
      kind: "AUTO", "ONE_DEVICE", "MIRRORED", "MULTI_WORKER_MIRRORED" or "TPU".
      tpu: name or address of the TPU; "local" on a TPU VM.
      logical_cpus: devices the CPU is split into.
      intra_op_threads: CPU threads of a single operation; 0 for one a core. A process
        that has already used TensorFlow keeps what it has.
      deterministic_ops: only operations that give the same bits each time, in this
        process from now on.

    Returns:
      The strategy; models and optimizers are built in its scope.

    Raises:
      InputError: no TPU answers, TF_CONFIG does not describe the workers, or the CPU
        cannot be split any more.
    """
    _limit_threads(intra_op_threads)
    _split_cpu(logical_cpus)
    if deterministic_ops:
        tf.config.experimental.enable_op_determinism()
    if kind == "AUTO":
        try:
            return _tpu_strategy(tpu)
        except InputError as error:
            _logger.debug("no TPU: %s", error)
        several = len(tf.config.list_physical_devices("GPU")) > 1
        kind = "MIRRORED" if several else "ONE_DEVICE"
        if _TF_CONFIG in os.environ:
            kind = "MULTI_WORKER_MIRRORED"
    if kind == "TPU":
        return _tpu_strategy(tpu)
    if kind == "MULTI_WORKER_MIRRORED":
        return _multi_worker_strategy()
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    cpus = [device.name for device in tf.config.list_logical_devices("CPU")]
    if kind == "MIRRORED":
        if not gpus:
            _logger.warning(
                "trainer.strategy.kind is MIRRORED, but TensorFlow finds no GPU: "
                "training runs on one CPU%s; `cmt doctor` says why",
                f", as {len(cpus)} replicas that share it" if len(cpus) > 1 else "",
            )
        return tf.distribute.MirroredStrategy(gpus or cpus)
    if kind == "ONE_DEVICE":
        # TensorFlow's default. OneDeviceStrategy hands batches over through another
        # data set, which TensorFlow tunes in vain: see `untuned`.
        return tf.distribute.get_strategy()
    raise InputError(
        "trainer.strategy.kind must be AUTO, ONE_DEVICE, MIRRORED, "
        f"MULTI_WORKER_MIRRORED or TPU; got {kind!r}"
    )


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns for example "MirroredStrategy, 4 x GPU"; of each process, if several."""
    try:
        names = strategy.extended.worker_devices
    except RuntimeError:  # TensorFlow's default strategy lists none.
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        return f"one {kind}"
    kinds = [tf.DeviceSpec.from_string(name).device_type for name in names]
    devices = ", ".join(f"{kinds.count(k)} x {k}" for k in sorted(set(kinds)))
    processes = num_processes(strategy)
    of_each = f" in each of {processes} processes" if processes > 1 else ""
    name = type(strategy).__name__.removesuffix("V1")
    return f"{name.replace('Collective', 'MultiWorkerMirrored')}, {devices}{of_each}"


def num_processes(strategy: tf.distribute.Strategy) -> int:
    """Returns how many processes train together, each with devices of its own."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:  # TensorFlow's default strategy lists no devices.
        return 1
    return replicas // len(strategy.extended.worker_devices)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes the run directory."""
    return strategy.extended.should_checkpoint


def sum_over_processes(
    strategy: tf.distribute.Strategy, numbers: Sequence[float]
) -> list[float]:
    """Adds up numbers of all processes; waits until each of them has called it."""
    if num_processes(strategy) == 1:
        return list(numbers)
    local = len(strategy.extended.worker_devices)

    def of_replica(context: tf.distribute.ValueContext) -> tf.Tensor:
        counts = context.replica_id_in_sync_group % local == 0
        return tf.constant(numbers if counts else [0.0] * len(numbers), tf.float32)

    values = strategy.experimental_distribute_values_from_function(of_replica)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, values, None).numpy().tolist()


def dataset_of_hosts(
    strategy: tf.distribute.Strategy, make: Callable[..., tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Makes a data set for `fit`, of which each host reads its own part alone.

    A single host gets whole batches, which `fit` deals out to its replicas.

    Args:
      strategy: whose hosts read.
      make: makes the data set; takes the keyword `input_context`, a host's part of
        each step, or no arguments for whole batches.
    """
    if _num_hosts(strategy) == 1:
        return make()
    return strategy.distribute_datasets_from_function(
        lambda context: make(input_context=context)
    )


def _num_hosts(strategy: tf.distribute.Strategy) -> int:
    if strategy.num_replicas_in_sync == 1:
        return 1
    names = strategy.extended.worker_devices
    devices = [tf.DeviceSpec.from_string(name) for name in names]
    hosts = len({(device.job, device.task) for device in devices})
    return hosts * num_processes(strategy)


def _limit_threads(intra_op_threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
    except RuntimeError:  # Speed alone depends on it.
        _logger.warning(
            "trainer.strategy.intra_op_threads is %d, but this process has already "
            "used TensorFlow with another number and keeps it",
            intra_op_threads,
        )


def _split_cpu(logical_cpus: int) -> None:
    """Splits the CPU; possible only before TensorFlow first uses it."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    split = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(split) == logical_cpus:
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * logical_cpus
        )
    except RuntimeError as error:
        raise InputError(
            f"trainer.strategy.logical_cpus is {logical_cpus}, but this process has "
            f"already used the CPU as {len(split)} device(s), and TensorFlow splits it "
            "only before its first use; start a new process"
        ) from error


def _tpu_strategy(tpu: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise InputError(
            f"no TPU answers as {tpu!r} ({reason[:120]}); run on a TPU VM, set "
            "trainer.strategy.tpu to its name or address, or set "
            "trainer.strategy.kind to AUTO, ONE_DEVICE or MIRRORED"
        ) from error


def _multi_worker_strategy() -> tf.distribute.Strategy:
    """One of several processes, which are all in the variable TF_CONFIG."""
    text = os.environ.get(_TF_CONFIG, "")
    try:
        found = json.loads(text)
        cluster, task = found["cluster"], found["task"]
        if not set(cluster) | {task["type"]} <= {"chief", "worker"}:
            raise ValueError
        name = f"{task['type']} {task['index']}"
        address = cluster[task["type"]][int(task["index"])]
        number = sum(map(len, cluster.values()))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            "trainer.strategy.kind MULTI_WORKER_MIRRORED needs the variable TF_CONFIG "
            "in each process, such as "
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            '"task": {"type": "worker", "index": 0}}, with workers and nothing else; '
            f"got {text!r}"
        ) from error
    _logger.warning("%s of %d processes waits for the others", name, number)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        raise InputError(
            f"{name} cannot be {address} ({tensorflow_reason(error)}); in "
            "TF_CONFIG it needs an address of this machine with a free port, and all "
            "workers have to be started, in new processes, within an hour"
        ) from error
