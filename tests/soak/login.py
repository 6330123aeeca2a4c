"""Logins at a provider that is started here, with nginx and with Caddy in front, as ``deploy/`` has them.

It runs in a network and a table of mounts of its own, so that ports 80 and 443 are free, ``lens.example.org`` is this
machine, and nothing outside is changed. The shipped files are used as they are; what they leave to whoever runs the
server is filled in: the certificate, the folder, the provider.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from tests.chromium import find_chromium
from tests.soak.doors import NAME, SITE, limits, people
from tests.soak.figures import Figures
from tests.soak.served import ROOT, complaints, running

DEPLOY = ROOT / "deploy"
PROVIDER = "http://localhost:9400"
PEOPLE = (
    {"sub": "ada", "email": "ada@example.org", "email_verified": True},
    {"sub": "eve", "email": "eve@example.org", "email_verified": True},
    {"sub": "mallory", "email": "ada@example.org", "email_verified": False},
)
PROXIES = ("nginx", "caddy")
MOST_WAIT = 1800.0  # seconds for both


def missing() -> list[str]:
    """What this machine lacks for it, each with how to get it."""
    programs = (
        ("unshare", "util-linux"), ("ip", "iproute2"), ("openssl", "openssl"), ("nginx", "nginx"), ("caddy", "caddy"),
    )  # fmt: skip
    lacking = [f"{name} (apt-get install {package})" for name, package in programs if shutil.which(name) is None]
    if find_chromium() is None:
        lacking.append("Chromium (apt-get install chromium)")
    for module, package in (("authlib", "Authlib"), ("oidc_provider_mock", "oidc-provider-mock")):
        if importlib.util.find_spec(module) is None:
            lacking.append(f"{package} (pip install {package})")
    if os.geteuid():
        lacking.append("root, which alone may have a network of its own (sudo)")
    return lacking


def logins(world: Path) -> Iterator[Figures]:
    """Everything that is tried, a row for each proxy and kind; or what is missing for it, in words."""
    if lacking := missing():
        yield Figures(f"logins and proxies, not tried: there is no {', no '.join(lacking)}")
        return
    world.mkdir(parents=True)
    world.chmod(0o755)  # nginx's own user reads what lies in it
    inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inside += [sys.executable, "-m", "tests.soak.login", str(world)]
    known = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        inside, env=known, cwd=world, stdout=subprocess.PIPE, text=True, timeout=MOST_WAIT, check=False
    )
    for line in done.stdout.splitlines():
        attack, outcomes, faults = json.loads(line)
        figures = Figures(attack, faults=faults)
        figures.outcomes.update(outcomes)
        figures.n = sum(outcomes.values())
        yield figures
    if done.returncode:
        figures = Figures("logins and proxies")
        figures.add("broken off", fault=f"status {done.returncode}; its words are above")
        yield figures


def main(world: Path) -> None:
    """Within the network of its own: everything, proxy by proxy; a line of JSON for each row."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (world / "hosts").write_text(f"127.0.0.1 localhost {NAME} evil.example\n")
    subprocess.run(["mount", "--bind", str(world / "hosts"), "/etc/hosts"], check=True)
    trust = certificate(world)
    for proxy in PROXIES:
        folder = world / proxy
        with ExitStack() as opened:
            log = opened.enter_context(behind(proxy, folder, world))
            for what, tried in (("logins", people), ("limits and refusals", limits)):
                figures = Figures(f"{what} through {proxy}")
                tried(proxy, trust, figures)
                print(json.dumps([figures.attack, figures.outcomes, figures.faults]), flush=True)
        said = [line for line in complaints(log) if "OAuth callback" not in line]
        print(json.dumps([f"the app's log behind {proxy}", {"lines of errors": len(said)}, said[:5]]), flush=True)


def certificate(world: Path) -> ssl.SSLContext:
    """A certificate for the name, and a context that believes it."""
    pem, key = world / "fullchain.pem", world / "privkey.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    return ssl.create_default_context(cafile=str(pem))


