"""Personal models against shared ones and training alone: eight clients of one task each, client by client.

    python benchmarks/personal_methods.py --data DIRECTORY [--seeds 0 1] [--variants fedalt local ..]

The options are those of benchmarks/methods.py, whose suite "personal" this is; writes results/methods-personal.json and
.md.
"""

from __future__ import annotations

import sys

from methods import main

if __name__ == "__main__":
    sys.argv.insert(1, "personal")
    main()
