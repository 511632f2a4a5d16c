"""What all tests share."""

import torch
from hypothesis import HealthCheck, settings

# Examples are drawn the same way each time; a slow machine is no reason to fail.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

# one thread: the tensors here are tiny, and other processes want the cores too
torch.set_num_threads(1)
