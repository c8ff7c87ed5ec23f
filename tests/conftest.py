"""Settings of every test: no network, no telemetry, no GPU, and a garbage collector that looks at a module's own."""

import gc
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("SE_OFFLINE", "true")  # Selenium looks for drivers on the network, and tells that it was used
os.environ.setdefault("SE_AVOID_STATS", "true")
# Tests make their tensors on the processor, and a base model goes to a GPU where there is one: what PyTorch does not
# see, it does not use. It has to be hidden before torch is imported. tests/journeys/test_gpu.py wants to see it.
if not os.environ.get("FEDLOOM_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# No test cuts the power: whatever a killed process wrote is there without it, and it costs a fifth of a tiny run.
os.fsync = lambda _: None


@pytest.fixture(scope="module", autouse=True)
def only_what_is_new_is_collected():
    """Libraries and earlier tests leave millions of objects, and a collection that looks at them all takes a second."""
    gc.collect()
    gc.freeze()
