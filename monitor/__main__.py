"""`lbmonitor --config lbadaptor.toml`: run the monitor in the foreground, as systemd wants it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lbadaptor.commands import version
from lbadaptor.contract.errors import LbadaptorError, SettingsError
from lbadaptor.contract.settings import DEFAULT_FILE, Settings, load
from lbadaptor.log import logs, texts
from monitor.arbiter.loop import Arbiter
from monitor.arbiter.settings_reader import report

CANNOT_BEGIN = 1
"""Exit status: an error that may be gone at the next try (a full disk, a lock, no descriptor)."""
log = logs.logger("lbmonitor")

WRONG_SETTINGS = 2
"""Exit status: trying again does not help, and systemd does not try again (RestartPreventExitStatus)."""


def _check(settings: Settings, config: Path) -> int:
    """Print what is wrong with settings and machine, or that they are good. The exit status."""
    from monitor.check import checks  # brings an HTTP client along, which the monitor itself does without
    from monitor.check.facts import Facts
    from monitor.check.files import notes

    report = checks.run(Facts(settings, config), [check for check in checks.CHECKS if not check.live])
    faults = [finding for check, finding in report.found if check.is_fault(finding)]
    for fault in faults:
        print(f"{config}: {texts.clean(str(fault))}", file=sys.stderr)
    if not faults:
        print(f"{config}: good")
    others = [str(finding) for check, finding in report.found if not check.is_fault(finding)]
    unknown = [why for check, why in report.not_made if check.name == checks.SESSION_COOKIE]
    for note in (*others, *unknown, *notes(settings)):
        print(f"{config}: note: {texts.clean(note)}")
    return 1 if faults else 0


def main() -> int:
    """The exit status: 0 after an orderly end, 2 when the settings are wrong, 1 when the monitor cannot begin for
    another reason."""
    parser = argparse.ArgumentParser(
        prog="lbmonitor", description="Keep AppServers running and write address.text. Runs in the foreground."
    )
    parser.add_argument("--config", type=Path, default=DEFAULT_FILE, help=f"the settings (default {DEFAULT_FILE})")
    parser.add_argument(
        "--check", action="store_true", help="check the settings and the machine, print what is wrong, and exit"
    )
    parser.add_argument("--version", action="version", version=f"lbmonitor {version()}")
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)  # used by the monitor itself
    options = parser.parse_args()
    if options.prepare:
        return report(options.config, keys=True)
    logs.to_stderr("lbmonitor: ")
    try:
        settings = load(options.config)
        if options.check:
            return _check(settings, options.config)
        arbiter = Arbiter(settings, options.config)
    except SettingsError as error:
        log.error("%s", error)
        return WRONG_SETTINGS
    except LbadaptorError as error:
        log.error("%s", error)
        return CANNOT_BEGIN
    except OSError as error:
        log.error("%s", texts.of_os_error(error))
        return CANNOT_BEGIN
    return arbiter.run()


if __name__ == "__main__":
    sys.exit(main())
