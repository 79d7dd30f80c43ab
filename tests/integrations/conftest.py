"""The zoo is run from the root of the repository; its modules are no part of the installed package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
