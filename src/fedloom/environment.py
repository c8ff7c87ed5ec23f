"""Settings of the process that must stand before any dependency is imported; the user's environment wins."""

import logging
import os

# Telemetry of every dependency is off.
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what Ray will do in future; it warns until then
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}
# Threads of torch that wait for each other sleep instead of spinning: on a machine that has other work to do, spinning
# made training three times slower; on an idle one sleeping costs about a sixth. OMP_WAIT_POLICY=active undoes it.
SHARED_MACHINE = {"OMP_WAIT_POLICY": "passive"}
# oneDNN keeps compiled kernels for each length of text it has seen, and torch holds 1,024 of them as well: 5 MB for
# every new length. The 64 latest are enough for the layers of a batch, and as fast.
SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}

for name, value in (QUIET | SHARED_MACHINE | SMALL_CACHES).items():
    os.environ.setdefault(name, value)

# On every start it says that a faster kernel could be downloaded: what is downloaded is the user's to decide.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
