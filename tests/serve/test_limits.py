"""What is malformed, too large, too slow or forbidden: a 4xx that says why, and life goes on."""

import http.client
import json
import os
import re
import select
import socket
import time

import pytest

INFER = "/v2/models/FinancialLSTM/infer"
ROW = [0.1, 0.2, 0.3, 0.4]
SEQUENCE = json.dumps({"sequence": [ROW] * 20}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"ticker": "SYN0001"}'


def deep(count):
    return b"[" * count + b"]" * count


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{}", b'{"sequence": 1}', b'{"sequence": []}',
    json.dumps({"sequence": [ROW] * 19}).encode(), json.dumps({"sequence": [ROW] * 21}).encode(),
    json.dumps({"sequence": [ROW[:3]] * 20}).encode(),
    json.dumps({"sequence": [["a"] * 4] * 20}).encode(),
    json.dumps({"sequence": [[None] * 4] * 20}).encode(),
    SEQUENCE.replace(b"0.1", b"NaN", 1), SEQUENCE.replace(b"0.1", b"Infinity", 1),
    SEQUENCE.replace(b"0.1", b"1e39", 1), SEQUENCE.replace(b"0.1", b"1e999", 1),
    SEQUENCE.replace(b"0.1", b"01", 1), SEQUENCE.replace(b"0.1", b"+1", 1),
    SEQUENCE.replace(b"0.1", b".1", 1), SEQUENCE.replace(b"0.1", b"1.", 1),
    SEQUENCE.replace(b"0.1", b"0x1", 1), SEQUENCE + b"x", SEQUENCE + SEQUENCE,
    SEQUENCE[:-1] + b', "sequence": []}', SEQUENCE[:-1] + b', "date": "2020-01-01"}',
    b'{"ticker": "A", "ticker": "B"}', b'{"ticker": "\xff"}', b'{"ticker": "\xed\xa0\x80"}',
    b'{"ticker": ""}', b'{"ticker": "A\\u0000"}', b'{"ticker": 1}',
    b'{"ticker": "%s"}' % (b"A" * 40), b'{"ticker": "SYN0001", "date": "2020-02-30"}',
    b'{"ticker": "SYN0001", "date": 1}', b'{"bars": []}', b'{"bars": {}}',
    b'{"bars": [%s]}' % b",".join([b'{"close": -1, "volume": 1}'] * 60),
    b'{"bars": [%s]}' % b",".join([b'{"close": 1}'] * 60),
    b'{"sequence": %s}' % deep(5000), deep(100000), b'{"a":' * 3000 + b"1" + b"}" * 3000,
])  # fmt: skip
def test_predict_refuses_with_a_reason(service, body):
    answer = service.post("/predict", body)
    assert answer.status == 400, answer.body
    assert answer.json()["error"]


@pytest.mark.parametrize("body", [b'{"ticker": "NOPE"}',
                                  b'{"ticker": "SYN0001", "date": "1999-01-04"}'])  # fmt: skip
def test_predict_of_what_is_not_there_is_404(service, body):
    answer = service.post("/predict", body)
    assert answer.status == 404 and answer.json()["error"]


def tensor(**changes):
    return {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 20, 4],
                        "data": [0.5] * 80, **changes}]}  # fmt: skip


@pytest.mark.parametrize("body", [
    {}, {"inputs": []}, {"inputs": [1]}, {"inputs": {}}, tensor(name="x"), tensor(datatype="FP64"),
    tensor(shape=[1, 20]), tensor(shape=[2, 20, 4]), tensor(shape=[0, 20, 4]),
    tensor(shape=[-1, 20, 4]), tensor(shape=[10**18, 20, 4]), tensor(shape=[1, 80, 1]),
    tensor(shape=["1", 20, 4]), tensor(data=[0.5] * 79), tensor(data=[0.5] * 81),
    tensor(data="x"), tensor(data=[[[[[0.5]]]]] * 80), tensor(parameters={"binary_data_size": 320}),
    {**tensor(), "outputs": [{"name": "other"}]}, {**tensor(), "outputs": 1}, {**tensor(), "id": 1},
    {**tensor(), "outputs": [{"name": "predicted_return"}] * 2},
])  # fmt: skip
def test_infer_refuses_with_a_reason(service, body):
    answer = service.post(INFER, body)
    assert answer.status == 400, answer.body
    assert answer.json()["error"]


@pytest.mark.parametrize("length, extra", [("0", b""), ("99999", b""), ("x", b""), ("-1", b""),
                                           (None, b"\0" * 320), ("exact", b"\0" * 319),
                                           ("exact", b"\0\0\xc0\x7f" * 80)])  # fmt: skip
def test_infer_binary_refuses_wrong_lengths_and_nan(service, length, extra):
    head = tensor(parameters={"binary_data_size": 320})
    del head["inputs"][0]["data"]
    head = json.dumps(head).encode()
    headers = {}
    if length:
        headers["Inference-Header-Content-Length"] = str(len(head)) if length == "exact" else length
    answer = service.post(INFER, head + extra, headers)
    assert answer.status == 400 and answer.json()["error"]


