"""Trains a fused and an unfused network under DistributedDataParallel in two gloo processes and
prints, per rank, whether their parameters and buffers are equal bit for bit."""

import copy
import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from return_predictor import fuse

from bits import all_same_bits


def train(model, rank):
    model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
    return list(model.module.state_dict().values())


def work(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2), nn.Linear(6, 1))
    fused = fuse(copy.deepcopy(plain))
    equal = all_same_bits(train(plain, rank), train(fused, rank))
    verdicts = [None, None]
    dist.all_gather_object(verdicts, equal)
    if rank == 0:
        for other, verdict in enumerate(verdicts):
            print("rank", other, "equal" if verdict else "different", flush=True)
    dist.barrier()
    os._exit(0)  # an orderly end aborts in gloo's threads about every fifth time (torch 2.11)


if __name__ == "__main__":
    mp.spawn(work, args=(sys.argv[1],), nprocs=2)
