"""The project's own promises: what `make` lists, where each package stands, how the README opens."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

from scripts.check_sizes import problems

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ["demo", "test", "check", "bench", "soak", "docs"]


def test_bare_make_lists_the_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  ([a-z]+):\t\S.*$", listed, re.MULTILINE) == TARGETS


def test_each_package_stands_on_a_floor() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    floors = next(contract for contract in settings["contracts"] if contract["id"] == "floors")
    on_floors = {name.strip(" ()") for layer in floors["layers"] for name in layer.split("|")}
    packages = {
        path.stem
        for path in (ROOT / "src" / "stepwell").iterdir()
        if path.suffix == ".py" or next(path.rglob("*.py"), None)
    }
    assert packages - {"__init__", *floors.get("exhaustive_ignores", ())} <= on_floors


def test_the_readme_opens_with_two_commands() -> None:
    opening = (ROOT / "README.md").read_text().split("```")[1]
    assert [line.split("#")[0].strip() for line in opening.splitlines()[1:]] == ["make demo", "make test"]


def test_sizes_and_names_are_checked(tmp_path: Path) -> None:
    package = tmp_path / "src" / "well"
    package.mkdir(parents=True)
    (package / "_utils.py").write_text("")
    (package / "_long.py").write_text("x = 1\n" * 501)
    body = "\n".join(["    x = 1"] * 59)
    (package / "fits.py").write_text(f'def fits():\n    """One\n\n    two."""\n{body}\n')
    (package / "burst.py").write_text(f"async def burst():\n{body}\n    y = 2\n")
    found = list(problems(tmp_path, {"src/well/gone.py": "a reason"}, {}))
    assert [line.split(": ")[0] for line in found] == [
        "src/well/_long.py",
        "src/well/_utils.py",
        "src/well/burst.py:1",
        "src/well/gone.py",
    ]
    assert list(problems(tmp_path, {"src/well/_long.py": "a"}, {"src/well/_utils.py": "b"})) == [found[2]]
