"""What a run's process and machine use: CPU, memory, disk, network, GPUs.

Needs ``psutil``; GPUs are seen through ``nvidia-ml-py`` where that and a driver are there.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from mlopskit.errors import InvalidInput, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

PREFIX: Final = "system/"
MIB: Final = float(1 << 20)


def check_interval(seconds: float) -> float:
    """Return an interval for samples of the system, 0 for none.

    Raises:
        InvalidInput: If it is less than a tenth of a second, or no number.
        MissingDependency: If ``psutil`` is not installed.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput(f"system_metrics_s is {seconds!r}; it is a number of seconds.")
    if seconds == 0:
        return 0.0
    if not seconds >= 0.1:
        raise InvalidInput(f"system_metrics_s is {seconds!r}; it may be 0, or 0.1 and more.")
    try:
        import psutil  # noqa: F401, PLC0415 - only who asks for system metrics needs it
    except ImportError as exc:
        raise MissingDependency(
            "system_metrics_s", "psutil", "pip install 'mlopskit[system]'"
        ) from exc
    return float(seconds)


class SystemSampler:
    """Measures this process and its machine, as metrics by name.

    Names and units: ``system/cpu_percent`` and ``system/process_cpu_percent`` (of all cores, and of
    one core), ``system/memory_percent``, ``system/process_memory_mib`` (resident),
    ``system/disk_read_mib_s``, ``system/disk_written_mib_s``, ``system/net_received_mib_s``,
    ``system/net_sent_mib_s`` (of the machine, since the sample before), and for each GPU
    ``system/gpu<i>_percent``, ``system/gpu<i>_memory_percent``, ``system/gpu<i>_power_w``.

    Args:
        log: Is given the metrics of each sample.
    """

    def __init__(self, log: Callable[[dict[str, float]], None]) -> None:
        import psutil  # noqa: PLC0415 - `check_interval` has seen that it is there

        self._log = log
        self._psutil = psutil
        self._process = psutil.Process()
        self._gpus = _gpus()
        self._before = self._counters()
        self._process.cpu_percent()
        psutil.cpu_percent()

    def sample(self) -> None:
        """Measure once, and hand the numbers on."""
        now = self._counters()
        elapsed = max(now["time"] - self._before["time"], 1e-9)
        rates = {
            f"{name}_mib_s": (now[name] - self._before[name]) / MIB / elapsed
            for name in now
            if name != "time" and name in self._before
        }
        self._before = now
        found: dict[str, float] = {
            "cpu_percent": self._psutil.cpu_percent(),
            "process_cpu_percent": self._process.cpu_percent(),
            "memory_percent": self._psutil.virtual_memory().percent,
            "process_memory_mib": self._process.memory_info().rss / MIB,
            **rates,
            **self._gpu(),
        }
        self._log({PREFIX + name: float(value) for name, value in found.items()})

    def _counters(self) -> dict[str, float]:
        found = {"time": time.monotonic()}
        # Containers may hide either.
        if (disk := self._psutil.disk_io_counters()) is not None:
            found |= {"disk_read": disk.read_bytes, "disk_written": disk.write_bytes}
        if (net := self._psutil.net_io_counters()) is not None:
            found |= {"net_received": net.bytes_recv, "net_sent": net.bytes_sent}
        return found

    def _gpu(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, (nvml, handle) in enumerate(self._gpus):
            with suppress(nvml.NVMLError):
                used = nvml.nvmlDeviceGetUtilizationRates(handle)
                memory = nvml.nvmlDeviceGetMemoryInfo(handle)
                found[f"gpu{number}_percent"] = used.gpu
                found[f"gpu{number}_memory_percent"] = 100.0 * memory.used / memory.total
                found[f"gpu{number}_power_w"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000.0
        return found


def _gpus() -> list[tuple[Any, Any]]:
    try:
        import pynvml  # noqa: PLC0415 - few machines have it
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return [(pynvml, pynvml.nvmlDeviceGetHandleByIndex(number)) for number in range(count)]
    except pynvml.NVMLError:
        return []  # No driver, or no GPU.
