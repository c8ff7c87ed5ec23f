"""The benchmarks' own modules, which are no package of the project."""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
if str(SCRIPTS) not in sys.path:
    sys.path.insert(0, str(SCRIPTS))
