"""The paths beside `/generate`."""

import re
import socket

from prometheus_client.parser import text_string_to_metric_families

from tests.helpers_server import Server


def test_health_and_ready(writer: Server) -> None:
    for path in ("/health", "/ready"):
        response = writer.http.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == "application/json"
        assert isinstance(response.json(), dict)


def test_models_are_listed_as_clients_of_this_field_expect(writer: Server, table: Server) -> None:
    for server, name in ((writer, "writer"), (table, "table")):
        listing = server.http.get("/v1/models").json()
        assert listing["object"] == "list"
        (model,) = listing["data"]
        assert model["id"] == name
        assert model["object"] == "model"
        assert server.generate(model=name, max_tokens=1)["model"] == name


def test_docs_are_a_page_over_the_openapi_description(writer: Server) -> None:
    page = writer.http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text
    description = writer.http.get("/openapi.json").json()
    assert description["openapi"].startswith("3.")
    assert {"/generate", "/health", "/ready", "/v1/models", "/metrics"} <= set(description["paths"])
    responses = description["paths"]["/generate"]["post"]["responses"]
    assert {"200", "404", "413", "429", "503"} <= set(responses)
    assert {"400", "422"} & set(responses)
    assert "text/event-stream" in responses["200"]["content"]


def test_every_operation_has_a_summary_of_its_own_and_paths_are_relative(writer: Server) -> None:
    """Behind a proxy's path the description, what it describes and the page are all found from where they are."""
    description = writer.http.get("/openapi.json").json()
    summaries = [each["summary"] for operations in description["paths"].values() for each in operations.values()]
    assert len(summaries) == len(set(summaries)) >= 13
    assert [server["url"] for server in description["servers"]] == ["."]
    page = writer.http.get("/docs").text
    assert not re.findall(r"""['"]/[^'"]*['"]""", page)
    assert re.search(r"url: 'openapi.json'", page)


def test_two_ways_to_say_how_long_a_body_is_end_the_connection(writer: Server) -> None:
    body = b'{"max_tokens": 1, "seed": 1}'
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    head = b"POST /generate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    both = head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
    one = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked
    with socket.create_connection(("127.0.0.1", writer.port), timeout=60) as connection:
        connection.sendall(one + both + one)
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answers.count(b"HTTP/1.1 200") == 2, "what comes behind is not read"
    assert answers.lower().count(b"connection: close") == 1


def test_metrics_are_prometheus_text(writer: Server) -> None:
    writer.generate(max_tokens=3, n=2, seed=1)
    response = writer.http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    ours = {name for name in families if name.startswith("unmask_")}
    for name in ("unmask_requests_running", "unmask_requests_waiting"):
        assert families[name].type == "gauge"
        assert families[name].documentation
    assert len(ours) >= 8
    assert all(re.fullmatch(r"unmask_[a-z0-9_]+", name) for name in ours)


def test_gauges_are_zero_when_nothing_is_asked(writer: Server) -> None:
    writer.generate(max_tokens=3, seed=1)
    writer.until_idle()


def test_metrics_count_what_was_done(writer: Server) -> None:
    def total() -> float:
        families = text_string_to_metric_families(writer.http.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            if family.name.startswith("unmask_") and family.type == "counter"
            for sample in family.samples
            if sample.name.endswith("_total")
        )

    before = total()
    writer.generate(max_tokens=4, n=3, seed=1, sampler={"name": "ancestral", "steps": 20})
    assert total() > before + 3 * 4 * 2, "sub-tokens, evaluations or idle steps"


def test_every_answer_is_json_that_others_may_read(writer: Server) -> None:
    text = writer.http.post("/generate", json={"prompt": "☃", "max_tokens": 3, "n": 8, "seed": 5}).content
    assert text.decode("utf-8")
