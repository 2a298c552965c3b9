"""Lets the tests of this folder import program.py from beside them."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