@contextmanager
def behind(proxy: str, folder: Path, world: Path) -> Iterator[Path]:
    """The provider, the app as the unit starts it and the proxy; gives the app's log."""
    place = folder / "opt"
    place.mkdir(parents=True)
    for name in ("app", "irl_core", "train", "assets"):
        (place / name).symlink_to(ROOT / name)
    provider = [sys.executable, "-m", "oidc_provider_mock", "--port", "9400", "--require-registration", "true"]
    for person in PEOPLE:
        provider += ["--user-claims", json.dumps(person)]
    home = {"HOME": str(folder), "PYTHONPATH": str(place)}
    with ExitStack() as opened:
        opened.enter_context(running(provider, folder, folder / "provider.log", 9400, **home))
        write_secrets(place)
        command, environ = of_unit(place)
        opened.enter_context(running(command, place, folder / "app.log", 8501, **{**environ, **home}))
        front = nginx(folder, world) if proxy == "nginx" else caddy(folder, world)
        opened.enter_context(running(front, folder, folder / "proxy.log", 443, **home))
        yield folder / "app.log"


def write_secrets(place: Path) -> None:
    """``secrets.toml`` by the shipped script, and filled in with a client that the provider knows."""
    path = place / ".streamlit" / "secrets.toml"
    path.parent.mkdir()
    subprocess.run([DEPLOY / "make-secrets.sh", path], check=True)
    body = json.dumps({"redirect_uris": [f"{SITE}/oauth2callback"]}).encode()
    with urlopen(Request(f"{PROVIDER}/oauth2/clients", body, {"Content-Type": "application/json"})) as answer:
        client = json.load(answer)
    text = path.read_text()
    for name in ("client_id", "client_secret"):
        assert f'{name} = ""' in text
        text = text.replace(f'{name} = ""', f'{name} = "{client[name]}"')
    path.write_text(text.replace("https://login.example.org", PROVIDER))


def of_unit(place: Path) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of the shipped unit, with this machine's Python and a folder of ours."""
    text = (DEPLOY / "irl-lens.service").read_text().replace("\\\n", " ")
    text = text.replace("/opt/irl-lens/.venv/bin/python", sys.executable).replace("/opt/irl-lens", str(place))
    text = text.replace("/etc/irl-lens", str(DEPLOY))
    lines = [line.partition("=")[::2] for line in text.splitlines()]
    environ = dict(value.partition("=")[::2] for name, value in lines if name == "Environment")
    environ["TMPDIR"] = tempfile.mkdtemp(dir=place)
    subprocess.run(dict(lines)["ExecStartPre"].split(), cwd=place, env={**os.environ, **environ}, check=True)
    open_files = dict(lines).get("LimitNOFILE", "1024")  # what systemd gives where a unit does not say
    return ["prlimit", f"--nofile={open_files}", *dict(lines)["ExecStart"].split()], environ


def nginx(folder: Path, world: Path) -> list[str]:
    """The command that serves the shipped site, included as Debian's ``nginx.conf`` includes sites; that file allows
    as many connections as the site asks for."""
    site = (DEPLOY / "nginx.conf").read_text().replace(f"/etc/letsencrypt/live/{NAME}", str(world))
    (folder / "site").write_text(site)
    whole = re.sub(r"worker_connections \d+;", "worker_connections 2048;", Path("/etc/nginx/nginx.conf").read_text())
    for known, ours in (
        ("/etc/nginx/sites-enabled/*", str(folder / "site")), ("/run/nginx.pid", str(folder / "nginx.pid")),
        ("/var/log/nginx/", f"{folder}/"),
    ):  # fmt: skip
        whole = whole.replace(known, ours)
    (folder / "nginx.conf").write_text(whole)
    return ["nginx", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]


def caddy(folder: Path, world: Path) -> list[str]:
    """The command that serves the shipped ``Caddyfile``, with a certificate that is there instead of one it gets."""
    text = (DEPLOY / "Caddyfile").read_text()
    assert f"\n{NAME} {{\n" in text
    own = f"\n{NAME} {{\n\ttls {world}/fullchain.pem {world}/privkey.pem\n"
    (folder / "Caddyfile").write_text(text.replace(f"\n{NAME} {{\n", own))
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
