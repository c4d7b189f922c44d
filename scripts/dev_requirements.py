"""Prints the packages of the `dev` extra of pyproject.toml, one a line, for `pip -r`.

Reads with the standard library alone: it runs before anything is installed.
"""

import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    print("\n".join(project["optional-dependencies"]["dev"]))


main()
