"""The certificate that every server with TLS uses: ECDSA on P-256, signed by itself, made with openssl when it is needed."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "target" / "peers" / "tls"
CERTIFICATE, KEY = FOLDER / "certificate.pem", FOLDER / "key.pem"
DAYS = 365
LASTS_S_MIN = 86_400  # one that expires sooner is made anew


def make(folder=FOLDER):
    """Makes the certificate and its key, unless they are there."""
    certificate, key = folder / CERTIFICATE.name, folder / KEY.name
    if certificate.exists() and key.exists() and openssl("x509", "-in", str(certificate), "-noout", "-checkend", str(LASTS_S_MIN)) == 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Whole or not at all.
    new = [path.with_name(f"{path.name}.new") for path in (certificate, key)]
    status = openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(DAYS), "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
        "-out", str(new[0]), "-keyout", str(new[1]),
    )  # fmt: skip
    if status != 0:
        raise OSError(f"openssl made no certificate, status {status}")
    for path, beside in zip((certificate, key), new):
        os.replace(beside, path)


def openssl(*words):
    return subprocess.run(("openssl", *words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
