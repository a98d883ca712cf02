"""Distribution strategies: which devices train together."""

from __future__ import annotations

import logging
from collections.abc import Callable

import tensorflow as tf

from cmt.errors import InputError

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
      kind: "AUTO", "ONE_DEVICE", "MIRRORED" or "TPU".
      tpu: name or address of the TPU; "local" on a TPU VM.
      logical_cpus: devices the CPU is split into.
      intra_op_threads: CPU threads of a single operation; 0 for one a core. A process
        that has already used TensorFlow keeps what it has.
      deterministic_ops: only operations that give the same bits each time, in this
        process from now on.

    Returns:
      The strategy; models and optimizers are built in its scope.

    Raises:
      InputError: no TPU answers, or the CPU cannot be split any more.
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
    if kind == "TPU":
        return _tpu_strategy(tpu)
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
        return tf.distribute.OneDeviceStrategy((gpus or cpus)[0])
    raise InputError(
        f"trainer.strategy.kind must be AUTO, ONE_DEVICE, MIRRORED or TPU; got {kind!r}"
    )


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns for example "MirroredStrategy, 4 x GPU"."""
    kinds = [
        tf.DeviceSpec.from_string(device).device_type
        for device in strategy.extended.worker_devices
    ]
    devices = ", ".join(f"{kinds.count(k)} x {k}" for k in sorted(set(kinds)))
    return f"{type(strategy).__name__.removesuffix('V1')}, {devices}"


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
    try:
        names = strategy.extended.worker_devices
    except RuntimeError:  # TensorFlow's default strategy lists no devices.
        return 1
    devices = [tf.DeviceSpec.from_string(name) for name in names]
    return len({(device.job, device.task) for device in devices})


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
