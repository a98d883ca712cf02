"""Compiles HLO for a TPU that is not there; `tools/tpu.py` runs it.

    python tools/tpu_compile.py STEP.hlo v5e:1x1 [--level O1]

It needs an environment of its own, without TensorFlow:
`pip install jax==0.10.2 jaxlib==0.10.2 libtpu==0.0.52`. In exactly these versions,
because it uses private modules of jax.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import time

# libtpu would look for a TPU machine.
os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    TPU_WORKER_HOSTNAMES="localhost",
    TPU_ACCELERATOR_TYPE="v5litepod-4",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
)

import numpy as np
from jax._src import compiler, config
from jax._src.interpreters import mlir
from jax._src.lib import _jax
from jax._src.lib.mlir import ir
from jax.experimental import topologies
from jaxlib import xla_client


def compile_module(
    hlo: bytes, topology: str, level: str | None = None
) -> dict[str, object]:
    """Compiles a module for one core.

    Args:
      hlo: serialised HloModuleProto.
      topology: "v5e:1x1", "v4:2x2x1" (half a chip), or "v4:2x2x1 megacore".
      level: of XLA's optimization, "O0" to "O3"; None for what a TPU would get, "O1"
        compiles in a third of the time.

    Returns:
      The device and its figures: FLOPs, bytes accessed, bytes of memory, CPU seconds.
    """
    name, _, chip = topology.partition(" ")
    options = {"chip_config_name": chip} if chip else {}
    device = topologies.get_topology_desc(
        platform="tpu", topology_name=name, **options
    ).devices[0]
    settings = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    settings.device_assignment = xla_client.DeviceAssignment.create(
        np.array([[device.id]], np.int32)
    )
    if level is not None:
        effort = config.EffortLevel[level].value
        settings.executable_build_options.optimization_level = effort
    with mlir.make_ir_context():
        module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(hlo))
        _remove_copies(module.operation)
        start, cpu = time.monotonic(), time.process_time()
        program = device.client.compile(
            module,
            executable_devices=xla_client.DeviceList((device,)),
            compile_options=settings,
        )
    cost = program.cost_analysis()
    cost = cost[0] if isinstance(cost, list | tuple) else cost
    memory = program.get_compiled_memory_stats()
    return {
        "device": device.device_kind,
        "level": level,
        "compile_seconds": round(time.monotonic() - start, 1),
        "compile_cpu_seconds": round(time.process_time() - cpu, 1),
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": memory.peak_memory_in_bytes,
        "compiler_rss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _remove_copies(operation: ir.Operation) -> None:
    """Replaces the identities that TensorFlow puts around what a step returns."""
    for region in operation.regions:
        for block in region.blocks:
            for inner in list(block.operations):
                _remove_copies(inner.operation)
                if inner.operation.name == "mhlo.copy":
                    (source,) = inner.operation.operands
                    inner.operation.results[0].replace_all_uses_with(source)
                    inner.operation.erase()


def main() -> None:
    """Compiles a file and prints the figures, a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("hlo", type=pathlib.Path)
    parser.add_argument("topology")
    parser.add_argument("--level", choices=["O0", "O1", "O2", "O3"])
    options = parser.parse_args()
    hlo = options.hlo.read_bytes()
    print(json.dumps(compile_module(hlo, options.topology, options.level)))


if __name__ == "__main__":
    main()
