"""README's tables are generated from results/, and are what the files there say."""

import shutil

import pytest

from return_predictor import benchmark_table
from return_predictor.results import REPOSITORY, ResultError

EMPTY = "".join(
    f"<!-- {name}-table:begin -->\n<!-- {name}-table:end -->\n" for name in benchmark_table.TABLES
)


def test_readme_of_the_repository_says_what_the_results_say(capsys):
    if not (REPOSITORY / "README.md").is_file():
        pytest.skip(f"no README.md in {REPOSITORY}")
    assert benchmark_table.main(["--check"]) == 0, capsys.readouterr().err


def test_tables_are_filled_and_the_rest_is_kept(made_up_results):
    text = benchmark_table.fill(f"before\n{EMPTY}after\n", made_up_results)
    assert text.startswith("before\n") and text.endswith("after\n")
    for line in (
        "| `cpu-fused` | fp32 | 13.92 s | 13.51 to 14.62 s | 71.1 k | 4.9 | 4.50000e-04 |",
        "| `gpu-fused:tf32` |  | skipped: no GPU: nvidia-smi finds none |  |  |  |  |",
        "2 cases, 0 differing elements, max difference 0.00e+00.",
        "| (512, 64) | float32 | contiguous | yes | 4 / 8.5 / 2.8 | 12.2 / 21.2 / 8.54 | 4.8 / 12.4 / 3.36 |",
        "| gpu-fused | fp16 | 26 us (2.46 M/s) | 28 us (18.3 M/s) | 50 us (20.5 M/s) | 190 us (21.6 M/s) |",
        "**No skill: the zero forecast is as good.** A baseline wins: Zero.",
        "| LSTM, mean of 5 seeds | -0.48% | 50.5% | +0.011 |",
        "| Zero | +0.00% |  |  |",
        "| 25,000,000 | 2 x 64 | 5.7 s, 865 MiB | 50.0 s, 867 MiB |",
        "| one window | return-predictor | 31,000 | 0.21 | 0.9 | 0 |",
        "| 300 | 990,000 | 6.8 s | 44.1 |",
        "| 2 threads | batch 64 | batch 512 |",
        "| cpu-fused avx512 | 30.1 k (4.55 x) | 71.1 k (4.90 x) |",
        "| gradient's error | precision | batch 64, slope 0.01 | batch 512, slope 1 |",
        "| rp::lstm_train_ | fp16 | 8.00e-04 (0.9 ± 0.02) | 3.00e-04 (0.8 ± 0.01) |",
        "| cuDNN | tf32 | 9.00e-04 | - |",
        "| darknet53 | 52 | equal | 25.2 to 19.8 ms | 5.60 to 4.90 ms | 3,147 to 2,607 MB |",
        "_results/benchmark.json · commit 0123456789ab · 2026-01-02 · Example GPU · torch 2.11.0_",
    ):
        assert line in text.splitlines()
    assert benchmark_table.fill(text, made_up_results) == text


def test_absent_result_says_not_measured(tmp_path):
    assert "Not measured yet: results/verify.json is not there." in benchmark_table.fill(
        EMPTY, tmp_path
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!-- other-table:begin -->\n<!-- other-table:end -->\n", "no table other"),
        ("<!-- verify-table:begin -->\n", "has no partner"),
        ("<!-- verify-table:end -->\n", "has no partner"),
    ],
)
def test_unusable_markers_are_refused(tmp_path, text, message):
    with pytest.raises(ResultError, match=message):
        benchmark_table.fill(text, tmp_path)


def test_check_fails_on_an_edited_figure_and_writing_mends_it(made_up_results, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(EMPTY)
    options = [str(readme), "--results", str(made_up_results)]
    assert benchmark_table.main(options) == 0 and benchmark_table.main([*options, "--check"]) == 0
    readme.write_text(readme.read_text().replace("71.1 k", "91.1 k"))
    assert benchmark_table.main([*options, "--check"]) == 1
    assert "run ./dev benchmark-table" in capsys.readouterr().err
    assert benchmark_table.main(options) == 0 and "71.1 k" in readme.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_bad_result_file_is_named_and_readme_kept(made_up_results, tmp_path, capsys):
    folder = shutil.copytree(made_up_results, tmp_path / "results")
    (folder / "serving.json").write_text('{"rows": [{}]}')
    readme = tmp_path / "README.md"
    readme.write_text(EMPTY)
    assert benchmark_table.main([str(readme), "--results", str(folder)]) == 1
    assert "serving.json: KeyError: 'request'" in capsys.readouterr().err
    assert readme.read_text() == EMPTY
