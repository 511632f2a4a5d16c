"""What a figure was measured on."""

import os
import platform

import torch
from unmask_service.engine import processor_name


def machine() -> str:
    """One line: processor, cores, torch and its threads."""
    processor = processor_name() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"
