"""A few seconds of every fuzz target; the long campaign is campaign.py."""

import fuzzer
import pytest

pytestmark = pytest.mark.skipif(
    not (fuzzer.BIN / "planted_fuzz").exists(),
    reason=f"{fuzzer.BIN} has no fuzz targets: they need clang with libFuzzer (./dev build fuzz)",
)


@pytest.mark.parametrize("target", fuzzer.TARGETS)
def test_target_finds_nothing_in_a_short_run(target, tmp_path):
    status, executions, _, output = fuzzer.run(
        target, tmp_path, "-seed=1", "-runs=20000", "-max_total_time=20", timeout=300
    )
    assert status == 0, output[-4000:]
    assert executions >= 1000


def test_planted_bug_is_found(tmp_path):
    status, _, _, output = fuzzer.run("planted", tmp_path, "-seed=1", "-max_total_time=60", timeout=300)
    assert status != 0
    assert "heap-buffer-overflow" in output
    assert list((tmp_path / "failures").iterdir())


def test_regressions_and_seeds_belong_to_a_target():
    for kind in ("seeds", "regressions"):
        for folder in (fuzzer.FUZZ / kind).iterdir():
            assert folder.name in fuzzer.TARGETS
    assert {folder.name for folder in (fuzzer.FUZZ / "seeds").iterdir()} == set(fuzzer.TARGETS)
