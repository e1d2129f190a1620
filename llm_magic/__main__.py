"""`python -m llm_magic enable | disable`: load the extension in every IPython session, or no longer."""

from __future__ import annotations

import argparse
import sys

from llm_magic.autoload import disable, enable, profile_file


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llm_magic", description=__doc__)
    parser.add_argument("command", choices=("enable", "disable"))
    command = parser.parse_args(words).command
    path = profile_file()
    try:
        is_changed = (enable if command == "enable" else disable)(path)
    except OSError as error:
        print(f"{path} cannot be changed: {error.strerror}", file=sys.stderr)
        return 1
    loads = "loads llm_magic" if command == "enable" else "does not load llm_magic"
    print(f"IPython {loads}: {'one line of ' if is_changed else 'nothing to change in '}{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
