"""What return_predictor.fuse saves on two real networks: time of a training step and of inference,
memory kept for backward, and whether the bits are the same. One JSON line per network, and a file:
python tests/benchmarks/fuse_networks.py [--device cuda] [--batch 32] [--size 224] [--repeat 20]
    [--out results/fuse_networks.json]

Needs timm. Bits are compared with torch.backends.cudnn off, as cuDNN's own BatchNorm has others; the
timings leave PyTorch's defaults, so its BatchNorm may be cuDNN's."""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import timm
import torch

import result_file

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "python")]
import return_predictor  # noqa: E402


def step(model, input):
    model.zero_grad()
    output = model(input)
    output.square().mean().backward()
    return [output.detach(), *(p.grad for p in model.parameters()), *model.buffers()]


def median_ms(work, device, repeat):
    times = []
    for trip in range(repeat + 3):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if trip >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def saved_bytes(model, input):
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input)
    return sum(kept.values())


def measure(name, options):
    torch.manual_seed(0)
    plain = timm.create_model(name).to(options.device)
    fused = return_predictor.fuse(copy.deepcopy(plain))
    input = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    with torch.backends.cudnn.flags(enabled=False):
        pairs = zip(step(plain, input), step(fused, input))
        equal = all(torch.equal(a, b) for a, b in pairs)
    line = {"network": name, "pairs": len(fused.fuse_report.fused), "bit_equal": equal}
    for kind, model in (("plain", plain), ("fused", fused)):
        line[f"{kind}_step_ms"] = median_ms(
            lambda: step(model, input), options.device, options.repeat
        )
        line[f"{kind}_saved_mb"] = saved_bytes(model, input) / 1e6
        model.eval()
        with torch.no_grad():
            line[f"{kind}_eval_ms"] = median_ms(
                lambda: model(input), options.device, options.repeat
            )
    return line


def main():
    parser = argparse.ArgumentParser(description="What fuse saves, as one JSON line per network.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for name in ("darknet53", "cspdarknet53"):
        rows.append(measure(name, options))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        versions = {"torch": torch.__version__, "timm": timm.__version__}
        if options.device == "cuda":
            versions["gpu"] = torch.cuda.get_device_name()
        content = {"batch": options.batch, "size": options.size, "rows": rows}
        result_file.write(options.out, content, **versions)


if __name__ == "__main__":
    main()
