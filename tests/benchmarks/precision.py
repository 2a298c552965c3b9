"""How exact each precision of training is -> results/precision.json

gradients: relative error (norm) of one step's gradient against float64, median over 33 starts, of
the training kernel and of cuDNN's LSTM (its default, TF32, and float32) on the same windows and
dropout masks; and how many times that of cuDNN's TF32 at the same start it is, geometric mean and
its standard error. With a slope of 1 in place of 0.01 no sign near LeakyReLU's kink can flip: what
is left is the arithmetic's own error.

losses: mean training loss of the tenth epoch on real prices, five seeds, of gpu-fused in each
precision beside libtorch (gpu-graph, TF32). A precision is as good as libtorch's when its mean over
the seeds differs from libtorch's by less than libtorch's losses do among seeds (their standard
deviation).
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

import result_file
import torch

ROOT = result_file.ROOT
sys.path.insert(0, str(ROOT / "tests/gpu"))
import conftest  # noqa: E402,F401  loads the operators
import lstm_reference  # noqa: E402
import random_reference  # noqa: E402
from test_lstm_train import PRECISIONS, Case, relative  # noqa: E402

STARTS, SEEDS, EPOCHS = 33, 5, 10


class CudnnModel(torch.nn.Module):
    """The case's model by torch's own operators in float32."""

    def __init__(self, case):
        super().__init__()
        sizes = (case.features, case.hidden, case.layers)
        self.layers = torch.nn.ModuleList(
            torch.nn.LSTM(case.features if layer == 0 else case.hidden, case.hidden)
            for layer in range(case.layers)
        )
        self.norm = torch.nn.BatchNorm1d(case.hidden, affine=False)
        self.head = torch.nn.Linear(case.hidden, 1)
        with torch.no_grad():
            named = lstm_reference.split(case.start[0], *sizes)
            for parameter, value in zip(self.parameters(), named.values(), strict=True):
                parameter.copy_(value)
        self.cuda()

    def gradient(self, case, tf32):
        torch.backends.cudnn.allow_tf32 = tf32
        data = (case.data[0], case.data[1], case.data[2][: case.ranges[0][1]])
        x, y = lstm_reference.batch_of_step(data, case.seeds[0], 0, case.batch, case.time_steps)
        h = x.float().cuda()
        for number, layer in enumerate(self.layers):
            if number > 0:
                mask = random_reference.dropout_mask(
                    case.seeds[0], 0, number - 1, case.dropout, case.time_steps, x.shape[1],
                    case.hidden,
                )  # fmt: skip
                h = h * torch.from_numpy(mask).float().cuda()
            h = layer(h)[0]
        z = torch.nn.functional.leaky_relu(self.norm(h[-1]), case.slope)
        loss = torch.nn.functional.mse_loss(self.head(z)[:, 0], y.float().cuda())
        gradients = torch.autograd.grad(loss, list(self.parameters()))
        return torch.cat([g.flatten() for g in gradients]).cpu().double()


def kernel_gradient(case):
    state = case.fresh()
    case.train(state, 0, 1)
    return state["exp_avg"][0].cpu().double() / 0.1  # Adam's first moment after one step


def gradient_errors(batch, slope):
    errors = {}
    for start in range(STARTS):
        flat = lstm_reference.initial_parameters(4, 64, 2, 100 + start)[None]
        expected = None
        for precision in PRECISIONS:
            case = Case(precision, batch=batch, slope=slope, windows=4 * batch, seed=1 + start)
            case.start = flat
            if expected is None:
                expected = case.reference_step(case.reference(), 0)[1]
            errors.setdefault(("rp::lstm_train_", precision), []).append(
                relative(kernel_gradient(case), expected)
            )
        for name, tf32 in (("tf32", True), ("fp32", False)):
            error = relative(CudnnModel(case).gradient(case, tf32), expected)
            errors.setdefault(("cuDNN", name), []).append(error)
    peer = errors["cuDNN", "tf32"]
    return [
        {"implementation": implementation, "precision": precision, "batch": batch, "slope": slope,
         "error": rounded(statistics.median(values)), "largest": rounded(max(values)),
         **times_peer(values, peer)}
        for (implementation, precision), values in errors.items()
    ]  # fmt: skip


def rounded(value):
    return float(f"{value:.3e}")


def times_peer(values, peer):
    logs = [math.log(value / other) for value, other in zip(values, peer, strict=True)]
    times = math.exp(statistics.mean(logs))
    spread = times * statistics.stdev(logs) / math.sqrt(len(logs))
    return {"times_cudnn_tf32": rounded(times), "times_standard_error": rounded(spread)}


def final_losses(prices, configuration, precision):
    """Of each seed, the last epoch's."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pathlib.Path(folder) / "model.safetensors"
        subprocess.run(
            [result_file.PROGRAM, "train", "--prices", prices, "--checkpoint", checkpoint,
             "--configuration", configuration, "--precision", precision, "--epochs", str(EPOCHS),
             "--seeds", str(SEEDS), "--quiet"],
            check=True,
        )  # fmt: skip
        losses = []
        for seed in range(1, SEEDS + 1):
            raw = checkpoint.with_suffix(f".seed{seed}.safetensors").read_bytes()
            header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
            losses.append(float(header["__metadata__"]["training.epoch_losses"].split()[-1]))
    return losses


def loss_study(prices):
    libtorch = final_losses(prices, "gpu-graph", "tf32")
    spread = statistics.stdev(libtorch)
    rows = [{"configuration": "gpu-graph", "precision": "tf32", "losses": libtorch}]
    for precision in PRECISIONS:
        losses = final_losses(prices, "gpu-fused", precision)
        difference = statistics.mean(losses) - statistics.mean(libtorch)
        rows.append({
            "configuration": "gpu-fused", "precision": precision, "losses": losses,
            "mean_difference": difference, "within_spread": abs(difference) <= spread,
        })  # fmt: skip
    return {"epochs": EPOCHS, "seeds": SEEDS, "spread": spread, "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prices", required=True, help="folder of real prices")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results/precision.json")
    arguments = parser.parse_args()
    gradients = [
        row for batch in (64, 512) for slope in (0.01, 1.0) for row in gradient_errors(batch, slope)
    ]
    for row in gradients:
        print(*row.values(), flush=True)
    losses = loss_study(arguments.prices)
    for row in losses["rows"]:
        print(*row.values(), flush=True)
    result_file.write(
        arguments.out, {"gradients": gradients, "losses": losses},
        gpu=torch.cuda.get_device_name(), torch=torch.__version__,
        cudnn=str(torch.backends.cudnn.version()),
    )  # fmt: skip


if __name__ == "__main__":
    main()
