"""What starts a kit: a script, a systemd unit, and for clients a container. Texts only."""

from __future__ import annotations

from importlib.metadata import version

# Flower refuses a node that comes back with the same key within a minute, and the node then ends for good.
RESTART_SECONDS = 70

_SCRIPT = """\
#!/bin/sh
cd -- "$(dirname -- "$0")" || exit
exec fedloom {command} . "$@"
"""

_UNIT = """\
# Put this folder at {folder}, owned by the user fedloom, and fedloom itself into /opt/fedloom/venv. Then:
#   cp {folder}/{unit} /etc/systemd/system/ && systemctl enable --now {unit}
[Unit]
Description=FedLoom: {what}
Wants=network-online.target
After=network-online.target

[Service]
User=fedloom
WorkingDirectory={folder}
Environment=PATH=/opt/fedloom/venv/bin:/usr/local/bin:/usr/bin:/bin
ExecStart=/bin/sh {folder}/start.sh
Restart=on-failure
RestartSec={restart_seconds}
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""

_DOCKERFILE = """\
# The kit is mounted when the container runs, never copied: a key has no place in an image.
FROM python:3.11-slim
# Another source of the package, such as a wheel's address: --build-arg FEDLOOM=...
ARG FEDLOOM="fedloom[train,flower]=={version}"
RUN pip install --no-cache-dir "$FEDLOOM"
ENV HOME=/kit/cache HF_HOME=/kit/cache/huggingface PYTHONDONTWRITEBYTECODE=1
WORKDIR /kit
ENTRYPOINT ["fedloom", "join", "/kit"]
"""

_COMPOSE = """\
# FEDLOOM_DATA=/folder/of/our.jsonl FEDLOOM_USER=$(id -u):$(id -g) docker compose up --build --detach
services:
  client:
    build: .
    user: "${FEDLOOM_USER:?numbers of the user and group who own this folder}"
    command: ["--data", "/data/${FEDLOOM_FILE:-our.jsonl}"]
    volumes:
      - .:/kit
      - ${FEDLOOM_DATA:?the folder of this site's rows}:/data:ro
    restart: on-failure
"""


def start_script(command: str) -> str:
    """`start.sh` of the command serve or join; further arguments go through."""
    return _SCRIPT.format(command=command)


def systemd_unit(unit: str, what: str, folder: str) -> str:
    """A unit for a kit that was put at /opt/fedloom/<folder>."""
    return _UNIT.format(unit=unit, what=what, folder=f"/opt/fedloom/{folder}", restart_seconds=RESTART_SECONDS)


def dockerfile() -> str:
    """An image with this version of fedloom and nothing of the kit."""
    return _DOCKERFILE.format(version=version("fedloom"))


def compose() -> str:
    """One container beside a mounted kit and a mounted folder of rows that it cannot write."""
    return _COMPOSE
