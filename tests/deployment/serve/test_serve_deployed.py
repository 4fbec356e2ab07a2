"""Deployment of the server: the examples in the docs, nginx, the container and the wheel."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio_server import BOUNDARY, digits, encode_image, form, running_server, wait_until

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def example(name):
    """Return the code block that follows the comment `example: NAME` in the docs."""
    match = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", DOCS, re.DOTALL)
    assert match, name
    return match[1]


@pytest.fixture(scope="module")
def server():
    with running_server("mnist-focus") as address:
        yield address


@pytest.fixture(scope="module")
def digit_png(tmp_path_factory):
    """A valid PNG of a digit."""
    return encode_image(digits(1)[0][0], tmp_path_factory.mktemp("digits"))


@pytest.mark.parametrize("name", ["curl", "curl with a held keypoint"])
def test_the_curl_examples_run(server, digit_png, tmp_path, name):
    if shutil.which("curl") is None and not os.environ.get("CI"):
        pytest.skip("the examples with curl are NOT tested: apt-get install curl")
    (tmp_path / "digit.png").write_bytes(digit_png)
    script = example(name).replace("127.0.0.1:7860", f"127.0.0.1:{server.port}")
    process = subprocess.run(["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True)
    result = json.loads(process.stdout)["images"][0]
    assert len(result["keypoints"]) == 3
    assert ("evidence" in result) == ("held" in name)


def test_the_python_example_runs(server, digit_png, tmp_path):
    (tmp_path / "digit.png").write_bytes(digit_png)
    script = example("python").replace("127.0.0.1:7860", f"127.0.0.1:{server.port}")
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.stdout.startswith(digits(1)[1][0]), process.stderr


@pytest.fixture
def proxied_server(server, tmp_path):
    """Run nginx with the docs' configuration on a free port, without TLS and passwords."""
    if NGINX is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs nginx: apt-get install nginx-light")
        pytest.skip("the docs' nginx is NOT tested: apt-get install nginx-light")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    site = example("nginx").replace("127.0.0.1:7860", f"127.0.0.1:{server.port}")
    # The limit is lowered to one request per minute, so that even a slow machine exceeds it. The
    # burst, the number of requests that may exceed the rate, stays as in the docs.
    site = site.replace("rate=30r/s", "rate=1r/m")
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    site = re.sub(r"\n *(ssl_certificate\w*|auth_basic\w*) [^;]*;", "", site)
    folders = "\n".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"events {{ worker_connections 256; }}\n"
        f"http {{ access_log off;\n{folders}\n{site}\n}}\n"
    )
    # nginx inherits the open socket, so that no other process can take the port meanwhile.
    process = subprocess.Popen(
        [NGINX, "-c", config],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NGINX": f"{listener.fileno()};"},
        pass_fds=[listener.fileno()],
    )
    listener.close()
    try:
        wait_until(lambda: (tmp_path / "pid").exists() or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "error.log").read_text()
        yield server._replace(port=port)
    finally:
        process.terminate()
        process.wait(300)


def test_nginx_forwards_pages_and_results(proxied_server, server, digit_png):
    page = proxied_server.get("/")
    assert page.status == 200
    assert page.body == server.get("/").body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert proxied_server.explain(digit_png).json == server.explain(digit_png).json
    refused = proxied_server.explain(b"not a picture")
    assert refused.status == 422
    assert refused.json["detail"]


def test_nginx_refuses_large_bodies_and_too_many_requests(proxied_server, server, digit_png):
    assert proxied_server.explain(bytes(12_000_000)).status == 413
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: proxied_server.explain(digit_png).status, range(100)))
    assert set(statuses) == {200, 429}
    assert server.explain(digit_png).status == 200


def test_nginx_replaces_the_host_header(proxied_server, digit_png):
    body = form({"model": "mnist-focus"}, [("a.png", digit_png)])
    headers = {
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        "host": "foveal.example.org",
    }
    assert proxied_server.request("POST", "/v1/explain", body, headers).status == 200


def test_the_container_runs_as_an_unprivileged_user_and_copies_existing_files():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert "USER 1000" in lines
    for line in lines:
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[1:-1])
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    assert ignored.startswith("*\n")  # ignores all files except those listed after it


def test_images_actions_and_packages_are_pinned():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^FROM (.*)$", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert (
        dockerfile.count("pip install") == dockerfile.count("--constraint /src/constraints.txt") > 0
    )
    gitlab_ci = (ROOT / ".gitlab-ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"image: (.*)", gitlab_ci) == re.findall(
        r"image: (python:\d+\.\d+\.\d+-\w+)", gitlab_ci
    )
    for workflow in (ROOT / ".github" / "workflows").iterdir():
        for action in re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action


def test_the_wheel_contains_the_web_page(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packaged = set(zipfile.ZipFile(wheel).namelist())
    static = ROOT / "src" / "foveal" / "deployment" / "serve" / "static"
    assert len(list(static.iterdir())) > 10
    assert {f"foveal/deployment/serve/static/{file.name}" for file in static.iterdir()} <= packaged