def test_body_over_the_limit_is_413(service):
    assert service.post("/predict", b" " * (2 << 20)).status == 413
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = service.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 17 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("rest, status", [
    (b"Content-Length: 21\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 21\r\n\r\n0\r\n\r\n", 400),
    (b"Content-Length: 21\r\nContent-Length: 21\r\n\r\n" + BODY, 400),
    (b"Content-Length: 21, 21\r\n\r\n" + BODY, 400), (b"Content-Length: +21\r\n\r\n" + BODY, 400),
    (b"Content-Length: -1\r\n\r\n" + BODY, 400), (b"Content-Length: 0x15\r\n\r\n" + BODY, 400),
    (b"Content-Length : 21\r\n\r\n" + BODY, 400),
    (b"Content-Length: 99999999999999999999\r\n\r\n" + BODY, 413),
    (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    (b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n", 413),
    (b"Host: y\r\nContent-Length: 21\r\n\r\n" + BODY, 400),
    (b"X Y: 1\r\nContent-Length: 21\r\n\r\n" + BODY, 400),
    (b"no colon\r\n\r\n", 400), (b"X: " + b"a" * 40000 + b"\r\n\r\n", 431),
    (b"a: b\r\n" * 70 + b"\r\n", 431), (b"a:\r\n" * 8000 + b"\r\n", 431),
    (b"X: a\nContent-Length: 21\r\n\r\n" + BODY, 400), (b"Content-Length: 21\n\n" + BODY, 400),
    (b"X: a\r\n Content-Length: 21\r\n\r\n" + BODY, 400), (b" X: a\r\n\r\n", 400),
    (b"X: a\rContent-Length: 21\r\n\r\n" + BODY, 400), (b": a\r\n\r\n", 400),
    (b"X: \0\r\n\r\n", 400), (b"Content-Length: 2 1\r\n\r\n" + BODY, 400),
    (b"Content-Length: \r\n\r\n" + BODY, 400), (b"Content_Length\t: 21\r\n\r\n" + BODY, 400),
    (b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n", 501),
    (b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", 501),
    (b"Content-Length: 21 \r\n\r\n" + BODY, 400),
    (b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\n1;\n=\r\na\r\n0\r\n\r\n", 400),
    (b"Transfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n", 400),
])  # fmt: skip
@pytest.mark.parametrize("at_once", [True, False])
def test_message_of_doubtful_length_is_refused_and_the_connection_closed(
    service, rest, status, at_once
):
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    good = HEAD + b"Content-Length: 21\r\n\r\n" + BODY
    if at_once:
        first, _, answer = service.raw(good + HEAD + rest + smuggled).partition(b"HTTP/1.1 4")
        assert first.startswith(b"HTTP/1.1 200 ") or b"HTTP/1.1 501 " in first
        answer = b"HTTP/1.1 4" + answer if answer else first[first.index(b"HTTP/1.1 501") :]
    else:
        answer = service.raw(HEAD + rest + smuggled)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"Connection: close" in head and json.loads(body)["error"]
    assert body.count(b"HTTP/1.1") == 0


def test_lengths_that_are_not_in_doubt_are_read(service):
    chunks = b"5;x=1\r\n" + BODY[:5] + b"\r\n%X\r\n" % (len(BODY) - 5) + BODY[5:] + b"\r\n"
    answer = service.raw(
        b"\r\n" + HEAD + b"Transfer-Encoding:  Chunked\r\nCookie: a=1; b=2\r\n\r\n" + chunks
        + b"0\r\nX-Trailer: 1\r\n\r\n" + HEAD + b"content-length:021\r\nCookie: "
        + b"a;" * 3000 + b"\r\nConnection: close\r\n\r\n" + BODY
    )  # fmt: skip
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and answer.count(b'"SYN0001"') == 2


def test_head_in_single_bytes_is_the_same_head(service):
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEAD + b"Content-Length: 21\r\n\r\n" + BODY:
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_compressed_body_is_refused_after_it_was_read(service):
    answer = service.post("/predict", {"ticker": "SYN0001"}, {"Content-Encoding": "gzip"})
    assert answer.status == 415 and answer.json()["error"]


@pytest.mark.parametrize("line, status", [
    (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505), (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    (b"POST /predict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET /healthz%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz%0d%0a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400), (b"GET /% HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET /?" + b"&" * 99 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400), (b"GET\r\n\r\n", 400), (b"\0", 400),
    (b"GET /healthz\r\n\r\n", 400), (b"GET /healthz HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz http/1.1\r\nHost: x\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00", 400),
    (b"GET /healthz HTTP/1.1\nHost: x\n\n", 400), (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"GET /assets/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"GET /a/b/c/d/e/f/g/h HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"DELETE /predict HTTP/1.1\r\nHost: x\r\n\r\n", 405),
])  # fmt: skip
def test_request_line_that_is_wrong_is_refused(service, line, status):
    assert service.raw(line).startswith(b"HTTP/1.1 %d " % status)


def test_pipelined_requests_are_answered_in_order(service):
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(SEQUENCE) + SEQUENCE
    end = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = service.raw(one * 5 + end)
    assert answer.count(b"HTTP/1.1 200 OK") == 6
    assert answer.rindex(b"predicted_return") < answer.index(b'"status": "ok"')


def test_half_closed_client_gets_its_answers_and_then_the_end(service):
    for body in (BODY, SEQUENCE) * 200:  # often enough to have bytes and end arrive together
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as connection:
            connection.sendall((HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body) * 2)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
            assert received.count(b"HTTP/1.1 200 OK") == 2


def test_connections_that_come_all_at_once_are_all_served(service):
    clients = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(240)]
    for client in clients:
        client.sendall(HEAD + b"Content-Length: 21\r\nConnection: close\r\n\r\n" + BODY)
    for client in clients:
        client.settimeout(10)
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        client.close()


def test_slow_client_is_cut_off_and_others_are_served(start, checkpoints, prices):
    options = ("--idle-timeout", 30, "--request-timeout", 2, "--access-log", "off")
    with start(checkpoints[0], prices, *options) as service:
        with socket.create_connection(("127.0.0.1", service.port)) as slow:
            slow.settimeout(0.3)
            began, ended = time.monotonic(), False
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ")
            while not ended and time.monotonic() - began < 10:
                try:
                    slow.sendall(b"a")
                    ended = slow.recv(100).startswith(b"HTTP/1.1 408 ")
                except TimeoutError:
                    pass
                except OSError:
                    ended = True
                assert service.get("/healthz").status == 200
            assert ended and time.monotonic() - began < 6
        assert b"rp_connections_stalled_total 1" in service.get("/metrics").body


def test_connections_over_the_limit_get_503_and_room_comes_back(start, checkpoints, prices):
    with start(checkpoints[0], prices, "--max-connections-per-ip", 4) as service:
        held = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(4)]
        time.sleep(0.3)
        refused = service.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 503 ") or refused == b""
        for connection in held:
            connection.close()
        deadline = time.monotonic() + 5
        while True:
            try:
                if service.get("/healthz").status == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_token_guards_all_but_health(start, checkpoints, prices, tmp_path):
    (tmp_path / "token").write_text("correct horse battery\n")
    wrong = tmp_path / "short"
    wrong.write_text("short")
    with pytest.raises(RuntimeError, match="at least 16"):
        start(checkpoints[0], prices, "--token-file", wrong)
    (tmp_path / "token").write_text("correct-horse-battery\n")
    with start(checkpoints[0], prices, "--token-file", tmp_path / "token") as service:
        assert service.get("/healthz").status == 200
        assert service.get("/v2/health/ready").status == 200
        for path in ("/", "/metrics", "/tickers", "/v2", "/nope"):
            assert service.get(path).status == 401
            assert service.get(path, Authorization="Bearer correct-horse-batterx").status == 401
            assert service.get(path, Authorization="Bearer correct-horse").status == 401
        assert service.get("/v2", Authorization="Bearer correct-horse-battery").status == 200
        answer = service.post("/predict", {"ticker": "SYN0001"})
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"


def test_access_log_whose_reader_is_stuck_stops_nobody(start, checkpoints, prices):
    reader, writer = os.pipe()
    path = "/" + "x" * 250
    with start(checkpoints[0], prices, stdout=writer) as service:
        os.close(writer)
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
        asked = dropped = 0
        while dropped == 0 and asked < 20000:  # the pipe, two buffers of 1 MiB, then it must drop
            for _ in range(500):
                connection.request("GET", path)
                assert connection.getresponse().read()
            asked += 500
            metrics = service.get("/metrics").body.decode()
            dropped = int(re.search(r"^rp_access_log_dropped_lines_total (\d+)", metrics, re.M)[1])
        assert dropped > 0
        received = b""
        while b"were dropped" not in received:
            chunk = os.read(reader, 65536)
            assert chunk
            received += chunk
            if select.select([reader], [], [], 0.3)[0] == []:
                service.get("/healthz")
        lines = [json.loads(line) for line in received.splitlines()]
        (message,) = [line["message"] for line in lines if "message" in line]
        assert int(message.split()[0]) >= dropped
    os.close(reader)


def test_stuck_access_log_does_not_delay_the_end(start, checkpoints, prices):
    reader, writer = os.pipe()
    with start(checkpoints[0], prices, stdout=writer) as service:
        os.close(writer)
        for _ in range(400):
            service.get("/" + "x" * 250)
        began = time.monotonic()
        assert service.stop() == 0 and time.monotonic() - began < 8
    os.close(reader)


def test_access_log_is_json_lines_even_of_hostile_text(start, checkpoints, prices):
    with start(checkpoints[0], prices) as service:
        service.raw(b'GET /"\xff\\ HTTP/1.1\r\nHost: x\r\nUser-Agent: "\\\x80\r\n\r\n', 1)
        service.post("/predict", {"ticker": "SYN0001"})
        assert service.stop() == 0
        lines = [json.loads(line) for line in service.out.splitlines()]
    assert [line["httpRequest"]["status"] for line in lines] == [404, 200]
    assert lines[1]["httpRequest"]["requestUrl"] == "/predict"
    assert lines[1]["severity"] == "INFO" and lines[0]["severity"] == "WARNING"
