"""The page of the viewer: who may ask its server for what, and what a browser makes of it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from browser import opened, violations
from viewer_cases import Made, make

import fastcal
from fastcal.viewer import ViewedFolder, ViewServer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("viewer"))


@pytest.fixture(scope="module")
def server(made: Made) -> Iterator[ViewServer]:
    with ViewServer(ViewedFolder(made.out, made.images, made.labels)) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(
    server: ViewServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is written: no client tidies its path or its host."""
    host = headers.pop("Host", f"127.0.0.1:{server.server_port}")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, dict(answer.getheaders()), answer.read()


def page(server: ViewServer, name: str) -> Any:
    status, _, content = ask(server, f"/{server.token}/{name}")
    assert status == 200, content
    return json.loads(content)


# --- the server -----------------------------------------------------------------------------------


def test_the_server_gives_the_list_a_case_its_voxels_and_numbers(
    server: ViewServer, made: Made
) -> None:
    cases = page(server, "cases")
    assert [row["case"] for row in cases["rows"]] == ["beta", "alpha"]
    case = page(server, "case?case=alpha")
    assert [layer["key"] for layer in case["layers"]][:2] == ["image/0", "prediction"]
    _, _, content = ask(server, f"/{server.token}/volume?case=alpha&layer=image%2F0")
    voxels = np.asarray(nibabel.Nifti1Image.from_bytes(content).dataobj)
    np.testing.assert_array_equal(voxels, made.image["alpha"][::-1, ::-1])
    found = page(server, "values?case=alpha&at=1,2,3")
    assert found["entropy"] == pytest.approx(float(made.entropy["alpha"][18, 13, 3]))
    assert found["probability/1"] == pytest.approx(float(made.mean["alpha"][1, 18, 13, 3]))
    p, r = made.prediction["alpha"], made.reference["alpha"]
    dice = 2 * (p & r).sum() / (p.sum() + r.sum())
    assert page(server, "dice?case=alpha")["dice"] == pytest.approx(dice)


def test_a_bug_is_one_answer_and_the_server_goes_on(
    server: ViewServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: dict[str, str]) -> Any:
        raise KeyError("lost")

    monkeypatch.setitem(server.pages, "values", broken)
    status, _, content = ask(server, f"/{server.token}/values?case=alpha&at=1,2,3")
    assert status == 500
    assert json.loads(content)["error"].startswith("this is a bug; please report it (KeyError: no")
    assert page(server, "cases")["rows"]
    assert capsys.readouterr().err == ""


def test_a_port_that_is_taken_is_named(server: ViewServer, made: Made) -> None:
    taken = server.server_port
    with pytest.raises(OSError, match=f"port {taken} of 127.0.0.1") as caught:
        ViewServer(ViewedFolder(made.out, made.images), port=taken)
    assert caught.value.filename == f"port {taken} of 127.0.0.1"


@pytest.mark.parametrize("token", ["", "x" * 32, "TOKEN%00", "%54OKEN", "tökén", "../TOKEN"])
def test_nothing_is_given_without_the_token(server: ViewServer, token: str) -> None:
    token = token.replace("TOKEN", server.token)
    for name in ("", "cases", "page.js", "../"):
        status, _, content = ask(server, f"/{token}/{name}")
        assert status == 403
        assert server.token.encode() not in content


@pytest.mark.parametrize(
    "name",
    [
        *("../out/beta.nii.gz", "..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/etc/passwd"),
        *("/etc/passwd", "//etc/passwd", "/", "cases/", "./cases", "cases/../cases", "%63ases"),
        *("..\\..\\etc\\passwd", "file:///etc/passwd", "page.py", "__init__.py", "server.py"),
        *("volume", "volume?case=..%2f..%2fsecret&layer=prediction", "volume?case=beta"),
        *("volume?case=beta&layer=..%2f..%2fsecret", "volume?case=beta&layer=/etc/passwd"),
        *("volume?case=/etc/passwd&layer=image%2F0", "volume?case=beta%00&layer=prediction"),
        *("case?case=../beta", "case?case=", "dice?case=gamma", "values?case=beta&at=0,0,99"),
        *("values?case=beta&at=-1,0,0", "values?case=beta&at=0,0", "values?case=beta"),
    ],
)
def test_no_trick_of_a_path_leads_to_another_file(server: ViewServer, name: str) -> None:
    status, _, content = ask(server, f"/{server.token}/{name}")
    assert status == 404
    assert json.loads(content) == {"error": "there is nothing of this name"}


@pytest.mark.parametrize(
    "path", ["TOKEN/", "/x//TOKEN/cases", "http://127.0.0.1/TOKEN/", "*", "/%"]
)
def test_no_other_form_of_the_address_is_taken(server: ViewServer, path: str) -> None:
    assert ask(server, path.replace("TOKEN", server.token))[0] in (400, 403)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1"])
def test_a_name_that_was_rebound_to_this_machine_is_refused(server: ViewServer, host: str) -> None:
    host = host.replace("PORT", str(server.server_port))
    assert ask(server, f"/{server.token}/cases", Host=host)[0] == 403


