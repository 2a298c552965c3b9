"""Clients that others wrote, unchanged: tritonclient, kserve, schemathesis."""

import asyncio
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

MODEL = "FinancialLSTM"


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(2).standard_normal((5, 20, 4)).astype(np.float32)


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_works_unchanged(service, windows, binary):
    triton = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    client = triton.InferenceServerClient(f"127.0.0.1:{service.port}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    version = client.get_model_metadata(MODEL)["versions"][0]
    assert client.is_model_ready(MODEL, version)
    given = triton.InferInput("features", list(windows.shape), "FP32")
    given.set_data_from_numpy(windows, binary_data=binary)
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary)
        for name in ("interval_80", "predicted_return")
    ]
    result = client.infer(MODEL, [given], outputs=wanted, request_id="r1", model_version=version)
    returns, interval = result.as_numpy("predicted_return"), result.as_numpy("interval_80")
    assert returns.shape == (5, 1) and interval.shape == (5, 2)
    assert (interval[:, 0] < returns[:, 0]).all() and (returns[:, 0] < interval[:, 1]).all()
    assert result.get_response()["id"] == "r1"
    everything = client.infer(MODEL, [given])
    np.testing.assert_allclose(everything.as_numpy("predicted_return"), returns, rtol=1e-6)
    assert client.get_inference_statistics(MODEL)["model_stats"][0]["version"] == version
    with pytest.raises(triton.InferenceServerException, match="no model"):
        client.get_model_metadata("other")


def test_kserve_client_works_unchanged(service, windows):
    kserve = pytest.importorskip("kserve", reason="pip install kserve (an environment of its own)")
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))

    async def ask():
        assert await client.is_server_ready(service.url)
        assert await client.is_server_live(service.url)
        assert await client.is_model_ready(service.url, MODEL)
        given = kserve.InferInput("features", list(windows.shape), "FP32")
        given.set_data_from_numpy(windows, binary_data=False)
        return await client.infer(
            service.url, kserve.InferRequest(model_name=MODEL, infer_inputs=[given]), MODEL
        )

    answer = asyncio.run(ask())
    assert np.asarray(answer.outputs[0].as_numpy()).shape == (5, 1)


def test_schemathesis_finds_no_server_error(service, tmp_path):
    found = shutil.which("schemathesis", path=pathlib.Path(sys.executable).parent)
    if not found:
        pytest.skip("schemathesis is not installed (pip install schemathesis)")
    result = subprocess.run(
        [found, "run", service.url + "/openapi.json", "--checks", "not_a_server_error",
         "--max-examples", "20", "--seed", "1", "--no-color"],
        capture_output=True, text=True, timeout=500, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
    assert service.get("/healthz").status == 200
