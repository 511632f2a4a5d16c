"""Which kind of machine and arithmetic this is: equal fingerprints give equal tokens."""

import hashlib
import platform
from pathlib import Path

import torch
from unmask_kernels import FUSES_GELU
from unmask_model_store import Bundle

# Raise it with every change of ours after which some machine may compute other bits.
ARITHMETIC = 2


def fingerprint(bundle: Bundle) -> str:
    """Return a short hash of our arithmetic, processor, device, dtype, torch version, threads and fused operations."""
    facts = [
        str(ARITHMETIC),
        platform.machine(),
        processor_name(),
        torch.backends.cpu.get_cpu_capability(),
        str(bundle.device),
        str(bundle.dtype),
        torch.__version__,
        str(torch.get_num_threads()),
        str(FUSES_GELU),
    ]
    if bundle.device.type == "cuda":
        facts.append(torch.cuda.get_device_name(bundle.device))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def processor_name() -> str:
    """The processor's name as Linux gives it, elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
