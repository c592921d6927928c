"""`lbmonitor --config lbadaptor.toml`: run the monitor in the foreground, as systemd wants it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lbadaptor import logs
from lbadaptor.errors import LbadaptorError
from lbadaptor.settings import DEFAULT_FILE, Settings, load
from monitor.arbiter import Arbiter


def _check(settings: Settings, config: Path) -> int:
    """Say what is good, and what speaks against it all the same. The exit status."""
    from monitor import crosscheck  # brings an HTTP client along, which the monitor itself does without

    print(f"{config}: good")
    for finding in crosscheck.findings(settings, config):
        print(f"{config}: note: {finding}")
    return 0


def main() -> int:
    """The exit status: 0 after an orderly end, 2 when the monitor cannot begin."""
    parser = argparse.ArgumentParser(prog="lbmonitor", description="Keep AppServers running and write address.text.")
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, help=f"lbadaptor.toml (default {DEFAULT_FILE})")
    parser.add_argument("--check", action="store_true", help="only check the settings")
    options = parser.parse_args()
    logs.to_stderr("lbmonitor: ")
    try:
        settings = load(options.config)
        if options.check:
            return _check(settings, options.config)
        arbiter = Arbiter(settings, options.config)
    except LbadaptorError as error:
        print(f"lbmonitor: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"lbmonitor: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return arbiter.run()


if __name__ == "__main__":
    sys.exit(main())
