"""Methods under example-level differential privacy: FFA-LoRA against LoRA, FedSVD, RoLoRA and loom on Banking77.

    python benchmarks/private_methods.py --data DIRECTORY [--seeds 0 1 2] [--variants ffa fedit ..]

The options are those of benchmarks/methods.py, whose suite "private" this is; writes results/methods-private.json, .md.
"""

from __future__ import annotations

import sys

from methods import main

if __name__ == "__main__":
    sys.argv.insert(1, "private")
    main()
