"""The command line that the Python peers share."""

import argparse
import importlib.metadata
import platform

# As many as the kernel keeps waiting (net.core.somaxconn caps it): thousands connect at once.
BACKLOG = 4096
# Above the largest message that is measured.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024


def parse(package, description):
    """--listen as host and port, --mode, --deflate; or the version on standard output, and the end."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--version", action="version", version=versions(package))
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--mode", choices=["echo", "fanout"], default="echo", help="fanout: what one sends goes to all others")
    parser.add_argument("--deflate", action="store_true", help="accept permessage-deflate")
    options = parser.parse_args()
    options.host, _, port = options.listen.rpartition(":")
    options.port = int(port)
    return options


def versions(package):
    of = importlib.metadata.version
    return f"{of(package)}, uvloop {of('uvloop')}, Python {platform.python_version()}"
