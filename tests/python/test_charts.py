"""python -m return_predictor.charts: which charts are drawn, and what is said of bad files."""

import json
import re
import shutil

import pytest

plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")

from return_predictor import charts

NAMES = {
    "charts.png",
    "predicted_vs_actual.png",
    "bn_leaky_relu_bandwidth.png",
    "training_speed.png",
}


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text)]


def change(folder, name, edit):
    result = json.loads((folder / name).read_text())
    edit(result)
    (folder / name).write_text(json.dumps(result))


@pytest.fixture
def folder(made_up_results, tmp_path):
    return shutil.copytree(made_up_results, tmp_path / "results")


def test_all_result_files_give_all_charts_and_nothing_else(folder, tmp_path, capsys):
    out = tmp_path / "new" / "charts"
    assert charts.main(["--results", str(folder), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == NAMES
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in out.iterdir())
    assert set(capsys.readouterr().out.split()) == {str(out / name) for name in NAMES}


def test_absent_source_leaves_its_chart_out_and_says_so(folder, capsys):
    (folder / "forecasts.csv").unlink()
    assert charts.main(["--results", str(folder)]) == 0
    assert not (folder / "predicted_vs_actual.png").exists()
    assert "forecasts.csv is not there, so no predicted_vs_actual.png" in capsys.readouterr().err


def test_empty_folder_fails_and_says_what_to_run(tmp_path, capsys):
    assert charts.main(["--results", str(tmp_path)]) == 1
    assert "run return-predictor benchmark" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("benchmark.json", "{", "benchmark.json: Expecting"),
        ("benchmark.json", "{}", "benchmark.json: no configurations, protocol in it"),
        ("benchmark.json", '{"configurations": [{}], "protocol": {}}', "benchmark.json: KeyError"),
        ("forecasts.csv", "date,ticker\n", "forecasts.csv: no columns actual and model_1"),
        ("forecasts.csv", "actual,model_1\n", "forecasts.csv: no forecast in it has an actual"),
    ],
)
def test_bad_file_is_named_and_nothing_half_written(folder, capsys, name, content, message):
    (folder / name).write_text(content)
    assert charts.main(["--results", str(folder)]) == 1
    assert message in capsys.readouterr().err
    assert not list(folder.glob(".*"))


def test_chart_names_source_commit_and_machine(made_up_results):
    for _, draw in charts.CHARTS.values():
        signature = [t for t in texts(draw(made_up_results)) if "commit" in t]
        assert re.match(
            r"results/\w+\.json · commit 0123456789ab · 2026-01-02 · Example GPU", *signature
        )


def test_benchmark_chart_shows_every_configuration_on_a_log_axis(folder):
    change(folder, "benchmark.json", lambda r: r["configurations"][2].update(status="void"))
    figure = charts.draw_benchmark(folder)
    shown = texts(figure)
    for label in (
        "gpu-graph",
        "14.5 k/s",
        "17.4 M/s  (1,200 × cpu)",
        "samples per second (log scale)",
        "skipped: no GPU: nvidia-smi finds none",
        "mean squared error, %²",
    ):
        assert label in shown
    assert any("void: its losses differ" in text for text in shown)
    assert figure.axes[2].get_xscale() == "log"


def test_benchmark_chart_of_one_row_and_one_repeat_is_drawn(folder):
    def only_cpu(result):
        del result["configurations"][1:]
        result["configurations"][0].update(train_seconds=[1.0], epoch_loss=[4e-4])

    change(folder, "benchmark.json", only_cpu)
    assert any("one timing" in text for text in texts(charts.draw_benchmark(folder)))


def test_bandwidth_is_passes_times_bytes_over_time(made_up_results):
    figure = charts.draw_bandwidth(made_up_results)
    (line,) = [l for l in figure.axes[0].lines if l.get_label() == "rp"]
    assert line.get_ydata()[-1] == pytest.approx(3 * 1048576 * 64 * 4 / 282e-6 / 1e12)
    assert "copy: 2.99 TB/s" in texts(figure)


def test_rows_without_actual_are_left_out(made_up_results):
    actual, predicted = charts.read_forecasts(made_up_results / "forecasts.csv")
    assert len(actual) == len(predicted) == 590
