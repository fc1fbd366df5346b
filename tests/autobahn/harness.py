"""Starts a tickring and the original `wstest`, watches both, and ends them.

Shared by `tests/autobahn/run` and `tests/conformance/run`.
"""

import contextlib
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent

READY_TIMEOUT_S = 20
STOP_TIMEOUT_S = 20  # above the server's own drain timeout of 10 s
PROGRESS_INTERVAL_S = 60


class Trouble(Exception):
    """A reason why the run says nothing about the server's conformance, or ends it at once."""


def install(directory):
    """The path of `wstest`, installed if it was not."""
    done = subprocess.run([HERE / "install", directory], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Trouble(f"the testsuite could not be installed:\n{done.stdout}")
    return directory.resolve() / "bin" / "wstest"


@contextlib.contextmanager
def tickring(binary, directory, io="uring", compression="shared", arguments=(), tls=False):
    """Yields (url, process) of `tickring serve --echo`, which must outlive the block and leave with status 0. With `tls`
    the URL is that of the port with TLS."""
    port, tls_port, api_port = free_ports(3)
    url = f"ws://127.0.0.1:{port}/echo"
    command = [
        binary.resolve(), "serve", "--echo", "--shards", "1",
        "--listen", f"127.0.0.1:{port}", "--api-listen", f"127.0.0.1:{api_port}",
        "--io", io, "--compression", compression, *arguments,
    ]  # fmt: skip
    if tls:
        url = f"wss://127.0.0.1:{tls_port}/echo"
        pem = certificate(directory)
        command += ["--tls-listen", f"127.0.0.1:{tls_port}", "--tls-certificates", pem, "--tls-keys", pem]
    with running(command, directory, lambda: answers_200(f"http://127.0.0.1:{api_port}/readyz")) as process:
        yield url, process
        if process.poll() is not None:
            raise Trouble(died(process, directory))
        process.terminate()
        try:
            status = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Trouble(f"the server did not leave within {STOP_TIMEOUT_S} s of SIGTERM") from None
        if status != 0:
            raise Trouble(f"after SIGTERM the server left with status {status}, expected 0{tail(directory / 'server.log')}")


def certificate(directory):
    """A new certificate with its key, in one file. The suite checks none; its OpenSSL is of 2020 and knows P-256."""
    pem, key = directory / "server.pem", directory / "server.key"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", pem,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Trouble(f"openssl made no certificate:\n{done.stdout}")
    pem.write_text(pem.read_text() + key.read_text())
    return pem


@contextlib.contextmanager
def running(command, directory, is_ready):
    """Yields the process of a server, started and ready; its output is in `server.log`."""
    with open(directory / "server.log", "wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_ready():
            if process.poll() is not None:
                raise Trouble(died(process, directory))
            if time.monotonic() > deadline:
                raise Trouble(f"the server was not ready within {READY_TIMEOUT_S} s{tail(directory / 'server.log')}")
            time.sleep(0.05)
        yield process
    finally:
        stop(process)


def answers_200(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(url, timeout=2).status == 200
    except (OSError, urllib.error.URLError):
        return False


def accepts(port):
    """True once somebody listens on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    except OSError:
        return False


def free_ports(count):
    """Ports nobody listens on now; distinct, since all are held until the last is found."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def run_suite(wstest, url, agent, cases, directory, process, timeout_s):
    """Runs `wstest`, watching that the server lives and that the time suffices."""
    spec = directory / "spec.json"
    spec.write_text(
        json.dumps({"outdir": str(directory / "reports"), "servers": [{"agent": agent, "url": url}], "cases": cases})
    )
    path = directory / "wstest.log"
    with open(path, "wb") as log:
        client = subprocess.Popen(
            [wstest, "--mode", "fuzzingclient", "--spec", spec],
            cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    deadline = time.monotonic() + timeout_s
    progress = time.monotonic() + PROGRESS_INTERVAL_S
    try:
        while client.poll() is None:
            if process is not None and process.poll() is not None:
                raise Trouble(died(process, directory))
            now = time.monotonic()
            if now > deadline:
                raise Trouble(f"the testsuite did not end within {timeout_s:.0f} s{tail(path)}")
            if now > progress:
                progress = now + PROGRESS_INTERVAL_S
                print(f"autobahn: {agent}: case {path.read_bytes().count(b'Running test case')} of {len(cases)}", flush=True)
            time.sleep(0.1)
    finally:
        stop(client)
    if client.returncode != 0:
        raise Trouble(f"the testsuite itself failed, status {client.returncode}{tail(path)}")


def died(process, directory):
    return f"the server died, status {process.returncode}{tail(directory / 'server.log')}"


def tail(path, lines=20):
    """The end of a log, to go behind a message."""
    try:
        text = path.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "".join(f"\n    {line}" for line in text)


def stop(process):
    """Ends a process of ours, gently if it listens."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
