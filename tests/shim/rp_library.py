"""librp.so from Python by ctypes: what tests and benchmarks need of rp.h."""

import ctypes as c
import os
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class ModelOptions(c.Structure):
    _fields_ = [
        ("version", c.c_uint32), ("features", c.c_int32), ("time_steps", c.c_int32),
        ("hidden", c.c_int32), ("layers", c.c_int32), ("dropout", c.c_float),
        ("norm_momentum", c.c_float), ("norm_eps", c.c_float), ("negative_slope", c.c_float),
    ]  # fmt: skip


class Data(c.Structure):
    _fields_ = [
        ("features", c.c_void_p), ("targets", c.c_void_p), ("rows", c.c_int64),
        ("window_ends", c.c_void_p), ("windows", c.c_int64),
    ]  # fmt: skip


class TrainerOptions(c.Structure):
    _fields_ = [
        ("version", c.c_uint32), ("model", ModelOptions), ("configuration", c.c_char_p),
        ("precision", c.c_char_p), ("batch", c.c_int64), ("learning_rate", c.c_double),
        ("beta1", c.c_double), ("beta2", c.c_double), ("eps", c.c_double), ("seed", c.c_uint64),
        ("threads", c.c_int32), ("target_unit", c.c_double),
    ]  # fmt: skip


class Progress(c.Structure):
    _fields_ = [
        ("step", c.c_int64), ("steps_per_epoch", c.c_int64), ("epoch", c.c_int64),
        ("samples", c.c_int64), ("loss", c.c_double), ("skipped_steps", c.c_int64),
        ("peak_memory", c.c_int64),
    ]  # fmt: skip


def load():
    folder = os.environ.get("RP_BUILD")
    if folder:
        path = Path(folder) / "lib/librp.so"
    else:
        built = sorted(ROOT.glob("build/*/lib/librp.so"), key=lambda p: p.stat().st_mtime)
        if not built:
            raise FileNotFoundError("librp.so is not built: run ./dev build, or set RP_BUILD")
        path = built[-1]
    library = c.CDLL(str(path))
    library.rp_last_error.restype = c.c_char_p
    for name in ("rp_trainer_free", "rp_checkpoint_free", "rp_predictor_free"):
        getattr(library, name).argtypes = [c.c_void_p]
        getattr(library, name).restype = None
    return library


LIBRARY = load()


def check(status):
    if status:
        raise RuntimeError(LIBRARY.rp_last_error().decode())


def pointer(array):
    return c.c_void_p(array.ctypes.data)


class Trainer:
    """features [N, F], targets [N] float32; window_ends [W] int32."""

    def __init__(self, features, targets, window_ends, isa=None, model=None, **options):
        self.arrays = (features, targets, window_ends)  # borrowed by the library
        settings = TrainerOptions()
        LIBRARY.rp_trainer_options_init(c.byref(settings))
        for name, value in options.items():
            setattr(settings, name, value)
        for name, value in (model or {}).items():
            setattr(settings.model, name, value)
        data = Data(pointer(features), pointer(targets), len(features), pointer(window_ends),
                    len(window_ends))  # fmt: skip
        self.handle = c.c_void_p()
        with instruction_set(isa):
            check(LIBRARY.rp_trainer_create(c.byref(self.handle), c.byref(settings),
                                            c.byref(data)))  # fmt: skip

    def run(self, steps):
        """Trains `steps` steps, through the ends of epochs."""
        progress = Progress()
        check(LIBRARY.rp_trainer_progress(self.handle, c.byref(progress)))
        last = progress.step + steps
        while progress.step < last:
            check(LIBRARY.rp_trainer_run(self.handle, c.c_int64(last - progress.step),
                                         c.byref(progress)))  # fmt: skip
        return progress

    def save(self, path):
        check(LIBRARY.rp_trainer_save(self.handle, str(path).encode(), None, c.c_int64(0)))

    def predictor(self, threads, isa=None):
        return Predictor(self, threads, isa)

    def __del__(self):
        LIBRARY.rp_trainer_free(self.handle)


class Predictor:
    def __init__(self, trainer, threads, isa=None):
        checkpoint = c.c_void_p()
        self.handle = c.c_void_p()
        check(LIBRARY.rp_trainer_snapshot(c.byref(checkpoint), trainer.handle))
        try:
            with instruction_set(isa):
                check(LIBRARY.rp_predictor_create(c.byref(self.handle), checkpoint, threads))
        finally:
            LIBRARY.rp_checkpoint_free(checkpoint)

    def call(self, features, window_ends):
        """A function without arguments that predicts, and the array [W] that it fills."""
        out = np.empty(len(window_ends), np.float32)
        arguments = (pointer(out), self.handle, pointer(features), c.c_int64(len(features)),
                     pointer(window_ends), c.c_int64(len(window_ends)))  # fmt: skip
        run = LIBRARY.rp_predictor_run
        return lambda alive=(self, features, window_ends, out): run(*arguments), out

    def __call__(self, features, window_ends):
        run, out = self.call(features, window_ends)
        check(run())
        return out

    def __del__(self):
        LIBRARY.rp_predictor_free(self.handle)


class instruction_set:
    """RP_ISA while a trainer or predictor is made; None leaves the choice to the library."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.before = os.environ.pop("RP_ISA", None)
        if self.name:
            os.environ["RP_ISA"] = self.name

    def __exit__(self, *_):
        os.environ.pop("RP_ISA", None)
        if self.before:
            os.environ["RP_ISA"] = self.before
