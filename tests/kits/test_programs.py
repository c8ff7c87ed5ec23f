"""Units and containers, as the programs that read them see them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

yaml = pytest.importorskip("yaml")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
@pytest.mark.parametrize("unit", ["server/fedloom-server.service", "clients/lab_9/fedloom-client.service"])
def test_systemd_finds_nothing_wrong(made, unit):
    done = subprocess.run(["systemd-analyze", "verify", made / unit], capture_output=True, text=True, check=False)
    about = [line for line in done.stderr.splitlines() if "fedloom" in line]
    assert not about, about


def test_a_restart_waits_until_flower_takes_the_key_again(made):
    text = (made / "clients" / "lab_9" / "fedloom-client.service").read_text()
    seconds = next(int(line.split("=")[1]) for line in text.splitlines() if line.startswith("RestartSec="))
    assert seconds > 60


def test_the_container_gets_the_kit_by_a_mount_and_never_into_its_image(made):
    folder = made / "clients" / "lab_9"
    service = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["client"]
    assert service["volumes"][0] == ".:/kit"
    assert service["volumes"][1].endswith(":/data:ro")
    dockerfile = (folder / "Dockerfile").read_text()
    assert "COPY" not in dockerfile
    assert "ADD" not in dockerfile
    assert 'ENTRYPOINT ["fedloom", "join", "/kit"]' in dockerfile
    assert (folder / ".dockerignore").read_text() == "*\n"


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs docker")
def test_docker_compose_asks_for_what_is_missing(made):
    command = ["docker", "compose", "-f", str(made / "clients" / "lab_9" / "compose.yaml"), "config"]
    if subprocess.run([*command[:2], "version"], capture_output=True, check=False).returncode:
        pytest.skip("needs docker compose")
    plain = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    assert done.returncode
    assert "FEDLOOM_" in done.stderr
    full = {**plain, "FEDLOOM_DATA": "/rows", "FEDLOOM_USER": "5:6", "FEDLOOM_FILE": "x.csv"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=full)
    service = yaml.safe_load(done.stdout)["services"]["client"]
    assert (service["user"], service["command"]) == ("5:6", ["--data", "/data/x.csv"])
