"""An SSH server on the loopback interface, and a Python with nothing but ONNX Runtime and what it needs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SshServer:
    """A running server: its port, its process, and the client's folder with `config` and `known_hosts`."""

    port: int
    process: subprocess.Popen[bytes]
    client: Path


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment with numpy, ONNX Runtime, and the protobuf that it brings."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python3*/site-packages")
    for name in ("numpy", "numpy.libs", "onnxruntime"):
        spec = find_spec(name.partition(".")[0])
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parents[1] / name
        if source.exists():
            (packages / name).symlink_to(source)
    import google.protobuf

    (packages / "google").mkdir()
    (packages / "google" / "protobuf").symlink_to(Path(google.protobuf.__file__).parent)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """OpenSSH's server with a key made for the tests; skips where it is not installed."""
    server = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if server is None or not (shutil.which("ssh") and shutil.which("ssh-keygen")):
        pytest.skip("OpenSSH's server and client are not installed (Debian: openssh-server)")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host_key'}\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'user_key.pub'}\nPasswordAuthentication no\nPidFile none\n"
    )
    host_key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    (folder / "config").write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder / 'user_key'}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
    )
    # The client reads the user's configuration from the password file's home, not from $HOME.
    client = folder / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n')
    client.chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # for privilege separation
    process = subprocess.Popen([server, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail("the SSH server does not start")
        yield SshServer(port, process, folder)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def on_path(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> SshServer:
    """The server, whose client stands first in PATH."""
    monkeypatch.setenv("PATH", f"{ssh_server.client / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return ssh_server