def test_another_site_is_refused_and_this_one_is_not(server: ViewServer) -> None:
    path = f"/{server.token}/cases"
    assert ask(server, path, Origin="http://evil.example")[0] == 403
    assert ask(server, path, Origin="null")[0] == 403
    assert ask(server, path, Origin=server.url.rstrip("/").rpartition("/")[0])[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_the_server_only_answers_reading(server: ViewServer, method: str) -> None:
    status, headers, _ = ask(server, f"/{server.token}/cases", method)
    assert status == 501
    assert "Access-Control-Allow-Origin" not in headers


def test_answers_may_not_be_used_by_other_pages(server: ViewServer) -> None:
    status, headers, content = ask(server, f"/{server.token}/", "HEAD")
    assert (status, content) == (200, b"")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "Python" not in headers["Server"]


def test_the_server_listens_to_this_machine_alone(server: ViewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert len(server.token) >= 32


def test_a_file_that_is_damaged_later_is_told_and_the_server_goes_on(tmp_path: Path) -> None:
    copy = make(tmp_path)
    with ViewServer(ViewedFolder(copy.out, copy.images)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        path = copy.out / "entropy" / "beta.nii.gz"
        path.write_bytes(path.read_bytes()[:200])
        status, _, content = ask(running, f"/{running.token}/case?case=beta")
        assert status == 422
        assert json.loads(content)["error"].startswith(str(path))
        assert ask(running, f"/{running.token}/case?case=alpha")[0] == 200
        running.shutdown()


# --- the page -------------------------------------------------------------------------------------


def readout(shown: Any) -> dict[str, str]:
    rows = shown.locator("#readout tr").all()
    return dict(tuple(row.locator("td").all_inner_texts()) for row in rows)


def brightness(shown: Any) -> float:
    """Mean of the pixels of the planes, which are drawn anew for it."""
    script = """() => {
      const { nv } = fastcalView;
      nv.drawScene();
      const gl = nv.gl, w = gl.drawingBufferWidth, h = gl.drawingBufferHeight;
      const pixels = new Uint8Array(4 * w * h);
      gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
      return pixels.reduce((sum, one) => sum + one, 0) / pixels.length;
    }"""
    return float(shown.evaluate(script))


def wait(shown: Any, expression: str) -> None:
    """Ask again and again: the page forbids the eval that playwright would wait with."""
    for _ in range(900):
        if shown.evaluate(f"() => Boolean({expression})"):
            return
        shown.wait_for_timeout(100)
    pytest.fail(f"never came true: {expression}; {shown.inner_text('#status')}")


@pytest.mark.slow
def test_the_page_shows_cases_and_is_walked_by_keys(
    browser: Any,
    server: ViewServer,
    made: Made,
) -> None:
    with opened(browser, server.url, size=(900, 700)) as shown:
        wait(shown, "document.body.dataset.ready === 'beta'")
        start = page(server, "case?case=beta")["start"]
        at = [19 - start[0], 15 - start[1], start[2]]
        wait(
            shown,
            f"document.querySelector('#readout').innerText.includes('{', '.join(map(str, at))}')",
        )
        found = readout(shown)
        value = float(made.entropy["beta"][tuple(at)])
        assert found["Entropy"] == f"{value:.3f} nats"
        assert found["T2"] == str(float(f"{made.image['beta'][tuple(at)]:.5g}"))
        assert found["Votes"] == "4 of 5 agree"
        assert found["Prediction"] in ("background", "<b>gland</b>")
        assert float(found["Probability of <b>gland</b>"]) in (0.9, 0.05)
        with_layers = brightness(shown)
        assert with_layers > 1
        shown.locator("#canvas").focus()
        shown.keyboard.press(" ")
        assert brightness(shown) != with_layers
        shown.keyboard.press(" ")
        assert brightness(shown) == pytest.approx(with_layers)
        shown.keyboard.press("ArrowRight")  # the patient's left: x falls in RAS, and grows in LPS
        wait(
            shown, f"document.querySelector('#readout').innerText.includes('{at[0] + 1}, {at[1]}')"
        )
        shown.keyboard.press("e")
        assert shown.inner_text("#status").startswith("Error 1 of")
        shown.keyboard.press("u")
        assert shown.inner_text("#status").startswith("Uncertain cluster 1 of")
        shown.keyboard.press("n")
        wait(shown, "document.body.dataset.ready === 'alpha'")
        wait(shown, "fastcalView.state.rows.every((row) => row.dice > 0)")
        shown.select_option("#order", "dice")
        names = shown.locator("#cases button span:first-child").all_inner_texts()
        assert names == ["beta", "alpha"]
        assert violations(shown) == []


@pytest.mark.slow
def test_the_page_of_a_notebook_works_without_a_network(browser: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    members = torch.randn(3, 1, 2, 12, 10, 8)
    result = fastcal.ensemble_statistics(members, maps=("mean", "label", "entropy"))
    file = fastcal.view(result, torch.randn(12, 10, 8), case="noise").save(tmp_path / "noise.html")
    with opened(browser, file, offline=True, size=(900, 700)) as shown:
        wait(shown, "document.body.dataset.ready === 'noise'")
        wait(shown, "document.querySelector('#readout').innerText.includes('nats')")
        found = readout(shown)
        at = tuple(int(part) for part in found["Voxel"].split(", "))
        assert found["Entropy"] == f"{float(result.entropy[0][at]):.3f} nats"
        assert found["Probability of class 1"] == f"{float(result.mean[0, 1][at]):.3f}"
        assert brightness(shown) > 1
