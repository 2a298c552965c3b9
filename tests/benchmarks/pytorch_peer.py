"""The same training written in plain PyTorch, as the speed to compare the driver's configurations
with. Prints one JSON line: python tests/benchmarks/pytorch_peer.py --device cpu|cuda [--graph]
[--batch 512] [--steps K] [--repeat 3] [--precision tf32|fp32|bf16]

The data is random, of the size of 50 tickers over 10 years; rows lie on the device and each step
gathers its windows by index, in an order shuffled once an epoch. Every step is timed up to its end on
the device; the warm-up is not timed. With --graph one step is captured in a CUDA graph, after which
only the indices are copied. Imports nothing of this repository."""

import argparse
import json
import statistics
import time

import torch
from torch import nn

ROWS, WINDOWS, TIME_STEPS, FEATURES, HIDDEN = 124_750, 99_000, 20, 4, 64
WARM_UP = 5


class Peer(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, HIDDEN, 2, dropout=0.2)
        self.norm = nn.BatchNorm1d(HIDDEN, affine=False)
        self.act = nn.LeakyReLU(0.01)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, input):
        _, (hidden, _) = self.lstm(input)
        return self.head(self.act(self.norm(hidden[-1])))[:, 0]


class Training:
    def __init__(self, options):
        self.device = torch.device(options.device)
        self.bf16 = options.precision == "bf16"
        torch.manual_seed(1)
        self.model = Peer().to(self.device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-3, fused=True, capturable=self.device.type == "cuda"
        )
        self.features = torch.randn(ROWS, FEATURES, device=self.device)
        self.targets = torch.randn(ROWS, device=self.device)
        self.ends = torch.randint(TIME_STEPS - 1, ROWS, (WINDOWS,), device=self.device)
        self.days = torch.arange(1 - TIME_STEPS, 1, device=self.device)[:, None]
        self.batch = options.batch
        self.index = torch.zeros(options.batch, dtype=torch.int64, device=self.device)
        self.order, self.place = None, WINDOWS
        self.loss = torch.zeros((), device=self.device)
        self.graph = None
        if options.graph:
            self.capture()

    def compute(self):
        ends = self.ends[self.index]
        input = self.features[ends + self.days]  # [T, B, F]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.model(input)
        loss = nn.functional.mse_loss(output.float(), self.targets[ends])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.loss.copy_(loss.detach())

    def capture(self):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.compute()
        self.graph = graph

    def step(self):
        if self.place + self.batch > WINDOWS:
            self.order, self.place = torch.randperm(WINDOWS, device=self.device), 0
        self.index.copy_(self.order[self.place : self.place + self.batch])
        self.place += self.batch
        if self.graph is None:
            self.compute()
        else:
            self.graph.replay()

    def seconds(self, steps):
        self.finish()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.finish()
        return time.perf_counter() - start

    def finish(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def processor():
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def main():
    parser = argparse.ArgumentParser(
        description="Plain PyTorch's training speed, as one JSON line."
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--graph", action="store_true", help="replay a CUDA graph")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, help="per repeat (default: 20 on cpu, 500 on cuda)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--precision", choices=["tf32", "fp32", "bf16"])
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    options.precision = options.precision or ("tf32" if on_gpu else "fp32")
    if options.graph and not on_gpu:
        parser.error("--graph needs --device cuda")
    if not 2 <= options.batch <= WINDOWS:
        parser.error(f"--batch must be 2 to {WINDOWS}")
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no GPU that torch can use")
    torch.backends.cudnn.allow_tf32 = options.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = False

    training = Training(options)
    training.seconds(WARM_UP)
    steps = options.steps or (500 if on_gpu else 20)
    times = [training.seconds(steps) for _ in range(options.repeat)]
    seconds = statistics.median(times)
    print(
        json.dumps(
            {
                "configuration": "pytorch-graph" if options.graph else "pytorch",
                "device": torch.cuda.get_device_name() if on_gpu else processor(),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "precision": options.precision,
                "batch": options.batch,
                "steps": steps,
                "seconds": times,
                "step_us": seconds / steps * 1e6,
                "samples_per_second": steps * options.batch / seconds,
                "loss": training.loss.item(),
            }
        )
    )


if __name__ == "__main__":
    main()
