"""Runs the kernels of training in small: the program that sanitize.sh watches beside the case table.

The training kernel with every type of operands and odd sizes, more models than one, a last batch
that is not full, several segments of time, and more tiles than the device holds at once; the
gathering of windows and the dropout of the other configurations; the recurrence of nn.LSTM; each
forward and backward.
"""

import pathlib
import sys

import torch

library = sys.argv[1]
torch.ops.load_library(library)
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from test_lstm_train import Case  # noqa: E402


def train(case):
    losses = case.train(case.fresh(), 0, 3)
    assert torch.isfinite(losses).all()
    return 3 * case.models


steps = sum(
    train(case)
    for case in (
        Case("fp16", batch=64, windows=150),
        Case("bf16", batch=64, windows=150, models=2),
        Case("fp16", batch=33, time_steps=7, features=3, hidden=32, layers=1, windows=70),
        Case("fp16", batch=20, time_steps=37, features=17, windows=30),
        Case("tf32", batch=20, time_steps=17, features=9, windows=30, models=2),
        Case("fp32", batch=33, time_steps=17, features=17, windows=70),
        Case("fp32", batch=20, time_steps=7, features=3, hidden=32, layers=1, windows=50),
        Case("fp16", batch=1100, time_steps=3, windows=1150),
        Case("bf16", batch=531, time_steps=13, windows=600),
        Case("tf32", batch=1100, time_steps=3, windows=1150),
    )
)

rows, time_steps = 60, 20
features, targets = torch.randn(200, 4, device="cuda"), torch.randn(200, device="cuda")
ends = torch.arange(time_steps - 1, 200, dtype=torch.int32, device="cuda")
step = torch.zeros((), dtype=torch.int64, device="cuda")
windows, wanted = torch.ops.rp.gather_windows(features, targets, ends, step, 1, 64, rows, time_steps)
assert torch.isfinite(windows).all() and torch.isfinite(wanted).all()

hidden = torch.randn(rows, time_steps, 64, device="cuda", requires_grad=True)
torch.ops.rp.lstm_dropout(hidden, step, 1, 0, 0.2).sum().backward()
assert torch.isfinite(hidden.grad).all()

for batch, hidden in ((9, 64), (1100, 64), (3, 32)):
    sizes = [(6, batch, 4 * hidden), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,),
             (batch, hidden), (batch, hidden)]  # fmt: skip
    arguments = [torch.randn(size, device="cuda").requires_grad_() for size in sizes]
    for chosen in (arguments, [*arguments[:4], None, None]):
        output, h, c = torch.ops.rp.lstm_recurrence(*chosen)
        (output.square().sum() + h.sum() + c.sum()).backward()
    assert all(torch.isfinite(a.grad).all() for a in arguments)
torch.cuda.synchronize()
print(f"{steps} steps of the training kernel, {rows} windows gathered and dropped out")
