"""Every route answers, and answers what the command line says."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

MODEL = "/v2/models/FinancialLSTM"
FLOAT = 1e-6  # relative: the same kernel, batched differently; answers have 9 digits


def close(answer, row):
    assert answer["predicted_return"] == pytest.approx(row["prediction"], rel=FLOAT, abs=1e-10)
    for level in ("interval_80", "interval_95"):
        assert answer[level] == pytest.approx(row[level], rel=1e-5)
    assert answer["model_version"] == row["model_version"]


def test_home_for_a_program_is_json_with_the_original_fields(service):
    answer = service.get("/").json()
    assert answer["service"] and answer["status"] == "running"
    assert set(answer["benchmark"]) >= {
        "cpu_time_seconds", "gpu_time_seconds", "kernel_time_seconds",
        "cpu_to_gpu_speedup", "cpu_to_kernel_speedup",
    }  # fmt: skip


def test_home_for_a_browser_is_a_page_with_the_facts_in_it(service, latest):
    answer = service.get("/", Accept="text/html,application/xhtml+xml")
    assert answer.headers["Content-Type"].startswith("text/html")
    page = answer.body.decode()
    assert latest[0]["model_version"] in page and latest[0]["ticker"] in page
    assert "{{" not in page
    for path in re.findall(r'(?:href|src)="(/assets/[^"]+)"', page):
        assert service.get(path).status in (200, 404 if "dygraph" in path else 200)


def test_asset_known_by_its_tag_is_not_sent_again(service):
    first = service.get("/assets/dashboard.css")
    assert first.status == 200 and first.headers["ETag"]
    assert service.get("/assets/dashboard.css", If_None_Match=first.headers["ETag"]).status == 304


def test_predict_by_ticker_is_what_the_command_says(service, latest):
    for row in latest:
        answer = service.post("/predict", {"ticker": row["ticker"]}).json()
        close(answer, row)
        assert (answer["ticker"], answer["date"]) == (row["ticker"], row["date"])
        assert answer["actual"] is None
        assert answer["model"] == "FinancialLSTM" and answer["sequence_length"] == 20


def test_predict_by_date_has_the_outcome(service, window):
    _, row = window
    answer = service.post("/predict", {"ticker": row["ticker"], "date": row["date"]}).json()
    close(answer, row)
    assert answer["actual"] == pytest.approx(row["actual"], rel=1e-8)


@pytest.mark.parametrize("features", [None, "scaled", "raw"])
def test_predict_of_a_sequence_is_the_same_day_by_date(service, window, features):
    shown, row = window
    body = {"sequence": shown["raw" if features == "raw" else "scaled"]}
    if features:
        body["features"] = features
    close(service.post("/predict", body).json(), row)


def test_predict_of_bars_makes_the_features(service, prices, window):
    _, row = window
    lines = (prices / f"{row['ticker']}.csv").read_text().split("\n")
    names = lines[0].split(",")
    bars = []
    for line in lines[1:]:
        values = line.split(",")
        bars.append({n: v if n == "date" else float(v) for n, v in zip(names, values)})
        if values[0] == row["date"]:
            break
    answer = service.post("/predict", {"bars": bars}).json()
    close(answer, row)
    assert answer["date"] == row["date"]
    short = service.post("/predict", {"bars": bars[-39:]})
    assert short.status == 400 and "40 are needed" in short.json()["error"]


def test_tickers_lists_all_and_one_by_column(service, latest):
    listed = service.get("/tickers").json()["tickers"]
    assert [t["ticker"] for t in listed] == [row["ticker"] for row in latest]
    for ticker, row in zip(listed, latest):
        close({**ticker, "model_version": row["model_version"]}, row)
    series = service.get(f"/tickers/{latest[0]['ticker']}").json()
    lengths = {len(v) for v in series.values() if isinstance(v, list)}
    assert len(lengths) == 1
    assert series["date"][-1] == latest[0]["date"]
    assert series["predicted_return"][-1] == pytest.approx(latest[0]["prediction"], rel=1e-5)
    assert series["actual_return"][-1] is None and series["actual_return"][-2] is not None


def test_model_card_has_data_dates_and_seed(service, latest):
    card = service.get("/model-card").json()
    assert card["version"] == latest[0]["model_version"] and card["seed"] == "1"
    assert card["train_last_date"] < card["test_first_date"]
    assert "no report was given" in card["verdict"]


def test_health_of_all_kinds(service):
    assert service.get("/healthz").json()["status"] == "ok"
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}
    assert service.get(MODEL + "/ready").json() == {"name": "FinancialLSTM", "ready": True}


def test_metadata_of_server_and_model(service, latest):
    assert "binary_tensor_data" in service.get("/v2").json()["extensions"]
    model = service.get(MODEL).json()
    assert model["versions"] == [latest[0]["model_version"]]
    assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 20, 4]}]
    version = model["versions"][0]
    assert service.get(f"{MODEL}/versions/{version}").json() == model
    assert service.get(f"{MODEL}/versions/other").status == 404
    assert service.get("/v2/models/other").status == 404


def test_infer_by_json_flat_and_nested(service, window):
    shown, row = window
    flat = [x for day in shown["scaled"] for x in day]
    for data in (flat, [shown["scaled"]]):
        answer = service.post(MODEL + "/infer", {
            "id": "7", "inputs": [
                {"name": "features", "datatype": "FP32", "shape": [1, 20, 4], "data": data}
            ],
        }).json()  # fmt: skip
        assert answer["id"] == "7" and answer["model_version"] == row["model_version"]
        outputs = {o["name"]: o for o in answer["outputs"]}
        assert outputs["predicted_return"]["shape"] == [1, 1]
        assert outputs["predicted_return"]["data"] == pytest.approx([row["prediction"]], rel=FLOAT)
        assert outputs["interval_95"]["data"] == pytest.approx(row["interval_95"], rel=1e-5)


def test_infer_binary_equals_json_for_a_batch(service, random_windows):
    header = {
        "inputs": [{
            "name": "features", "datatype": "FP32", "shape": list(random_windows.shape),
            "parameters": {"binary_data_size": random_windows.nbytes},
        }],
        "outputs": [{"name": "predicted_return", "parameters": {"binary_data": True}}],
    }  # fmt: skip
    head = json.dumps(header).encode()
    answer = service.post(
        MODEL + "/infer", head + random_windows.tobytes(),
        {"Inference-Header-Content-Length": str(len(head))},
    )  # fmt: skip
    assert answer.status == 200, answer.body
    size = int(answer.headers["Inference-Header-Content-Length"])
    binary = np.frombuffer(answer.body[size:], "<f4")
    same = service.post(MODEL + "/infer", {
        "inputs": [{"name": "features", "datatype": "FP32", "shape": list(random_windows.shape),
                    "data": random_windows.astype(float).ravel().tolist()}],
        "outputs": [{"name": "predicted_return"}],
    }).json()  # fmt: skip
    assert binary.tobytes() == np.float32(same["outputs"][0]["data"]).tobytes()


def test_infer_is_the_network_of_the_checkpoint(service, checkpoints, random_windows):
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    state = load_file(checkpoints[0])
    lstm = torch.nn.LSTM(4, 64, 2, batch_first=True)
    lstm.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("lstm.")})
    with torch.inference_mode():
        hidden = lstm.double()(torch.from_numpy(random_windows).double())[0][:, -1]
        mean, var = state["norm.running_mean"].double(), state["norm.running_var"].double()
        hidden = torch.nn.functional.leaky_relu((hidden - mean) / (var + 1e-5).sqrt(), 0.01)
        wanted = hidden @ state["head.weight"].double().T + state["head.bias"].double()
    answer = service.post(MODEL + "/infer", {
        "inputs": [{"name": "features", "datatype": "FP32", "shape": list(random_windows.shape),
                    "data": random_windows.astype(float).ravel().tolist()}],
        "outputs": [{"name": "predicted_return"}],
    }).json()  # fmt: skip
    got = np.array(answer["outputs"][0]["data"])
    wanted = wanted.numpy().ravel()
    assert np.abs(got - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.fixture(scope="module")
def random_windows():
    return np.random.default_rng(1).standard_normal((50, 20, 4)).astype(np.float32)


def test_stats_count_inferences(service, window):
    before = service.get(MODEL + "/stats").json()["model_stats"][0]
    service.post("/predict", {"sequence": window[0]["scaled"]})
    after = service.get(MODEL + "/stats").json()["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 1
    assert (
        after["inference_stats"]["success"]["count"] > before["inference_stats"]["success"]["count"]
    )


def test_metrics_pass_promtool(service):
    text = service.get("/metrics")
    assert text.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    body = text.body.decode()
    assert 'rp_http_requests_total{route="predict",code="200"}' in body
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    result = subprocess.run(["promtool", "check", "metrics"], input=body, text=True,
                            capture_output=True)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


def test_openapi_description_is_valid_and_complete(service):
    description = service.get("/openapi.json").json()
    validate = pytest.importorskip("openapi_spec_validator").validate
    validate(description)
    for path in description["paths"]:
        assert (
            "{ticker}" in path
            or service.request(
                path.replace("{model}", "FinancialLSTM").replace("{version}", "x"),
                b"{}" if "post" in description["paths"][path] else None,
            ).status
            != 405
        )


def test_head_has_no_body(service):
    answer = service.request("/healthz", method="HEAD")
    assert answer.status == 200 and answer.body == b""
    assert service.request("/predict", method="GET").headers["Allow"] == "POST"
