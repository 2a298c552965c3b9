"""Runs every n-th case of the verification table, or one of several equal parts of these: the
program that sanitize.sh watches.

    sanitize_cases.py LIBRARY EVERY PART PARTS
"""

import random
import sys

import torch

library = sys.argv[1]
every, part, parts = map(int, sys.argv[2:])
torch.ops.load_library(library)
cases = list(range(0, torch.ops.rp.verify_case_count(), every))
random.Random(1).shuffle(cases)  # training comes every few cases: one part of four would get it all
differing = fused = 0
for index in cases[part::parts]:
    _, is_fused, _, counts, _ = torch.ops.rp.verify_case(index, "cuda", False)
    fused += is_fused
    differing += sum(counts)
print(f"{fused} fused cases, {differing} differing elements")
sys.exit(differing != 0)
