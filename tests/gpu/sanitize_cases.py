"""Runs every n-th case of the verification table: the program that sanitize.sh watches."""

import sys

import torch

library, every = sys.argv[1], int(sys.argv[2])
torch.ops.load_library(library)
differing = fused = 0
for index in range(0, torch.ops.rp.verify_case_count(), every):
    _, is_fused, _, counts, _ = torch.ops.rp.verify_case(index, "cuda", False)
    fused += is_fused
    differing += sum(counts)
print(f"{fused} fused cases, {differing} differing elements")
sys.exit(differing != 0)
