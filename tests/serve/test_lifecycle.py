"""Start, reload under load, drain, and the options that are refused."""

import http.client
import json
import shutil
import signal
import socket
import threading
import time

import pytest

TOKEN = "admin-token-of-the-test"


@pytest.fixture()
def admin(tmp_path):
    (tmp_path / "admin").write_text(TOKEN)
    return ("--admin-token-file", tmp_path / "admin")


def reload_now(service):
    return service.post("/admin/reload", b"", {"Authorization": f"Bearer {TOKEN}"})


def test_reload_swaps_the_model_without_a_dropped_request(
    start, checkpoints, prices, tmp_path, admin
):
    present = tmp_path / "present.safetensors"
    shutil.copy(checkpoints[0], present)
    with start(present, prices, "--access-log", "off", *admin) as service:
        versions, failures, stop = set(), [], threading.Event()

        def ask(body):
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
            while not stop.is_set():
                try:
                    connection.request("POST", "/predict", body)
                    answer = connection.getresponse()
                    value = json.loads(answer.read())
                    versions.add((value["model_version"], value["predicted_return"]))
                except Exception as problem:  # any at all is a dropped request
                    failures.append(problem)
                    return

        window = json.dumps({"sequence": [[0.1, 0.2, 0.3, 0.4]] * 20})
        threads = [threading.Thread(target=ask, args=(window,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        replies = []
        for turn in range(6):
            fresh = tmp_path / "fresh"
            shutil.copy(checkpoints[(turn + 1) % 2], fresh)
            fresh.rename(present)
            replies.append(reload_now(service))
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert [reply.status for reply in replies] == [200] * 6
        assert len({reply.json()["model_version"] for reply in replies}) == 2
        assert len(versions) == 2 and len({version for version, _ in versions}) == 2


def test_reload_of_a_bad_checkpoint_keeps_the_old_model(
    start, checkpoints, prices, tmp_path, admin
):
    present = tmp_path / "present.safetensors"
    shutil.copy(checkpoints[0], present)
    with start(present, prices, *admin) as service:
        before = service.post("/predict", {"ticker": "SYN0001"}).json()

        def old_model_answers():
            now = service.post("/predict", {"ticker": "SYN0001"}).json()
            assert now["model_version"] == before["model_version"]
            assert now["predicted_return"] == pytest.approx(before["predicted_return"], rel=1e-5)

        data = bytearray(present.read_bytes())
        data[-1] ^= 1
        present.write_bytes(data)
        refused = reload_now(service)
        assert refused.status == 409 and "old model stays" in refused.json()["error"]
        old_model_answers()
        service.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        old_model_answers()
        assert b'rp_reloads_total{result="failed"} 2' in service.get("/metrics").body


def test_sighup_picks_up_new_prices(start, checkpoints, prices, tmp_path):
    folder = tmp_path / "prices"
    shutil.copytree(prices, folder)
    with start(checkpoints[0], folder) as service:
        assert len(service.get("/tickers").json()["tickers"]) == 6
        text = (folder / "SYN0001.csv").read_text()
        (folder / "NEW.csv").write_text(text)
        service.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while service.post("/predict", {"ticker": "NEW"}).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_reload_without_the_right_token_is_refused(start, checkpoints, prices, admin, service):
    assert service.post("/admin/reload", b"").status == 403
    with start(checkpoints[0], prices, *admin) as guarded:
        assert guarded.post("/admin/reload", b"").status == 401
        assert guarded.post("/admin/reload", b"", {"Authorization": "Bearer x"}).status == 401


def test_sigterm_drains_within_8_seconds(start, checkpoints, prices):
    service = start(checkpoints[0], prices)
    with service:
        body = json.dumps({"ticker": "SYN0001"}).encode()
        slow = socket.create_connection(("127.0.0.1", service.port))
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        idle = socket.create_connection(("127.0.0.1", service.port))
        time.sleep(0.3)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        ready = service.get("/v2/health/ready")
        assert ready.status == 503 and ready.headers["Connection"] == "close"
        assert service.get("/v2/health/live").status == 200
        assert service.post("/predict", {"ticker": "SYN0001"}).status == 200
        time.sleep(2)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", service.port))
        slow.sendall(body)
        assert slow.recv(100000).startswith(b"HTTP/1.1 200 ")
        service.process.communicate(timeout=8)
        assert service.process.returncode == 0 and time.monotonic() - began < 8
        slow.close()
        idle.close()


def test_request_that_never_ends_is_cut_off_within_8_seconds(start, checkpoints, prices):
    with start(checkpoints[0], prices) as service:
        stuck = socket.create_connection(("127.0.0.1", service.port))
        stuck.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.3)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.process.communicate(timeout=12)
        assert time.monotonic() - began < 8
        assert service.process.returncode == 1
        stuck.close()


def test_start_loads_no_torch_and_stays_small(service):
    maps = open(f"/proc/{service.process.pid}/maps").read()
    assert "libtorch" not in maps and "libc10" not in maps
    status = open(f"/proc/{service.process.pid}/status").read()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident < 50 * 1024


@pytest.mark.parametrize("options, message", [
    (("--port", 70000), "port"), (("--address", "not an address"), "address"),
    (("--report", "/nonexistent"), "/nonexistent"),
    (("--prices", "/nonexistent"), "/nonexistent"),
])  # fmt: skip
def test_options_that_are_wrong_are_named(program, checkpoints, prices, options, message):
    result = program("serve", "--checkpoint", checkpoints[0], *options,
                 *(() if "--prices" in options else ("--prices", prices)))  # fmt: skip
    assert result.returncode in (1, 2) and message in result.stderr


def test_port_in_use_is_said(program, checkpoints, prices, service):
    result = program(
        "serve", "--checkpoint", checkpoints[0], "--prices", prices, "--port", service.port
    )
    assert result.returncode == 1 and str(service.port) in result.stderr
