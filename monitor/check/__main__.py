"""`python -m monitor.check LBADAPTOR_TOML`: the checks of what a monitor needs, as JSON.

`lbctl doctor` runs it as the monitor's user.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lbadaptor.contract.errors import SettingsError
from lbadaptor.contract.settings import load
from monitor.check.checks import CHECKS, encoded, run
from monitor.check.facts import Facts


def main(config: Path) -> int:
    """The exit status. Blocks as the checks do."""
    try:
        facts = Facts(load(config), config)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    print(encoded(run(facts, [check for check in CHECKS if check.own])))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
